//! Nobody on a bridge speaks in another's name: what a container may send.
//!
//! A port of a container carries frames from its own hardware address only, in ARP and IP with its own addresses only, and no
//! router advertisements, redirects or neighbour advertisements for others (CVE-2020-13401, CVE-2020-10749). Everything that is
//! not ARP, IPv4 or IPv6 is dropped: what nobody checks nobody sends. A network can turn that off for containers that give
//! themselves further addresses.
//!
//! Sources: RFC 826, RFC 4861 section 4; linux/netfilter/nf_tables.h.

use crate::nft::{
    self, End, Expression, KEY, LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER, ethertype, meta,
};
use std::net::{IpAddr, Ipv6Addr};

const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where the sender stands in a frame.
const SENDER: u32 = 6;

/// Where the sender stands in ARP: its hardware address, and behind it its IPv4 address.
const ARP_SENDER: u32 = 8;

/// Where a neighbour advertisement says whose address it tells.
const TARGET: u32 = 8;

/// A rule, in parts: the last is its verdict.
pub(crate) type Rule = Vec<Vec<Expression>>;

/// Whose a container's place on a bridge is.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpAddr>,
}

impl Member {
    /// What it may send, and nothing else. What it sends most is asked for first, with the fewest comparisons.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let (mut rules, mut others) = (Vec::new(), Vec::new());
        // Who has any address of IPv6 has one that its interface gives itself.
        let has_ipv6 = self.addresses.iter().any(IpAddr::is_ipv6);
        let own = has_ipv6.then(|| link_local(self.mac).into());
        let mut neighbours = vec![
            nft::carries(ethertype::IPV6),
            icmpv6(NEIGHBOUR_ADVERTISEMENT),
        ];
        for address in self.addresses.iter().copied().chain(own) {
            match address {
                IpAddr::V4(v4) => {
                    let packet = nft::payload(KEY, NETWORK_HEADER, 12, 4);
                    let packet = vec![packet, nft::equals(&v4.octets())];
                    rules.push(vec![self.sends(ethertype::IPV4), packet, nft::accept()]);
                    others.push(self.asks(v4.octets()));
                }
                IpAddr::V6(v6) => {
                    let source = is_from(v6);
                    let frame = self.sends(ethertype::IPV6);
                    rules.push(vec![frame, not_icmpv6(), source.clone(), nft::accept()]);
                    others.push(vec![nft::carries(ethertype::IPV6), source, nft::accept()]);
                    let target = nft::payload(KEY, TRANSPORT_HEADER, TARGET, 16);
                    neighbours.push(vec![target, nft::differs(&v6.octets())]);
                }
            }
        }
        neighbours.push(nft::drop());
        let sender = nft::payload(KEY, LINK_HEADER, SENDER, 6);
        let forged = vec![sender, nft::differs(&self.mac)];
        rules.push(vec![forged, nft::drop()]);
        for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
            let ipv6 = nft::carries(ethertype::IPV6);
            rules.push(vec![ipv6, icmpv6(kind), nft::drop()]);
        }
        rules.push(neighbours);
        rules.append(&mut others);
        // Probes: who asks has no address yet.
        rules.push(self.asks([0; 4]));
        let unspecified = is_from(Ipv6Addr::UNSPECIFIED);
        let ipv6 = nft::carries(ethertype::IPV6);
        rules.push(vec![ipv6, unspecified, nft::accept()]);
        rules.push(vec![nft::drop()]);
        rules
    }

    /// A frame of its own that carries this.
    fn sends(&self, ethertype: u16) -> Vec<Expression> {
        let mut frame = nft::carries(ethertype);
        frame.push(nft::payload(KEY, LINK_HEADER, SENDER, 6));
        frame.push(nft::equals(&self.mac));
        frame
    }

    /// It asks, or answers, in ARP as who has this address.
    fn asks(&self, address: [u8; 4]) -> Rule {
        let sender = vec![
            nft::payload(KEY, NETWORK_HEADER, ARP_SENDER, 10),
            nft::equals(&[&self.mac[..], &address].concat()),
        ];
        vec![nft::carries(ethertype::ARP), sender, nft::accept()]
    }
}

fn is_from(address: Ipv6Addr) -> Vec<Expression> {
    vec![
        nft::load_address(KEY, End::Source, true),
        nft::equals(&address.octets()),
    ]
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
