//! Types of the OCI image, runtime and distribution specifications.

pub mod runtime;
