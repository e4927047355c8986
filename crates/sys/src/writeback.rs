//! Writing to the disk begun before anybody waits for it (sync_file_range(2)).

use crate::Result;
use crate::process::check;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Has the kernel begin to write what was written to a file between two offsets. It does not wait, and promises nothing: that all of a
/// file is on its disk says fsync(2) alone.
pub fn begin(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let offset = i64::try_from(from).unwrap_or(i64::MAX);
    let bytes = i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX);
    // SAFETY: it takes a descriptor and numbers, and touches no memory of this process.
    let result = unsafe {
        libc::sync_file_range(fd.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE)
    };
    check(libc::c_long::from(result), || {
        format!("sync_file_range({}, {from}, {bytes})", fd.as_raw_fd())
    })?;
    Ok(())
}
