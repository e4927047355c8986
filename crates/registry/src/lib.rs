//! Distribution of images: a client of registries, and a registry ([`server`]), as the OCI distribution specification and
//! Docker's habits have them.
//!
//! Everything a registry sends is untrusted: documents have a size limit and are checked against their digest before anybody
//! sees them; blobs are given as they come, never more bytes than were announced, for the receiver to check.

pub mod config;
pub mod policy;
pub mod server;

mod auth;
mod authorizer;
mod blob;
mod client;
mod download;
mod error;
mod look;
mod push;
mod ranges;
mod search;
mod signature;
mod tls;
mod transport;
mod waits;

pub use auth::Credentials;
pub use blob::BlobStream;
pub use client::{Client, Manifest, Purpose, Repository};
pub use download::Download;
pub use error::{Error, ErrorKind, Result};
pub use push::{Pieces, Upload};
pub use search::Found;
pub use waits::Waits;
