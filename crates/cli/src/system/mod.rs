//! `hull system`.

mod df;
mod dial_stdio;
pub(crate) mod events;
pub(crate) mod info;
mod install;
mod man;
pub(crate) mod prune;
mod verify;
pub(crate) mod version;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("df", &df::DF),
    Entry::alias("dial-stdio", &dial_stdio::DIAL_STDIO),
    Entry::command("events", &events::EVENTS),
    Entry::command("info", &info::INFO),
    Entry::command("install", &install::INSTALL),
    Entry::command("man", &man::MAN),
    Entry::command("prune", &prune::PRUNE),
    Entry::command("uninstall", &install::UNINSTALL),
    Entry::command("verify", &verify::VERIFY),
];
