//! Project quotas: limits of directory trees, where a filesystem has them (quotactl(2), ioctl_xfs_fsgetxattr(2)).
//!
//! ext4, f2fs and XFS take the generic calls alike. Source: linux/quota.h, linux/dqblk_xfs.h, linux/fs.h.

use crate::process::check;
use crate::{Error, Result};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `PRJQUOTA`.
const PROJECT: libc::c_int = 2;
const Q_GETQUOTA: libc::c_int = 0x80_0007;
const Q_SETQUOTA: libc::c_int = 0x80_0008;
const Q_XGETQSTATV: libc::c_int = 0x5808;
/// `QIF_BLIMITS`: the limits of space are what counts.
const SPACE_LIMITS: u32 = 1;
/// `QIF_DQBLKSIZE`: what limits are counted in.
const BLOCK_BYTES: u64 = 1024;
/// `FS_QUOTA_PDQ_ENFD`.
const PROJECT_ENFORCED: u16 = 1 << 5;
/// `FS_QSTATV_VERSION1`.
const STATE_VERSION: u8 = 1;

const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory is of its project.
const INHERIT: u32 = 0x200;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Debug, Default)]
struct Block {
    space_hard_limit: u64,
    space_soft_limit: u64,
    space_bytes: u64,
    inodes_hard_limit: u64,
    inodes_soft_limit: u64,
    inodes: u64,
    space_time: u64,
    inodes_time: u64,
    valid: u32,
}

/// `struct fs_quota_statv`, as far as it matters.
#[repr(C)]
#[derive(Debug)]
struct State {
    version: u8,
    pad: u8,
    flags: u16,
    rest: [u32; 39],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    pad: [u8; 8],
}

/// Whether limits of projects are in force on the filesystem of a descriptor. A filesystem or a kernel without them is one
/// where they are not.
pub fn are_enforced(fd: BorrowedFd<'_>) -> Result<bool> {
    let mut state = State {
        version: STATE_VERSION,
        pad: 0,
        flags: 0,
        rest: [0; 39],
    };
    match call(fd, Q_XGETQSTATV, 0, &mut state) {
        Ok(()) => Ok(state.flags & PROJECT_ENFORCED != 0),
        Err(error)
            if matches!(
                error.errno,
                Errno::NOSYS | Errno::INVAL | Errno::SRCH | Errno::OPNOTSUPP | Errno::NOTBLK
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// How many files and directories are of a project.
pub fn files(fd: BorrowedFd<'_>, project: u32) -> Result<u64> {
    let mut block = Block::default();
    match call(fd, Q_GETQUOTA, project, &mut block) {
        Ok(()) => Ok(block.inodes),
        // XFS knows nothing of one that nobody has used.
        Err(error) if error.errno == Errno::NOENT => Ok(0),
        Err(error) => Err(error),
    }
}

/// Sets how many bytes a project may have, in whole KiB; 0 for as many as there are.
pub fn set_limit(fd: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let limit = bytes.div_ceil(BLOCK_BYTES);
    let mut block = Block {
        space_hard_limit: limit,
        space_soft_limit: limit,
        valid: SPACE_LIMITS,
        ..Block::default()
    };
    call(fd, Q_SETQUOTA, project, &mut block)
}

fn call<T>(fd: BorrowedFd<'_>, command: libc::c_int, id: u32, data: &mut T) -> Result<()> {
    let command = command << 8 | PROJECT;
    // SAFETY: `data` is the structure of the command, which the call reads or fills and forgets.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            fd.as_raw_fd(),
            command,
            id,
            std::ptr::from_mut(data),
        )
    };
    check(result, || {
        format!("quotactl_fd(cmd={command:#x}, project {id})")
    })
    .map(drop)
}

/// The project of a file or directory; 0 is none.
pub fn project(fd: BorrowedFd<'_>) -> Result<u32> {
    match attributes(fd) {
        Ok(attributes) => Ok(attributes.project),
        Err(error) if matches!(error.errno, Errno::NOTTY | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Makes an empty directory and what will be made in it part of a project.
pub fn set_project(fd: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(fd)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the structure is the call's, which reads it and forgets it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    check(result.into(), || {
        format!("ioctl(FS_IOC_FSSETXATTR, project {project})")
    })
    .map(drop)
}

fn attributes(fd: BorrowedFd<'_>) -> Result<Attributes, Error> {
    let mut attributes = Attributes::default();
    // SAFETY: the structure is the call's, which fills it and forgets it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    check(result.into(), || "ioctl(FS_IOC_FSGETXATTR)".into())?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Block>(), 72);
        assert_eq!(size_of::<State>(), 160);
        assert_eq!(size_of::<Attributes>(), 28);
    }

    #[test]
    fn a_filesystem_without_projects_has_none() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(!are_enforced(proc.as_fd()).unwrap());
        assert_eq!(project(proc.as_fd()).unwrap(), 0);
    }
}
