//! The runtime's own init: it stays as PID 1, starts the container's program as its child, passes signals on, reaps what is
//! orphaned, and ends as the program does.
//!
//! Invariant: it holds no descriptor and no capability beyond the program's own, cannot be traced, and touches nothing of the
//! container's files.

use crate::error::{Doing, Result};
use crate::launch::Launch;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, setpgid, wait};
use rustix::stdio::stdin;
use rustix::termios::{isatty, tcsetpgrp};
use std::convert::Infallible;
use std::ffi::CStr;
use sys::Context;
use sys::process::{CloseRange, Spawn, close_from, exit, set_title, spawn};
use sys::signals;

/// What it is called in lists of processes.
const TITLE: &CStr = c"hull-init";
/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// Runs `program` in a child, told whether that could be set up, and stays until it ends.
pub(crate) fn run(
    launch: &Launch<'_>,
    program: impl FnOnce(Result<()>) -> Infallible,
) -> Result<Infallible> {
    let doing = "starting the program under init";
    signals::block_all().doing(doing)?;
    let child = spawn(Spawn::default(), || program(lead())).doing(doing)?;
    // Whatever the caller was started with is not the container's to know.
    set_title(TITLE);
    rustix::thread::set_name(TITLE)
        .call(|| "prctl(PR_SET_NAME)")
        .doing(doing)?;
    launch.drop_capabilities()?;
    // The channel's end among them: once the child's is closed too, the caller knows that the program was executed.
    close_from(0, CloseRange::Now).doing(doing)?;
    loop {
        match signals::wait() {
            libc::SIGCHLD => reap(child.pid),
            number => pass_on(child.pid, number),
        }
    }
}

/// Makes the calling child what a terminal's signals go to.
fn lead() -> Result<()> {
    let doing = "starting the program under init";
    setpgid(None, None).call(|| "setpgid(0, 0)").doing(doing)?;
    if isatty(stdin()) {
        match tcsetpgrp(stdin(), getpid()) {
            // A terminal that is not the session's own.
            Ok(()) | Err(Errno::NOTTY) => {}
            Err(errno) => return Err(errno).call(|| "ioctl(TIOCSPGRP)").doing(doing),
        }
    }
    signals::reset().doing(doing)
}

fn pass_on(child: Pid, number: i32) {
    // A program that changed its user may be out of reach; one that has ended is about to be reaped.
    let sent = signals::send_to(child, number).map_err(|error| error.errno);
    debug_assert!(matches!(sent, Ok(()) | Err(Errno::SRCH | Errno::PERM)));
}

/// Takes every child that has ended, and ends when the program has.
fn reap(program: Pid) {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            exit(code(status));
        }
    }
}

/// The exit code that a shell would make of a status.
fn code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => SIGNALLED + signal,
        _ => SIGNALLED,
    }
}
