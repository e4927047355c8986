//! The one thing to be done to a network interface without netlink (netdevice(7)).

use crate::Result;
use crate::process::check;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// Brings the loopback interface of the calling thread's network namespace up.
pub fn set_loopback_up() -> Result<()> {
    use crate::Context;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .call(|| "socket(AF_INET, SOCK_DGRAM)")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request = unsafe { MaybeUninit::<libc::ifreq>::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("IFF_UP is 1");
    // SAFETY: the request names an interface and its flags, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result.into(), || {
        "ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP)".into()
    })
    .map(drop)
}
