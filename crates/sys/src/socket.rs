//! Socket options that rustix lacks: socket(7).

use crate::{Error, Result};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Lets up to `bytes` wait in the send buffer, whatever `net.core.wmem_max` says (`SO_SNDBUFFORCE`). Needs CAP_NET_ADMIN.
///
/// # Errors
/// As setsockopt(2).
pub fn set_send_buffer(socket: impl AsFd, bytes: i32) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four");
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the option's value is an int, which `bytes` is, and `length` its size; it is only read during the call.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            (&raw const bytes).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let errno = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    Err(Error::new(
        format!("setsockopt({fd}, SOL_SOCKET, SO_SNDBUFFORCE, {bytes})"),
        errno,
    ))
}
