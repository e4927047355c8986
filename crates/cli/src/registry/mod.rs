//! Commands about registries: pull, push, login, logout, search, and `manifest`.
//!
//! The engine speaks to registries for all of them but `manifest`, which does so itself, as Docker's does: it works with any
//! engine, and without one. Credentials are the client's (`credentials`) and go with each request.

pub(crate) mod credentials;
mod helper;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod manifest;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod search;

use crate::error::{Error, Result};
use oci::Reference;

/// Reads the name of an image.
pub(crate) fn reference(text: &str) -> Result<Reference> {
    text.parse()
        .map_err(|error: oci::reference::ReferenceError| Error::msg(crate::error::chain(&error)))
}

/// The name that `pull` and `push` are given, with its tag: the default one, unless all tags are meant.
fn tagged(text: &str, all_tags: bool) -> Result<(Reference, bool)> {
    let named = reference(text)?;
    let bare = named.tag().is_none() && named.digest().is_none();
    match (all_tags, bare) {
        (true, false) => Err(Error::msg("tag can't be used with --all-tags/-a")),
        (false, true) => Ok((named.to_target(), true)),
        _ => Ok((named, false)),
    }
}
