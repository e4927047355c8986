//! Patterns of paths, and `.dockerignore`: what of a directory goes into a build.
//!
//! The client leaves out what it need not send; the engine does the same with contexts that come from elsewhere, and matches
//! what COPY names. Both use this crate, which knows text alone.

mod glob;
mod ignore;

pub use glob::{Pattern, Shell};
pub use ignore::{IGNORE_BYTES_MAX, Ignore, IgnoreError, RULES_MAX};
