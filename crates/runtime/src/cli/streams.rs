//! Descriptors that the runtime's callers hand in or want back: sockets for terminals and pidfds, pid files, inherited ones.

use super::Invocation;
use crate::channel::send_with_fds;
use crate::error::{Doing, Error, Result};
use crate::state::{socket_path, write};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::Context;

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
    let socket = connect(path)?;
    send_with_fds(socket.as_fd(), name, &[fd])
        .doing_with(|| format!("sending a descriptor to {}", path.display()))
}

/// Connects to a unix socket of any length of path.
pub(super) fn connect(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("connecting to {}", path.display());
    let (_directory, short) = socket_path(path)?;
    let address = SocketAddrUnix::new(&short)
        .call(|| format!("sockaddr({short:?})"))
        .doing_with(doing)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .call(|| "socket(AF_UNIX, SOCK_STREAM)")
    .doing_with(doing)?;
    rustix::net::connect(&socket, &address)
        .call(|| format!("connect({path:?})"))
        .doing_with(doing)?;
    Ok(socket)
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
