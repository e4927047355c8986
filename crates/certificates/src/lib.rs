//! Whom TLS trusts and who one is: certificates and keys in files. Nothing here connects.

mod files;
mod trust;

pub use files::{Error, Identity, Result, authorities};
pub use trust::{Trust, client};
