//! The Dockerfile language, and images built by it.
//!
//! ```text
//! language   text → instructions                    pure
//! lint       what of those had better be written otherwise   pure
//! inquiry    which targets there are, and what they take       pure
//! plan       which stages and steps a target needs  pure
//! stage      one stage, step by step: config (what only changes the configuration), transfer (COPY, ADD; source: where from), run (RUN)
//! container  what a command runs in; shell: a step that has failed, to be looked at
//! cache      by what a step depends on, what it led to
//! remote     caches in registries, images, and directories of clients
//! attest     how images were built, and what is in them
//! output     images, archives and files of what was built; bundle: their manifests
//! destination   where blobs go that are put together here
//! context    files of the client; kept: those of its last build
//! fetch      what comes from addresses; layout: images of the client
//! base       images that a build stands on; view: the tree of layers
//! usage      what builds have left for later ones, and removing it
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
mod attest;
mod base;
mod build;
mod bundle;
mod cache;
mod cache_mount;
mod chmod;
mod config;
mod container;
mod context;
mod definition;
mod destination;
mod emulation;
mod error;
pub mod fetch;
mod history;
mod inquiry;
mod kept;
mod layout;
mod mounts;
mod output;
mod plan;
mod progress;
mod remote;
mod request;
mod run;
mod scope;
mod select;
mod shell;
mod source;
mod stage;
mod sweep;
mod transfer;
mod usage;
mod view;

pub use agent::Forwarder;
pub use attest::{Attestations, Provenance, Sbom};
pub use build::{Built, build, check};
pub use bundle::{Annotation, AnnotationPlace, Manifests};
pub use context::Context;
pub use error::{Error, Result};
pub use inquiry::{Answer, Inquiry, inquire};
pub use kept::{Base, Changes, ContextName, Filling, KeptMarks, kept_marks};
pub use layout::LayoutImage;
pub use output::{
    ArchiveOutput, FilesForm, FilesOutput, ImageOutput, LayoutOutput, LayoutTo, Made, Output,
    OutputWish, Tree,
};
pub use patterns::Ignore;
pub use progress::{Event, Progress, StepNumber};
pub use remote::{
    BlobSink, BlobSource, CacheExport, CacheImport, CacheKind, CacheMode, CachePlace, CacheSource,
    CacheTarget,
};
pub use request::{
    Allowances, Client, Forwarding, NamedContext, Request, STAGES_AT_ONCE_MAX, Told,
};
pub use scope::SCAN_CONTEXT;
pub use sweep::sweep;
pub use usage::{PruneLimits, Usage, UsageFilter, UsageKind, prune, usage};

/// Entry points for the fuzz targets.
#[cfg(feature = "fuzz")]
pub mod fuzz;
