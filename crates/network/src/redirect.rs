//! How a container's questions for names come to who answers them: port 53 of the resolver's address is translated to the port
//! that its supervisor listens on, in the container's network namespace. docs/adr/0007 says why it is not bound itself.

use crate::nft::{self, End, Family, Hook, KEY, Table, meta};
use crate::{Protocol, Result, link};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use sys::netlink::Socket;

/// The table in the container's network namespace.
const TABLE: Table<'_> = Table {
    family: Family::Inet,
    name: "hull_names",
};

/// The port of name servers.
const DOMAIN: u16 = 53;

/// Has what goes to port 53 of an address in a network namespace go to these ports of it, as long as the namespace lasts.
///
/// # Errors
/// As the kernel.
pub fn redirect_names(
    netns: BorrowedFd<'_>,
    address: Ipv4Addr,
    ports: &[(Protocol, u16)],
) -> Result<()> {
    link::inside(netns, || {
        let mut messages = TABLE.anew();
        let hook = Hook {
            kind: "nat",
            number: nft::OUTPUT,
            priority: -100,
        };
        messages.push(TABLE.chain("output", Some(hook)));
        for (protocol, port) in ports {
            let asked = vec![
                nft::load_meta(KEY, meta::L4PROTO),
                nft::equals(&[protocol.number()]),
                nft::payload(KEY, nft::TRANSPORT_HEADER, 2, 2),
                nft::equals(&DOMAIN.to_be_bytes()),
            ];
            let parts = [
                nft::family(false),
                nft::address_in(End::Destination, address.into(), 32),
                asked,
                nft::dnat_to(address.octets(), *port),
            ];
            messages.push(TABLE.rule("output", parts));
        }
        let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(nft::transaction(&mut socket, messages)?)
    })
}
