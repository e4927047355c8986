//! Birth of processes and what is set on them that rustix has not: clone3(2), execve(2), unshare(2), close_range(2),
//! personality(2), sched_setattr(2), ioprio_set(2), set_mempolicy(2), keyctl(2).

use crate::{Context, Error, Result};
use rustix::fd::FromRawFd;
use rustix::io::Errno;
use rustix::process::Pid;
use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

/// `CLONE_INTO_CGROUP` of linux/sched.h; libc's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The exit code of a child that panicked: nobody else uses it.
const PANICKED: i32 = 254;

/// Kinds of namespaces(7), as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mount points.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS.cast_unsigned());
    /// Control groups' root.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP.cast_unsigned());
    /// Host and NIS domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS.cast_unsigned());
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC.cast_unsigned());
    /// Users, groups, capabilities.
    pub const USER: Self = Self(libc::CLONE_NEWUSER.cast_unsigned());
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID.cast_unsigned());
    /// Network devices, stacks, ports.
    pub const NET: Self = Self(libc::CLONE_NEWNET.cast_unsigned());
    /// Boot and monotonic clocks. libc lacks the constant, whose bit clone(2) uses for the exit signal.
    pub const TIME: Self = Self(0x80);

    /// The `CLONE_NEW…` bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are in the set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How a child is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spawn<'a> {
    /// Namespaces it is born in; new ones.
    pub namespaces: Namespaces,
    /// The directory of the cgroup v2 it is born in; the caller's own when unset.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is a sibling of the caller instead of a child (`CLONE_PARENT`).
    pub sibling: bool,
}

/// A child just made.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// A pidfd of it, close-on-exec.
    pub pidfd: OwnedFd,
}

/// Makes a child that runs `body` on a copy of this process and never returns into the caller's code.
///
/// The caller should have one thread: a lock another thread holds stays held in the child forever, the allocator's too.
pub fn spawn(how: Spawn<'_>, body: impl FnOnce() -> Infallible) -> Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut flags = u64::from(how.namespaces.bits()) | libc::CLONE_PIDFD.cast_unsigned() as u64;
    if how.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // A sibling is reaped by the caller's parent with the signal the caller itself is reaped with.
    let exit_signal = if how.sibling {
        0
    } else {
        libc::SIGCHLD.cast_unsigned()
    };
    if how.sibling {
        flags |= libc::CLONE_PARENT.cast_unsigned() as u64;
    }
    let args = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: how
            .cgroup
            .map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: without CLONE_VM the child runs on a copy of this memory with its own copy of the stack, as after fork(2);
    // `pidfd` outlives the call, which is the only one to write it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid == 0 {
        run_and_exit(body);
    }
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
        let call = format!(
            "clone3(flags={flags:#x}{})",
            if how.cgroup.is_some() { ", cgroup" } else { "" }
        );
        return Err(Error::new(call, errno));
    };
    // SAFETY: with CLONE_PIDFD a successful clone3 stored a new descriptor there that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

fn run_and_exit(body: impl FnOnce() -> Infallible) -> ! {
    // An unwinding panic would otherwise go on into frames that belong to the parent.
    let Err(_) = std::panic::catch_unwind(AssertUnwindSafe(body));
    exit(PANICKED)
}

/// Ends the process at once: no destructors, no buffers of the parent flushed twice (_exit(2)).
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// The bits of namespaces that unshare(2) can give the calling thread at once.
pub fn unshare(namespaces: Namespaces) -> Result<()> {
    // SAFETY: only namespace bits can be in the set: descriptor tables and memory stay shared as Rust expects.
    let result = unsafe { libc::unshare(namespaces.bits().cast_signed()) };
    check(result.into(), || {
        format!("unshare({:#x})", namespaces.bits())
    })
    .map(drop)
}

/// Moves the calling thread into those namespaces of a process that a pidfd refers to, or into the one namespace that a
/// `/proc/<pid>/ns` descriptor refers to (setns(2)).
pub fn setns(fd: BorrowedFd<'_>, namespaces: Namespaces) -> Result<()> {
    // SAFETY: setns takes a descriptor, borrowed for the call, and flags; it touches no memory.
    let result = unsafe { libc::setns(fd.as_raw_fd(), namespaces.bits().cast_signed()) };
    check(result.into(), || {
        format!("setns({}, {:#x})", fd.as_raw_fd(), namespaces.bits())
    })
    .map(drop)
}

/// Replaces the process's program. Returns only with an error.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both arrays end with null and point to strings that live until the call returns, if it does.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Error::new(format!("execve({program:?})"), errno)
}

/// Replaces the process's program by the one a descriptor refers to. Returns only with an error.
pub fn exec_fd(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: as in `exec`; the empty path is a valid string and AT_EMPTY_PATH makes the descriptor the program.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Error::new(
        format!("execveat({}, \"\", AT_EMPTY_PATH)", program.as_raw_fd()),
        errno,
    )
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// What happens to a range of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseRange {
    /// They are closed by the next execve(2).
    OnExec,
    /// They are closed now. Only for a process whose remaining code owns none of them.
    Now,
}

/// Closes every descriptor from `first` on (close_range(2)).
pub fn close_from(first: u32, how: CloseRange) -> Result<()> {
    let flags = if how == CloseRange::OnExec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    // SAFETY: the caller of `Now` vouches that no owner of a descriptor in the range is used again; close-on-exec
    // takes nothing from any owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    check(result, || format!("close_range({first}, ~0, {flags:#x})")).map(drop)
}

/// Closes, in a child made by [`spawn`], its copy of a descriptor whose owner lives on in the parent: the other end of a
/// channel, which would otherwise never seem closed.
pub fn close_inherited(fd: BorrowedFd<'_>) {
    // SAFETY: the owner is in a frame of the parent that this process never returns to, so nothing uses or closes it again.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Sets the user and group that the calling thread acts as towards filesystems (setfsuid(2), setfsgid(2)). A user but root
/// takes the capabilities over files out of force.
pub fn set_filesystem_user(uid: u32, gid: u32) -> Result<()> {
    let set = |number: libc::c_long, id: u32| {
        // SAFETY: the call takes one number.
        unsafe { libc::syscall(number, id) };
        // SAFETY: an id that cannot be changes nothing; the present one is returned.
        unsafe { libc::syscall(number, u32::MAX) }
    };
    let found = (set(libc::SYS_setfsgid, gid), set(libc::SYS_setfsuid, uid));
    if found
        == (
            libc::c_long::from(gid.cast_signed()),
            libc::c_long::from(uid.cast_signed()),
        )
    {
        return Ok(());
    }
    Err(Error::new(
        format!("setfsuid({uid}), setfsgid({gid})"),
        Errno::PERM,
    ))
}

/// Sets the execution domain (personality(2)).
pub fn personality(domain: libc::c_ulong) -> Result<()> {
    // SAFETY: personality takes one number.
    let result = unsafe { libc::personality(domain) };
    check(result.into(), || format!("personality({domain:#x})")).map(drop)
}

/// Scheduling attributes as of sched_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulingAttributes {
    /// `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// `struct sched_attr` of Linux 5.3; libc's has no bounds of the utilization.
#[repr(C)]
struct RawSchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    utilization_min: u32,
    utilization_max: u32,
}

/// Sets the calling thread's scheduling policy. Where `flags` want its utilization bounded, the bounds are the widest.
pub fn set_scheduling(attributes: &SchedulingAttributes) -> Result<()> {
    const SCHED_CAPACITY_SCALE: u32 = 1024;
    let raw = RawSchedulingAttributes {
        size: u32::try_from(size_of::<RawSchedulingAttributes>()).expect("56"),
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
        utilization_min: 0,
        utilization_max: SCHED_CAPACITY_SCALE,
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) };
    check(result, || format!("sched_setattr(0, {attributes:?})")).map(drop)
}

/// Sets the calling thread's I/O priority: class (1 real time, 2 best effort, 3 idle) and level (0 highest to 7).
pub fn set_io_priority(class: u16, level: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = (libc::c_int::from(class) << IOPRIO_CLASS_SHIFT) | libc::c_int::from(level);
    // SAFETY: ioprio_set takes three numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    check(result, || {
        format!("ioprio_set(IOPRIO_WHO_PROCESS, 0, {value:#x})")
    })
    .map(drop)
}

/// Sets the calling thread's NUMA policy: `mode` with its flags, nodes as a bit set (set_mempolicy(2)).
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel reads one bit less than it is told.
    let bits = nodes.len() * 64 + 1;
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    let bits = if nodes.is_empty() { 0 } else { bits };
    // SAFETY: `mask` is null with zero bits, or points to `bits - 1` bits that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(result, || format!("set_mempolicy({mode:#x}, {nodes:x?})")).map(drop)
}

unsafe extern "C" {
    /// Where argv[0] begins (program_invocation_name(3)).
    static program_invocation_name: *mut c_char;
}

/// Overwrites the arguments that others see of this process, as far as the title has room.
pub fn set_title(title: &CStr) {
    let length: usize = std::env::args_os().map(|argument| argument.len() + 1).sum();
    // SAFETY: the C library sets it before main, and nothing changes it.
    let start = unsafe { program_invocation_name }.cast::<u8>();
    if start.is_null() || length == 0 {
        return;
    }
    // SAFETY: execve(2) lays the arguments' strings one behind the other from argv[0] on, in memory of this process that is
    // writable and that nothing but the standard library reads, as strings: zeroes leave them terminated.
    let area = unsafe { std::slice::from_raw_parts_mut(start, length) };
    area.fill(0);
    let title = title.to_bytes();
    let shown = title.len().min(length - 1);
    area[..shown].copy_from_slice(&title[..shown]);
}

/// Gives the process a new session keyring, so that it sees none of the host's keys (keyctl(2)).
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let no_name = std::ptr::null::<c_char>();
    // SAFETY: without a name nothing is read.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    check(result, || {
        "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)".into()
    })
    .map(drop)
}

/// Turns −1 into the errno of the call.
pub(crate) fn check(result: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err::<libc::c_long, _>(errno).call(call)
}

/// Limits how many arenas glibc's allocator has (mallopt(3), `M_ARENA_MAX`): each keeps freed memory of its own.
pub fn limit_arenas(count: i32) {
    // SAFETY: mallopt only sets a parameter; an unknown one is refused and changes nothing.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};

    fn exit_code(child: &Child) -> Option<i32> {
        let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())
            .unwrap()
            .unwrap();
        status.exit_status()
    }

    #[test]
    fn a_child_runs_its_body_and_exits_with_its_code() {
        let child = spawn(Spawn::default(), || exit(7)).unwrap();
        assert_eq!(exit_code(&child), Some(7));
    }

    #[test]
    fn a_child_that_cannot_be_born_is_an_error() {
        use std::os::fd::AsFd;
        let no_cgroup = std::fs::File::open("/dev/null").unwrap();
        let how = Spawn {
            cgroup: Some(no_cgroup.as_fd()),
            ..Spawn::default()
        };
        assert_eq!(spawn(how, || exit(0)).unwrap_err().errno, Errno::BADF);
    }

    #[test]
    fn a_program_is_replaced_by_descriptor() {
        let program = std::fs::File::open("/bin/sh").unwrap();
        let arguments = [c"sh".into(), c"-c".into(), c"exit 5".into()];
        let child = spawn(Spawn::default(), || {
            use std::os::fd::AsFd;
            exec_fd(program.as_fd(), &arguments, &[]);
            exit(1)
        })
        .unwrap();
        assert_eq!(exit_code(&child), Some(5));
    }

    #[test]
    fn a_failed_exec_names_the_program() {
        let error = exec(c"/nonexistent", &[c"x".into()], &[]);
        assert_eq!(
            error.to_string(),
            "execve(\"/nonexistent\"): No such file or directory (os error 2)"
        );
    }
}
