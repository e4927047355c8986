//! Who can reach a port of a container, and by which rule: what is known of the networks, held against what is in the kernel at
//! this moment. It says so where the two differ, and which chains of others have their say, too.

use crate::firewall::chain_of;
use crate::nft::live::{self, Chain};
use crate::nft::{FORWARD, OUTPUT, Table};
use crate::sets::{INTO, Published, element, set_of};
use crate::state::{Network, State, published};
use crate::{Endpoint, GatewayMode, PortMapping, Protocol, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use sys::netlink::Socket;

/// From where a port is reached, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Programs of the host.
    Host,
    /// Other machines.
    World,
    /// Containers of the same network.
    Network,
    /// Containers of the engine's other networks.
    OtherNetworks,
}

/// Whether a port is reached from somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// From where.
    pub from: Origin,
    /// Whether this engine lets it through.
    pub reached: bool,
    /// A sentence.
    pub why: String,
    /// The rule that decides; empty: none is needed.
    pub rule: String,
    /// The chains of others that packets from there pass, each as a sentence.
    pub others: Vec<String>,
}

/// What is to be said of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The container's address.
    pub address: SocketAddr,
    /// What is published for it; None: nothing.
    pub mapping: Option<PortMapping>,
    /// From everywhere.
    pub reaches: Vec<Reach>,
}

/// What the kernel has.
struct Live {
    chains: Vec<Chain>,
    /// The mappings that are in the maps, of those that are known.
    led: BTreeSet<PortMapping>,
    /// The engine's table.
    table: String,
}

impl State {
    /// Explains a port of an endpoint in each family that it has.
    pub(crate) fn explain(
        &mut self,
        key: &str,
        endpoint: &Endpoint,
        (protocol, port): (Protocol, u16),
    ) -> Result<Vec<Explanation>> {
        let (network, kernel) = self.in_force(key)?;
        let live = Live::read(kernel.firewall.asked(), endpoint)?;
        let mut found = Vec::new();
        for address in endpoint.addresses.iter().map(|address| address.address) {
            let leads_there = |mapping: &PortMapping| match mapping.is_on_loopback6() {
                true => endpoint.relayed_to() == Some(address),
                false => mapping.host_ip.is_ipv6() == address.is_ipv6(),
            };
            let is_meant = |mapping: &&PortMapping| {
                (mapping.protocol, mapping.container_port) == (protocol, port)
                    && leads_there(mapping)
            };
            let mappings: Vec<_> = endpoint.ports.iter().filter(is_meant).map(Some).collect();
            let mappings = if mappings.is_empty() {
                vec![None]
            } else {
                mappings
            };
            found.extend(mappings.into_iter().map(|mapping| {
                Explanation {
                    address: (address, port).into(),
                    mapping: mapping.copied(),
                    reaches: Case {
                        network,
                        live: &live,
                        address: (address, port).into(),
                        mapping,
                    }
                    .reaches(),
                }
            }));
        }
        Ok(found)
    }
}

impl Live {
    fn read((socket, table): (&mut Socket, Table<'_>), endpoint: &Endpoint) -> Result<Self> {
        let mut known = published(endpoint, &endpoint.ports);
        if let Some(address) = endpoint.relayed_to() {
            let relayed = endpoint.ports.iter().filter(|m| m.is_on_loopback6());
            known.extend(relayed.map(|mapping| (mapping, address)));
        }
        let mut led = BTreeSet::new();
        let mut sets = BTreeMap::new();
        for known in &known {
            let set = set_of(known);
            if !sets.contains_key(set.name) {
                sets.insert(set.name, table.keys(socket, set)?.unwrap_or_default());
            }
            if sets[set.name].contains(&element(known).0) {
                led.insert(*known.0);
            }
        }
        Ok(Self {
            chains: live::chains(socket)?,
            led,
            table: table.name.to_owned(),
        })
    }

    fn has_chain(&self, name: &str) -> bool {
        let mut chains = self.chains.iter();
        chains.any(|chain| chain.table == self.table && chain.name == name)
    }

    /// What others have where packets of a family pass.
    fn others(&self, hook: u32, is_ipv6: bool) -> Vec<String> {
        const INET: u8 = 1;
        let own_family = if is_ipv6 { 10 } else { 2 };
        let passes = |chain: &&Chain| {
            [INET, own_family].contains(&chain.family)
                && chain.hook == Some(hook)
                && chain.filters
                && chain.table != self.table
                && (chain.drops || chain.rules > 0)
        };
        let mut said: Vec<String> = self.chains.iter().filter(passes).map(sentence).collect();
        if has_legacy_filter(is_ipv6) {
            said.push("the table filter of iptables-legacy has a say, too".to_owned());
        }
        said
    }
}

fn sentence(chain: &Chain) -> String {
    let family = match chain.family {
        1 => "inet",
        2 => "ip",
        _ => "ip6",
    };
    let Chain {
        table, name, rules, ..
    } = chain;
    let place = format!("chain {name} of table {family} {table}");
    match (chain.drops, rules) {
        (true, 0) => format!("{place} drops everything"),
        (true, _) => format!("{place} drops what none of its rules lets through (it has {rules})"),
        (false, _) => format!("{place} lets through what none of its rules stops (it has {rules})"),
    }
}

/// iptables' older kernel interface, which nf_tables does not show.
fn has_legacy_filter(is_ipv6: bool) -> bool {
    let family = if is_ipv6 { "ip6" } else { "ip" };
    let names = std::fs::read_to_string(format!("/proc/net/{family}_tables_names"));
    names.is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// One way that a port is published, or that it is not.
struct Case<'a> {
    network: &'a Network,
    live: &'a Live,
    address: SocketAddr,
    mapping: Option<&'a PortMapping>,
}

impl Case<'_> {
    fn reaches(&self) -> Vec<Reach> {
        if let Some(uplink) = &self.network.config.uplink {
            let parent = uplink.parent.name();
            let address = self.address;
            let on_wire = format!(
                "Whoever is on the wire of {parent} reaches it at {address}, past this host and its firewall."
            );
            let not_host = format!("This host does not reach what is on its interface {parent}.");
            return vec![
                Reach::of(Origin::Host, false, not_host, String::new()),
                Reach::of(Origin::World, true, on_wire, String::new()),
            ];
        }
        let [host, world, others] = [self.host(), self.world(), self.other_networks()];
        let is_ipv6 = self.address.is_ipv6();
        let with_others = |reach: Reach, hook: u32| Reach {
            others: if reach.reached {
                self.live.others(hook, is_ipv6)
            } else {
                Vec::new()
            },
            ..reach
        };
        vec![
            with_others(host, OUTPUT),
            with_others(world, FORWARD),
            self.same_network(),
            with_others(others, FORWARD),
        ]
    }

    fn chain_into(&self) -> String {
        chain_of(INTO, &self.network.config.interface)
    }

    /// Where it is published, if that leads somewhere; `routed`: at the container's own address.
    fn led(&self, routed: bool) -> Option<&PortMapping> {
        let is_so = |mapping: &&PortMapping| {
            (mapping.host_port == 0) == routed && self.live.led.contains(mapping)
        };
        self.mapping.filter(is_so)
    }

    fn at(mapping: &PortMapping) -> String {
        if mapping.host_ip.is_unspecified() {
            return format!("every address of this host, port {}", mapping.host_port);
        }
        SocketAddr::new(mapping.host_ip, mapping.host_port).to_string()
    }

    fn rule_of(&self, mapping: &PortMapping, chain: &str) -> String {
        let published: Published<'_> = (mapping, self.address.ip());
        let PortMapping {
            protocol,
            host_ip,
            host_port,
            ..
        } = mapping;
        let ip = match host_ip.is_unspecified() {
            true => String::new(),
            false => format!(" . {host_ip}"),
        };
        let (map, to) = (set_of(&published).name, self.address);
        if mapping.is_on_loopback6() {
            return format!(
                "chain {chain}: map {map} has {protocol} . {host_port}, and the container's shim hands on to {to}"
            );
        }
        format!("chain {chain}: map {map} has {protocol} . {host_port}{ip} : {to}")
    }

    /// What a mapping that is known and not in the kernel is to everybody.
    fn is_missing(&self) -> Option<String> {
        let mapping = self.mapping.filter(|m| !self.live.led.contains(m))?;
        let map = set_of(&(mapping, self.address.ip())).name;
        Some(format!(
            "It is published, but {map} of table {} has no such element in the kernel now.",
            self.live.table
        ))
    }

    fn host(&self) -> Reach {
        let address = self.address;
        if !self.network.config.has_gateway(address.is_ipv6()) {
            let why = "The host has no address in the network.".to_owned();
            return Reach::of(Origin::Host, false, why, String::new());
        }
        let (why, rule) = match self.led(false) {
            Some(mapping) => (
                format!(
                    "Programs of this host reach it at {address}, and at {}.",
                    Self::at(mapping)
                ),
                self.rule_of(mapping, "output"),
            ),
            None => (
                format!("Programs of this host reach it at {address}."),
                String::new(),
            ),
        };
        Reach::of(Origin::Host, true, why, rule)
    }

    fn world(&self) -> Reach {
        let reach = |reached, why: String, rule| Reach::of(Origin::World, reached, why, rule);
        if let Some(reach) = self.is_closed(Origin::World) {
            return reach;
        }
        let into = self.chain_into();
        if let Some(mapping) = self.led(false) {
            let why = format!("Other machines reach it at {}.", Self::at(mapping));
            let rule = self.rule_of(mapping, "prerouting");
            return reach(
                true,
                why,
                format!("{rule}; chain {into}: ct status dnat accept"),
            );
        }
        let address = self.address;
        if self.led(true).is_some() {
            let set = set_of(&(self.mapping.expect("it is led"), address.ip())).name;
            let why = format!("Whoever has a route to it reaches it at {address}.");
            return reach(true, why, format!("chain {into}: set {set} has it"));
        }
        if self.gateway_mode() == GatewayMode::NatUnprotected {
            let why = format!(
                "Whoever has a route to it reaches it at {address}: the network is nat-unprotected."
            );
            return reach(true, why, format!("chain {into}: accept"));
        }
        let missing = self.is_missing();
        let why = missing.unwrap_or_else(|| "Nothing is published for it.".to_owned());
        reach(false, why, format!("chain {into}: drop"))
    }

    fn gateway_mode(&self) -> GatewayMode {
        let config = &self.network.config;
        if self.address.is_ipv6() {
            config.gateway_mode6
        } else {
            config.gateway_mode4
        }
    }

    fn other_networks(&self) -> Reach {
        let from = Origin::OtherNetworks;
        if let Some(reach) = self.is_closed(from) {
            return reach;
        }
        let into = self.chain_into();
        let world = self.world();
        let mode = match world.reached {
            true => {
                "Containers of networks that are not internal reach it, with their own addresses, at"
            }
            false => "Networks are kept apart, and nothing leads to it",
        };
        let why = match (world.reached, self.led(false)) {
            (true, Some(mapping)) => format!("{mode} {}.", Self::at(mapping)),
            (true, None) => format!("{mode} {}.", self.address),
            (false, _) => format!("{mode}."),
        };
        let rule = match world.reached {
            true => world.rule,
            false => format!("chain {into}: drop"),
        };
        Reach::of(from, world.reached, why, rule)
    }

    /// What is said of everybody else outside of the network when there is nothing to ask: it is internal, published for this
    /// host alone, or its rules are not there.
    fn is_closed(&self, from: Origin) -> Option<Reach> {
        let into = self.chain_into();
        if !self.live.has_chain(&into) {
            let why =
                format!("The network's chain {into} is not in the kernel now: nobody is kept out.");
            return Some(Reach::of(from, true, why, String::new()));
        }
        if self.network.config.internal {
            let rule = format!("chain {into}: drop");
            let why = "The network is internal: nothing comes in.".to_owned();
            return Some(Reach::of(from, false, why, rule));
        }
        let mapping = self.led(false).filter(|m| m.host_ip.is_loopback())?;
        let why = format!(
            "It is published for this host alone, at {}.",
            Self::at(mapping)
        );
        let rule = match mapping.host_ip.is_ipv6() {
            false => "chain guard: iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
            // Nobody else has that address: the kernel takes it from the loopback interface alone.
            true => "",
        };
        Some(Reach::of(from, false, why, rule.to_owned()))
    }

    fn same_network(&self) -> Reach {
        let reach = |reached, why: String, rule| Reach::of(Origin::Network, reached, why, rule);
        let interface = &self.network.config.interface;
        if self.network.config.icc {
            let address = self.address;
            let why = format!("Containers of the network reach it at {address}, on the bridge.");
            return reach(true, why, String::new());
        }
        match self.led(false).filter(|m| !m.host_ip.is_loopback()) {
            Some(mapping) => {
                let why = format!(
                    "Containers of the network reach it at {} alone.",
                    Self::at(mapping)
                );
                let into = self.chain_into();
                let rule = format!("chain {into}: iifname \"{interface}\" ct status dnat accept");
                reach(true, why, rule)
            }
            None => {
                let why = "Containers of the network do not reach each other (enable_icc=false).";
                let rule = format!("the ports of {interface} are isolated");
                reach(false, why.to_owned(), rule)
            }
        }
    }
}

impl Reach {
    fn of(from: Origin, reached: bool, why: String, rule: String) -> Self {
        Self {
            from,
            reached,
            why,
            rule,
            others: Vec::new(),
        }
    }
}
