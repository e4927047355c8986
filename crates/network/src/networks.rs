//! The bridge networks of an engine: their life in the kernel, their endpoints, their published ports.
//!
//! ```text
//! declared ──first endpoint, or raise──▶ up (rules, then the bridge) ──remove──▶ gone
//! endpoint: reserve ──▶ connect ──▶ publish ──▶ disconnect (ports at once, the link and the address some milliseconds later)
//! ```
//! The firewall knows a network before its bridge is there, so that there is no moment in which it is open.

use crate::firewall::{Firewall, Published, Rules};
use crate::ipam::{self, Pool};
use crate::link::{self, Veth};
use crate::ports::Ports;
use crate::spoofing::Member;
use crate::subnet::Subnet;
use crate::{
    Address, Addressing, BridgeConfig, Endpoint, Failure, PortMapping, Publish, Range, Result,
    address, optional_setting, setting, watch,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use sys::netlink::Socket;

/// What an endpoint is to be.
#[derive(Debug, Clone)]
pub struct EndpointRequest {
    /// The host's end, a name that nobody has.
    pub host_interface: String,
    /// The container's end.
    pub interface: String,
    /// These addresses, instead of any.
    pub addresses: Vec<IpAddr>,
    /// Further addresses, for the link alone.
    pub link_local: Vec<IpAddr>,
    /// This hardware address, instead of one derived from the first address.
    pub mac: Option<[u8; 6]>,
}

/// The networks.
#[derive(Debug)]
pub struct Networks {
    state: Arc<Mutex<State>>,
    /// Links to delete; the thread that does is there once the first is. It takes the kernel ten times as long to take a
    /// veth pair away as to make one, and nobody has to wait for it.
    dead: Mutex<Option<mpsc::Sender<Dead>>>,
}

/// An endpoint that nobody needs any more; its addresses are free once its link is gone.
#[derive(Debug)]
struct Dead {
    network: String,
    endpoint: Endpoint,
}

#[derive(Debug)]
struct State {
    /// The name of the firewall's tables.
    table: String,
    networks: BTreeMap<String, Network>,
    ports: Ports,
    /// Some once any bridge exists.
    kernel: Option<Kernel>,
    /// Of links that could not be deleted, for the next call that can tell of them.
    late_errors: Vec<Failure>,
}

#[derive(Debug)]
struct Kernel {
    links: Socket,
    firewall: Firewall,
}

#[derive(Debug)]
struct Network {
    config: BridgeConfig,
    /// Of the families that have been chosen or were fixed.
    pools: [Option<Pool>; 2],
    /// The bridge's index, once it exists.
    index: Option<u32>,
    /// By the host's end.
    endpoints: BTreeMap<String, Endpoint>,
}

impl Network {
    fn rules(&self) -> Rules<'_> {
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

    fn gateways(&self) -> Vec<&Range> {
        let pools = self.pools.iter().flatten();
        pools
            .map(Pool::range)
            .filter(|range| self.config.has_gateway(range.subnet.is_ipv6()))
            .collect()
    }

    fn member(&self, endpoint: &Endpoint) -> Option<Member> {
        let addresses = endpoint.addresses.iter().map(|address| address.address);
        self.config.checks_senders.then(|| Member {
            interface: endpoint.host_interface.clone(),
            mac: endpoint.mac,
            addresses: addresses
                .chain(endpoint.link_local.iter().copied())
                .collect(),
        })
    }

    fn give_back(&mut self, addresses: &[Address]) {
        for address in addresses {
            if let Some(pool) = &mut self.pools[usize::from(address.address.is_ipv6())] {
                pool.give_back(address.address);
            }
        }
    }
}

impl State {
    fn kernel(&mut self, shared: &Arc<Mutex<Self>>) -> Result<&mut Kernel> {
        if self.kernel.is_none() {
            let firewall = Firewall::open(&self.table)?;
            let shared = Arc::downgrade(shared);
            let restored = move || match shared.upgrade() {
                Some(state) => {
                    let mut state = lock(&state);
                    if let Err(error) = state.rebuild() {
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

    fn network(&mut self, key: &str) -> Result<&mut Network> {
        self.networks.get_mut(key).ok_or(Failure::Gone)
    }

    /// Brings the firewall to what is known here.
    fn rebuild(&mut self) -> Result<()> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(());
        };
        let up = self
            .networks
            .values()
            .filter(|network| network.pools.iter().any(Option::is_some));
        let rules: Vec<Rules<'_>> = up.clone().map(Network::rules).collect();
        let endpoints = || {
            up.clone()
                .flat_map(|n| n.endpoints.values().map(move |e| (n, e)))
        };
        let published: Vec<Published<'_>> = endpoints()
            .flat_map(|(_, endpoint)| published(endpoint, &endpoint.ports))
            .collect();
        let members: Vec<Member> = endpoints().filter_map(|(n, e)| n.member(e)).collect();
        Ok(kernel.firewall.rebuild(&rules, &published, &members)?)
    }

    /// Every network that anybody has.
    fn taken_subnets(&mut self) -> Result<Vec<Subnet>> {
        let mut taken = address::routed_networks(&mut link::open()?)?;
        let pools = self
            .networks
            .values()
            .flat_map(|network| network.pools.iter().flatten());
        taken.extend(pools.map(|pool| pool.range().subnet));
        Ok(taken)
    }

    /// Gives a network the addresses that it asks for, or free ones.
    fn choose(&mut self, config: &BridgeConfig) -> Result<[Option<Pool>; 2]> {
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
                    let choose = if at == 0 {
                        ipam::choose_ipv4
                    } else {
                        ipam::choose_ipv6
                    };
                    Range::new(choose(&taken)?)
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
    fn check_overlap(&self, subnet: Subnet) -> Result<()> {
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
    fn raise(&mut self, shared: &Arc<Mutex<Self>>, key: &str) -> Result<()> {
        if self.network(key)?.index.is_some() {
            return Ok(());
        }
        self.find_pools(shared, key)?;
        self.rebuild()?;
        self.make_bridge(key)
    }

    /// Needs the network's pools, and the rules for it.
    fn make_bridge(&mut self, key: &str) -> Result<()> {
        let kernel = self.kernel.as_mut().expect("the pools were found with it");
        let network = self.networks.get_mut(key).ok_or(Failure::Gone)?;
        let config = &network.config;
        let interface = &config.interface;
        let gateways = network.gateways();
        let present = link::index(&kernel.links, interface)?;
        let is_whole = match present {
            Some(index) => {
                let found = address::addresses_of(&mut kernel.links, index)?;
                let has =
                    |range: &&Range| found.iter().any(|(address, _)| *address == range.gateway());
                gateways.iter().all(has)
            }
            None => false,
        };
        let index = match present {
            Some(index) if is_whole => index,
            _ => {
                // One without its address is the rest of a crash.
                link::delete(&mut kernel.links, interface)?;
                link::create_bridge(&mut kernel.links, interface, &gateways, config.mtu)?
            }
        };
        prepare_host(interface, network.pools[1].is_some())?;
        link::set_up(&mut kernel.links, index, interface)?;
        network.index = Some(index);
        Ok(())
    }

    /// Settles which addresses a network has. A bridge that is there already has chosen.
    fn find_pools(&mut self, shared: &Arc<Mutex<Self>>, key: &str) -> Result<()> {
        self.kernel(shared)?;
        let network = self.network(key)?;
        if network.pools.iter().any(Option::is_some) {
            return Ok(());
        }
        let mut config = network.config.clone();
        let kernel = self.kernel(shared)?;
        if config.ipv4 != Addressing::None
            && let Some(index) = link::index(&kernel.links, &config.interface)?
        {
            let found = address::addresses_of(&mut kernel.links, index)?;
            let found = found.into_iter().find(|(address, _)| address.is_ipv4());
            let found = found.and_then(|(ip, prefix)| Some((ip, Subnet::new(ip, prefix)?)));
            match (&config.ipv4, found) {
                (Addressing::Fixed(range), Some((_, subnet))) if range.subnet == subnet => {}
                // Containers may use it, whatever is asked for now.
                (_, Some((gateway, subnet))) => {
                    let gateway = Some(gateway);
                    config.ipv4 = Addressing::Fixed(Range {
                        gateway,
                        ..Range::new(subnet)
                    });
                }
                _ => {}
            }
        }
        let pools = self.choose(&config)?;
        self.network(key)?.pools = pools;
        Ok(())
    }
}

/// The mappings of an endpoint with the addresses they lead to.
fn published<'a>(endpoint: &'a Endpoint, ports: &'a [PortMapping]) -> Vec<Published<'a>> {
    let lead = |mapping: &'a PortMapping| {
        let address = endpoint.address(mapping.host_ip.is_ipv6())?;
        Some((mapping, address.address))
    };
    ports.iter().filter_map(lead).collect()
}

/// A panic in between leaves at most an address or port marked that nobody has.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// Prepares the networks; nothing exists yet. `table`: the name of the firewall's tables, which another engine on the host
    /// must not have.
    pub fn open(table: impl Into<String>) -> Self {
        let state = State {
            table: table.into(),
            networks: BTreeMap::new(),
            ports: Ports::new(),
            kernel: None,
            late_errors: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            dead: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes a network known without making its bridge: the first endpoint does.
    ///
    /// # Errors
    /// A name that is none for an interface.
    pub fn declare(&self, key: &str, config: BridgeConfig) -> Result<()> {
        check_interface(&config.interface)?;
        let network = Network {
            config,
            pools: [None, None],
            index: None,
            endpoints: BTreeMap::new(),
        };
        self.lock().networks.insert(key.to_owned(), network);
        Ok(())
    }

    /// As [`Networks::declare`], and chooses what is left to choose: the configuration that is returned says it all. None of
    /// it is in the kernel yet.
    ///
    /// # Errors
    /// A configuration that makes no sense, or overlaps another; an interface that is there already.
    pub fn plan(&self, key: &str, config: BridgeConfig) -> Result<BridgeConfig> {
        check_interface(&config.interface)?;
        let mut state = self.lock();
        let interface = &config.interface;
        let taken = state
            .networks
            .values()
            .any(|network| network.config.interface == *interface);
        if taken || link::index(&link::open()?, interface)?.is_some() {
            return Err(Failure::Invalid(format!(
                "there is an interface {interface:?} already"
            )));
        }
        let pools = state.choose(&config)?;
        let fixed = |pool: &Option<Pool>| match pool {
            Some(pool) => Addressing::Fixed(pool.range().clone()),
            None => Addressing::None,
        };
        let config = BridgeConfig {
            ipv4: fixed(&pools[0]),
            ipv6: fixed(&pools[1]),
            ..config
        };
        let network = Network {
            config: config.clone(),
            pools,
            index: None,
            endpoints: BTreeMap::new(),
        };
        state.networks.insert(key.to_owned(), network);
        Ok(config)
    }

    /// Makes a network's bridge.
    ///
    /// # Errors
    /// As the kernel.
    pub fn raise(&self, key: &str) -> Result<()> {
        self.lock().raise(&self.state, key)
    }

    /// Removes a network.
    ///
    /// # Errors
    /// [`Failure::InUse`], or as the kernel: it is still there then.
    pub fn remove(&self, key: &str) -> Result<()> {
        let mut state = self.lock();
        let network = state.network(key)?;
        if !network.endpoints.is_empty() {
            return Err(Failure::InUse);
        }
        let exists = network.index.is_some();
        let interface = network.config.interface.clone();
        if exists && let Some(kernel) = &mut state.kernel {
            link::delete(&mut kernel.links, &interface)?;
        }
        state.networks.remove(key);
        // The rules of a bridge that is gone concern nobody; the next change takes them away if this one cannot.
        state.rebuild()
    }

    /// How a network is, with the addresses it has by now.
    pub fn config(&self, key: &str) -> Option<BridgeConfig> {
        let state = self.lock();
        let network = state.networks.get(key)?;
        let chosen = |pool: &Option<Pool>, asked: &Addressing| match pool {
            Some(pool) => Addressing::Fixed(pool.range().clone()),
            None => asked.clone(),
        };
        Some(BridgeConfig {
            ipv4: chosen(&network.pools[0], &network.config.ipv4),
            ipv6: chosen(&network.pools[1], &network.config.ipv6),
            ..network.config.clone()
        })
    }

    /// Of each subnet of a network how many addresses it gives away, and how many are taken.
    pub fn usage(&self, key: &str) -> Vec<(Subnet, u128, u128)> {
        let state = self.lock();
        let network = state.networks.get(key);
        let pools = network
            .into_iter()
            .flat_map(|network| network.pools.iter().flatten());
        pools
            .map(|pool| {
                let (all, taken) = pool.usage();
                (pool.range().subnet, all, taken)
            })
            .collect()
    }

    /// Brings the kernel to the networks that are known and these endpoints, each with its network: ports published again,
    /// interfaces of others removed. `eager`: the networks that have a bridge, used or not. To be called once, before
    /// anything else is done with an endpoint.
    ///
    /// # Errors
    /// As the kernel.
    pub fn adopt(&self, eager: &[String], endpoints: &[(String, Endpoint)]) -> Result<()> {
        let mut state = self.lock();
        let links = link::open()?;
        let mut keys: Vec<String> = state.networks.keys().cloned().collect();
        for (key, network) in &state.networks {
            let exists = link::index(&links, &network.config.interface)?.is_some();
            let used = endpoints.iter().any(|(network, _)| network == key);
            if !exists && !used && !eager.contains(key) {
                keys.retain(|kept| kept != key);
            }
        }
        for key in &keys {
            state.find_pools(&self.state, key)?;
        }
        for (key, endpoint) in endpoints {
            endpoint
                .ports
                .iter()
                .for_each(|mapping| state.ports.mark(mapping));
            let network = state.network(key)?;
            for address in &endpoint.addresses {
                if let Some(pool) = &mut network.pools[usize::from(address.address.is_ipv6())] {
                    pool.mark(address.address);
                }
            }
            let name = endpoint.host_interface.clone();
            network.endpoints.insert(name, endpoint.clone());
        }
        // All at once, so that nothing that runs is without its ports for a moment.
        state.rebuild()?;
        for key in &keys {
            state.make_bridge(key)?;
        }
        let State {
            networks, kernel, ..
        } = &mut *state;
        let Some(kernel) = kernel else { return Ok(()) };
        for network in networks.values() {
            let Some(index) = network.index else { continue };
            for name in link::ports_of(&mut kernel.links, index)? {
                if name.starts_with("veth") && !network.endpoints.contains_key(&name) {
                    link::delete(&mut kernel.links, &name)?;
                }
            }
        }
        Ok(())
    }

    /// Reserves a place on a network; nothing of it exists yet. The bridge is made if this is the first.
    ///
    /// # Errors
    /// No address is free, one that was asked for is not to be had, or as the kernel.
    pub fn reserve(&self, key: &str, request: EndpointRequest) -> Result<Endpoint> {
        let mut state = self.lock();
        state.raise(&self.state, key)?;
        let network = state.network(key)?;
        let mut addresses: Vec<Address> = Vec::new();
        for is_ipv6 in [false, true] {
            let wanted = request
                .addresses
                .iter()
                .find(|address| address.is_ipv6() == is_ipv6);
            let has_gateway = network.config.has_gateway(is_ipv6) && !network.config.internal;
            let taken = match &mut network.pools[usize::from(is_ipv6)] {
                Some(pool) => pool.take(wanted.copied()).map(|address| {
                    let range = pool.range();
                    let gateway = has_gateway.then(|| range.gateway());
                    let prefix = range.subnet.prefix();
                    addresses.push(Address {
                        address,
                        prefix,
                        gateway,
                    });
                }),
                None => match wanted {
                    Some(wanted) => Err(Failure::Invalid(format!(
                        "invalid address {wanted}: the network has no addresses of its family"
                    ))),
                    None => Ok(()),
                },
            };
            if let Err(error) = taken {
                network.give_back(&addresses);
                return Err(error);
            }
        }
        let endpoint = Endpoint {
            mac: request.mac.unwrap_or_else(|| derived_mac(&addresses)),
            host_interface: request.host_interface,
            interface: request.interface,
            addresses,
            link_local: request.link_local,
            ports: Vec::new(),
        };
        let name = endpoint.host_interface.clone();
        network.endpoints.insert(name, endpoint.clone());
        Ok(endpoint)
    }

    /// Makes an endpoint's interface in the network namespace of a container. `routes`: everything else is reached by it.
    ///
    /// # Errors
    /// As the kernel; what was made is undone.
    pub fn connect(
        &self,
        key: &str,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
        routes: bool,
    ) -> Result<()> {
        let mut state = self.lock();
        state.raise(&self.state, key)?;
        let State {
            networks, kernel, ..
        } = &mut *state;
        let (Some(network), Some(kernel)) = (networks.get(key), kernel) else {
            return Err(Failure::Gone);
        };
        if let Some(member) = network.member(endpoint) {
            kernel.firewall.admit(member)?;
        }
        let veth = Veth {
            host_name: &endpoint.host_interface,
            name: &endpoint.interface,
            netns,
            mac: endpoint.mac,
            bridge: network.index.expect("it was raised above"),
            mtu: network.config.mtu,
            isolated: !network.config.icc,
        };
        link::create_veth(&mut kernel.links, veth)?;
        drop(state);
        let result = link::inside(netns, || configure(endpoint, routes));
        if result.is_err()
            && let Some(kernel) = &mut self.lock().kernel
        {
            // The first error is the one to tell; the sweep at the next start finds what this leaves.
            let _ = link::delete(&mut kernel.links, &endpoint.host_interface);
        }
        result
    }

    /// Publishes ports of an endpoint, all or none.
    ///
    /// # Errors
    /// A port that is taken, an address of a family that the endpoint has not, or as the kernel.
    pub fn publish(
        &self,
        key: &str,
        endpoint: &Endpoint,
        requests: &[Publish],
    ) -> Result<Vec<PortMapping>> {
        let mut state = self.lock();
        let network = state.network(key)?;
        let routed = |is_ipv6: bool| {
            let config = &network.config;
            let mode = if is_ipv6 {
                config.gateway_mode6
            } else {
                config.gateway_mode4
            };
            mode == crate::GatewayMode::Routed
        };
        let (open, translated) = split(endpoint, requests, routed)?;
        let mut chosen = state.ports.choose(&translated)?;
        chosen.extend(open);
        if let Err(error) = state.lead(key, endpoint, &chosen) {
            chosen
                .iter()
                .for_each(|mapping| state.ports.give_back(mapping));
            return Err(error);
        }
        Ok(chosen)
    }

    /// Publishes what was published for another endpoint of the same container, and is to lead to this one from now on.
    ///
    /// # Errors
    /// As the kernel.
    pub fn move_ports(
        &self,
        (from_key, from): (&str, &Endpoint),
        (to_key, to): (&str, &Endpoint),
    ) -> Result<Vec<PortMapping>> {
        let mut state = self.lock();
        let ports = from.ports.clone();
        state.unlead(from_key, from, &ports)?;
        let ports: Vec<_> = ports
            .into_iter()
            .filter(|mapping| to.address(mapping.host_ip.is_ipv6()).is_some())
            .collect();
        state.lead(to_key, to, &ports)?;
        Ok(ports)
    }

    /// Takes ports of an endpoint back.
    ///
    /// # Errors
    /// As the kernel.
    pub fn unpublish(&self, key: &str, endpoint: &Endpoint, ports: &[PortMapping]) -> Result<()> {
        let mut state = self.lock();
        state.unlead(key, endpoint, ports)?;
        ports
            .iter()
            .for_each(|mapping| state.ports.give_back(mapping));
        Ok(())
    }

    /// Takes an endpoint away, as far as it exists. Its ports are free at once; its link goes, and its addresses are free,
    /// some milliseconds later, or before the call returns where that is `waited` for. Goes on after an error and returns all
    /// of them, those of earlier links included; what could not be taken away stays marked, so that nobody gets what still
    /// leads elsewhere.
    pub fn disconnect(&self, key: &str, endpoint: &Endpoint, waited: bool) -> Vec<Failure> {
        let mut state = self.lock();
        let mut errors = std::mem::take(&mut state.late_errors);
        match state.unlead(key, endpoint, &endpoint.ports) {
            Ok(()) => endpoint
                .ports
                .iter()
                .for_each(|mapping| state.ports.give_back(mapping)),
            Err(Failure::Gone) => {}
            Err(error) => errors.push(error),
        }
        if let Ok(network) = state.network(key) {
            network.endpoints.remove(&endpoint.host_interface);
        }
        drop(state);
        let dead = Dead {
            network: key.to_owned(),
            endpoint: endpoint.clone(),
        };
        if waited {
            bury(&dead, &self.state);
            errors.append(&mut self.lock().late_errors);
        } else {
            self.bury_later(dead);
        }
        errors
    }

    /// Hands a link to the thread that deletes them.
    fn bury_later(&self, dead: Dead) {
        let mut sender = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel::<Dead>();
            let state = Arc::clone(&self.state);
            std::thread::spawn(move || receiver.into_iter().for_each(|dead| bury(&dead, &state)));
            sender
        });
        // The thread lives as long as the sender.
        let _ = sender.send(dead);
    }
}

impl State {
    /// Has ports of the host lead to an endpoint.
    fn lead(&mut self, key: &str, endpoint: &Endpoint, ports: &[PortMapping]) -> Result<()> {
        let State {
            networks, kernel, ..
        } = self;
        let (Some(network), Some(kernel)) = (networks.get_mut(key), kernel) else {
            return Err(Failure::Gone);
        };
        kernel.firewall.publish(&published(endpoint, ports))?;
        if let Some(known) = network.endpoints.get_mut(&endpoint.host_interface) {
            known.ports.extend(ports);
        }
        Ok(())
    }

    /// Has them lead nowhere.
    fn unlead(&mut self, key: &str, endpoint: &Endpoint, ports: &[PortMapping]) -> Result<()> {
        let State {
            networks, kernel, ..
        } = self;
        let (Some(network), Some(kernel)) = (networks.get_mut(key), kernel) else {
            return Err(Failure::Gone);
        };
        kernel.firewall.take_back(&published(endpoint, ports))?;
        if let Some(known) = network.endpoints.get_mut(&endpoint.host_interface) {
            known.ports.retain(|mapping| !ports.contains(mapping));
        }
        Ok(())
    }
}

/// Deletes a link and frees its addresses.
fn bury(Dead { network, endpoint }: &Dead, state: &Mutex<State>) {
    let deleted =
        link::open().and_then(|mut links| link::delete(&mut links, &endpoint.host_interface));
    let mut state = lock(state);
    let State {
        networks,
        kernel,
        late_errors,
        ..
    } = &mut *state;
    if let Err(error) = deleted {
        late_errors.push(error.into());
        return;
    }
    let Some(network) = networks.get_mut(network) else {
        return;
    };
    if let (Some(member), Some(kernel)) = (network.member(endpoint), kernel)
        && let Err(error) = kernel.firewall.expel(&member)
    {
        late_errors.push(error.into());
    }
    network.give_back(&endpoint.addresses);
}

/// Requests for networks that are reached at the containers' own addresses, and those that need ports of the host.
fn split(
    endpoint: &Endpoint,
    requests: &[Publish],
    routed: impl Fn(bool) -> bool,
) -> Result<(Vec<PortMapping>, Vec<Publish>)> {
    let (mut open, mut translated) = (Vec::new(), Vec::new());
    for request in requests {
        let mut host_ips = Vec::new();
        for host_ip in &request.host_ips {
            if endpoint.address(host_ip.is_ipv6()).is_none() {
                return Err(Failure::Invalid(format!(
                    "cannot publish port {} on {host_ip}: the container has no address of its family",
                    request.container_port
                )));
            }
            if routed(host_ip.is_ipv6()) {
                open.push(PortMapping {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: *host_ip,
                    host_port: 0,
                });
            } else {
                host_ips.push(*host_ip);
            }
        }
        if !host_ips.is_empty() {
            translated.push(Publish {
                host_ips,
                ..request.clone()
            });
        }
    }
    Ok((open, translated))
}

/// In a container's namespace: both interfaces up, the addresses, and the way out.
fn configure(endpoint: &Endpoint, routes: bool) -> Result<()> {
    let name = &endpoint.interface;
    let has_ipv6 =
        endpoint.address(true).is_some() || endpoint.link_local.iter().any(IpAddr::is_ipv6);
    // An IPv4-only network has no IPv6 (CVE-2024-32473), and no network listens to routers that nobody has asked for
    // (CVE-2020-13401). Without IPv6 in the kernel there is nothing to disable.
    optional_setting(
        &format!("ipv6/conf/{name}/disable_ipv6"),
        if has_ipv6 { "0" } else { "1" },
    )?;
    optional_setting(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    let mut links = link::open()?;
    let index = link::index_of(&links, name)?;
    let mut messages = vec![link::loopback()];
    for address in &endpoint.addresses {
        messages.push(address::add_address(
            index,
            name,
            address.address,
            address.prefix,
        ));
    }
    for address in &endpoint.link_local {
        let prefix = if address.is_ipv4() { 16 } else { 64 };
        messages.push(address::add_address(index, name, *address, prefix));
    }
    messages.push(link::up(index, name));
    if routes {
        let gateways = endpoint
            .addresses
            .iter()
            .filter_map(|address| address.gateway);
        messages.extend(gateways.map(|gateway| address::add_default_route(index, gateway)));
    }
    Ok(links.send(messages)?)
}

/// A hardware address derived from the address: what neighbours remember of it stays true for the next owner.
fn derived_mac(addresses: &[Address]) -> [u8; 6] {
    let octets = match addresses.first().map(|address| address.address) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
        None => [0; 4],
    };
    let [a, b, c, d] = octets;
    [0x02, 0x42, a, b, c, d]
}

fn check_interface(name: &str) -> Result<()> {
    let is_name = !name.is_empty()
        && name.len() <= 15
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !matches!(name, "." | "..");
    if is_name {
        return Ok(());
    }
    Err(Failure::Invalid(format!(
        "{name:?} is no name for an interface: it has 1 to 15 letters, digits, '-', '_' or '.'"
    )))
}

/// Sets the host's network up for a bridge.
fn prepare_host(interface: &str, has_ipv6: bool) -> Result<()> {
    // Packets are forwarded; published ports are reached from the loopback network, too; and no router advertisement
    // of a container is listened to (CVE-2020-13401).
    setting("ipv4/ip_forward", "1")?;
    setting(&format!("ipv4/conf/{interface}/route_localnet"), "1")?;
    optional_setting(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    let disabled = if has_ipv6 { "0" } else { "1" };
    optional_setting(&format!("ipv6/conf/{interface}/disable_ipv6"), disabled)?;
    if !has_ipv6 {
        return Ok(());
    }
    keep_router_advertisements()?;
    setting("ipv6/conf/all/forwarding", "1")
}

/// A host that forwards does not listen to its own routers any more, unless it is told to: those that it has listened to go on
/// being heard.
fn keep_router_advertisements() -> Result<()> {
    let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
    if std::fs::read_to_string(forwarding).is_ok_and(|value| value.trim_end() == "1") {
        return Ok(());
    }
    let dir = "/proc/sys/net/ipv6/conf";
    let failed = |source| Failure::Setting {
        path: dir.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name
            .to_str()
            .filter(|name| !matches!(*name, "all" | "default" | "lo"))
        else {
            continue;
        };
        let path = format!("{dir}/{name}/accept_ra");
        // An interface that goes away meanwhile needs nothing.
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim_end() == "1") {
            optional_setting(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    Ok(())
}
