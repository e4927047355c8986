//! Bridges, endpoints, address management, published ports, and the firewall around them.
//!
//! [`Networks`] are all bridge networks of an engine. Nothing of the default one exists until the first endpoint needs it: an idle
//! engine leaves the host's network as it is. Everything goes through netlink, in as few messages as possible; no program is
//! executed, and there is no process or socket per published port.
//!
//! What lasts (networks, endpoints and their ports) is recorded by the caller, who tells of it with [`Networks::adopt`] when it
//! starts: the kernel is then brought to exactly that. When somebody else empties the firewall it is brought to that again.

mod address;
mod configure;
mod explain;
mod firewall;
mod guard;
mod ipam;
mod link;
mod listeners;
mod networks;
mod nft;
mod ports;
mod rate;
mod redirect;
mod sets;
mod spoofing;
mod state;
mod subnet;
mod tunnel;
mod uplink;
mod watch;

pub use explain::{Explanation, Origin, Reach};
pub use ipam::{AddressPool, Range};
pub use networks::{EndpointRequest, Networks};
pub use rate::Rate;
pub use redirect::redirect_names;
pub use subnet::Subnet;
pub use sys::netlink::Error as NetlinkError;
pub use tunnel::{Tunnel, VXLAN_PORT};
pub use uplink::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, Uplink, UplinkMode};

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

/// How addresses of one family come about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Not at all.
    #[default]
    None,
    /// From a network that nobody else has, chosen when the bridge is made.
    Choose,
    /// From this one.
    Fixed(Range),
}

/// How the world reaches the containers of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// Outwards by the host's address, inwards by published ports alone.
    #[default]
    Nat,
    /// As [`GatewayMode::Nat`], but whoever has a route reaches every port.
    NatUnprotected,
    /// By the containers' own addresses, and of these the published ports alone.
    Routed,
    /// Not at all: the host has no address in the network. Only for internal ones.
    Isolated,
}

/// How a network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The bridge's name, at most 15 bytes.
    pub interface: String,
    /// Some: there is no bridge, and containers are on an interface of the host.
    pub uplink: Option<Uplink>,
    /// Some: other hosts have the network, too.
    pub tunnel: Option<Tunnel>,
    /// Its IPv4 addresses.
    pub ipv4: Addressing,
    /// Its IPv6 addresses.
    pub ipv6: Addressing,
    /// The largest packet in bytes; None: the kernel's default.
    pub mtu: Option<u32>,
    /// Nothing goes out of it, and nothing comes in.
    pub internal: bool,
    /// Whether its containers reach each other.
    pub icc: bool,
    /// Whether its containers show the host's address to the world.
    pub masquerade: bool,
    /// Whether containers can send in their own name only.
    pub checks_senders: bool,
    /// Of IPv4.
    pub gateway_mode4: GatewayMode,
    /// Of IPv6.
    pub gateway_mode6: GatewayMode,
    /// The host gets no IPv4 address in it.
    pub inhibit_ipv4: bool,
}

impl BridgeConfig {
    /// A bridge as it is unless asked otherwise: IPv4 from a network that is free.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            uplink: None,
            tunnel: None,
            ipv4: Addressing::Choose,
            ipv6: Addressing::None,
            mtu: None,
            internal: false,
            icc: true,
            masquerade: true,
            checks_senders: true,
            gateway_mode4: GatewayMode::Nat,
            gateway_mode6: GatewayMode::Nat,
            inhibit_ipv4: false,
        }
    }

    /// Whether the host has an address of a family in it, which containers take as the way out.
    fn has_gateway(&self, is_ipv6: bool) -> bool {
        let mode = if is_ipv6 {
            self.gateway_mode6
        } else {
            self.gateway_mode4
        };
        mode != GatewayMode::Isolated && (is_ipv6 || !self.inhibit_ipv4)
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IANA's number of it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
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
    /// The host's addresses, which get the same port; an unspecified one: all of its family.
    pub host_ips: Vec<IpAddr>,
    /// The host's ports to choose from, first and last; 0 to 0: any.
    pub host_ports: (u16, u16),
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; unspecified: all.
    pub host_ip: IpAddr,
    /// The host's port; 0 in a network that is routed, where the container's own is reached.
    pub host_port: u16,
}

impl PortMapping {
    /// Whether connections from ::1 come by it once [`Endpoint::relay`] says where they are handed on.
    pub fn is_relayed(&self) -> bool {
        let is_for_it = self.host_ip.is_unspecified() || self.is_on_loopback6();
        self.protocol == Protocol::Tcp && self.host_port != 0 && is_for_it
    }

    /// Whether it is on ::1 alone.
    pub fn is_on_loopback6(&self) -> bool {
        self.host_ip == IpAddr::V6(Ipv6Addr::LOCALHOST)
    }
}

/// An address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The way out, where there is one; unspecified: the interface itself.
    pub gateway: Option<IpAddr>,
}

/// A container's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's end of the veth pair.
    pub host_interface: String,
    /// The container's end.
    pub interface: String,
    /// Its addresses, one of each family at most.
    pub addresses: Vec<Address>,
    /// Further addresses, for the link alone.
    pub link_local: Vec<IpAddr>,
    /// The hardware address.
    pub mac: [u8; 6],
    /// What is published.
    pub ports: Vec<PortMapping>,
    /// The port of ::1 at which somebody hands on to it what comes for its ports from ::1, TCP alone.
    pub relay: Option<u16>,
    /// What its interface is set to beyond what the network needs.
    pub settings: Vec<InterfaceSetting>,
}

/// A kernel parameter of one interface, such as `net.ipv4.conf.eth0.log_martians`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSetting {
    /// The directory of the parameters of all interfaces, below `/proc/sys/net`: `ipv4/conf`.
    directory: String,
    /// Its name there: `log_martians`.
    name: String,
    value: String,
}

impl InterfaceSetting {
    /// Reads `net.ipv4.conf.IFNAME.log_martians=1`. None: it is written otherwise, or not of IP, MPLS, or a kind of theirs.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameter, value) = text.split_once('=')?;
        let parts: Vec<&str> = parameter.split('.').collect();
        let [
            "net",
            family @ ("ipv4" | "ipv6" | "mpls"),
            kind,
            "IFNAME" | "ifname",
            name,
        ] = parts[..]
        else {
            return None;
        };
        // They become a path of the host's /proc.
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            !text.is_empty() && text.bytes().all(plain)
        };
        (is_name(kind) && is_name(name)).then(|| Self {
            directory: format!("{family}/{kind}"),
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl Endpoint {
    /// The address to which connections from ::1 are handed on.
    pub fn relayed_to(&self) -> Option<IpAddr> {
        let address = self.address(false).or_else(|| self.address(true));
        address.map(|address| address.address)
    }

    /// Its address of a family.
    pub fn address(&self, is_ipv6: bool) -> Option<&Address> {
        self.addresses
            .iter()
            .find(|address| address.address.is_ipv6() == is_ipv6)
    }
}

/// Why something about the network failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A port of the host is taken.
    #[error("{0}")]
    PortTaken(String),
    /// An address is taken that was asked for.
    #[error("Address already in use: {0}")]
    AddressTaken(IpAddr),
    /// A request that makes no sense, or is not supported.
    #[error("{0}")]
    Invalid(String),
    /// There is no such network any more.
    #[error("the network is gone")]
    Gone,
    /// A network that has endpoints.
    #[error("the network has active endpoints")]
    InUse,
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
    /// A port of the host is taken, or an address.
    Taken,
    /// A request that makes no sense.
    Invalid,
    /// Something is in use, or gone.
    Conflict,
    /// Everything else.
    System,
}

impl Failure {
    /// The class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::PortTaken(_) | Self::AddressTaken(_) => ErrorKind::Taken,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::InUse | Self::Gone => ErrorKind::Conflict,
            _ => ErrorKind::System,
        }
    }
}

/// The result of a call.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Brings the loopback interface of a network namespace up.
///
/// # Errors
/// As the kernel.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<()> {
    link::inside(netns, || Ok(link::loopback_up(&mut link::open()?)?))
}

/// Sets an interface of a network namespace, which somebody else has made.
///
/// # Errors
/// As the kernel.
pub fn set_interface(
    netns: BorrowedFd<'_>,
    interface: &str,
    settings: &[InterfaceSetting],
) -> Result<()> {
    link::inside(netns, || configure::apply(interface, settings))
}

/// Has the containers of a namespace leave by these gateways, each of an interface, instead of those they had.
///
/// # Errors
/// As the kernel.
pub fn set_default_routes(netns: BorrowedFd<'_>, gateways: &[(String, IpAddr)]) -> Result<()> {
    link::inside(netns, || {
        let mut links = link::open()?;
        for is_ipv6 in [false, true] {
            address::remove_default_routes(&mut links, is_ipv6)?;
        }
        for (interface, gateway) in gateways {
            let index = link::index_of(&links, interface)?;
            links.send(vec![address::add_default_route(index, *gateway)])?;
        }
        Ok(())
    })
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
