//! Loading of system call filters (seccomp(2)).

use crate::Result;
use crate::process::check;
use rustix::fd::{FromRawFd, OwnedFd};

/// One instruction of classic BPF; the layout of `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub if_true: u8,
    /// Instructions to skip when not.
    pub if_false: u8,
    /// Constant.
    pub value: u32,
}

/// `BPF_MAXINSNS`: the longest program the kernel takes.
pub const INSTRUCTIONS_MAX: usize = 4096;

pub use libc::{
    SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};

/// Puts the calling thread (with TSYNC: the process) under a filter, for good. With `NEW_LISTENER` the notify descriptor,
/// which is close-on-exec, is returned.
///
/// The thread needs `CAP_SYS_ADMIN` or no_new_privs.
pub fn load(program: &[Instruction], flags: libc::c_ulong) -> Result<Option<OwnedFd>> {
    let call = || {
        format!(
            "seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)",
            program.len()
        )
    };
    let length = u16::try_from(program.len())
        .map_err(|_| crate::Error::new(call(), rustix::io::Errno::INVAL))?;
    let raw = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel only reads `len` instructions, of the layout of `struct sock_filter`, which outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const raw,
        )
    };
    let result = check(result, call)?;
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).expect("a descriptor is an int");
    // SAFETY: with NEW_LISTENER the call returned a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows these filter flags: it answers EFAULT, not EINVAL, to a program at address zero.
pub fn flags_known(flags: libc::c_ulong) -> bool {
    // SAFETY: a null program is what the question is asked with; the kernel loads nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    check(result, String::new).is_err_and(|error| error.errno == rustix::io::Errno::FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_flag_is_known_and_the_highest_bit_is_not() {
        assert!(flags_known(SECCOMP_FILTER_FLAG_LOG));
        assert!(!flags_known(1 << 31));
    }
}
