//! A container's endpoints: reserved, connected, published, and taken away.

use super::{Network, failed, options, plugins};
use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::ids;
use crate::model::{
    Attachment, Endpoint, EndpointWish, NetworkMode, Place, PortMapping, Protocol, PublishedPort,
};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// The name of the interface in the container, of a connection's driver options.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";
/// Kernel parameters of that interface, with commas between them.
const INTERFACE_SETTINGS: &str = "com.docker.network.endpoint.sysctls";
/// How the names of options begin that mean something to Docker's own drivers.
const DOCKERS_OPTIONS: &str = "com.docker.network.";

impl Engine {
    /// Chooses the addresses and the names of a container's endpoints. Nothing of them exists yet.
    pub(crate) fn reserve_endpoints(&self, container: &Container) -> Result<()> {
        for attachment in &container.state().attachments {
            self.reserve_endpoint(container, attachment)?;
        }
        Ok(())
    }

    /// Likewise of one, which the container's state has then.
    pub(super) fn reserve_endpoint(
        &self,
        container: &Container,
        attachment: &Attachment,
    ) -> Result<Endpoint> {
        let network = self.network(&attachment.network)?;
        if plugins::make(&network) {
            let plugins = self.plan_plugins(container, attachment, &network)?;
            let endpoint = Endpoint {
                id: ids::random_id()?,
                host_interface: String::new(),
                interface: interface_name(container, &network, &attachment.wish)?,
                places: Vec::new(),
                mac: [0; 6],
                ports: Vec::new(),
                relay: None,
                plugins: Some(Box::new(plugins)),
            };
            set_endpoint(container, &network.id, Some(endpoint.clone()));
            return Ok(endpoint);
        }
        let id = ids::random_id()?;
        let wish = &attachment.wish;
        let mac = wish.mac_address.as_deref().map(parse_mac).transpose()?;
        let addresses = wish.ipv4.map(IpAddr::V4).into_iter();
        let request = network::EndpointRequest {
            host_interface: format!("veth{}", &id[..10]),
            interface: interface_name(container, &network, wish)?,
            addresses: addresses.chain(wish.ipv6.map(IpAddr::V6)).collect(),
            link_local: wish.link_local.clone(),
            mac,
        };
        let reserved = self.0.network.reserve(&network.id, request);
        let reserved =
            reserved.map_err(|failure| failed("reserve an address for the container", failure))?;
        let endpoint = Endpoint {
            id,
            host_interface: reserved.host_interface,
            interface: reserved.interface,
            places: reserved.addresses.iter().map(to_place).collect(),
            mac: reserved.mac,
            ports: Vec::new(),
            relay: None,
            plugins: None,
        };
        set_endpoint(container, &network.id, Some(endpoint.clone()));
        Ok(endpoint)
    }

    /// Brings the interfaces in the network namespace of the process up.
    pub(crate) fn connect(&self, container: &Container, pid: i32) -> Result<()> {
        let mode = &container.spec.network.mode;
        if matches!(mode, NetworkMode::Host | NetworkMode::Container(_)) {
            return Ok(());
        }
        let netns = network_namespace(pid)?;
        let state = container.state();
        let mut ways_out: Vec<&str> = Vec::new();
        for is_ipv6 in [false, true] {
            ways_out.extend(state.way_out(is_ipv6).map(|(way, _)| way.network.as_str()));
        }
        // With one way out for everything it is set with the interface.
        let single = ways_out.iter().all(|way| *way == ways_out[0]);
        for (attachment, known) in state.endpoints() {
            let network = &attachment.network;
            let routes = single && ways_out.first() == Some(&network.as_str());
            self.make_interface(container, (attachment, known), (pid, &netns), routes)?;
            self.network_event(&*self.network(network)?, "connect", Some(container.id()));
        }
        if state.endpoints().next().is_none() {
            network::loopback_up(netns.as_fd()).context(|| "bring the loopback interface up")?;
        }
        // What plugins have made has routes already, and tells only now where they lead.
        let has_plugins = state.endpoints().any(|(_, known)| known.plugins.is_some());
        if !single || (has_plugins && state.attachments.len() > 1) {
            self.route(container, &netns)?;
        }
        self.write_names_of(&state.attachments)
    }

    /// Makes an endpoint's interface in the network namespace of a process. `routes`: everything else is reached by it.
    pub(super) fn make_interface(
        &self,
        container: &Container,
        (attachment, known): (&Attachment, &Endpoint),
        (pid, netns): (i32, &File),
        routes: bool,
    ) -> Result<()> {
        let network = &attachment.network;
        if known.plugins.is_some() {
            self.plug(container, attachment, (pid, netns))?;
            let settings = interface_settings(&attachment.wish)?;
            network::set_interface(netns.as_fd(), &known.interface, &settings)
                .map_err(|failure| connecting(attachment, failure))?;
        } else {
            let endpoint = to_network(attachment, known);
            let made = self
                .0
                .network
                .connect(network, netns.as_fd(), &endpoint, routes);
            made.map_err(|failure| connecting(attachment, failure))?;
        }
        self.bound_endpoint(container, attachment, known)
    }

    /// Has everything else leave by the networks that lead there.
    pub(super) fn route(&self, container: &Container, netns: &File) -> Result<()> {
        let state = container.state();
        let gateways = [false, true].into_iter().filter_map(|is_ipv6| {
            let (_, endpoint) = state.way_out(is_ipv6)?;
            Some((
                endpoint.interface.clone(),
                endpoint.place(is_ipv6)?.gateway?,
            ))
        });
        let gateways: Vec<_> = gateways.collect();
        network::set_default_routes(netns.as_fd(), &gateways)
            .context(|| "set the container's default routes")
    }

    /// Publishes the ports that the container asks for, on the network by which it is reached from everywhere else. False: it
    /// asks for none.
    pub(crate) fn publish(&self, container: &Container) -> Result<bool> {
        let wanted = wanted_ports(container);
        let state = container.state();
        if wanted.is_empty() || state.attachments.is_empty() {
            return Ok(false);
        }
        let (attachment, endpoint) = publishing(&state).ok_or_else(|| {
            Error::invalid("cannot publish ports: no network of the container leads anywhere else")
        })?;
        let network = self.network(&attachment.network)?;
        if plugins::make(&network) {
            return match endpoint.ports.is_empty() {
                false => Ok(true),
                true => Err(Error::invalid(format!(
                    "cannot publish ports: {} is a cni network, and has to be the container's only one for that",
                    network.name
                ))),
            };
        }
        let requests: Vec<_> = wanted
            .iter()
            .map(|wanted| to_publish(wanted, endpoint, &network))
            .collect();
        let known = to_network(attachment, endpoint);
        let published = self.0.network.publish(&network.id, &known, &requests);
        let ports = published.map_err(|error| match error.kind() {
            network::ErrorKind::Taken => Error::conflict(format!(
                "driver failed programming external connectivity on endpoint {}: {error}",
                container.name()
            )),
            _ => failed("publish the container's ports", error),
        })?;
        let ports = ports.iter().map(from_mapping).collect();
        change_endpoint(container, &network.id, |endpoint| endpoint.ports = ports);
        Ok(true)
    }

    /// Takes a container's endpoints away, as far as they exist. What fails is logged: the engine's next start sweeps it.
    pub(crate) fn disconnect(&self, container: &Container) {
        for attachment in &container.state().attachments {
            if let Some(endpoint) = &attachment.endpoint {
                self.take_away(container, attachment, endpoint, false);
            }
        }
        if let Err(error) = self.write_names_of(&container.state().attachments) {
            tracing::error!(
                container = container.id(),
                error = error.chain(),
                "cannot take a container's names away"
            );
        }
    }

    pub(super) fn take_away(
        &self,
        container: &Container,
        attachment: &Attachment,
        endpoint: &Endpoint,
        waited: bool,
    ) {
        let network = &attachment.network;
        let known = to_network(attachment, endpoint);
        if endpoint.plugins.is_some() {
            let pid = container.state().pid.filter(|_| waited);
            if let Err(error) = self.unplug_plugins(container, endpoint, pid) {
                tracing::error!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot have plugins take a container's endpoint away"
                );
            }
        } else {
            for error in self.0.network.disconnect(network, &known, waited) {
                tracing::error!(container = container.id(), %error, "cannot take a container's endpoint away");
            }
        }
        set_endpoint(container, network, None);
        if let Ok(network) = self.network(network) {
            self.network_event(&network, "disconnect", Some(container.id()));
        }
    }

    /// Tells the network of the endpoints that exist, and has it remove everything else that looks like one.
    pub(crate) fn adopt_endpoints(&self) -> Result<()> {
        let mut endpoints = Vec::new();
        for container in self.0.registry.all() {
            let state = container.state();
            let own = state
                .endpoints()
                .filter(|(_, endpoint)| endpoint.plugins.is_none());
            for (attachment, endpoint) in own {
                endpoints.push((attachment.network.clone(), to_network(attachment, endpoint)));
            }
        }
        let made: Vec<String> = self.made_networks().into_keys().collect();
        self.0
            .network
            .adopt(&made, &endpoints)
            .context(|| "restore the networks")?;
        for container in self.0.registry.all() {
            // Its interface may be gone with it, and then there is nothing to limit.
            if let Err(error) =
                self.bound_endpoints(&container, container.snapshot().limits().network_rate)
            {
                tracing::warn!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot limit a container's network"
                );
            }
        }
        Ok(())
    }
}

/// The network namespace of a process.
pub(crate) fn network_namespace(pid: i32) -> Result<File> {
    let path = network_namespace_path(pid);
    File::open(&path).context(|| format!("open {path:?}"))
}

pub(super) fn network_namespace_path(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Changes a container's endpoint on a network, where it has one.
pub(super) fn change_endpoint(
    container: &Container,
    network: &str,
    change: impl FnOnce(&mut Endpoint),
) {
    container.change(|state| {
        let mut attachments = state.attachments.iter_mut();
        let attachment = attachments.find(|attachment| attachment.network == network);
        if let Some(endpoint) = attachment.and_then(|attachment| attachment.endpoint.as_mut()) {
            change(endpoint);
        }
    });
}

fn set_endpoint(container: &Container, network: &str, endpoint: Option<Endpoint>) {
    container.change(|state| {
        let mut attachments = state.attachments.iter_mut();
        if let Some(attachment) = attachments.find(|attachment| attachment.network == network) {
            attachment.endpoint = endpoint;
        }
    });
}

/// The endpoint that a container's ports are published on.
pub(super) fn publishing(state: &crate::model::State) -> Option<(&Attachment, &Endpoint)> {
    state.way_out(false).or_else(|| state.way_out(true))
}

/// What a container calls the interface: as was asked for, or the first number that is free.
fn interface_name(container: &Container, network: &Network, wish: &EndpointWish) -> Result<String> {
    let state = container.state();
    let is_free = |name: &str| {
        state
            .endpoints()
            .all(|(_, endpoint)| endpoint.interface != name)
    };
    match wish.driver_options.get(INTERFACE_NAME) {
        Some(name) if is_free(name) => Ok(name.clone()),
        Some(name) => Err(Error::conflict(format!(
            "the container has an interface {name} already"
        ))),
        None => {
            let prefix = options::interface_prefix(&network.options);
            let mut names = (0..=state.attachments.len()).map(|n| format!("{prefix}{n}"));
            let name = names.find(|name| is_free(name));
            Ok(name.expect("there is one name more than interfaces"))
        }
    }
}

fn connecting(attachment: &Attachment, failure: network::Failure) -> Error {
    failed(
        &format!("connect the container to {}", attachment.name),
        failure,
    )
}

/// What the interface of a connection is to be set to.
fn interface_settings(wish: &EndpointWish) -> Result<Vec<network::InterfaceSetting>> {
    let Some(list) = wish.driver_options.get(INTERFACE_SETTINGS) else {
        return Ok(Vec::new());
    };
    let settings = list.split(',').map(|text| {
        network::InterfaceSetting::parse(text).ok_or_else(|| {
            Error::invalid(format!(
                "invalid endpoint settings:\nunrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ))
        })
    });
    settings.collect()
}

/// Checks the options of a connection.
pub(super) fn check_driver_options(wish: &EndpointWish) -> Result<()> {
    for (name, value) in &wish.driver_options {
        let is_name = (1..=15).contains(&value.len())
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        match name.as_str() {
            INTERFACE_NAME if is_name && value != "lo" => {}
            INTERFACE_NAME => {
                return Err(Error::invalid(format!("invalid interface name {value:?}")));
            }
            INTERFACE_SETTINGS => drop(interface_settings(wish)?),
            name if name.starts_with(DOCKERS_OPTIONS) => {
                return Err(Error::unsupported(format!(
                    "the driver option {name:?} of a connection is not supported"
                )));
            }
            // Somebody else's: it is kept, and shown.
            _ => {}
        }
    }
    Ok(())
}

/// The ports to publish: those that were asked for, and with `--publish-all` those that are exposed.
pub(super) fn wanted_ports(container: &Container) -> Vec<PublishedPort> {
    let snapshot = container.snapshot();
    let network = &snapshot.spec.network;
    let mut wanted = snapshot.published().to_vec();
    if network.publish_all {
        let exposed = network.exposed.iter();
        let missing = exposed.filter(|port| snapshot.published().iter().all(|w| w.port != **port));
        wanted.extend(missing.map(|port| PublishedPort {
            port: *port,
            host_ip: None,
            host_ports: (0, 0),
        }));
    }
    wanted
}

/// As the network crate has it.
pub(super) fn to_network(attachment: &Attachment, endpoint: &Endpoint) -> network::Endpoint {
    // They were checked when the connection was asked for.
    let settings = interface_settings(&attachment.wish).unwrap_or_default();
    let addresses = endpoint.places.iter().map(|place| network::Address {
        address: place.address,
        prefix: place.prefix,
        gateway: place.gateway,
    });
    network::Endpoint {
        host_interface: endpoint.host_interface.clone(),
        interface: endpoint.interface.clone(),
        addresses: addresses.collect(),
        link_local: attachment.wish.link_local.clone(),
        mac: endpoint.mac,
        ports: endpoint.ports.iter().map(to_mapping).collect(),
        relay: endpoint.relay,
        settings,
    }
}

fn to_place(address: &network::Address) -> Place {
    Place {
        address: address.address,
        prefix: address.prefix,
        gateway: address.gateway,
    }
}

pub(super) fn to_protocol(protocol: Protocol) -> network::Protocol {
    match protocol {
        Protocol::Tcp => network::Protocol::Tcp,
        Protocol::Udp => network::Protocol::Udp,
        Protocol::Sctp => network::Protocol::Sctp,
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

pub(super) fn from_mapping(mapping: &network::PortMapping) -> PortMapping {
    let protocol = match mapping.protocol {
        network::Protocol::Tcp => Protocol::Tcp,
        network::Protocol::Udp => Protocol::Udp,
        network::Protocol::Sctp => Protocol::Sctp,
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

pub(super) fn to_publish(
    wanted: &PublishedPort,
    endpoint: &Endpoint,
    network: &Network,
) -> network::Publish {
    // All of the host's, of the families that the container has; the same port of each.
    let any = || {
        let v4 = IpAddr::V4(options::host_binding(&network.options));
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        // Who binds to one address of the host does not mean all of the other family.
        let has_v6 = endpoint.place(true).is_some() && v4 == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let v4 = endpoint.place(false).map(|_| v4);
        v4.into_iter().chain(has_v6.then_some(v6)).collect()
    };
    network::Publish {
        protocol: to_protocol(wanted.port.protocol),
        container_port: wanted.port.number,
        host_ips: wanted.host_ip.map_or_else(any, |ip| vec![ip]),
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
