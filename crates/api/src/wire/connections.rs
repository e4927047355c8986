//! Networks, endpoints and published ports, as requests and answers say them.

use super::create::{Result, non_empty};
use super::inspect::list;
use super::{mac_name, port_name};
use crate::http::Error;
use api_types as wire;
use engine::model::{
    Attachment, EndpointWish, Limits, NetworkMode, NetworkSpec, Port, PortMapping, Protocol,
    PublishedPort, Snapshot,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `bridge`, `none`, `host`, `container:NAME`, or a network's name.
pub(crate) fn network_mode(text: &str) -> NetworkMode {
    match (text, text.split_once(':')) {
        ("" | "default" | "bridge", _) => NetworkMode::Bridge,
        ("none", _) => NetworkMode::None,
        ("host", _) => NetworkMode::Host,
        (_, Some(("container", name))) if !name.is_empty() => {
            NetworkMode::Container(name.to_owned())
        }
        (name, _) => NetworkMode::Network(name.to_owned()),
    }
}

/// Reads the network of a create request.
pub(super) fn network(body: &wire::CreateRequest, host: &wire::HostConfig) -> Result<NetworkSpec> {
    let mode = network_mode(&host.network_mode);
    let published = published_ports(host.port_bindings.iter().flatten())?;
    let exposed = body.exposed_ports.iter().flat_map(|ports| ports.keys());
    let mut exposed = exposed
        .map(|port| parse_port(port))
        .collect::<Result<Vec<_>>>()?;
    exposed.extend(published.iter().map(|published| published.port));
    check_modes(&mode, host, &published)?;
    let dns = host.dns.iter().flatten().map(|server| {
        server
            .parse::<IpAddr>()
            .map_err(|_| Error::bad_request(format!("invalid DNS server address: {server:?}")))
    });
    Ok(NetworkSpec {
        mode,
        exposed,
        published,
        publish_all: host.publish_all_ports,
        extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
        dns: dns.collect::<Result<_>>()?,
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        mac_address: non_empty(&body.mac_address),
        links: host.links.clone().unwrap_or_default(),
    })
}

/// Reads ports that are to be published.
pub(crate) fn published_ports<'a>(
    bindings: impl Iterator<Item = (&'a String, &'a Option<Vec<wire::PortBinding>>)>,
) -> Result<Vec<PublishedPort>> {
    let mut published = Vec::new();
    for (port, bindings) in bindings {
        let port = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            published.push(publish(port, binding)?);
        }
    }
    Ok(published)
}

/// What is asked of networks, by their name or id. What is said of a mode that has no endpoint says nothing.
pub(super) fn wishes(body: &wire::CreateRequest) -> Result<Vec<(String, EndpointWish)>> {
    let endpoints = body.networking_config.iter();
    let endpoints = endpoints.flat_map(|config| config.endpoints_config.iter().flatten());
    let mut wishes = Vec::new();
    for (name, settings) in endpoints {
        let wish = endpoint_wish(&settings.clone().unwrap_or_default())?;
        let is_mode = matches!(name.as_str(), "host" | "none") || name.starts_with("container:");
        if is_mode && wish == EndpointWish::default() {
            continue;
        }
        wishes.push((name.clone(), wish));
    }
    Ok(wishes)
}

/// Reads what is asked of one network.
pub(crate) fn endpoint_wish(settings: &wire::EndpointSettings) -> Result<EndpointWish> {
    fn address<T: std::str::FromStr>(text: &str) -> Result<Option<T>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| Error::bad_request(format!("invalid IP address: {text:?}")))
    }
    let addresses = settings.ipam_config.clone().unwrap_or_default();
    let link_local = addresses.link_local_ips.iter().map(|text| address(text));
    let link_local = link_local.collect::<Result<Vec<_>>>()?;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(EndpointWish {
        ipv4: address(&addresses.ipv4_address)?,
        ipv6: address(&addresses.ipv6_address)?,
        link_local: link_local.into_iter().flatten().collect(),
        mac_address: non_empty(&settings.mac_address),
        aliases: list(&settings.aliases),
        links: list(&settings.links),
        driver_options: settings.driver_opts.clone().unwrap_or_default(),
        gateway_priority: settings.gw_priority,
    })
}

fn check_modes(
    mode: &NetworkMode,
    host: &wire::HostConfig,
    published: &[PublishedPort],
) -> Result<()> {
    let conflict = |what: &str| Err(Error::bad_request(format!("conflicting options: {what}")));
    match mode {
        NetworkMode::Container(_) if !published.is_empty() || host.publish_all_ports => {
            conflict("port publishing and the container type network mode")
        }
        NetworkMode::Container(_)
            if host
                .extra_hosts
                .as_ref()
                .is_some_and(|list| !list.is_empty()) =>
        {
            conflict("custom host-to-IP mapping and the network mode")
        }
        NetworkMode::Container(_) if host.dns.as_ref().is_some_and(|list| !list.is_empty()) => {
            conflict("dns and the network mode")
        }
        _ => Ok(()),
    }
}

/// Reads `80/tcp`.
pub(crate) fn parse_port(text: &str) -> Result<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(|| {
        Error::bad_request(format!("invalid protocol {protocol:?} of port {text:?}"))
    })?;
    let number = number.parse().ok().filter(|number| *number > 0);
    let number = number
        .ok_or_else(|| Error::bad_request(format!("invalid port specification: {text:?}")))?;
    Ok(Port { number, protocol })
}

fn publish(port: Port, binding: &wire::PortBinding) -> Result<PublishedPort> {
    let text = &binding.host_port;
    let bad = || Error::bad_request(format!("invalid port specification: {text:?}"));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let host_ports = match text.split_once('-') {
        None if text.is_empty() => (0, 0),
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if host_ports.0 > host_ports.1 {
        return Err(bad());
    }
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        ip => Some(
            ip.parse()
                .map_err(|_| Error::bad_request(format!("invalid IP address: {ip:?}")))?,
        ),
    };
    Ok(PublishedPort {
        port,
        host_ip,
        host_ports,
    })
}

pub(crate) fn mode_name(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Network(name) => name.clone(),
    }
}

/// Published ports as requested.
pub(super) fn bindings(container: &Snapshot) -> wire::PortMap {
    let mut map = wire::PortMap::new();
    for published in container.published() {
        let host_port = match published.host_ports {
            (0, 0) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = published
            .host_ip
            .map(|ip| ip.to_string())
            .unwrap_or_default();
        let entry = map.entry(port_name(published.port)).or_default();
        entry
            .get_or_insert_default()
            .push(wire::PortBinding { host_ip, host_port });
    }
    map
}

/// The limit of what interfaces receive and send; None: there is none.
pub(crate) fn network_rate(limits: &Limits) -> Option<wire::NetworkRate> {
    let rate = limits.network_rate?;
    let bytes = |bytes: Option<u64>| bytes.unwrap_or(0);
    let shown = wire::NetworkRate {
        receive: bytes(rate.receive_bytes),
        send: bytes(rate.send_bytes),
    };
    (shown != wire::NetworkRate::default()).then_some(shown)
}

/// Who can reach a port.
pub(crate) fn port_explanation(explained: engine::PortExplanation) -> wire::PortExplanation {
    let mapping = explained.mapping;
    let reach = |reach: engine::Reach| wire::PortReach {
        from: match reach.from {
            engine::Origin::Host => "host",
            engine::Origin::World => "world",
            engine::Origin::Network => "network",
            engine::Origin::OtherNetworks => "other-networks",
        }
        .to_owned(),
        reached: reach.reached,
        why: reach.why,
        rule: reach.rule,
        others: reach.others,
    };
    wire::PortExplanation {
        port: port_name(explained.port),
        network: explained.network,
        address: explained.address.to_string(),
        host_ip: mapping.map(|m| m.host_ip.to_string()).unwrap_or_default(),
        host_port: mapping.map(host_port).unwrap_or_default(),
        reach: explained.reaches.into_iter().map(reach).collect(),
    }
}

/// The host's port; empty in a network that is routed, where there is none.
fn host_port(mapping: PortMapping) -> String {
    match mapping.host_port {
        0 => String::new(),
        port => port.to_string(),
    }
}

/// Ports as they are: published with the host's real ports, exposed with null.
fn ports(container: &Snapshot) -> wire::PortMap {
    let mut map = wire::PortMap::new();
    if container.state.endpoints().next().is_none() {
        return map;
    }
    for port in &container.spec.network.exposed {
        map.insert(port_name(*port), None);
    }
    let endpoints = container.state.endpoints();
    for mapping in endpoints.flat_map(|(_, endpoint)| &endpoint.ports) {
        let entry = map.entry(port_name(mapping.port)).or_default();
        entry.get_or_insert_default().push(wire::PortBinding {
            host_ip: mapping.host_ip.to_string(),
            host_port: host_port(*mapping),
        });
    }
    map
}

/// The networks of a container, by name.
pub(crate) fn endpoints(container: &Snapshot) -> BTreeMap<String, wire::EndpointSettings> {
    let mode_alone = |id: &str, mode: &NetworkMode| {
        let settings = wire::EndpointSettings {
            network_id: id.to_owned(),
            ..wire::EndpointSettings::default()
        };
        BTreeMap::from([(mode_name(mode), settings)])
    };
    match &container.spec.network.mode {
        NetworkMode::Host => return mode_alone(engine::HOST_ID, &NetworkMode::Host),
        NetworkMode::None => return mode_alone(engine::NONE_ID, &NetworkMode::None),
        _ => {}
    }
    let attachments = container.state.attachments.iter();
    attachments
        .map(|attachment| (attachment.name.clone(), endpoint(container, attachment)))
        .collect()
}

fn endpoint(container: &Snapshot, attachment: &Attachment) -> wire::EndpointSettings {
    let wish = &attachment.wish;
    let text = |address: Option<String>| address.unwrap_or_default();
    let addresses = wire::EndpointIpamConfig {
        ipv4_address: text(wish.ipv4.map(|ip| ip.to_string())),
        ipv6_address: text(wish.ipv6.map(|ip| ip.to_string())),
        link_local_ips: wish.link_local.iter().map(ToString::to_string).collect(),
    };
    let settings = wire::EndpointSettings {
        ipam_config: Some(addresses)
            .filter(|config| *config != wire::EndpointIpamConfig::default()),
        links: list(&wish.links),
        aliases: list(&wish.aliases),
        mac_address: wish.mac_address.clone().unwrap_or_default(),
        driver_opts: Some(wish.driver_options.clone()).filter(|options| !options.is_empty()),
        gw_priority: wish.gateway_priority,
        network_id: attachment.network.clone(),
        dns_names: list(&engine::dns_names(container, attachment)),
        ..wire::EndpointSettings::default()
    };
    let Some(endpoint) = &attachment.endpoint else {
        return settings;
    };
    let address = |is_ipv6| {
        endpoint
            .place(is_ipv6)
            .map(|place| place.address.to_string())
    };
    let gateway = |is_ipv6| {
        let gateway = endpoint.place(is_ipv6).and_then(|place| place.gateway);
        // Unspecified: there is a way out, and nobody's address on it.
        let gateway = gateway.filter(|gateway| !gateway.is_unspecified());
        gateway.map(|gateway| gateway.to_string())
    };
    let prefix = |is_ipv6| endpoint.place(is_ipv6).map_or(0, |place| place.prefix);
    wire::EndpointSettings {
        endpoint_id: endpoint.id.clone(),
        mac_address: mac_name(endpoint.mac),
        gateway: text(gateway(false)),
        ip_address: text(address(false)),
        ip_prefix_len: prefix(false),
        ipv6_gateway: text(gateway(true)),
        global_ipv6_address: text(address(true)),
        global_ipv6_prefix_len: prefix(true),
        ..settings
    }
}

pub(super) fn network_settings(container: &Snapshot) -> wire::NetworkSettings {
    let networks = endpoints(container);
    let bridge = networks.get("bridge").cloned().unwrap_or_default();
    let sandbox_key = match container.state.pid {
        Some(pid) => format!("/proc/{pid}/ns/net"),
        None => String::new(),
    };
    wire::NetworkSettings {
        sandbox_id: if sandbox_key.is_empty() {
            String::new()
        } else {
            container.spec.id.clone()
        },
        sandbox_key,
        ports: Some(ports(container)),
        endpoint_id: bridge.endpoint_id,
        gateway: bridge.gateway,
        ip_address: bridge.ip_address,
        ip_prefix_len: bridge.ip_prefix_len,
        ipv6_gateway: bridge.ipv6_gateway,
        global_ipv6_address: bridge.global_ipv6_address,
        global_ipv6_prefix_len: bridge.global_ipv6_prefix_len,
        mac_address: bridge.mac_address,
        networks: Some(networks),
        ..wire::NetworkSettings::default()
    }
}
