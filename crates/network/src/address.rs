//! Addresses and routes of both families: rtnetlink(7).

use crate::subnet::Subnet;
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use sys::netlink::{Error, Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Nobody else can have the address: it is used at once, without asking the others first.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// How many default routes of one family are removed at most.
const DEFAULT_ROUTES_MAX: usize = 64;

fn family(is_ipv6: bool) -> u8 {
    if is_ipv6 { AF_INET6 } else { AF_INET }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn from_octets(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into());
    v4().or_else(|_| v6()).ok()
}

/// Gives an interface an address.
pub(crate) fn add_address(index: u32, name: &str, address: IpAddr, prefix: u8) -> Message {
    let mut ifaddr = [family(address.is_ipv6()), prefix, 0, 0, 0, 0, 0, 0];
    if address.is_ipv6() {
        ifaddr[2] = IFA_F_NODAD;
    }
    ifaddr[4..].copy_from_slice(&index.to_ne_bytes());
    let message = Message::new(
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add address {address}/{prefix} to {name}"),
    )
    .fixed(&ifaddr)
    .attribute(IFA_LOCAL, &octets(address))
    .attribute(IFA_ADDRESS, &octets(address));
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            message.attribute(IFA_BROADCAST, &(v4.to_bits() | mask).to_be_bytes())
        }
        IpAddr::V6(_) => message,
    }
}

fn default_route(is_ipv6: bool) -> [u8; 12] {
    let mut rtmsg = [0; 12];
    rtmsg[0] = family(is_ipv6);
    rtmsg[4..8].copy_from_slice(&[RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST]);
    rtmsg
}

/// The way to everywhere by a gateway that an interface reaches; an unspecified one: by the interface itself.
pub(crate) fn add_default_route(index: u32, gateway: IpAddr) -> Message {
    let mut rtmsg = default_route(gateway.is_ipv6());
    if gateway.is_unspecified() {
        rtmsg[6] = RT_SCOPE_LINK;
        let what = "add the default route by the interface";
        return Message::new(RTM_NEWROUTE, NLM_F_CREATE, what)
            .fixed(&rtmsg)
            .number(RTA_OIF, index);
    }
    let what = format!("add the default route by {gateway}");
    Message::new(RTM_NEWROUTE, NLM_F_CREATE, what)
        .fixed(&rtmsg)
        .number(RTA_OIF, index)
        .attribute(RTA_GATEWAY, &octets(gateway))
}

/// Removes every default route of a family.
pub(crate) fn remove_default_routes(socket: &mut Socket, is_ipv6: bool) -> Result<(), Error> {
    for _ in 0..DEFAULT_ROUTES_MAX {
        let mut rtmsg = default_route(is_ipv6);
        // Whoever made it, and by whatever it leads.
        rtmsg[5] = 0;
        rtmsg[6] = RT_SCOPE_NOWHERE;
        let message = Message::new(RTM_DELROUTE, 0, "remove a default route").fixed(&rtmsg);
        match socket.send(vec![message]) {
            // None is left, or there is none of the family yet.
            Err(error) if matches!(error.errno, Errno::SRCH | Errno::NOENT) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// The addresses of an interface, with their prefix lengths; IPv6's own for the link left out.
pub(crate) fn addresses_of(socket: &mut Socket, index: u32) -> Result<Vec<(IpAddr, u8)>, Error> {
    let mut found = Vec::new();
    let message = Message::unacknowledged(RTM_GETADDR, NLM_F_DUMP, "list addresses").fixed(&[0; 8]);
    socket.dump(message, |body| {
        let Some(fixed) = body.first_chunk::<8>() else {
            return;
        };
        if u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) != index {
            return;
        }
        let of = |wanted| attributes(&body[8..]).find(|(kind, _)| *kind == wanted);
        // IPv6 has the one attribute only.
        let value = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS));
        let address = value.and_then(|(_, value)| from_octets(value));
        let is_link_local =
            |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        found.extend(
            address
                .filter(|address| !is_link_local(address))
                .map(|a| (a, fixed[1])),
        );
    })?;
    Ok(found)
}

/// The networks the host has routes to, default routes left out.
pub(crate) fn routed_networks(socket: &mut Socket) -> Result<Vec<Subnet>, Error> {
    let mut found = Vec::new();
    for is_ipv6 in [false, true] {
        let mut rtmsg = [0; 12];
        rtmsg[0] = family(is_ipv6);
        let message =
            Message::unacknowledged(RTM_GETROUTE, NLM_F_DUMP, "list routes").fixed(&rtmsg);
        socket.dump(message, |body| {
            let prefix = body.get(1).copied().filter(|prefix| *prefix > 0);
            let destination =
                attributes(body.get(12..).unwrap_or_default()).find(|(kind, _)| *kind == RTA_DST);
            let address = destination.and_then(|(_, value)| from_octets(value));
            let subnet = prefix.zip(address).and_then(|(prefix, address)| Subnet::new(address, prefix));
            // Every machine has these, and nobody gives addresses of them to containers.
            let is_special = |subnet: &Subnet| {
                matches!(subnet.network(), IpAddr::V6(v6) if v6.is_multicast() || v6.is_unicast_link_local() || v6.is_loopback())
            };
            found.extend(subnet.filter(|subnet| !is_special(subnet)));
        })?;
    }
    Ok(found)
}
