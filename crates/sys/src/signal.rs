//! Signals of this process: signalfd(2), sigprocmask(2).

use crate::{Error, Result};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks every signal of the calling thread that can be blocked and returns a descriptor that becomes readable when a
/// child has ended. A process made by this thread inherits the mask and has to clear it before it executes a program.
///
/// # Errors
/// As signalfd(2).
pub fn block_all_and_watch_children() -> Result<OwnedFd> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset writes the whole set and cannot fail with a valid pointer.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old mask is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
    if result != 0 {
        return Err(Error::new("pthread_sigmask(SIG_SETMASK, ~[])", Errno::from_raw_os_error(result)));
    }
    let mut child = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset writes the whole set.
    unsafe { libc::sigemptyset(child.as_mut_ptr()) };
    // SAFETY: the set is initialised and SIGCHLD is a valid signal.
    unsafe { libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: -1 asks for a new descriptor; the set is initialised.
    let fd = unsafe { libc::signalfd(-1, child.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(Error::new("signalfd(-1, [CHLD])", crate::last_errno()));
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
