//! Loading of eBPF programs that decide on device access, and attaching them to cgroups (bpf(2)).

use crate::Result;
use crate::process::check;
use rustix::fd::{FromRawFd, OwnedFd};
use std::os::fd::{AsRawFd, BorrowedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// As many programs as one cgroup can have (`BPF_CGROUP_MAX_PROGS`).
const PROGRAMS_MAX: usize = 64;

/// One instruction of eBPF; the layout of `struct bpf_insn` with both registers in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the low half, source in the high one (little endian machines).
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant.
    pub value: i32,
}

/// `BPF_PROG_LOAD`'s part of `union bpf_attr`, as far as used.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// `BPF_PROG_ATTACH`'s part.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// `BPF_PROG_QUERY`'s part.
#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let mut attributes = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the structure and what it points to outlive the call and are only read.
    let result = unsafe { bpf(BPF_PROG_LOAD, &mut attributes) };
    let call = || {
        format!(
            "bpf(BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions)",
            program.len()
        )
    };
    let fd = i32::try_from(check(result, call)?).expect("a descriptor is an int");
    // SAFETY: a successful load returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup, in the place of `replaced` when given. Programs of the cgroups above stay in
/// force: all must agree.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: replaced.map_or(0, |fd| fd.as_raw_fd().cast_unsigned()),
    };
    // SAFETY: the structure outlives the call and is only read.
    let result = unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) };
    check(result, || {
        format!(
            "bpf(BPF_PROG_ATTACH, {}, CGROUP_DEVICE)",
            cgroup.as_raw_fd()
        )
    })
    .map(drop)
}

/// Takes a device program from a cgroup.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    // SAFETY: the structure outlives the call and is only read.
    let result = unsafe { bpf(BPF_PROG_DETACH, &mut attributes) };
    check(result, || {
        format!(
            "bpf(BPF_PROG_DETACH, {}, CGROUP_DEVICE)",
            cgroup.as_raw_fd()
        )
    })
    .map(drop)
}

/// The device programs attached to a cgroup itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attributes = Query {
        target: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(PROGRAMS_MAX).expect("64"),
        padding: 0,
    };
    // SAFETY: the kernel writes the structure and at most `count` ids; both outlive the call.
    let result = unsafe { bpf(BPF_PROG_QUERY, &mut attributes) };
    check(result, || {
        format!("bpf(BPF_PROG_QUERY, {}, CGROUP_DEVICE)", cgroup.as_raw_fd())
    })?;
    ids.iter()
        .take_while(|&&id| id != 0)
        .map(|&id| program_by_id(id))
        .collect()
}

fn program_by_id(id: u32) -> Result<OwnedFd> {
    // `union bpf_attr` starts with the id here; next id and flags follow.
    let mut attributes = [id, 0, 0];
    // SAFETY: the array outlives the call and is only read.
    let result = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) };
    let fd = check(result, || format!("bpf(BPF_PROG_GET_FD_BY_ID, {id})"))?;
    let fd = i32::try_from(fd).expect("a descriptor is an int");
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
///
/// `attributes` must be what `command` expects, with every address in it valid for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> libc::c_long {
    // SAFETY: the caller vouches for the structure; its size is its own.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    }
}
