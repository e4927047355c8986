//! BuildKit's protocol, as `docker buildx` and Compose speak it: a Dockerfile built by [`builder`], without LLB.
//!
//! ```text
//! grpc        calls over HTTP/2, in both directions                       messages   what is said
//! session     `POST /session`: this side calls, the client serves its files, secrets, credentials
//! services    `POST /grpc`: the client calls Control and the gateway        control    the builds that go on
//! store       blobs of the client, for caches
//! solve       one build      files  its contexts      output  its result     attributes, wanted  what the client asks for
//! steps       the build as the client shows it        vertex, failure                   inquiry   what is asked and not built
//! ```
//!
//! The connections come from whoever serves Docker's API; what this crate says of them is the protocol of the upgrade. Invariant:
//! a build ends with its call, and with its session; nothing of it stays but what [`builder`] keeps.

mod agent;
mod asked;
mod attributes;
mod cache;
mod caches;
mod control;
mod failure;
mod files;
mod grpc;
mod inquiry;
mod messages;
mod output;
mod services;
mod session;
mod solve;
mod steps;
mod store;
mod vertex;
mod wanted;

pub use control::{Announced, Asked, BuildKit, Output};
pub use failure::sentence;
