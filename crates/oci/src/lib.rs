//! Types of the OCI image, runtime and distribution specifications.

pub mod digest;
pub mod image;
pub mod reference;
pub mod runtime;

pub use digest::Digest;
pub use reference::Reference;
