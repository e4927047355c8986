//! A container's endpoint: reserved, connected, published, and taken away.

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::ids;
use crate::model::{Endpoint, NetworkMode, PortMapping, Protocol, PublishedPort};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

impl Engine {
    /// Chooses the address and the names of a container's endpoint. Nothing of it exists yet.
    pub(crate) fn reserve_endpoint(&self, container: &Container) -> Result<()> {
        let spec = &container.spec;
        if spec.network.mode != NetworkMode::Bridge {
            return Ok(());
        }
        let mac = spec
            .network
            .mac_address
            .as_deref()
            .map(parse_mac)
            .transpose()?;
        let lease = self
            .0
            .network
            .reserve(mac)
            .context(|| "reserve an address for the container")?;
        let id = ids::random_id()?;
        container.change(|state| {
            state.endpoint = Some(Endpoint {
                host_interface: format!("veth{}", &id[..10]),
                id,
                address: lease.address,
                prefix: lease.prefix,
                gateway: lease.gateway,
                mac: lease.mac,
                ports: Vec::new(),
            });
        });
        Ok(())
    }

    /// Brings the interfaces in the network namespace of the process up.
    pub(crate) fn connect(&self, container: &Container, pid: i32) -> Result<()> {
        let mode = &container.spec.network.mode;
        if matches!(mode, NetworkMode::Host | NetworkMode::Container(_)) {
            return Ok(());
        }
        let path = format!("/proc/{pid}/ns/net");
        let netns = std::fs::File::open(&path).context(|| format!("open {path}"))?;
        match container.state().endpoint {
            Some(endpoint) => {
                let connected = self
                    .0
                    .network
                    .connect(netns.as_fd(), &to_network(&endpoint));
                connected.context(|| "connect the container to the bridge")
            }
            None => {
                network::loopback_up(netns.as_fd()).context(|| "bring the loopback interface up")
            }
        }
    }

    /// Publishes the ports that the container asks for.
    pub(crate) fn publish(&self, container: &Container) -> Result<()> {
        let network = &container.spec.network;
        let Some(endpoint) = container.state().endpoint else {
            return Ok(());
        };
        let mut wanted = network.published.clone();
        if network.publish_all {
            let missing = network
                .exposed
                .iter()
                .filter(|port| wanted.iter().all(|w| w.port != **port));
            let missing: Vec<_> = missing
                .map(|port| PublishedPort {
                    port: *port,
                    host_ip: None,
                    host_ports: (0, 0),
                })
                .collect();
            wanted.extend(missing);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let requests: Vec<_> = wanted.iter().map(to_publish).collect();
        let published = self.0.network.publish(endpoint.address, &requests);
        let ports = published.map_err(|error| match error.kind() {
            network::ErrorKind::PortTaken => Error::conflict(format!(
                "driver failed programming external connectivity on endpoint {}: {error}",
                container.name()
            )),
            network::ErrorKind::Invalid => Error::invalid(error.to_string()),
            network::ErrorKind::System => Error::system("publish the container's ports", error),
        })?;
        container.change(|state| {
            if let Some(endpoint) = &mut state.endpoint {
                endpoint.ports = ports.iter().map(from_mapping).collect();
            }
        });
        // Recorded before the container runs: a new engine publishes what is recorded, and nothing else.
        self.save_state(container)
    }

    /// Takes a container's endpoint away, as far as it exists. What fails is logged: the engine's next start sweeps it.
    pub(crate) fn disconnect(&self, container: &Container) {
        let Some(endpoint) = container.state().endpoint else {
            return;
        };
        for error in self.0.network.disconnect(&to_network(&endpoint)) {
            tracing::error!(container = container.id(), %error, "cannot take a container's endpoint away");
        }
        container.change(|state| state.endpoint = None);
    }

    /// Tells the network of the endpoints that exist, and has it remove everything else that looks like one.
    pub(crate) fn adopt_endpoints(&self) -> Result<()> {
        let containers = self.0.registry.all();
        let endpoints = containers
            .iter()
            .filter_map(|container| container.state().endpoint);
        let endpoints: Vec<_> = endpoints.map(|endpoint| to_network(&endpoint)).collect();
        self.0
            .network
            .adopt(&endpoints)
            .context(|| "restore the network")
    }
}

fn to_network(endpoint: &Endpoint) -> network::Endpoint {
    network::Endpoint {
        host_interface: endpoint.host_interface.clone(),
        address: endpoint.address,
        prefix: endpoint.prefix,
        gateway: endpoint.gateway,
        mac: endpoint.mac,
        ports: endpoint.ports.iter().map(to_mapping).collect(),
    }
}

fn to_protocol(protocol: Protocol) -> network::Protocol {
    match protocol {
        Protocol::Tcp => network::Protocol::Tcp,
        Protocol::Udp => network::Protocol::Udp,
    }
}

fn to_mapping(mapping: &PortMapping) -> network::PortMapping {
    network::PortMapping {
        protocol: to_protocol(mapping.port.protocol),
        container_port: mapping.port.number,
        host_ip: mapping.host_ip,
        host_port: mapping.host_port,
    }
}

fn from_mapping(mapping: &network::PortMapping) -> PortMapping {
    let protocol = match mapping.protocol {
        network::Protocol::Tcp => Protocol::Tcp,
        network::Protocol::Udp => Protocol::Udp,
    };
    let port = crate::model::Port {
        number: mapping.container_port,
        protocol,
    };
    PortMapping {
        port,
        host_ip: mapping.host_ip,
        host_port: mapping.host_port,
    }
}

fn to_publish(wanted: &PublishedPort) -> network::Publish {
    network::Publish {
        protocol: to_protocol(wanted.port.protocol),
        container_port: wanted.port.number,
        host_ip: wanted.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        host_ports: wanted.host_ports,
    }
}

/// Reads `02:42:ac:11:00:02`.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = || Error::invalid(format!("{text:?} is not a valid mac address"));
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2)
            .ok_or_else(invalid)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
    }
    if parts.next().is_some() || mac[0] & 1 == 1 {
        Err(invalid())
    } else {
        Ok(mac)
    }
}
