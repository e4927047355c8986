//! The sets and maps of the firewall's table, and what is in them of published ports: one element each, however many there are.

use crate::nft::{self, Data, Set, types};
use crate::{PortMapping, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The bridges of the engine.
pub(crate) const BRIDGES: Set = Set {
    name: "bridges",
    id: 1,
    key: &[types::IFNAME],
    data: &[],
};

/// From an internal bridge to its chain.
pub(crate) const FROM: Set = Set {
    name: "from",
    id: 2,
    data: &[types::VERDICT],
    ..BRIDGES
};

/// Into a bridge to its chain.
pub(crate) const INTO: Set = Set {
    name: "into",
    id: 3,
    ..FROM
};

/// What is published on one address of the host.
pub(crate) const PUBLISHED_AT: [Set; 2] = [
    Set {
        name: "published4_at",
        id: 4,
        key: &[types::PROTOCOL, types::SERVICE, types::IPV4],
        data: &[types::IPV4, types::SERVICE],
    },
    Set {
        name: "published6_at",
        id: 5,
        key: &[types::PROTOCOL, types::SERVICE, types::IPV6],
        data: &[types::IPV6, types::SERVICE],
    },
];

/// What is published on all of them.
pub(crate) const PUBLISHED: [Set; 2] = [
    Set {
        name: "published4",
        id: 6,
        key: &[types::PROTOCOL, types::SERVICE],
        ..PUBLISHED_AT[0]
    },
    Set {
        name: "published6",
        id: 7,
        key: &[types::PROTOCOL, types::SERVICE],
        ..PUBLISHED_AT[1]
    },
];

/// What of containers in routed networks is open.
pub(crate) const OPEN: [Set; 2] = [
    Set {
        name: "open4",
        id: 8,
        data: &[],
        ..PUBLISHED_AT[0]
    },
    Set {
        name: "open6",
        id: 9,
        data: &[],
        ..PUBLISHED_AT[1]
    },
];

/// Where connections from ::1 are handed on.
pub(crate) const LOOPBACK6: Set = Set {
    name: "loopback6",
    id: 10,
    data: &[types::SERVICE],
    ..PUBLISHED[1]
};

pub(crate) const SETS: [Set; 10] = [
    BRIDGES,
    FROM,
    INTO,
    PUBLISHED_AT[0],
    PUBLISHED_AT[1],
    PUBLISHED[0],
    PUBLISHED[1],
    OPEN[0],
    OPEN[1],
    LOOPBACK6,
];

/// A mapping, and the address of the container it leads to.
pub(crate) type Published<'a> = (&'a PortMapping, IpAddr);

/// A port of ::1, and the one that connections to it are led to.
pub(crate) type Relayed = (u16, u16);

/// The elements for mappings, each with the set it belongs to.
pub(crate) fn by_set(published: &[Published<'_>]) -> Vec<(Set, Vec<nft::Element>)> {
    let sets = [PUBLISHED_AT, PUBLISHED, OPEN].concat();
    let of = |set: Set| {
        let own = published
            .iter()
            .filter(|element| set_of(element).name == set.name);
        (set, own.map(element).collect::<Vec<_>>())
    };
    sets.into_iter().map(of).collect()
}

/// The set that a mapping belongs to.
pub(crate) fn set_of((mapping, address): &Published<'_>) -> Set {
    let family = usize::from(address.is_ipv6());
    match mapping {
        mapping if mapping.is_on_loopback6() => LOOPBACK6,
        PortMapping { host_port: 0, .. } => OPEN[family],
        mapping if mapping.host_ip.is_unspecified() => PUBLISHED[family],
        _ => PUBLISHED_AT[family],
    }
}

/// A port in a key, or as a result.
fn service(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The elements for ports of ::1.
pub(crate) fn relays(relayed: &BTreeSet<Relayed>) -> Vec<nft::Element> {
    let element = |(port, to): &Relayed| {
        let mut key = vec![Protocol::Tcp.number(), 0, 0, 0];
        key.extend(service(*port));
        (key, Data::Bytes(service(*to).to_vec()))
    };
    relayed.iter().map(element).collect()
}

/// Its element there.
pub(crate) fn element((mapping, address): &Published<'_>) -> nft::Element {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let key = |port, address: Option<IpAddr>| {
        let mut key = vec![mapping.protocol.number(), 0, 0, 0];
        key.extend(service(port));
        key.extend(address.map(octets).unwrap_or_default());
        key
    };
    if mapping.host_port == 0 {
        return (key(mapping.container_port, Some(*address)), Data::None);
    }
    let is_in_key = |ip: &IpAddr| !ip.is_unspecified() && !mapping.is_on_loopback6();
    let specific = Some(mapping.host_ip).filter(is_in_key);
    let mut data = octets(*address);
    data.extend(service(mapping.container_port));
    (key(mapping.host_port, specific), Data::Bytes(data))
}
