//! Networks, endpoints and published ports, as requests say them.

use super::create::{Result, non_empty};
use crate::http::Error;
use api_types as wire;
use engine::model::{EndpointWish, NetworkMode, NetworkSpec, Port, Protocol, PublishedPort};
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
