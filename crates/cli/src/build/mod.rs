//! `hull build` and `hull builder`.

mod check;
mod colors;
mod command;
mod context;
mod display;
mod du;
mod elsewhere;
mod layout;
mod named;
mod plain;
mod prune;
mod receive;
mod shell;
mod source;
mod ssh;
mod summary;
mod trace;
mod tty;

pub(crate) use command::BUILD;
pub(crate) use prune::prune;

use crate::app::Entry;
use crate::error::{Error, Result};
use api_types::{BUILD_EVENTS, Version};
use client::{Client, Request};

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("build", &command::BUILD),
    Entry::command("du", &du::DU),
    Entry::command("prune", &prune::PRUNE),
];

/// # Errors
/// The engine is not hull's: it knows nothing of what only hull's clients ask for.
async fn check_engine(client: &Client) -> Result<()> {
    let version: Version = client.json(&Request::get(&["version"])).await?;
    let mut parts = version.components.iter();
    match parts.any(|part| part.details.contains_key(BUILD_EVENTS)) {
        true => Ok(()),
        false => Err(Error::msg(
            "the engine does not build in a way that this client knows: it is another engine than hull's",
        )),
    }
}
