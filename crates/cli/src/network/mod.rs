//! `hull network`.

mod connect;
mod create;
mod ls;
mod prune;

pub(crate) use prune::prune;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("connect", &connect::CONNECT),
    Entry::command("create", &create::CREATE),
    Entry::command("disconnect", &connect::DISCONNECT),
    Entry::command("inspect", &crate::inspect::NETWORK_INSPECT),
    Entry::command("ls", &ls::LS),
    Entry::alias("list", &ls::LS),
    Entry::command("prune", &prune::PRUNE),
    Entry::command("rm", &connect::RM),
    Entry::alias("remove", &connect::RM),
];
