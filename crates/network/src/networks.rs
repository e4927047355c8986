//! The bridge networks of an engine: their life in the kernel, their endpoints, their published ports.
//!
//! ```text
//! declared ──first endpoint, or raise──▶ up (rules, then the bridge) ──remove──▶ gone
//! endpoint: reserve ──▶ connect ──▶ publish ──▶ disconnect (ports at once, the link and the address some milliseconds later)
//! ```
//! The firewall knows a network before its bridge is there, so that there is no moment in which it is open.

use crate::configure::{check_interface, configure, derived_mac, random_mac};
use crate::ipam::Pool;
use crate::link::{self, Veth};
use crate::ports::{Ports, split};
use crate::state::{Network, State, lock};
use crate::{
    Address, AddressPool, Addressing, BridgeConfig, Endpoint, Explanation, Failure, PortMapping,
    Protocol, Publish, Rate, Result,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

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

impl Networks {
    /// Prepares the networks; nothing exists yet. `table`: the name of the firewall's tables, which another engine on the host
    /// must not have.
    pub fn open(table: impl Into<String>) -> Self {
        let state = State {
            table: table.into(),
            address_pools: Vec::new(),
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

    /// Has the networks that are chosen from now on be of these, of the families that they are of.
    pub fn choose_from(&self, pools: Vec<AddressPool>) {
        self.lock().address_pools = pools;
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
            rates: BTreeMap::new(),
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
        if let Some(tunnel) = &config.tunnel {
            tunnel.check()?;
            if link::index(&link::open()?, &tunnel.interface())?.is_some() {
                return Err(Failure::Invalid(format!(
                    "there is an interface {} already: the VXLAN id {} is in use",
                    tunnel.interface(),
                    tunnel.id
                )));
            }
        }
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
            rates: BTreeMap::new(),
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
        let tunnel = network.config.tunnel.clone();
        if let Some(uplink) = network.config.uplink.clone() {
            let others = state.networks.iter().filter(|(other, _)| *other != key);
            let parents = others.filter_map(|(_, other)| other.config.uplink.as_ref());
            let is_shared = parents
                .into_iter()
                .any(|other| other.parent.name() == uplink.parent.name());
            if !is_shared {
                uplink.lower(&mut link::open()?)?;
            }
        }
        if exists && let Some(kernel) = &mut state.kernel {
            if let Some(tunnel) = tunnel {
                link::delete(&mut kernel.links, &tunnel.interface())?;
            }
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
        state.guard()?;
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
            let uplink = network.config.uplink.as_ref();
            let is_routed = uplink.is_some_and(|uplink| uplink.mode.is_routed());
            let taken = match &mut network.pools[usize::from(is_ipv6)] {
                Some(pool) => pool.take(wanted.copied()).map(|address| {
                    let range = pool.range();
                    let gateway = has_gateway.then(|| match (is_routed, is_ipv6) {
                        (false, _) => range.gateway(),
                        (true, false) => Ipv4Addr::UNSPECIFIED.into(),
                        (true, true) => Ipv6Addr::UNSPECIFIED.into(),
                    });
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
            mac: match request.mac {
                Some(mac) => mac,
                // Of the last owner's interface the kernel may not be rid yet, and it allows an address only once on a wire.
                None if network.config.uplink.is_some() => random_mac()?,
                None => derived_mac(&addresses),
            },
            host_interface: request.host_interface,
            interface: request.interface,
            addresses,
            link_local: request.link_local,
            ports: Vec::new(),
            relay: None,
            settings: Vec::new(),
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
        if let Some(uplink) = &network.config.uplink {
            uplink.connect(&mut kernel.links, netns, endpoint, network.config.mtu)?;
            drop(state);
            return link::inside(netns, || configure(endpoint, routes, true))
                .inspect_err(|_| drop(self.withdraw(netns, endpoint)));
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
        link::create_veth(&mut kernel.links, &veth)?;
        // Nothing passes before it is guarded.
        let result = kernel.firewall.guard(&network.guard(endpoint));
        let result = result.and_then(|()| link::raise_port(&mut kernel.links, &veth));
        drop(state);
        let result = result.map_err(Into::into);
        let result =
            result.and_then(|()| link::inside(netns, || configure(endpoint, routes, false)));
        if result.is_err()
            && let Some(kernel) = &mut self.lock().kernel
        {
            // The first error is the one to tell; the sweep at the next start finds what this leaves.
            let _ = link::delete(&mut kernel.links, &endpoint.host_interface);
            let _ = kernel.firewall.unguard(&endpoint.host_interface);
        }
        result
    }

    /// Takes an endpoint's interface out of the network namespace of a container that goes on: where it is on an interface of the
    /// host that is the only end it has.
    ///
    /// # Errors
    /// As the kernel.
    pub fn withdraw(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
        crate::uplink::withdraw(netns, endpoint)
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
        network.check_publishes()?;
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

    /// Bounds what passes an endpoint that is connected, in the place of what bounded it before. It lasts as long as the endpoint;
    /// who adopts one says it again.
    ///
    /// # Errors
    /// A rate that makes no sense, a network on an interface of the host, a kernel that cannot.
    pub fn bound(&self, key: &str, endpoint: &Endpoint, rate: Rate) -> Result<()> {
        self.lock().bound(key, endpoint, rate)
    }

    /// Says who can reach a port of an endpoint, and by which rule: of each of its addresses and of each way that it is published.
    ///
    /// # Errors
    /// As the kernel.
    pub fn explain(
        &self,
        key: &str,
        endpoint: &Endpoint,
        port: (Protocol, u16),
    ) -> Result<Vec<Explanation>> {
        self.lock().explain(key, endpoint, port)
    }

    /// Has what was published for an endpoint lead to another one of the same container; what is of a family that this one has
    /// not is free again. Returns what leads there now.
    ///
    /// # Errors
    /// As the kernel; it is then as it was.
    pub fn move_ports(
        &self,
        (from_key, from): (&str, &Endpoint),
        (to_key, to): (&str, &Endpoint),
    ) -> Result<Vec<PortMapping>> {
        let mut state = self.lock();
        state.network(to_key)?.check_publishes()?;
        state.unlead(from_key, from, &from.ports)?;
        let has_family = |mapping: &PortMapping| {
            mapping.is_on_loopback6() || to.address(mapping.host_ip.is_ipv6()).is_some()
        };
        let (moved, lost): (Vec<_>, Vec<_>) = from.ports.iter().copied().partition(has_family);
        if let Err(error) = state.lead(to_key, to, &moved) {
            // The first error is the one to tell.
            let _ = state.lead(from_key, from, &from.ports);
            return Err(error);
        }
        lost.iter()
            .for_each(|mapping| state.ports.give_back(mapping));
        Ok(moved)
    }

    /// Has connections from ::1 to an endpoint's ports come to a port of ::1, where somebody hands them on; None: they are refused.
    ///
    /// # Errors
    /// As the kernel.
    pub fn relay(&self, key: &str, endpoint: &Endpoint, port: Option<u16>) -> Result<()> {
        let mut state = self.lock();
        state.change(key, endpoint, |known| known.relay = port)
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
            network.rates.remove(&endpoint.host_interface);
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
    if let Some(kernel) = kernel
        && let Err(error) = kernel.firewall.unguard(&endpoint.host_interface)
    {
        late_errors.push(error.into());
    }
    if let Some(network) = networks.get_mut(network) {
        network.give_back(&endpoint.addresses);
    }
}
