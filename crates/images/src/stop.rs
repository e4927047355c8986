//! Work that ends when nobody waits for it any more.

/// Whether whoever wants something has gone. It is asked again and again while that is done; then it ends as
/// [`Error::Stopped`](crate::Error::Stopped).
pub type Stop<'s> = &'s (dyn Fn() -> bool + Sync);
