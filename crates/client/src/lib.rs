//! Speaks Docker's REST API to an engine: over a unix socket, TCP, TLS or ssh, hull's engine or any Docker daemon.
//!
//! The crate knows HTTP and nothing of commands: a [`Request`] names method, path, query and body; [`Client`] sends it and
//! answers with a decoded value, a stream of bytes or of JSON lines, or a hijacked connection.
//!
//! Invariants:
//! - Nothing here starts a thread or needs `Send` of the caller: a current-thread runtime is enough.
//! - No request is made that the caller did not ask for, but one: when an engine refuses the newest API version, the
//!   client asks it once for its own (`/_ping`) and repeats the refused request.
//! - A connection is reused only after its last answer was read to the end.

mod client;
mod error;
mod host;
mod request;
mod socket;
mod ssh;
mod stream;
mod version;

pub use client::{Client, Ping, Response};
pub use connections::{Identity, TlsConnector, Trust, connector};
pub use error::{Error, Result};
pub use host::{Host, Ssh};
pub use request::Request;
pub use socket::Socket;
pub use ssh::Tunnel;
pub use stream::{BodyReader, Frames, Hijacked, HijackedReader, JsonLines, Output};
pub use version::ApiVersion;
