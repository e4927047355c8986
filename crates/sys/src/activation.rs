//! Sockets that whoever started the program has opened for it: sd_listen_fds(3).

use crate::{Error, Result};
use rustix::io::{Errno, FdFlags};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first of them.
const FIRST: i32 = 3;

/// More than anybody passes; what is larger is a mistake.
const SOCKETS_MAX: i32 = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that `LISTEN_FDS` counts, if `LISTEN_PID` is this process; none otherwise, and the second time. They are
/// closed on exec from now on.
///
/// # Errors
/// A count that is none, or counts what is not open.
pub fn take() -> Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    if number("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get())
        || TAKEN.swap(true, Ordering::SeqCst)
    {
        return Ok(Vec::new());
    }
    let invalid = |errno| Error::new("LISTEN_FDS".to_owned(), errno);
    let count = number("LISTEN_FDS").filter(|count| (0..=SOCKETS_MAX).contains(count));
    let mut taken = Vec::new();
    for fd in FIRST..FIRST + count.ok_or_else(|| invalid(Errno::INVAL))? {
        // SAFETY: the protocol gives these descriptors to this process, whose number it names; it is done once, and nothing
        // of this program opens descriptors by number. One that is not open is found out below before it is used.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if let Err(errno) = rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC) {
            // There is nothing to close.
            std::mem::forget(fd);
            return Err(invalid(errno));
        }
        taken.push(fd);
    }
    Ok(taken)
}
