//! The Dockerfile language, and images built by it.
//!
//! [`language`] reads: text to typed instructions, without touching a file.

pub mod language;

/// Entry points for the fuzz targets.
#[cfg(feature = "fuzz")]
pub mod fuzz;
