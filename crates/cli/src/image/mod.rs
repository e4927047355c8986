//! `hull image`: one file for each command.

pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod ls;
mod prune;
pub(crate) mod rm;
pub(crate) mod save;
pub(crate) mod tag;
mod tree;

pub(crate) use prune::prune;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("build", &crate::build::BUILD),
    Entry::command("history", &history::HISTORY),
    Entry::command("import", &import::IMPORT),
    Entry::command("inspect", &crate::inspect::IMAGE_INSPECT),
    Entry::command("load", &load::LOAD),
    Entry::command("ls", &ls::LS),
    Entry::alias("list", &ls::LS),
    Entry::command("prune", &prune::PRUNE),
    Entry::command("pull", &crate::registry::pull::PULL),
    Entry::command("push", &crate::registry::push::PUSH),
    Entry::command("rm", &rm::RM),
    Entry::alias("remove", &rm::RM),
    Entry::command("save", &save::SAVE),
    Entry::command("tag", &tag::TAG),
];
