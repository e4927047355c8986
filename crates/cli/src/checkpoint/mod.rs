//! `hull checkpoint`.

mod create;
mod ls;
mod rm;

use crate::app::Entry;
use crate::flags::Flag;

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("create", &create::CREATE),
    Entry::command("ls", &ls::LS),
    Entry::alias("list", &ls::LS),
    Entry::command("rm", &rm::RM),
    Entry::alias("remove", &rm::RM),
];

/// Where checkpoints are; the engine's host knows the path.
const DIRECTORY: Flag = Flag::text(
    "checkpoint-dir",
    "Directory of checkpoints instead of the container's own",
);
