//! The engine's firewall: one table for packets and one for frames, both with the default bridge's name, and everything that is
//! said about networks and published ports in them. Every change is one transaction, so that there is no moment without.
//!
//! docs/networks shows the whole ruleset of each scenario as nft(8) prints it. In short, of packets that are forwarded:
//!
//! - from an internal network: only within it (`from`);
//! - into a network of ours: what belongs to a connection, what comes from the network itself, what was published; nothing else
//!   (`into`).
//!
//! Publishing any number of ports adds map elements, never rules, and so does a network to what every packet passes: looking
//! one up costs the same however many there are. `guard` is there because bridges route to the loopback network
//! (`route_localnet`) for ports published to the host itself: without it a container could reach what listens on 127.0.0.1.

use crate::GatewayMode;
use crate::guard::{Guard, Guards};
use crate::nft::{self, Data, End, Expression, Family, Hook, KEY, Set, Table, ct};
use crate::sets::{
    BRIDGES, FROM, INTO, LOOPBACK6, OPEN, PUBLISHED, PUBLISHED_AT, Published, Relayed, SETS,
    by_set, relays,
};
use crate::subnet::Subnet;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use sys::netlink::{Error, Message, NLM_F_EXCL, Socket};

/// What the firewall has to know of a network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) interface: &'a str,
    /// Of each family the network and how the world reaches it.
    pub(crate) subnets: [Option<(Subnet, GatewayMode)>; 2],
    pub(crate) internal: bool,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
}

/// The firewall.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    name: String,
}

impl Firewall {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(Self {
            socket,
            name: name.to_owned(),
        })
    }

    fn table(&self) -> Table<'_> {
        Table {
            family: Family::Inet,
            name: &self.name,
        }
    }

    /// Its socket and its table, for who wants to know what is in the kernel.
    pub(crate) fn asked(&mut self) -> (&mut Socket, Table<'_>) {
        let table = Table {
            family: Family::Inet,
            name: &self.name,
        };
        (&mut self.socket, table)
    }

    /// The number by which the kernel tells others who has changed something.
    pub(crate) fn port_id(&self) -> Result<u32, Error> {
        self.socket.port_id()
    }

    /// Makes the table of packets anew with exactly this.
    pub(crate) fn rebuild(
        &mut self,
        networks: &[Rules<'_>],
        published: &[Published<'_>],
        relayed: &BTreeSet<Relayed>,
    ) -> Result<(), Error> {
        let table = self.table();
        let mut messages = table.anew();
        messages.extend(SETS.map(|set| table.set(set)));
        messages.extend(chains(table, networks));
        messages.extend(bridge_elements(table, networks));
        for (set, elements) in by_set(published) {
            messages.extend(table.add_elements(set, &elements, NLM_F_EXCL));
        }
        messages.extend(table.add_elements(LOOPBACK6, &relays(relayed), NLM_F_EXCL));
        nft::transaction(&mut self.socket, messages)
    }

    /// Has ports of ::1 handed on.
    pub(crate) fn relay(&mut self, relayed: &BTreeSet<Relayed>) -> Result<(), Error> {
        let elements = relays(relayed);
        let messages = self.table().add_elements(LOOPBACK6, &elements, NLM_F_EXCL);
        nft::transaction(&mut self.socket, messages)
    }

    /// Has them refused again. What is not there any more is no error.
    pub(crate) fn refuse(&mut self, relayed: &BTreeSet<Relayed>) -> Result<(), Error> {
        let elements = relays(relayed);
        self.remove(elements.len(), |table, at| {
            let elements = at.map_or(&elements[..], |at| &elements[at..=at]);
            table.remove_elements(LOOPBACK6, elements)
        })
    }

    /// Removes elements, all of them or the one at an index: one that is missing would fail them all.
    fn remove(
        &mut self,
        count: usize,
        removal: impl Fn(Table<'_>, Option<usize>) -> Vec<Message>,
    ) -> Result<(), Error> {
        let all = removal(self.table(), None);
        match nft::transaction(&mut self.socket, all) {
            Err(error) if error.errno == Errno::NOENT => {}
            result => return result,
        }
        for at in 0..count {
            let one = removal(self.table(), Some(at));
            match nft::transaction(&mut self.socket, one) {
                Err(error) if error.errno == Errno::NOENT => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Publishes.
    pub(crate) fn publish(&mut self, published: &[Published<'_>]) -> Result<(), Error> {
        let mut messages = Vec::new();
        for (set, elements) in by_set(published) {
            messages.extend(self.table().add_elements(set, &elements, NLM_F_EXCL));
        }
        nft::transaction(&mut self.socket, messages)
    }

    /// Takes back what was published. What is not there any more is no error.
    pub(crate) fn take_back(&mut self, published: &[Published<'_>]) -> Result<(), Error> {
        self.remove(published.len(), |table, at| {
            let published = at.map_or(published, |at| &published[at..=at]);
            let sets = by_set(published).into_iter();
            sets.flat_map(|(set, elements)| table.remove_elements(set, &elements))
                .collect()
        })
    }

    /// Has what arrives by an interface checked.
    pub(crate) fn guard(&mut self, guard: &Guard<'_>) -> Result<(), Error> {
        Guards::new(&self.name).set(&mut self.socket, guard)
    }

    /// Has what arrives by these interfaces checked, and by no others.
    pub(crate) fn guard_all(&mut self, guards: &[Guard<'_>]) -> Result<(), Error> {
        Guards::new(&self.name).replace(&mut self.socket, guards)
    }

    /// Forgets an interface that is gone.
    pub(crate) fn unguard(&mut self, interface: &str) -> Result<(), Error> {
        Guards::new(&self.name).remove(&mut self.socket, interface)
    }
}

/// The name of the chain for what goes into a bridge, or comes from an internal one.
pub(crate) fn chain_of(set: Set, interface: &str) -> String {
    format!("{}_{interface}", set.name)
}

/// The elements that know the bridges.
fn bridge_elements(table: Table<'_>, networks: &[Rules<'_>]) -> Vec<Message> {
    let key = |network: &Rules<'_>| nft::interface_bytes(network.interface);
    let to = |set: Set, network: &Rules<'_>| {
        (key(network), Data::Jump(chain_of(set, network.interface)))
    };
    let bridges: Vec<_> = networks.iter().map(|n| (key(n), Data::None)).collect();
    let into: Vec<_> = networks.iter().map(|n| to(INTO, n)).collect();
    let internal = networks.iter().filter(|network| network.internal);
    let from: Vec<_> = internal.map(|n| to(FROM, n)).collect();
    [(BRIDGES, bridges), (INTO, into), (FROM, from)]
        .into_iter()
        .flat_map(|(set, elements)| table.add_elements(set, &elements, NLM_F_EXCL))
        .collect()
}

fn chains(table: Table<'_>, networks: &[Rules<'_>]) -> Vec<Message> {
    let hook = |kind, number, priority| {
        Some(Hook {
            kind,
            number,
            priority,
        })
    };
    let mut messages = vec![
        table.chain("guard", hook("filter", nft::PREROUTING, -300)),
        table.chain("prerouting", hook("nat", nft::PREROUTING, -100)),
        table.chain("output", hook("nat", nft::OUTPUT, -100)),
        table.chain("postrouting", hook("nat", nft::POSTROUTING, 100)),
        table.chain("forward", hook("filter", nft::FORWARD, 0)),
    ];
    let loopback = [
        nft::not_from("lo"),
        nft::family(false),
        nft::address_in(End::Destination, LOOPBACK.into(), LOOPBACK_PREFIX),
        nft::drop(),
    ];
    messages.push(table.rule("guard", loopback));
    for (set, interface) in [(FROM, nft::meta::IIFNAME), (INTO, nft::meta::OIFNAME)] {
        let look = vec![nft::load_meta(KEY, interface), nft::look_up(set, true)];
        messages.push(table.rule("forward", [look]));
    }
    messages.extend(translations(table, networks));
    for network in networks {
        messages.extend(filters(table, network));
    }
    messages
}

/// The rules that accept and drop what goes into a network, or comes from an internal one.
fn filters(table: Table<'_>, network: &Rules<'_>) -> Vec<Message> {
    let bridge = network.interface;
    let into = chain_of(INTO, bridge);
    let mut messages = vec![table.chain(&into, None)];
    let mut add = |chain: &str, parts: Vec<Vec<Expression>>| {
        messages.push(table.rule(chain, parts));
    };
    let published = || nft::conntrack(ct::STATUS, ct::DNAT);
    if !network.internal {
        let known = nft::conntrack(ct::STATE, ct::ESTABLISHED_OR_RELATED);
        add(&into, vec![known, nft::accept()]);
    }
    if !network.icc && !network.internal {
        add(&into, vec![nft::from(bridge), published(), nft::accept()]);
    }
    let verdict = if network.icc {
        nft::accept()
    } else {
        nft::drop()
    };
    add(&into, vec![nft::from(bridge), verdict]);
    if !network.internal {
        add(&into, vec![published(), nft::accept()]);
        for (is_ipv6, subnet) in [false, true].into_iter().zip(network.subnets) {
            let family = nft::family(is_ipv6);
            match subnet {
                Some((_, GatewayMode::NatUnprotected)) => add(&into, vec![family, nft::accept()]),
                Some((_, GatewayMode::Routed)) => {
                    let open = look_up(OPEN[usize::from(is_ipv6)], is_ipv6);
                    add(&into, vec![family.clone(), open, nft::accept()]);
                    add(&into, vec![family, icmp(is_ipv6), nft::accept()]);
                }
                _ => {}
            }
        }
    }
    add(&into, vec![nft::drop()]);
    if network.internal {
        let from = chain_of(FROM, bridge);
        messages.push(table.chain(&from, None));
        messages.push(table.rule(&from, [nft::not_into(bridge), nft::drop()]));
    }
    messages
}

fn icmp(is_ipv6: bool) -> Vec<Expression> {
    let number = if is_ipv6 { 58 } else { 1 };
    vec![
        nft::load_meta(KEY, nft::meta::L4PROTO),
        nft::equals(&[number]),
    ]
}

/// The rules that translate addresses.
fn translations(table: Table<'_>, networks: &[Rules<'_>]) -> Vec<Message> {
    let mut messages = Vec::new();
    // There is no way from ::1 to another interface (RFC 4291 section 2.5.3): a socket of this host hands connections on.
    let to_loopback = || nft::address_in(End::Destination, Ipv6Addr::LOCALHOST.into(), 128);
    let relayed = look_up(LOOPBACK6, true);
    let parts = [nft::family(true), to_loopback(), relayed, nft::redirect()];
    messages.push(table.rule("output", parts));
    messages.push(table.rule("output", [nft::family(true), to_loopback(), nft::go_back()]));
    for chain in ["prerouting", "output"] {
        for is_ipv6 in [false, true] {
            for sets in [PUBLISHED_AT, PUBLISHED] {
                let found = look_up(sets[usize::from(is_ipv6)], is_ipv6);
                let translate = vec![nft::dnat(is_ipv6)];
                let parts = [nft::family(is_ipv6), nft::to_local(), found, translate];
                messages.push(table.rule(chain, parts));
            }
        }
    }
    let each = || {
        networks.iter().flat_map(|network| {
            let subnets = network.subnets.into_iter().flatten();
            subnets.map(move |(subnet, mode)| (network, subnet, mode))
        })
    };
    let mut add = |parts: Vec<Vec<Expression>>| messages.push(table.rule("postrouting", parts));
    for (network, subnet, _) in each().filter(|(network, ..)| !network.internal) {
        let family = || nft::family(subnet.is_ipv6());
        let into = || nft::into(network.interface);
        // From the host's loopback network; and a container by way of a published port of its own network.
        if !subnet.is_ipv6() {
            let loopback = nft::address_in(End::Source, LOOPBACK.into(), LOOPBACK_PREFIX);
            add(vec![into(), family(), loopback, nft::masquerade()]);
        }
        let ours = nft::address_in(End::Source, subnet.network(), subnet.prefix());
        let published = nft::conntrack(ct::STATUS, ct::DNAT);
        add(vec![into(), family(), ours, published, nft::masquerade()]);
    }
    // Between networks of ours everybody keeps their address.
    let to_ours = vec![
        nft::load_meta(KEY, nft::meta::OIFNAME),
        nft::look_up(BRIDGES, true),
    ];
    add(vec![to_ours, nft::go_back()]);
    for (network, subnet, mode) in each() {
        let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        if translated && network.masquerade && !network.internal {
            let ours = nft::address_in(End::Source, subnet.network(), subnet.prefix());
            add(vec![nft::family(subnet.is_ipv6()), ours, nft::masquerade()]);
        }
    }
    messages
}

/// 127.0.0.0/8
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);
const LOOPBACK_PREFIX: u8 = 8;

/// Looks protocol, port, and where the key has it the destination up.
fn look_up(set: Set, is_ipv6: bool) -> Vec<Expression> {
    let mut key = vec![
        nft::load_meta(KEY, nft::meta::L4PROTO),
        nft::payload(KEY + 1, nft::TRANSPORT_HEADER, 2, 2),
    ];
    if set.key.len() == 3 {
        key.push(nft::load_address(KEY + 2, End::Destination, is_ipv6));
    }
    key.push(nft::look_up(set, true));
    key
}
