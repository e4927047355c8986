//! The Dockerfile language, and images built by it.
//!
//! ```text
//! language   text → instructions                    pure
//! lint       what of those had better be written otherwise   pure
//! plan       which stages and steps a target needs  pure
//! stage      one stage, step by step: config (what only changes the configuration), transfer (COPY, ADD), run (RUN)
//! cache      by what a step depends on, what it led to
//! fetch      what comes from addresses
//! build      all stages, independent ones at the same time, and the image in the end
//! ```
//!
//! A build is synchronous and runs on threads of its own; it asks the engine for containers and the image store for layers.
//! Everything that it makes goes with the values that hold it, however it ends: containers, snapshots, files, held layers.
//! Contexts and Dockerfiles are untrusted: their paths are resolved by `sys::root`, their sizes have limits.

pub mod language;
pub mod lint;

mod agent;
mod apart;
mod build;
mod cache;
mod chmod;
mod config;
mod context;
mod definition;
mod error;
pub mod fetch;
mod mounts;
mod plan;
mod progress;
mod prune;
mod request;
mod run;
mod scope;
mod select;
mod stage;
mod sweep;
mod transfer;

pub use build::{Built, build, check};
pub use context::Context;
pub use error::{Error, Result};
pub use patterns::Ignore;
pub use progress::{Event, Progress, StepNumber};
pub use prune::{PruneLimits, Usage, prune, usage};
pub use request::{Client, Forwarding, NamedContext, Output, Request, STAGES_AT_ONCE_MAX, Told};
pub use sweep::sweep;

/// Entry points for the fuzz targets.
#[cfg(feature = "fuzz")]
pub mod fuzz;
