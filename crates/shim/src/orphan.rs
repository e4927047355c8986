//! What is left when a shim was killed: called by the engine, on a bundle whose shim does not answer any more.

use crate::protocol::ExitRecord;
use crate::state;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::path::Path;

/// How long a shim that is ending may take before it is killed: the time it gives slow clients, and some more.
const ENDING_TIMEOUT_S: i64 = 12;

/// How a container ended; None: its shim has not written it down.
///
/// # Errors
/// As reading the file.
pub fn exit_record(bundle: &Path) -> io::Result<Option<ExitRecord>> {
    state::read_exit(bundle)
}

/// Ends whatever a container still has: its shim, its processes, its cgroup. One whose end is recorded has nothing any
/// more, nor has one whose shim never got so far as to write its state.
///
/// # Errors
/// As the system calls; processes that cannot be killed.
pub fn end(bundle: &Path) -> io::Result<()> {
    if state::read_exit(bundle)?.is_some() {
        return Ok(());
    }
    let Some(record) = state::read_state(bundle)? else {
        return Ok(());
    };
    // A launched shim whose launcher has gone is ending already. The number may have been given to another process by
    // now: the shim is recognised by what it is called.
    if let Some(shim) = Pid::from_raw(record.shim_pid)
        && let Ok(pidfd) = pidfd_open(shim, PidfdFlags::empty())
        && is_shim(shim)
    {
        let timeout = Timespec {
            tv_sec: ENDING_TIMEOUT_S,
            tv_nsec: 0,
        };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))?;
        if ended == 0 {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))?;
        }
    }
    if state::read_exit(bundle)?.is_some() {
        return Ok(());
    }
    let path = record.cgroup.to_string_lossy();
    let ended = runtime::Cgroup::open(&path).and_then(|cgroup| {
        cgroup.kill()?;
        cgroup.destroy()
    });
    ended.map_err(|error| io::Error::other(crate::failures::failure(&error)))
}

/// Whether a process is one of our shims.
fn is_shim(pid: Pid) -> bool {
    let arguments =
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    arguments.starts_with(crate::NAME.as_bytes())
}
