//! The REST interface: router, handlers, version adapters.
//!
//! Handlers only read a request, call the engine, and shape the answer. What Docker's API says and what the engine's
//! model is meet in [`wire`] alone; a class of failure becomes a status in [`http::Error`] alone.

mod access;
mod body;
mod build;
mod checkpoints;
mod containers;
mod distribution;
mod exec;
mod files;
mod host;
mod http;
mod images;
mod import;
mod listen;
mod networks;
mod older;
mod output;
mod prune;
mod search;
mod server;
mod socket;
mod streams;
mod system;
mod version;
mod volumes;
mod websocket;
mod wire;

pub use access::Access;
pub use listen::{CONNECTIONS_MAX, Connections, Listener, serve};
