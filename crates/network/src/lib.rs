//! Bridges, endpoints, address management, published ports.
//!
//! A [`Network`] is the default bridge. Nothing of it exists until the first endpoint needs it: an idle engine leaves the
//! host's network as it is. Everything goes through netlink, in as few messages as possible; no program is executed, and
//! there is no process or socket per published port.
//!
//! What lasts (endpoints and their ports) is recorded by the caller, who tells of it with [`Network::adopt`] when it
//! starts: the kernel is then brought to exactly that.

mod ipam;
mod link;
mod nft;
mod ports;

pub use ipam::Subnet;
pub use sys::netlink::Error as NetlinkError;

use crate::ipam::Pool;
use crate::nft::Firewall;
use crate::ports::Ports;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

/// The networks to choose the bridge's from when none was asked for: Docker's defaults, so that firewalls and habits fit.
fn default_subnets() -> impl Iterator<Item = Subnet> {
    (17..=31).filter_map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16))
}

/// How the default bridge is to be.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// Its network; None: one that the host has no route to.
    pub subnet: Option<Subnet>,
    /// The largest packet in bytes; None: the kernel's default.
    pub mtu: Option<u32>,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A request to publish a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; unspecified: all.
    pub host_ip: IpAddr,
    /// The host's ports to choose from, first and last; 0 to 0: any.
    pub host_ports: (u16, u16),
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; unspecified: all.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// An address that is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The way out.
    pub gateway: Ipv4Addr,
    /// The hardware address.
    pub mac: [u8; 6],
}

/// A container's place on the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's end of the veth pair.
    pub host_interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The way out.
    pub gateway: Ipv4Addr,
    /// The hardware address.
    pub mac: [u8; 6],
    /// What is published.
    pub ports: Vec<PortMapping>,
}

/// Why something about the network failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A port of the host is taken.
    #[error("{0}")]
    PortTaken(String),
    /// A request that makes no sense, or is not supported.
    #[error("{0}")]
    Invalid(String),
    /// Every address, or every network, is in use.
    #[error("{0}")]
    Exhausted(String),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A kernel setting could not be written.
    #[error("write {path}")]
    Setting {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What class of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A port of the host is taken.
    PortTaken,
    /// A request that makes no sense.
    Invalid,
    /// Everything else.
    System,
}

impl Failure {
    /// The class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PortTaken(_) => ErrorKind::PortTaken,
            Self::Invalid(_) => ErrorKind::Invalid,
            _ => ErrorKind::System,
        }
    }
}

/// The result of a call.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The default bridge, its addresses and its published ports.
#[derive(Debug)]
pub struct Network {
    config: BridgeConfig,
    state: Arc<Mutex<State>>,
    /// Links to delete; the thread that does is there once the first is. It takes the kernel ten times as long to take a
    /// veth pair away as to make one, and nobody has to wait for it.
    dead: Mutex<Option<mpsc::Sender<Dead>>>,
}

/// A link that nobody needs any more, and the address that is free once it is gone.
#[derive(Debug)]
struct Dead {
    host_interface: String,
    address: Ipv4Addr,
}

#[derive(Debug)]
struct State {
    /// Some once the bridge exists.
    bridge: Option<Bridge>,
    ports: Ports,
    /// Of links that could not be deleted, for the next call that can tell of them.
    late_errors: Vec<Failure>,
}

#[derive(Debug)]
struct Bridge {
    index: u32,
    pool: Pool,
    links: sys::netlink::Socket,
    firewall: Firewall,
}

impl Network {
    /// Prepares the network; nothing exists yet.
    ///
    /// # Errors
    /// A name that is none.
    pub fn open(config: BridgeConfig) -> Result<Self> {
        let name = &config.name;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ', '\0']) {
            return Err(Failure::Invalid(format!(
                "{name:?} is no name for an interface: it has 1 to 15 bytes, no slash and no space"
            )));
        }
        Ok(Self {
            config,
            state: Arc::new(Mutex::new(State {
                bridge: None,
                ports: Ports::new(),
                late_errors: Vec::new(),
            })),
            dead: Mutex::default(),
        })
    }

    /// How it was asked to be.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// The bridge's network, once it exists.
    pub fn subnet(&self) -> Option<Subnet> {
        self.lock()
            .bridge
            .as_ref()
            .map(|bridge| bridge.pool.subnet())
    }

    /// A panic in between leaves at most an address or port marked that nobody has.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the kernel to exactly these endpoints: ports published again, interfaces of others removed. To be called
    /// once, before anything else.
    ///
    /// # Errors
    /// As the kernel.
    pub fn adopt(&self, endpoints: &[Endpoint]) -> Result<()> {
        let mut state = self.lock();
        let exists = link::index(&link::open()?, &self.config.name)?.is_some();
        if !exists && endpoints.is_empty() {
            return Ok(());
        }
        let State { bridge, ports, .. } = &mut *state;
        let bridge = match bridge {
            Some(bridge) => bridge,
            None => bridge.insert(self.open_bridge()?),
        };
        for endpoint in endpoints {
            bridge.pool.mark(endpoint.address);
            endpoint
                .ports
                .iter()
                .for_each(|mapping| ports.mark(mapping));
        }
        let elements: Vec<nft::Element<'_>> = endpoints
            .iter()
            .flat_map(|e| e.ports.iter().map(|mapping| (mapping, e.address)))
            .collect();
        bridge.firewall.rebuild(bridge.pool.subnet(), &elements)?;
        for name in link::ports_of(&mut bridge.links, bridge.index)? {
            if name.starts_with("veth")
                && endpoints
                    .iter()
                    .all(|endpoint| endpoint.host_interface != name)
            {
                link::delete(&mut bridge.links, &name)?;
            }
        }
        Ok(())
    }

    /// Reserves an address. The bridge is made if this is the first.
    ///
    /// # Errors
    /// No address is free, or as the kernel.
    pub fn reserve(&self, mac: Option<[u8; 6]>) -> Result<Lease> {
        let mut state = self.lock();
        let bridge = self.ensure(&mut state)?;
        let subnet = bridge.pool.subnet();
        let address = bridge.pool.take().ok_or_else(|| {
            Failure::Exhausted(format!(
                "no free address in {}/{}",
                subnet.network(),
                subnet.prefix
            ))
        })?;
        // A hardware address derived from the address: what neighbours remember of it stays true for the next owner.
        let [a, b, c, d] = address.octets();
        let mac = mac.unwrap_or([0x02, 0x42, a, b, c, d]);
        Ok(Lease {
            address,
            prefix: subnet.prefix,
            gateway: subnet.gateway,
            mac,
        })
    }

    fn ensure<'a>(&self, state: &'a mut State) -> Result<&'a mut Bridge> {
        if state.bridge.is_none() {
            let mut bridge = self.open_bridge()?;
            bridge.firewall.rebuild(bridge.pool.subnet(), &[])?;
            state.bridge = Some(bridge);
        }
        Ok(state.bridge.as_mut().expect("it was made above"))
    }

    /// Finds the bridge or makes it, and sets the kernel up for it.
    fn open_bridge(&self) -> Result<Bridge> {
        let name = &self.config.name;
        let mut links = link::open()?;
        let found = match link::index(&links, name)? {
            Some(index) => link::addresses_of(&mut links, index)?.first().copied(),
            None => None,
        };
        let subnet = match found {
            Some((gateway, prefix)) => Subnet { gateway, prefix },
            None => {
                let subnet = self.choose_subnet(&mut links)?;
                // One without an address is the rest of a crash.
                link::delete(&mut links, name)?;
                link::create_bridge(
                    &mut links,
                    name,
                    subnet.gateway,
                    subnet.prefix,
                    self.config.mtu,
                )?;
                subnet
            }
        };
        let missing = || NetlinkError {
            what: format!("index of bridge {name}"),
            errno: rustix::io::Errno::NODEV,
        };
        let index = link::index(&links, name)?.ok_or_else(missing)?;
        // Packets are forwarded; published ports are reached from the loopback network, too; and no router advertisement
        // of a container is listened to (CVE-2020-13401).
        setting("ipv4/ip_forward", "1")?;
        setting(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        optional_setting(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        Ok(Bridge {
            index,
            pool: Pool::new(subnet),
            links,
            firewall: Firewall::open(name)?,
        })
    }

    fn choose_subnet(&self, links: &mut sys::netlink::Socket) -> Result<Subnet> {
        if let Some(subnet) = self.config.subnet {
            return Ok(subnet);
        }
        let routed = link::routed_networks(links)?;
        let free = default_subnets().find(|subnet| {
            routed
                .iter()
                .all(|(network, prefix)| !subnet.overlaps(*network, *prefix))
        });
        free.ok_or_else(|| Failure::Exhausted(
            "every default network, 172.17.0.0/16 to 172.31.0.0/16, overlaps a route of the host: choose one with --bip".to_owned(),
        ))
    }

    /// Connects an endpoint with the network namespace of a container that has none yet.
    ///
    /// # Errors
    /// As the kernel; what was made is undone.
    pub fn connect(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
        let mut state = self.lock();
        let mtu = self.config.mtu;
        let bridge = self.ensure(&mut state)?;
        let (name, index) = (&endpoint.host_interface, bridge.index);
        link::create_veth(&mut bridge.links, name, index, netns, endpoint.mac, mtu)?;
        drop(state);
        let configured = link::inside(netns, || {
            // An IPv4-only network has no IPv6 (CVE-2024-32473). Without IPv6 in the kernel there is nothing to disable.
            let setting = optional_setting(
                &format!("ipv6/conf/{}/disable_ipv6", link::CONTAINER_INTERFACE),
                "1",
            );
            let mut links = link::open()?;
            link::configure_container(
                &mut links,
                endpoint.address,
                endpoint.prefix,
                endpoint.gateway,
            )?;
            Ok(setting)
        });
        let result = configured
            .map_err(Failure::from)
            .and_then(|setting| setting);
        if result.is_err()
            && let Some(bridge) = &mut self.lock().bridge
        {
            // The first error is the one to tell; the sweep at the next start finds what this leaves.
            let _ = link::delete(&mut bridge.links, name);
        }
        result
    }

    /// Publishes ports of a container, all or none.
    ///
    /// # Errors
    /// A port that is taken, or as the kernel.
    pub fn publish(&self, address: Ipv4Addr, requests: &[Publish]) -> Result<Vec<PortMapping>> {
        let mut state = self.lock();
        self.ensure(&mut state)?;
        let State { bridge, ports, .. } = &mut *state;
        let chosen = ports.choose(requests)?;
        let elements: Vec<nft::Element<'_>> =
            chosen.iter().map(|mapping| (mapping, address)).collect();
        let Some(bridge) = bridge else {
            return Ok(Vec::new());
        };
        if let Err(error) = bridge.firewall.add(&elements) {
            chosen.iter().for_each(|mapping| ports.give_back(mapping));
            return Err(error.into());
        }
        Ok(chosen)
    }

    /// Takes an endpoint away, as far as it exists. Its ports are free at once; its link goes, and its address is free,
    /// some milliseconds later. Goes on after an error and returns all of them, those of earlier links included; what
    /// could not be taken away stays marked, so that nobody gets what still leads elsewhere.
    pub fn disconnect(&self, endpoint: &Endpoint) -> Vec<Failure> {
        let mut state = self.lock();
        let mut errors = std::mem::take(&mut state.late_errors);
        let State { bridge, ports, .. } = &mut *state;
        let Some(bridge) = bridge else { return errors };
        if !endpoint.ports.is_empty() {
            let elements: Vec<nft::Element<'_>> = endpoint
                .ports
                .iter()
                .map(|mapping| (mapping, endpoint.address))
                .collect();
            match bridge.firewall.remove(&elements) {
                Ok(()) => endpoint
                    .ports
                    .iter()
                    .for_each(|mapping| ports.give_back(mapping)),
                Err(error) => errors.push(error.into()),
            }
        }
        drop(state);
        self.bury(Dead {
            host_interface: endpoint.host_interface.clone(),
            address: endpoint.address,
        });
        errors
    }

    /// Hands a link to the thread that deletes them.
    fn bury(&self, dead: Dead) {
        let mut sender = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            let state = Arc::clone(&self.state);
            std::thread::spawn(move || delete_links(&receiver, &state));
            sender
        });
        // The thread lives as long as the sender.
        let _ = sender.send(dead);
    }
}

/// Deletes links until nobody can send any more.
fn delete_links(dead: &mpsc::Receiver<Dead>, state: &Mutex<State>) {
    for Dead {
        host_interface,
        address,
    } in dead
    {
        let deleted = link::open().and_then(|mut links| link::delete(&mut links, &host_interface));
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        match (deleted, &mut state.bridge) {
            (Ok(()), Some(bridge)) => bridge.pool.give_back(address),
            (Ok(()), None) => {}
            (Err(error), _) => state.late_errors.push(error.into()),
        }
    }
}

/// Brings the loopback interface of a network namespace up.
///
/// # Errors
/// As the kernel.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<()> {
    Ok(link::inside(netns, || {
        link::loopback_up(&mut link::open()?)
    })?)
}

/// Writes a setting of the calling thread's network namespace unless it is so already.
fn setting(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    if std::fs::read_to_string(&path).is_ok_and(|present| present.trim_end() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| Failure::Setting { path, source })
}

/// As [`setting`], where a kernel without the setting does not need it either.
fn optional_setting(name: &str, value: &str) -> Result<()> {
    match setting(name, value) {
        Err(Failure::Setting { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    }
}
