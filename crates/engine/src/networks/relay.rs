//! Ports published on ::1: the container's shim hands on what comes from there (docs/adr/0016).

use super::endpoint::{change_endpoint, publishing, to_network};
use super::failed;
use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::link::{self, Link};
use network::Endpoint;
use shim::protocol::{Reply, Request, Route};
use std::net::SocketAddr;
use tokio::task::block_in_place;

impl Engine {
    /// Has the container's shim hand on what comes from ::1 to the ports that are published now. Who calls it records the state.
    ///
    /// # Errors
    /// A port is to be published on ::1 alone, and the host has no such address.
    pub(crate) async fn relay_ports(&self, container: &Container, link: &Link) -> Result<()> {
        let state = container.state();
        let Some((attachment, endpoint)) = publishing(&state) else {
            return Ok(());
        };
        if endpoint.plugins.is_some() {
            return Ok(());
        }
        let known = to_network(attachment, endpoint);
        let routes = routes(&known);
        if routes.is_empty() && known.relay.is_none() {
            return Ok(());
        }
        let port = match link.ask(Request::Relay { routes }).await? {
            Reply::Relay { port } => port,
            other => return Err(link::unexpected(&other)),
        };
        let only_there = known.ports.iter().find(|port| port.is_on_loopback6());
        if let (None, Some(mapping)) = (port, only_there) {
            return Err(Error::invalid(format!(
                "cannot publish port {} on ::1: the host has no such address",
                mapping.container_port
            )));
        }
        let led = block_in_place(|| self.0.network.relay(&attachment.network, &known, port));
        led.map_err(|failure| failed("lead connections from ::1", failure))?;
        change_endpoint(container, &attachment.network, |endpoint| {
            endpoint.relay = port;
        });
        Ok(())
    }
}

/// Where ports of ::1 lead; those that follow one another as one.
fn routes(endpoint: &Endpoint) -> Vec<Route> {
    let Some(address) = endpoint.relayed_to() else {
        return Vec::new();
    };
    let relayed = endpoint.ports.iter().filter(|port| port.is_relayed());
    let mut ports: Vec<(u16, u16)> = relayed
        .map(|mapping| (mapping.host_port, mapping.container_port))
        .collect();
    ports.sort_unstable();
    ports.dedup_by_key(|(host_port, _)| *host_port);
    let mut routes: Vec<Route> = Vec::new();
    for (host_port, container_port) in ports {
        if let Some(Route { host_ports, to }) = routes.last_mut()
            && host_ports.1.checked_add(1) == Some(host_port)
            && to.port().checked_add(host_port - host_ports.0) == Some(container_port)
        {
            host_ports.1 = host_port;
            continue;
        }
        routes.push(Route {
            host_ports: (host_port, host_port),
            to: SocketAddr::new(address, container_port),
        });
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::{Address, PortMapping, Protocol};

    #[test]
    fn ports_that_follow_one_another_are_one_route() {
        let mapping = |host_port, container_port| PortMapping {
            protocol: Protocol::Tcp,
            container_port,
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port,
        };
        let pairs = [
            (8082, 82),
            (8080, 80),
            (8081, 81),
            (8083, 443),
            (9000, 65535),
            (9001, 1),
        ];
        let mut endpoint = Endpoint {
            host_interface: String::new(),
            interface: String::new(),
            addresses: vec![Address {
                address: "172.17.0.2".parse().unwrap(),
                prefix: 16,
                gateway: None,
            }],
            link_local: Vec::new(),
            mac: [0; 6],
            ports: pairs.map(|(host, own)| mapping(host, own)).to_vec(),
            relay: None,
            settings: Vec::new(),
        };
        let mut elsewhere = mapping(7000, 70);
        elsewhere.host_ip = "192.0.2.1".parse().unwrap();
        let mut datagrams = mapping(5353, 53);
        datagrams.protocol = Protocol::Udp;
        endpoint.ports.extend([elsewhere, datagrams]);
        let found: Vec<_> = routes(&endpoint)
            .into_iter()
            .map(|route| (route.host_ports, route.to.to_string()))
            .collect();
        let expected = [
            ((8080, 8082), "172.17.0.2:80"),
            ((8083, 8083), "172.17.0.2:443"),
            ((9000, 9000), "172.17.0.2:65535"),
            ((9001, 9001), "172.17.0.2:1"),
        ];
        assert_eq!(found, expected.map(|(ports, to)| (ports, to.to_owned())));
    }
}
