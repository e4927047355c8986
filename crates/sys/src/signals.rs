//! Signal dispositions, masks and waiting, for a process with one thread (signal(7)).

use crate::Result;
use crate::process::check;
use rustix::io::Errno;
use std::mem::MaybeUninit;

/// One more than the highest signal number on Linux.
const SIGNALS_END: i32 = 65;

/// Gives every signal its default disposition and blocks none: what a new program expects to inherit. Rust's own start-up
/// ignores SIGPIPE, and whoever started us may have ignored or blocked others.
pub fn reset() -> Result<()> {
    /// The kernel's `struct sigaction` where it is all zero: SIG_DFL, no flags, an empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..SIGNALS_END {
        // The C library's function would refuse the two signals that it keeps to itself.
        // SAFETY: SIG_DFL installs no handler; the structure outlives the call and is no smaller than the kernel's. KILL and
        // STOP are refused, and default.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    set_mask(&empty())
}

/// Blocks every signal for the calling thread.
pub fn block_all() -> Result<()> {
    set_mask(&full())
}

/// Sends a signal by its number, real-time signals included (pidfd_send_signal(2)).
pub fn send(pidfd: rustix::fd::BorrowedFd<'_>, number: i32) -> Result<()> {
    use rustix::fd::AsRawFd;
    let fd = pidfd.as_raw_fd();
    // SAFETY: no siginfo is given, the descriptor is borrowed for the call, and the kernel checks the number.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result, || format!("pidfd_send_signal({fd}, {number})")).map(drop)
}

/// Sends a signal by its number to a process by its id, which must be known not to have been reused: that of a child, or one
/// found in a cgroup just now (kill(2)).
pub fn send_to(pid: rustix::process::Pid, number: i32) -> Result<()> {
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: no memory is passed, and the kernel checks the number.
    let result = unsafe { libc::kill(pid, number) };
    check(result.into(), || format!("kill({pid}, {number})")).map(drop)
}

/// Waits for any of the blocked signals, all of which the caller has blocked with [`block_all`]; its number (sigwaitinfo(2)).
pub fn wait() -> i32 {
    let set = full();
    loop {
        // SAFETY: the set outlives the call; a null pointer asks for no details.
        let number = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
        if number > 0 {
            return number;
        }
        // Only an interruption is possible with a valid set.
        debug_assert_eq!(
            Errno::from_io_error(&std::io::Error::last_os_error()),
            Some(Errno::INTR)
        );
    }
}

/// A descriptor that becomes readable when one of `signals`, which it also blocks, is pending (signalfd(2)).
pub fn descriptor(signals: &[i32]) -> Result<rustix::fd::OwnedFd> {
    use rustix::fd::FromRawFd;
    let mut set = empty();
    for &signal in signals {
        // SAFETY: the set is initialised and outlives the call.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set_mask(&set)?;
    // SAFETY: the set outlives the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    check(fd.into(), || {
        format!("signalfd(-1, {signals:?}, SFD_CLOEXEC)")
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { rustix::fd::OwnedFd::from_raw_fd(fd) })
}

fn set_mask(set: &libc::sigset_t) -> Result<()> {
    // SAFETY: the set outlives the call; the old mask is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) };
    check(result.into(), || "rt_sigprocmask(SIG_SETMASK)".into()).map(drop)
}

fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is to an object that outlives the call.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initialised it.
    unsafe { set.assume_init() }
}

fn full() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is to an object that outlives the call.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: sigfillset initialised it.
    unsafe { set.assume_init() }
}
