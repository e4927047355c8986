//! What is known of the networks of an engine, and how the kernel is brought to it.

use crate::configure::prepare_host;
use crate::firewall::{Firewall, Rules};
use crate::guard::Guard;
use crate::ipam::{self, Pool};
use crate::link;
use crate::ports::Ports;
use crate::sets::{Published, Relayed};
use crate::spoofing::Member;
use crate::subnet::Subnet;
use crate::{
    Address, AddressPool, Addressing, BridgeConfig, Endpoint, Failure, PortMapping, Range, Rate,
    Result, address, watch,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sys::netlink::Socket;

#[derive(Debug)]
pub(crate) struct State {
    /// The name of the firewall's tables.
    pub(crate) table: String,
    /// What networks are chosen from; none of a family: the defaults.
    pub(crate) address_pools: Vec<AddressPool>,
    pub(crate) networks: BTreeMap<String, Network>,
    pub(crate) ports: Ports,
    /// Some once any bridge exists.
    pub(crate) kernel: Option<Kernel>,
    /// Of links that could not be deleted, for the next call that can tell of them.
    pub(crate) late_errors: Vec<Failure>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) links: Socket,
    pub(crate) firewall: Firewall,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) config: BridgeConfig,
    /// Of the families that have been chosen or were fixed.
    pub(crate) pools: [Option<Pool>; 2],
    /// The bridge's index, once it exists.
    pub(crate) index: Option<u32>,
    /// By the host's end.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// Of those that have a limit, likewise.
    pub(crate) rates: BTreeMap<String, Rate>,
}

impl Network {
    pub(crate) fn rules(&self) -> Rules<'_> {
        let subnet = |is_ipv6: bool, mode| {
            let pool = self.pools[usize::from(is_ipv6)].as_ref();
            pool.map(|pool| (pool.range().subnet, mode))
        };
        Rules {
            interface: &self.config.interface,
            subnets: [
                subnet(false, self.config.gateway_mode4),
                subnet(true, self.config.gateway_mode6),
            ],
            internal: self.config.internal,
            icc: self.config.icc,
            masquerade: self.config.masquerade,
        }
    }

    pub(crate) fn gateways(&self) -> Vec<&Range> {
        let pools = self.pools.iter().flatten();
        pools
            .map(Pool::range)
            .filter(|range| self.config.has_gateway(range.subnet.is_ipv6()))
            .collect()
    }

    /// What is checked where packets of an endpoint arrive.
    pub(crate) fn guard<'a>(&self, endpoint: &'a Endpoint) -> Guard<'a> {
        let addresses = endpoint.addresses.iter().map(|address| address.address);
        let member = || Member {
            mac: endpoint.mac,
            addresses: addresses
                .chain(endpoint.link_local.iter().copied())
                .collect(),
        };
        let rate = self.rates.get(&endpoint.host_interface);
        Guard {
            interface: &endpoint.host_interface,
            rate: rate.and_then(|rate| rate.send),
            member: self.config.checks_senders.then(member),
        }
    }

    /// # Errors
    /// Ports of the host cannot lead to its containers.
    pub(crate) fn check_publishes(&self) -> Result<()> {
        if let Some(uplink) = &self.config.uplink {
            return Err(Failure::Invalid(format!(
                "cannot publish ports: containers on the host's interface {} are reached at their own addresses",
                uplink.parent.name()
            )));
        }
        Ok(())
    }

    pub(crate) fn give_back(&mut self, addresses: &[Address]) {
        for address in addresses {
            if let Some(pool) = &mut self.pools[usize::from(address.address.is_ipv6())] {
                pool.give_back(address.address);
            }
        }
    }
}

impl State {
    pub(crate) fn kernel(&mut self, shared: &Arc<Mutex<Self>>) -> Result<&mut Kernel> {
        if self.kernel.is_none() {
            let firewall = Firewall::open(&self.table)?;
            let shared = Arc::downgrade(shared);
            let restored = move || match shared.upgrade() {
                Some(state) => {
                    let mut state = lock(&state);
                    if let Err(error) = state.rebuild().and_then(|()| state.guard()) {
                        state.late_errors.push(error);
                    }
                    true
                }
                None => false,
            };
            watch::start(self.table.clone(), firewall.port_id()?, restored)?;
            self.kernel = Some(Kernel {
                links: link::open()?,
                firewall,
            });
        }
        Ok(self.kernel.as_mut().expect("it was made above"))
    }

    pub(crate) fn network(&mut self, key: &str) -> Result<&mut Network> {
        self.networks.get_mut(key).ok_or(Failure::Gone)
    }

    /// Brings the firewall to what is known here.
    pub(crate) fn rebuild(&mut self) -> Result<()> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let up = self
            .networks
            .values()
            .filter(|network| network.config.uplink.is_none())
            .filter(|network| network.pools.iter().any(Option::is_some));
        let rules: Vec<Rules<'_>> = up.clone().map(Network::rules).collect();
        let endpoints = || {
            up.clone()
                .flat_map(|n| n.endpoints.values().map(move |e| (n, e)))
        };
        let published: Vec<Published<'_>> = endpoints()
            .flat_map(|(_, endpoint)| published(endpoint, &endpoint.ports))
            .collect();
        let relayed: BTreeSet<Relayed> = endpoints().flat_map(|(_, e)| relayed(e)).collect();
        Ok(kernel.firewall.rebuild(&rules, &published, &relayed)?)
    }

    /// Brings what is checked at the containers' interfaces to what is known here.
    pub(crate) fn guard(&mut self) -> Result<()> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let bridges = self.networks.values();
        let bridges = bridges.filter(|network| network.config.uplink.is_none());
        let guards: Vec<Guard<'_>> = bridges
            .flat_map(|network| network.endpoints.values().map(|known| network.guard(known)))
            .filter(|guard| !guard.is_open())
            .collect();
        Ok(kernel.firewall.guard_all(&guards)?)
    }

    /// Bounds what passes an endpoint, in the place of what bounded it before.
    pub(crate) fn bound(&mut self, key: &str, endpoint: &Endpoint, rate: Rate) -> Result<()> {
        rate.check()?;
        let (network, kernel) = self.in_force(key)?;
        if rate == Rate::default() && !network.rates.contains_key(&endpoint.host_interface) {
            return Ok(());
        }
        if let Some(uplink) = &network.config.uplink {
            return Err(Failure::Invalid(format!(
                "what passes an interface on the host's {} cannot be limited: the host has no end of it",
                uplink.parent.name()
            )));
        }
        let interface = &endpoint.host_interface;
        let index = link::index_of(&kernel.links, interface)?;
        crate::rate::bound_receiving(&mut kernel.links, (index, interface), rate.receive)?;
        if rate == Rate::default() {
            network.rates.remove(interface);
        } else {
            network.rates.insert(interface.clone(), rate);
        }
        Ok(kernel.firewall.guard(&network.guard(endpoint))?)
    }

    /// Every network that anybody has.
    pub(crate) fn taken_subnets(&mut self) -> Result<Vec<Subnet>> {
        let mut taken = address::routed_networks(&mut link::open()?)?;
        let pools = self
            .networks
            .values()
            .flat_map(|network| network.pools.iter().flatten());
        taken.extend(pools.map(|pool| pool.range().subnet));
        Ok(taken)
    }

    /// Gives a network the addresses that it asks for, or free ones.
    pub(crate) fn choose(&mut self, config: &BridgeConfig) -> Result<[Option<Pool>; 2]> {
        let mut pools = [None, None];
        for (at, addressing) in [&config.ipv4, &config.ipv6].into_iter().enumerate() {
            let range = match addressing {
                Addressing::None => continue,
                Addressing::Fixed(range) => {
                    if range.subnet.is_ipv6() != (at == 1) {
                        return Err(Failure::Invalid(format!(
                            "{} is of the other family",
                            range.subnet
                        )));
                    }
                    self.check_overlap(range.subnet)?;
                    range.clone()
                }
                Addressing::Choose => {
                    let taken = self.taken_subnets()?;
                    Range::new(ipam::choose(at == 1, &self.address_pools, &taken)?)
                }
            };
            pools[at] = Some(Pool::new(range)?);
        }
        if pools.iter().all(Option::is_none) {
            return Err(Failure::Invalid("IPv4 or IPv6 must be enabled".to_owned()));
        }
        Ok(pools)
    }

    /// A network that was asked for by hand may overlap a route of the host, as Docker's may, but no other network.
    pub(crate) fn check_overlap(&self, subnet: Subnet) -> Result<()> {
        let mut pools = self
            .networks
            .values()
            .flat_map(|network| network.pools.iter().flatten());
        match pools.find(|pool| pool.range().subnet.overlaps(&subnet)) {
            None => Ok(()),
            Some(_) => Err(Failure::Invalid(
                "invalid pool request: Pool overlaps with other one on this address space"
                    .to_owned(),
            )),
        }
    }

    /// Makes a network's bridge unless it is there, and everything the kernel needs for it.
    pub(crate) fn raise(&mut self, shared: &Arc<Mutex<Self>>, key: &str) -> Result<()> {
        if self.network(key)?.index.is_some() {
            return Ok(());
        }
        self.find_pools(shared, key)?;
        if let Some(uplink) = self.network(key)?.config.uplink.clone() {
            return uplink.raise(&mut self.kernel(shared)?.links);
        }
        self.rebuild()?;
        self.make_bridge(key)
    }

    /// Needs the network's pools, and the rules for it.
    pub(crate) fn make_bridge(&mut self, key: &str) -> Result<()> {
        let kernel = self.kernel.as_mut().expect("the pools were found with it");
        let network = self.networks.get_mut(key).ok_or(Failure::Gone)?;
        let config = &network.config;
        if config.uplink.is_some() {
            return Ok(());
        }
        let interface = &config.interface;
        let gateways = network.gateways();
        let present = link::index(&kernel.links, interface)?;
        let mut missing = gateways.clone();
        if let Some(index) = present {
            let found = address::addresses_of(&mut kernel.links, index)?;
            missing.retain(|range| found.iter().all(|(address, _)| *address != range.gateway()));
        }
        // One without any address that it should have is the rest of a crash; one that lacks some has containers perhaps.
        let kept = present.filter(|_| gateways.is_empty() || missing.len() < gateways.len());
        let index = match kept {
            Some(index) => index,
            None => {
                link::delete(&mut kernel.links, interface)?;
                link::create_bridge(&mut kernel.links, interface, config.mtu)?
            }
        };
        let has_ipv6 = network.pools[1].is_some();
        let configured = prepare_host(interface, has_ipv6).and_then(|()| {
            let links = &mut kernel.links;
            link::address_and_raise(links, index, interface, &missing)?;
            match &config.tunnel {
                Some(tunnel) => tunnel.make(links, index, config.mtu),
                None => Ok(()),
            }
        });
        if configured.is_err() && kept.is_none() {
            // The first error is the one to tell.
            let _ = link::delete(&mut kernel.links, interface);
        }
        configured?;
        network.index = Some(index);
        Ok(())
    }

    /// Settles which addresses a network has. A bridge that is there already has chosen.
    pub(crate) fn find_pools(&mut self, shared: &Arc<Mutex<Self>>, key: &str) -> Result<()> {
        self.kernel(shared)?;
        let network = self.network(key)?;
        if network.pools.iter().any(Option::is_some) {
            return Ok(());
        }
        let mut config = network.config.clone();
        let kernel = self.kernel(shared)?;
        if config.uplink.is_none()
            && let Some(index) = link::index(&kernel.links, &config.interface)?
        {
            let found = address::addresses_of(&mut kernel.links, index)?;
            for (is_ipv6, asked) in [(false, &mut config.ipv4), (true, &mut config.ipv6)] {
                let has = found.iter().find(|(ip, _)| ip.is_ipv6() == is_ipv6);
                let has = has.and_then(|(ip, prefix)| Some((*ip, Subnet::new(*ip, *prefix)?)));
                match (&asked, has) {
                    (Addressing::None, _) => {}
                    (Addressing::Fixed(range), Some((_, subnet))) if range.subnet == subnet => {}
                    // Containers may use it, whatever is asked for now.
                    (_, Some((gateway, subnet))) => {
                        *asked = Addressing::Fixed(Range {
                            gateway: Some(gateway),
                            ..Range::new(subnet)
                        });
                    }
                    (_, None) => {}
                }
            }
        }
        let pools = self.choose(&config)?;
        self.network(key)?.pools = pools;
        Ok(())
    }

    /// A network, and the kernel that knows it.
    pub(crate) fn in_force(&mut self, key: &str) -> Result<(&mut Network, &mut Kernel)> {
        let found = self.networks.get_mut(key).zip(self.kernel.as_mut());
        found.ok_or(Failure::Gone)
    }

    /// Has ports of the host lead to an endpoint.
    pub(crate) fn lead(
        &mut self,
        key: &str,
        endpoint: &Endpoint,
        ports: &[PortMapping],
    ) -> Result<()> {
        let (_, kernel) = self.in_force(key)?;
        kernel.firewall.publish(&published(endpoint, ports))?;
        self.change(key, endpoint, |known| known.ports.extend(ports))
    }

    /// Has them lead nowhere.
    pub(crate) fn unlead(
        &mut self,
        key: &str,
        endpoint: &Endpoint,
        ports: &[PortMapping],
    ) -> Result<()> {
        let (_, kernel) = self.in_force(key)?;
        kernel.firewall.take_back(&published(endpoint, ports))?;
        let gone: BTreeSet<&PortMapping> = ports.iter().collect();
        self.change(key, endpoint, |known| {
            known.ports.retain(|mapping| !gone.contains(mapping));
        })
    }

    /// Changes what is known of an endpoint, and what of ::1 is handed on with it.
    pub(crate) fn change(
        &mut self,
        key: &str,
        endpoint: &Endpoint,
        change: impl FnOnce(&mut Endpoint),
    ) -> Result<()> {
        let (network, kernel) = self.in_force(key)?;
        let Some(known) = network.endpoints.get_mut(&endpoint.host_interface) else {
            return Ok(());
        };
        let before = relayed(known);
        change(known);
        let after = relayed(known);
        let of = |all: &BTreeSet<Relayed>, others| all.difference(others).copied().collect();
        kernel.firewall.refuse(&of(&before, &after))?;
        Ok(kernel.firewall.relay(&of(&after, &before))?)
    }
}

/// The ports of ::1 that are handed on: those of TCP that are published on all addresses, or on this one.
fn relayed(endpoint: &Endpoint) -> BTreeSet<Relayed> {
    let Some(to) = endpoint.relay else {
        return BTreeSet::new();
    };
    let relayed = endpoint.ports.iter().filter(|mapping| mapping.is_relayed());
    relayed.map(|mapping| (mapping.host_port, to)).collect()
}

/// The mappings of an endpoint with the addresses they lead to.
pub(crate) fn published<'a>(
    endpoint: &'a Endpoint,
    ports: &'a [PortMapping],
) -> Vec<Published<'a>> {
    let lead = |mapping: &'a PortMapping| {
        let address = endpoint.address(mapping.host_ip.is_ipv6())?;
        (!mapping.is_on_loopback6()).then_some((mapping, address.address))
    };
    ports.iter().filter_map(lead).collect()
}

/// A panic in between leaves at most an address or port marked that nobody has.
pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
