//! Changing which ports of a container are published while it runs, or before it does.
//!
//! What is changed lies in the container's state: its specification never changes. Connections that are open stay.

use super::endpoint::{change_endpoint, from_mapping, publishing, to_network, to_publish};
use super::failed;
use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::model::{NetworkMode, Port, PortMapping, PublishedPort};
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::block_in_place;

impl Engine {
    /// Takes published ports back, and publishes others; all or nothing. What is to go is named by the container's port, and
    /// where that is said by the host's port and address.
    ///
    /// # Errors
    /// Nothing like that is published, a port is taken, or the container has no network where ports are published.
    pub async fn change_ports(
        &self,
        key: &str,
        remove: &[PublishedPort],
        add: &[PublishedPort],
    ) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        if matches!(
            container.spec.network.mode,
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_)
        ) {
            return Err(Error::conflict(
                "the container has no network of its own where ports are published",
            ));
        }
        block_in_place(|| self.change_ports_locked(&container, remove, add))?;
        if let Some(link) = container.link() {
            self.relay_ports(&container, &link).await?;
            self.save_state(&container)?;
        }
        self.container_event(&container, "update", []);
        Ok(())
    }

    fn change_ports_locked(
        &self,
        container: &Container,
        remove: &[PublishedPort],
        add: &[PublishedPort],
    ) -> Result<()> {
        let snapshot = container.snapshot();
        let mapped: Vec<PortMapping> = snapshot
            .state
            .endpoints()
            .flat_map(|(_, endpoint)| endpoint.ports.clone())
            .collect();
        let mut wanted = without(snapshot.published(), remove, &mapped)?;
        wanted.extend_from_slice(add);
        if container.phase().is_running() {
            let remove = by_port(remove, |gone| gone.port);
            let leaves = |mapping: &PortMapping| {
                let of_port = remove.get(&mapping.port).into_iter().flatten();
                { of_port }.any(|gone| is_mapping_meant(gone, mapping))
            };
            let gone: BTreeSet<PortMapping> = mapped.into_iter().filter(leaves).collect();
            self.republish(container, &gone, add)?;
        }
        container.change(|state| state.published = Some(wanted));
        self.save_state(container)
    }

    /// Publishes first, so that a port that is taken leaves everything as it was.
    fn republish(
        &self,
        container: &Container,
        gone: &BTreeSet<PortMapping>,
        add: &[PublishedPort],
    ) -> Result<()> {
        let state = container.state();
        let (attachment, endpoint) = publishing(&state).ok_or_else(|| {
            Error::invalid("cannot publish ports: no network of the container leads anywhere else")
        })?;
        let network = self.network(&attachment.network)?;
        if super::plugins::make(&network) {
            return Err(Error::unsupported(format!(
                "ports on {} cannot be changed while the container runs: plugins publish them when they connect it",
                network.name
            )));
        }
        let known = to_network(attachment, endpoint);
        let requests: Vec<_> = add
            .iter()
            .map(|wanted| to_publish(wanted, endpoint, &network))
            .collect();
        let added = self.0.network.publish(&network.id, &known, &requests);
        let added = added.map_err(|failure| failed("publish the container's ports", failure))?;
        let is_gone = |mapping: &network::PortMapping| gone.contains(&from_mapping(mapping));
        let taken_back: Vec<_> = known.ports.iter().copied().filter(is_gone).collect();
        let taken = self.0.network.unpublish(&network.id, &known, &taken_back);
        taken.map_err(|failure| failed("take the container's ports back", failure))?;
        change_endpoint(container, &network.id, |endpoint| {
            endpoint.ports.retain(|mapping| !gone.contains(mapping));
            endpoint.ports.extend(added.iter().map(from_mapping));
        });
        Ok(())
    }
}

/// There may be thousands of ports: what is meant by each is looked for among those with its number only.
fn by_port<T: Clone>(all: &[T], port: impl Fn(&T) -> Port) -> BTreeMap<Port, Vec<T>> {
    let mut found: BTreeMap<Port, Vec<T>> = BTreeMap::new();
    for item in all {
        found.entry(port(item)).or_default().push(item.clone());
    }
    found
}

/// The ports that are asked for when some are taken out.
fn without(
    wanted: &[PublishedPort],
    remove: &[PublishedPort],
    mapped: &[PortMapping],
) -> Result<Vec<PublishedPort>> {
    let mut wanted = by_port(wanted, |known| known.port);
    let mapped = by_port(mapped, |mapping| mapping.port);
    for gone in remove {
        let known = wanted.entry(gone.port).or_default();
        let mapped = mapped.get(&gone.port).map_or(&[][..], Vec::as_slice);
        if !take_out(known, gone, mapped) {
            return Err(Error::not_found(format!(
                "port {}/{} is not published so",
                gone.port.number,
                gone.port.protocol.as_str()
            )));
        }
    }
    Ok(wanted.into_values().flatten().collect())
}

/// Takes what is meant out of the ports that are asked for: all of a container's port, or the one that leads to it from a port of
/// the host, which was asked for or chosen. False: there is nothing like that.
fn take_out(wanted: &mut Vec<PublishedPort>, gone: &PublishedPort, mapped: &[PortMapping]) -> bool {
    let is_of = |known: &PublishedPort| {
        gone.port == known.port && (gone.host_ip.is_none() || gone.host_ip == known.host_ip)
    };
    if gone.host_ports == (0, 0) {
        let before = wanted.len();
        wanted.retain(|known| !is_of(known));
        return wanted.len() < before;
    }
    let exact = |known: &PublishedPort| is_of(known) && known.host_ports == gone.host_ports;
    let is_mapped = mapped.iter().any(|mapping| is_mapping_meant(gone, mapping));
    let could_choose = |known: &PublishedPort| {
        let (first, last) = known.host_ports;
        let has = first == 0 || (first <= gone.host_ports.0 && gone.host_ports.1 <= last);
        is_of(known) && is_mapped && has
    };
    let found = wanted.iter().position(exact);
    match found.or_else(|| wanted.iter().position(could_choose)) {
        Some(at) => {
            wanted.remove(at);
            true
        }
        None => false,
    }
}

fn is_mapping_meant(gone: &PublishedPort, mapping: &PortMapping) -> bool {
    let (first, last) = gone.host_ports;
    gone.port == mapping.port
        && gone.host_ip.is_none_or(|ip| ip == mapping.host_ip)
        && (first == 0 || (first..=last).contains(&mapping.host_port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::model::Protocol;
    use std::net::{IpAddr, Ipv4Addr};

    const PORT: Port = Port {
        number: 80,
        protocol: Protocol::Tcp,
    };

    fn published(host_ip: Option<&str>, host_ports: (u16, u16)) -> PublishedPort {
        PublishedPort {
            port: PORT,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports,
        }
    }

    #[test]
    fn a_port_is_meant_by_what_is_said_of_it() {
        let mapping = PortMapping {
            port: PORT,
            host_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_port: 32768,
        };
        let any = || published(None, (0, 0));
        let eighty = |port| published(None, (port, port));
        let left = |gone: PublishedPort| {
            let mut wanted = vec![
                eighty(8080),
                any(),
                any(),
                published(Some("127.0.0.1"), (0, 0)),
            ];
            take_out(&mut wanted, &gone, &[mapping]).then_some(wanted.len())
        };
        assert_eq!(left(any()), Some(0));
        assert_eq!(left(eighty(8080)), Some(3));
        assert_eq!(left(eighty(8081)), None);
        // The one that was chosen, once.
        assert_eq!(left(eighty(32768)), Some(3));
        assert_eq!(left(published(Some("127.0.0.1"), (0, 0))), Some(3));
        assert_eq!(left(published(Some("127.0.0.2"), (0, 0))), None);
    }
}
