//! `hull container`: one file for a command, or for a few that are alike.

pub(crate) mod attach;
pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod exec;
mod explain;
pub(crate) mod export;
pub(crate) mod follow;
pub(crate) mod lifecycle;
pub(crate) mod logs;
pub(crate) mod ls;
mod options;
pub(crate) mod port;
mod prune;
mod request;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod update;

pub(crate) use prune::prune;

use crate::app::Entry;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("attach", &attach::ATTACH),
    Entry::command("commit", &commit::COMMIT),
    Entry::command("cp", &cp::CP),
    Entry::command("create", &create::CREATE),
    Entry::command("diff", &diff::DIFF),
    Entry::command("exec", &exec::EXEC),
    Entry::command("export", &export::EXPORT),
    Entry::command("inspect", &crate::inspect::CONTAINER_INSPECT),
    Entry::command("kill", &lifecycle::KILL),
    Entry::command("logs", &logs::LOGS),
    Entry::command("ls", &ls::LS),
    Entry::alias("list", &ls::LS),
    Entry::alias("ps", &ls::LS),
    Entry::command("pause", &lifecycle::PAUSE),
    Entry::command("port", &port::PORT),
    Entry::command("prune", &prune::PRUNE),
    Entry::command("rename", &lifecycle::RENAME),
    Entry::command("restart", &lifecycle::RESTART),
    Entry::command("rm", &lifecycle::RM),
    Entry::alias("remove", &lifecycle::RM),
    Entry::command("run", &run::RUN),
    Entry::command("start", &start::START),
    Entry::command("stats", &stats::STATS),
    Entry::command("stop", &lifecycle::STOP),
    Entry::command("top", &top::TOP),
    Entry::command("unpause", &lifecycle::UNPAUSE),
    Entry::command("update", &update::UPDATE),
    Entry::command("wait", &lifecycle::WAIT),
];
