//! Connections with other machines: TLS whose certificates and keys are files, and how many connections one peer may have.
//!
//! The registry serves with it, and so does the engine, which lets in only who shows a certificate; the engine's client
//! connects with it. Nothing here speaks HTTP.

mod acceptor;
mod peers;
mod resolver;
mod subject;

pub use acceptor::Acceptor;
pub use certificates::{Error, Identity, Result, Trust};
pub use peers::{Connected, Peers, subscriber};
pub use resolver::Resolver;
pub use subject::subject;
pub use tokio_rustls::rustls::pki_types::ServerName;
pub use tokio_rustls::{TlsConnector, client, server};

/// What connects by TLS, showing who one is where there is something to show.
///
/// # Errors
/// A file cannot be read, or a key is not its certificate's.
pub fn connector(trust: &Trust, identity: Option<&Identity>) -> Result<TlsConnector> {
    certificates::client(trust, identity).map(TlsConnector::from)
}
