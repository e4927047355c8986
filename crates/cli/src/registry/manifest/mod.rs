//! `hull manifest`: lists of manifests that are put together here, and sent to a registry without an engine.

mod annotate;
mod create;
mod entry;
mod inspect;
mod local;
mod push;
mod remote;
mod rm;

use crate::app::Entry;
use crate::error::Result;
use oci::Reference;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("annotate", &annotate::ANNOTATE),
    Entry::command("create", &create::CREATE),
    Entry::command("inspect", &inspect::INSPECT),
    Entry::command("push", &push::PUSH),
    Entry::command("rm", &rm::RM),
];

/// The name of a manifest or a list of them: the default tag is added, a digest keeps the tag beside it.
fn name(text: &str) -> Result<Reference> {
    let named = super::reference(text)?;
    match named.digest() {
        Some(_) => Ok(named),
        None => Ok(named.to_target()),
    }
}
