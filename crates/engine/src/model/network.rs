//! A container on its networks: what is asked of them, and its place in them.

use crate::networks::PluginRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// A loopback interface and nothing else.
    None,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(String),
    /// One that somebody made, as the request calls it.
    Network(String),
}

/// A container's network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Which.
    pub mode: NetworkMode,
    /// Ports of the container that the image or the request names, as `80/tcp`.
    pub exposed: Vec<Port>,
    /// Published ports.
    pub published: Vec<PublishedPort>,
    /// Publish every exposed port on a port of the host's choice.
    pub publish_all: bool,
    /// `name:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// The interface's hardware address instead of a derived one.
    pub mac_address: Option<String>,
    /// Other containers of the default bridge under names of its own, as `container:name`; the ids of containers once it exists.
    #[serde(default)]
    pub links: Vec<String>,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol of this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        all.into_iter()
            .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
    }
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A request to publish a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub port: Port,
    /// The host's address; None: all.
    pub host_ip: Option<IpAddr>,
    /// The host's ports to choose from, first and last; 0 to 0: any.
    pub host_ports: (u16, u16),
}

/// A container's connection with a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's id.
    pub network: String,
    /// The network's name.
    pub name: String,
    /// What was asked for.
    #[serde(default)]
    pub wish: EndpointWish,
    /// Its place there, while it runs or is being started.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
}

/// What a container asks of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointWish {
    /// This IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// This IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses, for the link alone.
    pub link_local: Vec<IpAddr>,
    /// This hardware address, as text.
    pub mac_address: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// Names of its own for other containers, as `container:name`.
    pub links: Vec<String>,
    /// Options of the driver.
    pub driver_options: BTreeMap<String, String>,
    /// The network with the highest is the way out.
    pub gateway_priority: i64,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The host's end of the veth pair.
    pub host_interface: String,
    /// The container's end.
    pub interface: String,
    /// Its addresses, one of each family at most.
    pub places: Vec<Place>,
    /// The hardware address.
    pub mac: [u8; 6],
    /// What is published.
    pub ports: Vec<PortMapping>,
    /// The port of ::1 at which the shim hands on what comes from there for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<u16>,
    /// On a network of plugins what these have been asked, and have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Box<PluginRecord>>,
}

impl Endpoint {
    /// Its address of a family.
    pub fn place(&self, is_ipv6: bool) -> Option<&Place> {
        self.places
            .iter()
            .find(|place| place.address.is_ipv6() == is_ipv6)
    }
}

/// An address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The way out, where the network has one.
    pub gateway: Option<IpAddr>,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The container's port.
    pub port: Port,
    /// The host's address; unspecified: all.
    pub host_ip: IpAddr,
    /// The host's port; 0 in a network that is routed, where the container's own is reached.
    pub host_port: u16,
}
