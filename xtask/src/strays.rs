//! Processes that tests leave behind: a test that does has failed, and what it left would disturb the next run.
//!
//! The task makes itself the reaper of its descendants (prctl(2), `PR_SET_CHILD_SUBREAPER`): whoever outlives the test that
//! started it becomes its child.

use crate::{Result, shell};
use rustix::process::{self, Pid, Signal, WaitOptions};

/// How many rounds of ending and looking again: a process that ends hands its children over.
const ROUNDS_MAX: usize = 100;

/// From now on orphans of this process's children are its children.
pub(crate) fn adopt() -> Result<()> {
    process::set_child_subreaper(Some(process::getpid()))
        .map_err(|error| format!("prctl(PR_SET_CHILD_SUBREAPER): {error}"))
}

/// Ends every process that is still there, and fails when there was one.
pub(crate) fn end() -> Result<()> {
    let mut named = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let children = children()?;
        if children.is_empty() {
            break;
        }
        for pid in children {
            // One that has ended and only waited to be reaped is no stray.
            if !matches!(process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)) {
                continue;
            }
            let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            let line = std::fs::read_to_string(path).unwrap_or_default();
            named.push(line.replace('\0', " "));
            // It may be gone by itself.
            let _ = process::kill_process(pid, Signal::KILL);
            let _ = process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
    if named.is_empty() {
        return Ok(());
    }
    shell::say(&format!(
        "left by tests, and ended now:\n  {}",
        named.join("\n  ")
    ));
    Err(format!("tests left {} processes", named.len()))
}

/// The children of every thread of this process: orphans are handed to any of them.
fn children() -> Result<Vec<Pid>> {
    let tasks = "/proc/self/task";
    let entries = std::fs::read_dir(tasks).map_err(|error| format!("{tasks}: {error}"))?;
    let mut children = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path().join("children");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A thread that has ended meanwhile, whose children are another's now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let pids = text.split_whitespace().filter_map(|word| word.parse().ok());
        children.extend(pids.filter_map(Pid::from_raw));
    }
    Ok(children)
}
