//! How a container's questions for names come to who answers them: port 53 of the resolver's address is translated to the port
//! that its supervisor listens on, in the container's network namespace. Ports are rewritten packet by packet: translation by
//! nf_tables would have the kernel track every connection of the container. That is done where packets arrive by the loopback device,
//! so that what goes to other machines meets no rule. docs/adr/0007 says why port 53 is not bound itself.

use crate::nft::{self, End, Family, KEY, Table, live, meta};
use crate::{Failure, Protocol, Result, link};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use sys::netlink::{Message, Socket};

/// The table in the container's network namespace.
const TABLE: Table<'_> = Table {
    family: Family::Netdev,
    name: "hull_names",
};

/// Where every packet arrives that stays in the namespace.
const LOOPBACK: &str = "lo";

/// The port of name servers.
const DOMAIN: u16 = 53;

/// Where ports are in the headers of transports: RFC 768, RFC 9293.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// Where the checksum is.
fn checksum(protocol: Protocol) -> Result<u32> {
    match protocol {
        Protocol::Tcp => Ok(16),
        Protocol::Udp => Ok(6),
        Protocol::Sctp => Err(Failure::Invalid(
            "nobody asks for names over sctp".to_owned(),
        )),
    }
}

/// Has what goes to port 53 of an address in a network namespace go to these ports of it, as long as the namespace lasts. Where it
/// does already, nothing is changed.
///
/// # Errors
/// As the kernel.
pub fn redirect_names(
    netns: BorrowedFd<'_>,
    address: Ipv4Addr,
    ports: &[(Protocol, u16)],
) -> Result<()> {
    link::inside(netns, || {
        let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        // Deleting a table costs whoever closes the socket a grace period of the kernel, longer than all of the rest of a start, and
        // so does failing to make one: it is looked for first.
        let mut chains = live::chains(&mut socket)?.into_iter();
        let name = chain_of(ports);
        let mut messages = match chains.find(|chain| chain.table == TABLE.name) {
            Some(chain) if chain.name == name => return Ok(()),
            Some(_) => TABLE.anew(),
            None => vec![TABLE.present()],
        };
        messages.extend(rules(&name, address, ports)?);
        Ok(nft::transaction(&mut socket, messages)?)
    })
}

/// The name of the chain for these ports, which tells the next engine that it is there: a transaction makes all of it, and a grace
/// period for each container that runs is what a new engine would take longest for.
fn chain_of(ports: &[(Protocol, u16)]) -> String {
    let words = { ports.iter() }.map(|(protocol, port)| format!("{protocol}_{port}"));
    words.collect::<Vec<_>>().join("_")
}

/// What the table has in it.
fn rules(chain: &str, address: Ipv4Addr, ports: &[(Protocol, u16)]) -> Result<Vec<Message>> {
    let mut messages = vec![TABLE.ingress_chain(chain, LOOPBACK)];
    for (protocol, port) in ports {
        let checksum = checksum(*protocol)?;
        let asked = (End::Destination, DESTINATION_PORT, DOMAIN, *port);
        let answered = (End::Source, SOURCE_PORT, *port, DOMAIN);
        for (end, at, from, to) in [asked, answered] {
            let found = vec![
                nft::load_meta(KEY, meta::L4PROTO),
                nft::equals(&[protocol.number()]),
                nft::payload(KEY, nft::TRANSPORT_HEADER, at, 2),
                nft::equals(&from.to_be_bytes()),
            ];
            let parts = [
                nft::carries(nft::ethertype::IPV4),
                nft::address_in(end, address.into(), 32),
                found,
                nft::rewrite(at, to.to_be_bytes(), checksum),
            ];
            messages.push(TABLE.rule(chain, parts));
        }
    }
    Ok(messages)
}
