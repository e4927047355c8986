//! Which ports the host's own programs hold: sock_diag(7).
//!
//! Whether a port is free is said by trying to bind it, at the price of a socket. To publish thousands, one question to the kernel
//! says of most of them that nobody holds them, and only the others are tried.

use crate::Protocol;
use std::collections::BTreeSet;
use sys::netlink::{Error, Message, NLM_F_DUMP, Socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const FAMILIES: [u8; 2] = [2, 10];

/// `TCP_LISTEN` and, where the kernel tells of them, those that are bound and do not listen yet.
const TCP_STATES: u32 = 1 << 10 | 1 << 13;
/// Of datagrams every socket that has a port.
const ALL_STATES: u32 = u32::MAX;

/// `struct inet_diag_req_v2`
const REQUEST_BYTES: usize = 56;
/// Where in `struct inet_diag_msg` the socket's own port is.
const PORT_AT: usize = 4;

/// The ports of a protocol that a socket of the calling thread's network namespace is bound to, of any address.
///
/// # Errors
/// As the kernel, which need not have the module that tells.
pub(crate) fn ports(protocol: Protocol) -> Result<BTreeSet<u16>, Error> {
    let states = match protocol {
        Protocol::Tcp => TCP_STATES,
        Protocol::Udp | Protocol::Sctp => ALL_STATES,
    };
    let mut socket = Socket::open(Some(rustix::net::netlink::SOCK_DIAG))?;
    let mut found = BTreeSet::new();
    // A socket of IPv6 may hold the port of IPv4, too.
    for family in FAMILIES {
        let mut request = [0; REQUEST_BYTES];
        request[0] = family;
        request[1] = protocol.number();
        request[4..8].copy_from_slice(&states.to_ne_bytes());
        let what = format!("list sockets of {protocol}");
        let message =
            Message::unacknowledged(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, what).fixed(&request);
        socket.dump(message, |body| {
            let port = body.get(PORT_AT..).and_then(<[u8]>::first_chunk::<2>);
            found.extend(port.map(|port| u16::from_be_bytes(*port)));
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, TcpListener, UdpSocket};

    #[test]
    fn the_kernel_tells_of_who_is_bound() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        for (protocol, address) in [
            (Protocol::Tcp, tcp.local_addr()),
            (Protocol::Udp, udp.local_addr()),
        ] {
            let held = ports(protocol).unwrap();
            assert!(held.contains(&address.unwrap().port()), "{protocol}");
        }
    }
}
