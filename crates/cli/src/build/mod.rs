//! `hull build` and `hull builder`.

mod check;
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
mod tty;

pub(crate) use command::BUILD;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("build", &command::BUILD),
    Entry::command("du", &du::DU),
    Entry::command("prune", &prune::PRUNE),
];
