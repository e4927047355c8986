//! What rustix lacks of sockets: socket(7), unix(7).

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

/// How many bytes that were written to a stream socket the other end has not read yet (`SIOCOUTQ`); of TCP, not acknowledged.
///
/// # Errors
/// As ioctl(2).
pub fn unread(socket: impl AsFd) -> Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to `bytes`, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    crate::process::check(result.into(), || format!("ioctl({fd}, SIOCOUTQ)"))?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_read_is_not_unread() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(unread(&here).unwrap(), 0);
        here.write_all(b"abc").unwrap();
        assert!(unread(&here).unwrap() > 0);
        there.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread(&here).unwrap(), 0);
    }
}
