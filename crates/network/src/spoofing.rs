//! Nobody on a bridge speaks in another's name: the rules for frames that containers send.
//!
//! A port of a container carries frames from its own hardware address only, in ARP and IP with its own addresses only, and no
//! router advertisements, redirects or neighbour advertisements for others (CVE-2020-13401, CVE-2020-10749). Everything that is
//! not ARP, IPv4 or IPv6 is dropped: what nobody checks nobody sends. A network can turn that off for containers that give
//! themselves further addresses.
//!
//! Sources: RFC 826, RFC 4861 section 4; linux/netfilter/nf_tables.h.

use crate::nft::{
    self, Data, End, Expression, Hook, KEY, LINK_HEADER, NETWORK_HEADER, Set, TRANSPORT_HEADER,
    Table, ethertype, meta, types,
};
use std::net::{IpAddr, Ipv6Addr};
use sys::netlink::Message;

/// The hosts' ends of containers' interfaces.
const PORTS: Set = Set {
    name: "ports",
    id: 20,
    key: &[types::IFNAME],
    data: &[],
};

/// Their hardware addresses.
const MACS: Set = Set {
    name: "macs",
    id: 21,
    key: &[types::IFNAME, types::ETHER],
    data: &[],
};

/// And with each of them their addresses.
const ADDRESSES4: Set = Set {
    name: "addresses4",
    id: 22,
    key: &[types::IFNAME, types::ETHER, types::IPV4],
    data: &[],
};

const ADDRESSES6: Set = Set {
    name: "addresses6",
    id: 23,
    key: &[types::IFNAME, types::ETHER, types::IPV6],
    data: &[],
};

const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// A container's place on a bridge.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// The host's end.
    pub(crate) interface: String,
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpAddr>,
}

/// The table and its rules, without members.
pub(crate) fn rules(table: Table<'_>) -> Vec<Message> {
    let mut messages = table.anew();
    messages.extend([PORTS, MACS, ADDRESSES4, ADDRESSES6].map(|set| table.set(set)));
    let hook = Hook {
        kind: "filter",
        number: nft::PREROUTING,
        priority: -200,
    };
    messages.push(table.chain("prerouting", Some(hook)));
    messages.push(table.chain("member", None));
    let ours = vec![
        nft::load_meta(KEY, meta::IIFNAME),
        nft::look_up(PORTS, true),
    ];
    for parts in [
        vec![nft::carries(ethertype::IPV4), source(false), nft::accept()],
        vec![
            nft::carries(ethertype::IPV6),
            not_icmpv6(),
            source(true),
            nft::accept(),
        ],
        vec![ours, nft::jump("member")],
    ] {
        messages.push(table.rule("prerouting", parts));
    }
    messages.extend(
        checks()
            .into_iter()
            .map(|parts| table.rule("member", parts)),
    );
    messages
}

/// What a member may send beside packets of its own, which have passed already by one look-up; rule by rule, each with its verdict.
fn checks() -> Vec<Vec<Vec<Expression>>> {
    let mac_at = |header, offset| nft::payload(MAC, header, offset, 6);
    let is_others_mac = |header, offset| owned(vec![mac_at(header, offset)], MACS, false);
    let arp_source = vec![
        mac_at(NETWORK_HEADER, 8),
        nft::payload(ADDRESS, NETWORK_HEADER, 14, 4),
    ];
    let target = vec![
        mac_at(LINK_HEADER, 6),
        nft::payload(ADDRESS, TRANSPORT_HEADER, 8, 16),
    ];
    // A probe: who asks has no address yet.
    let no_arp_source = vec![
        nft::payload(KEY, NETWORK_HEADER, 14, 4),
        nft::equals(&[0; 4]),
    ];
    let no_source = vec![
        nft::load_address(KEY, End::Source, true),
        nft::equals(&[0; 16]),
    ];
    let advertises = icmpv6(NEIGHBOUR_ADVERTISEMENT);
    vec![
        vec![is_others_mac(LINK_HEADER, 6), nft::drop()],
        vec![
            nft::carries(ethertype::ARP),
            is_others_mac(NETWORK_HEADER, 8),
            nft::drop(),
        ],
        vec![
            nft::carries(ethertype::ARP),
            owned(arp_source, ADDRESSES4, true),
            nft::accept(),
        ],
        vec![nft::carries(ethertype::ARP), no_arp_source, nft::accept()],
        vec![
            nft::carries(ethertype::IPV6),
            icmpv6(ROUTER_ADVERTISEMENT),
            nft::drop(),
        ],
        vec![nft::carries(ethertype::IPV6), icmpv6(REDIRECT), nft::drop()],
        vec![
            nft::carries(ethertype::IPV6),
            advertises,
            owned(target, ADDRESSES6, false),
            nft::drop(),
        ],
        vec![nft::carries(ethertype::IPV6), source(true), nft::accept()],
        vec![nft::carries(ethertype::IPV6), no_source, nft::accept()],
        vec![nft::drop()],
    ]
}

/// The packet comes from an address of the port it comes by.
fn source(is_ipv6: bool) -> Vec<Expression> {
    let set = if is_ipv6 { ADDRESSES6 } else { ADDRESSES4 };
    let load = vec![
        nft::payload(MAC, LINK_HEADER, 6, 6),
        nft::load_address(ADDRESS, End::Source, is_ipv6),
    ];
    owned(load, set, true)
}

fn icmpv6(kind: u8) -> Vec<Expression> {
    vec![
        nft::load_meta(KEY, meta::L4PROTO),
        nft::equals(&[ICMPV6]),
        nft::payload(KEY, TRANSPORT_HEADER, 0, 1),
        nft::equals(&[kind]),
    ]
}

fn not_icmpv6() -> Vec<Expression> {
    vec![nft::load_meta(KEY, meta::L4PROTO), nft::differs(&[ICMPV6])]
}

/// Where the parts of a key lie behind the port's name.
const MAC: u32 = KEY + 4;
const ADDRESS: u32 = MAC + 2;

/// The port has what is loaded behind its name, or has not.
fn owned(load: Vec<Expression>, set: Set, is_in: bool) -> Vec<Expression> {
    let mut look = vec![nft::load_meta(KEY, meta::IIFNAME)];
    look.extend(load);
    look.push(nft::look_up(set, is_in));
    look
}

/// Lets members send what is their own.
pub(crate) fn admission(table: Table<'_>, members: &[Member]) -> Vec<Message> {
    let sets = [PORTS, MACS, ADDRESSES4, ADDRESSES6];
    let messages = sets.into_iter().flat_map(|set| {
        let elements: Vec<_> = members.iter().flat_map(|m| elements(m, set)).collect();
        table.add_elements(set, &elements, 0)
    });
    messages.collect()
}

/// Forgets a member; the port itself last, so that nothing is open in between.
pub(crate) fn expulsion(table: Table<'_>, member: &Member) -> Vec<Message> {
    let sets = [ADDRESSES6, ADDRESSES4, MACS, PORTS];
    let messages = sets
        .into_iter()
        .flat_map(|set| table.remove_elements(set, &elements(member, set)));
    messages.collect()
}

fn elements(member: &Member, set: Set) -> Vec<nft::Element> {
    let name = nft::interface_bytes(&member.interface);
    let keyed = |bytes: Vec<u8>| ([name.clone(), bytes].concat(), Data::None);
    // A key's parts are padded to 32 bits.
    let mac = [&member.mac[..], &[0; 2]].concat();
    let own_ipv6 = || {
        let has_ipv6 = member.addresses.iter().any(IpAddr::is_ipv6);
        has_ipv6.then(|| link_local(member.mac))
    };
    match set.name {
        "ports" => vec![keyed(Vec::new())],
        "macs" => vec![keyed(mac)],
        "addresses4" => {
            let own = member.addresses.iter().filter_map(|address| match address {
                IpAddr::V4(v4) => Some(keyed([&mac[..], &v4.octets()].concat())),
                IpAddr::V6(_) => None,
            });
            own.collect()
        }
        _ => {
            let own = member.addresses.iter().filter_map(|address| match address {
                IpAddr::V6(v6) => Some(*v6),
                IpAddr::V4(_) => None,
            });
            own.chain(own_ipv6())
                .map(|v6| keyed([&mac[..], &v6.octets()].concat()))
                .collect()
        }
    }
}

/// The address that an interface gives itself: RFC 4291 appendix A.
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_names_itself_by_its_hardware_address() {
        let own = link_local([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(own.to_string(), "fe80::42:acff:fe11:2");
    }
}
