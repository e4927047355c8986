//! Connections with other machines: TLS whose certificates and keys are files, and how many connections one peer may have.
//!
//! The registry serves with it, and so does the engine, which lets in only who shows a certificate; the engine's client
//! connects with it. Nothing here speaks HTTP.

mod acceptor;
mod connector;
mod files;
mod peers;
mod resolver;
mod subject;

pub use acceptor::Acceptor;
pub use connector::{Trust, connector};
pub use files::{Error, Identity, Result};
pub use peers::{Connected, Peers, subscriber};
pub use resolver::Resolver;
pub use subject::subject;
pub use tokio_rustls::rustls::pki_types::ServerName;
pub use tokio_rustls::{TlsConnector, client, server};
