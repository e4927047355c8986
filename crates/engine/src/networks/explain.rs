//! Who can reach a container's ports, and by which rule.

use super::endpoint::{from_mapping, to_network, to_protocol};
use super::failed;
use crate::Engine;
use crate::error::{Error, Result};
use crate::model::{NetworkMode, Port, PortMapping};
use network::Reach;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// How many ports are explained at once.
const EXPLAINED_MAX: usize = 100;

/// One port of a container on one network, published in one way or not at all.
#[derive(Debug, Clone)]
pub struct PortExplanation {
    /// The container's port.
    pub port: Port,
    /// The network's name.
    pub network: String,
    /// The container's address on it.
    pub address: IpAddr,
    /// Where it is published; None: nowhere.
    pub mapping: Option<PortMapping>,
    /// From everywhere.
    pub reaches: Vec<Reach>,
}

impl Engine {
    /// Says who can reach a port of a container that runs; without one, each that is published or exposed. Blocks for moments.
    ///
    /// # Errors
    /// It does not run, or has no network of its own; too many ports.
    pub fn explain_ports(&self, key: &str, port: Option<Port>) -> Result<Vec<PortExplanation>> {
        let container = self.0.registry.find(key)?;
        let name = container.name();
        match &container.spec.network.mode {
            NetworkMode::Host => {
                return Err(Error::conflict(format!(
                    "{name} has the network of the host: what it listens on is reached as every other program of the host"
                )));
            }
            NetworkMode::Container(other) => {
                return Err(Error::conflict(format!(
                    "{name} has the network of the container {other}: ask about that one"
                )));
            }
            NetworkMode::None => {
                return Err(Error::conflict(format!(
                    "{name} has no network: nobody reaches it"
                )));
            }
            _ => {}
        }
        let state = container.state();
        if !container.phase().is_running() {
            return Err(Error::conflict(format!("container {name} is not running")));
        }
        let mapped = state.endpoints().flat_map(|(_, endpoint)| &endpoint.ports);
        let ports: BTreeSet<Port> = match port {
            Some(port) => BTreeSet::from([port]),
            None => mapped
                .map(|mapping| mapping.port)
                .chain(container.spec.network.exposed.iter().copied())
                .collect(),
        };
        if ports.len() > EXPLAINED_MAX {
            return Err(Error::invalid(format!(
                "{name} has {} ports, and {EXPLAINED_MAX} are explained at once: name one",
                ports.len()
            )));
        }
        let mut explained = Vec::new();
        for port in ports {
            for (attachment, endpoint) in state.endpoints() {
                if endpoint.plugins.is_some() {
                    return Err(Error::unsupported(format!(
                        "what the plugins of {} let through is not known here",
                        attachment.name
                    )));
                }
                let known = to_network(attachment, endpoint);
                let asked = (to_protocol(port.protocol), port.number);
                let found = self.0.network.explain(&attachment.network, &known, asked);
                let found = found.map_err(|failure| failed("explain the ports", failure))?;
                explained.extend(found.into_iter().map(|explanation| PortExplanation {
                    port,
                    network: attachment.name.clone(),
                    address: explanation.address.ip(),
                    mapping: explanation.mapping.as_ref().map(from_mapping),
                    reaches: explanation.reaches,
                }));
            }
        }
        Ok(explained)
    }
}
