//! The REST interface: router, handlers, version adapters.
//!
//! Handlers only read a request, call the engine, and shape the answer. What Docker's API says and what the engine's
//! model is meet in [`wire`] alone; a class of failure becomes a status in [`http::Error`] alone.

mod build;
mod containers;
mod distribution;
mod exec;
mod host;
mod http;
mod images;
mod import;
mod networks;
mod prune;
mod search;
mod server;
mod streams;
mod system;
mod volumes;
mod wire;

pub use server::{Connections, serve};
