//! Descriptors that the runtime's callers hand in or want back: sockets for terminals and pidfds, pid files, inherited ones.

use super::Invocation;
use crate::channel::send_with_fds;
use crate::error::{Doing, Error, Result};
use crate::sockets::connect;
use crate::state::write;
use rustix::net::SocketType;
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Checks the flags that say where a terminal goes. A terminal needs a socket exactly when nobody stays to hold it.
pub(super) fn check_console(invocation: &Invocation, terminal: bool, detached: bool) -> Result<()> {
    let socket = invocation
        .arguments
        .value("console-socket")
        .is_some_and(|path| !path.is_empty());
    match (terminal, detached, socket) {
        (true, true, false) => Err(Error::invalid(
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (_, false, true) | (false, true, true) => Err(Error::invalid(
            "cannot use console socket if runc will not detach or allocate tty",
        )),
        _ => Ok(()),
    }
}

/// Sends a terminal's master and init's pidfd where the flags say, and writes the pid file.
pub(super) fn hand_out(
    invocation: &Invocation,
    pid: Pid,
    pidfd: BorrowedFd<'_>,
    terminal: Option<&OwnedFd>,
) -> Result<()> {
    let arguments = &invocation.arguments;
    let path = |name| {
        arguments
            .value(name)
            .filter(|path| !path.is_empty())
            .map(Path::new)
    };
    if let (Some(path), Some(terminal)) = (path("console-socket"), terminal) {
        send(path, b"/dev/ptmx", terminal.as_fd())?;
    }
    if let Some(path) = path("pidfd-socket") {
        send(path, b"pidfd", pidfd)?;
    }
    if let Some(path) = path("pid-file") {
        write(path, pid.as_raw_nonzero().to_string().as_bytes())?;
    }
    Ok(())
}

fn send(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let socket = connect(path, SocketType::STREAM)?;
    send_with_fds(socket.as_fd(), name, &[fd])
        .doing_with(|| format!("sending a descriptor to {}", path.display()))
}

/// How many descriptors from 3 on the process inherits: those of the flag, and those of socket activation (sd_listen_fds(3)),
/// whose variables are returned.
pub(super) fn preserved(invocation: &Invocation) -> Result<(u32, Vec<String>)> {
    let asked: u32 = invocation.arguments.number("preserve-fds")?.unwrap_or(0);
    let listening = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|count| count.parse::<u32>().ok());
    let Some(listening) = listening.filter(|&count| count > 0) else {
        return Ok((asked, Vec::new()));
    };
    let mut variables = vec![format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()];
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        variables.push(format!("LISTEN_FDNAMES={names}"));
    }
    let count = asked.checked_add(listening);
    Ok((
        count.ok_or_else(|| Error::invalid("too many descriptors to preserve"))?,
        variables,
    ))
}
