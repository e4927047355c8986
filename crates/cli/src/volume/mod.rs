//! `hull volume`.

mod create;
mod ls;
mod prune;
mod rm;
mod update;

pub(crate) use ls::row;
pub(crate) use prune::prune;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("create", &create::CREATE),
    Entry::command("inspect", &crate::inspect::VOLUME_INSPECT),
    Entry::command("ls", &ls::LS),
    Entry::alias("list", &ls::LS),
    Entry::command("prune", &prune::PRUNE),
    Entry::command("rm", &rm::RM),
    Entry::alias("remove", &rm::RM),
    Entry::command("update", &update::UPDATE),
];
