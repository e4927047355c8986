//! The driver `cni`: what a container's interface is on, plugins of the Container Network Interface decide, as their operator has
//! configured them. The engine asks them, keeps what they answer, and asks them to undo it; its own firewall knows nothing of it.

mod chain;

use super::endpoint::{change_endpoint, network_namespace_path, wanted_ports};
use super::{Driver, Network};
use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::etc;
use crate::model::{Attachment, Endpoint, Place, PortMapping};
use chain::Configuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The option that says which configuration: the path of a `.conflist` or `.conf` file.
const CONFIG: &str = "hull.network.cni.config";

/// The option that says where the plugins are: directories with colons between them.
const PATH: &str = "hull.network.cni.path";

/// Where they are unless that is said.
const DIRECTORIES: &str = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni";

/// What plugins have been asked, and have answered: they are asked to undo just that, whatever the configuration says by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    configuration: Configuration,
    directories: Vec<PathBuf>,
    capabilities: Map<String, Value>,
    /// Null: they have not answered yet.
    result: Value,
}

/// Checks a request for such a network.
///
/// # Errors
/// The configuration cannot be read, a plugin is missing, or something is asked for that is the plugins' to decide.
pub(super) fn check(network: &Network, ipv6: bool) -> Result<()> {
    if !network.ranges.is_empty() || network.internal || ipv6 {
        return Err(Error::invalid(
            "subnets, --ipv6 and --internal of a cni network are what its configuration says",
        ));
    }
    let known = [CONFIG, PATH];
    if let Some(name) = network
        .options
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        return Err(Error::unsupported(format!(
            "the option {name:?} of the cni driver is not supported: there are {CONFIG} and {PATH}"
        )));
    }
    let record = PluginRecord::of(network)?;
    record.configuration.check_programs(&record.directories)
}

impl PluginRecord {
    fn of(network: &Network) -> Result<Self> {
        let path = network.options.get(CONFIG).ok_or_else(|| {
            Error::invalid(format!(
                "a cni network needs a configuration: --opt {CONFIG}=/etc/cni/net.d/…"
            ))
        })?;
        let directories = network
            .options
            .get(PATH)
            .map_or(DIRECTORIES, String::as_str);
        Ok(Self {
            configuration: Configuration::read(Path::new(path))?,
            directories: std::env::split_paths(directories).collect(),
            capabilities: Map::new(),
            result: Value::Null,
        })
    }

    fn place<'a>(
        &'a self,
        container: &'a Container,
        endpoint: &'a Endpoint,
        netns: Option<&'a Path>,
    ) -> chain::Place<'a> {
        chain::Place {
            directories: &self.directories,
            container: container.id(),
            netns,
            interface: &endpoint.interface,
            capabilities: &self.capabilities,
        }
    }

    /// Has the plugins get a value, if one of them takes such.
    fn ask(&mut self, capability: &str, value: Value) -> Result<()> {
        if !self.configuration.can(capability) {
            return Err(Error::invalid(format!(
                "no plugin of the network takes {capability:?} (capabilities in its CNI configuration)"
            )));
        }
        self.capabilities.insert(capability.to_owned(), value);
        Ok(())
    }
}

impl Engine {
    /// What the plugins of a network are to be asked for a container.
    pub(super) fn plan_plugins(
        &self,
        container: &Container,
        attachment: &Attachment,
        network: &Network,
    ) -> Result<PluginRecord> {
        let mut record = PluginRecord::of(network)?;
        let wish = &attachment.wish;
        if !wish.link_local.is_empty() {
            return Err(Error::unsupported(
                "link-local addresses on a cni network are not supported",
            ));
        }
        let addresses = wish.ipv4.map(IpAddr::V4).into_iter();
        let addresses: Vec<_> = addresses.chain(wish.ipv6.map(IpAddr::V6)).collect();
        if !addresses.is_empty() {
            record.ask("ips", json!(addresses))?;
        }
        if let Some(mac) = &wish.mac_address {
            record.ask("mac", json!(mac))?;
        }
        // They are published where everything else is reached, and plugins are asked once.
        let is_alone = container.state().attachments.len() == 1;
        let ports = published(container)?;
        if !ports.is_empty() && is_alone {
            let mapping = |port: &PortMapping| {
                json!({
                    "hostPort": port.host_port,
                    "containerPort": port.port.number,
                    "protocol": port.port.protocol.as_str(),
                    "hostIP": if port.host_ip.is_unspecified() { String::new() } else { port.host_ip.to_string() },
                })
            };
            record.ask("portMappings", ports.iter().map(mapping).collect())?;
        }
        Ok(record)
    }

    /// Has the plugins make a container's interface. The container's state has what they have made then.
    pub(super) fn plug(
        &self,
        container: &Container,
        attachment: &Attachment,
        (pid, netns): (i32, &File),
    ) -> Result<()> {
        let Some((endpoint, record)) = recorded(container, attachment) else {
            return Ok(());
        };
        network::loopback_up(netns.as_fd()).context(|| "bring the loopback interface up")?;
        let path = network_namespace_path(pid);
        let place = record.place(container, &endpoint, Some(&path));
        let result = record.configuration.add(&place)?;
        // From here on there is something to undo.
        change_endpoint(container, &attachment.network, |endpoint| {
            endpoint.plugins = Some(Box::new(PluginRecord {
                result: result.clone(),
                ..record.clone()
            }));
        });
        let made = chain::made(&result, &endpoint.interface)?;
        let mac = made.mac.as_deref().map(super::parse_mac).transpose()?;
        let dir = self.bundle(container.id()).join("etc");
        let addresses: Vec<_> = made
            .addresses
            .iter()
            .map(|(address, ..)| *address)
            .collect();
        etc::add_addresses(&dir, &container.spec, &addresses)?;
        let places = made
            .addresses
            .iter()
            .map(|(address, prefix, gateway)| Place {
                address: *address,
                prefix: *prefix,
                gateway: *gateway,
            });
        let is_published = record.capabilities.contains_key("portMappings");
        let ports = if is_published {
            published(container)?
        } else {
            Vec::new()
        };
        change_endpoint(container, &attachment.network, |endpoint| {
            endpoint.places = places.collect();
            endpoint.mac = mac.unwrap_or_default();
            endpoint.ports = ports;
        });
        Ok(())
    }

    /// Has the plugins undo what they have made. `pid`: a process of the container; None: it has ended, and its namespace is gone
    /// with what was in it.
    pub(super) fn unplug_plugins(
        &self,
        container: &Container,
        endpoint: &Endpoint,
        pid: Option<i32>,
    ) -> Result<()> {
        let Some(record) = &endpoint.plugins else {
            return Ok(());
        };
        let netns = pid.map(network_namespace_path).filter(|path| path.exists());
        let place = record.place(container, endpoint, netns.as_deref());
        record.configuration.delete(&place, &record.result)
    }
}

fn recorded(container: &Container, attachment: &Attachment) -> Option<(Endpoint, PluginRecord)> {
    let state = container.state();
    let mut endpoints = state.endpoints();
    let (_, endpoint) = endpoints.find(|(known, _)| known.network == attachment.network)?;
    let record = endpoint.plugins.as_deref()?.clone();
    Some((endpoint.clone(), record))
}

/// What plugins are asked to publish: they choose no ports.
fn published(container: &Container) -> Result<Vec<PortMapping>> {
    let wanted = wanted_ports(container).into_iter().map(|wanted| match wanted.host_ports {
        (first, last) if first == last && first != 0 => Ok(PortMapping {
            port: wanted.port,
            host_ip: wanted.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            host_port: first,
        }),
        _ => Err(Error::invalid(format!(
            "port {} on a cni network is published on a port of the host that is said: -p 8080:{}",
            wanted.port.number, wanted.port.number
        ))),
    });
    wanted.collect()
}

/// Whether plugins make a network.
pub(super) fn make(network: &Network) -> bool {
    network.driver == Driver::Cni
}
