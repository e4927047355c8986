//! Connecting containers with networks and disconnecting them, whether they run or not.

use super::endpoint::{
    change_endpoint, check_driver_options, from_mapping, network_namespace, publishing, to_network,
};
use super::{BRIDGE_ID, Driver, Network, failed, parse_mac};
use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Kind, Result};
use crate::etc;
use crate::model::{Attachment, Endpoint, EndpointWish};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::task::block_in_place;

/// How many networks a container can be connected with.
const ATTACHMENTS_MAX: usize = 64;

/// Checks what a container asks of a network.
pub(super) fn attachment(network: &Network, wish: EndpointWish) -> Result<Attachment> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if matches!(network.driver, Driver::Host | Driver::Null) {
        return Err(Error::forbidden(format!(
            "container cannot be connected to network {}: it is a network mode (--network {})",
            network.name, network.name
        )));
    }
    if network.id == BRIDGE_ID {
        if wish.ipv4.is_some() || wish.ipv6.is_some() {
            return refuse("user specified IP address is supported on user defined networks only");
        }
        if !wish.aliases.is_empty() {
            return refuse("network-scoped aliases are only supported for user-defined networks");
        }
        if !wish.links.is_empty() {
            return refuse("links of a network are only supported for user-defined networks");
        }
    }
    for address in wish
        .ipv4
        .map(IpAddr::V4)
        .into_iter()
        .chain(wish.ipv6.map(IpAddr::V6))
    {
        if !network.has_family(address.is_ipv6()) {
            return Err(Error::invalid(format!(
                "invalid address {address}: network {} has no addresses of its family",
                network.name
            )));
        }
    }
    for address in &wish.link_local {
        let is_link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !is_link_local {
            return Err(Error::invalid(format!(
                "{address} is no link-local address"
            )));
        }
    }
    if let Some(mac) = &wish.mac_address {
        parse_mac(mac)?;
    }
    if let Some(alias) = wish
        .aliases
        .iter()
        .find(|alias| !crate::names::is_name(alias))
    {
        return Err(Error::invalid(format!("{alias:?} is no name")));
    }
    check_driver_options(&wish)?;
    Ok(Attachment {
        network: network.id.clone(),
        name: network.name.clone(),
        wish,
        endpoint: None,
    })
}

impl Engine {
    /// Connects a container with a network, at once if it runs.
    ///
    /// # Errors
    /// It is connected already, or cannot be; what was made is undone.
    pub async fn connect_network(
        &self,
        key: &str,
        container: &str,
        wish: EndpointWish,
    ) -> Result<()> {
        let network = self.network(key)?;
        let container = self.0.registry.find(container)?;
        let _operation = container.operation.lock().await;
        self.check_connectable(&container)?;
        let attachment = attachment(&network, wish)?;
        let state = container.state();
        if state
            .attachments
            .iter()
            .any(|known| known.network == network.id)
        {
            return Err(Error::forbidden(format!(
                "endpoint with name {} already exists in network {}",
                container.name(),
                network.name
            )));
        }
        if state.attachments.len() >= ATTACHMENTS_MAX {
            return Err(Error::invalid(format!(
                "a container can be connected with {ATTACHMENTS_MAX} networks at most"
            )));
        }
        let limits = container.snapshot().limits().clone();
        let connection = std::slice::from_ref(&attachment);
        self.check_rate(&limits, &container.spec.network.mode, connection)?;
        container.change(|state| state.attachments.push(attachment.clone()));
        let pid = state.pid.filter(|_| container.phase().is_running());
        let connected = match pid {
            Some(pid) => block_in_place(|| self.plug_in(&container, &attachment, pid)),
            None => Ok(()),
        };
        if let Err(error) = connected {
            block_in_place(|| self.unplug(&container, &network.id, pid));
            self.save_state(&container)?;
            return Err(error);
        }
        self.save_state(&container)?;
        if pid.is_some() {
            self.tell_of_change(&container, &network.id).await?;
            self.network_event(&network, "connect", Some(container.id()));
        }
        Ok(())
    }

    /// Tells everybody what has changed by a connection of a container that runs.
    async fn tell_of_change(&self, container: &Container, network: &str) -> Result<()> {
        if network != BRIDGE_ID {
            block_in_place(|| self.write_names(network))?;
        }
        let (Some(link), Some(pid)) = (container.link(), container.state().pid) else {
            return Ok(());
        };
        self.serve_names(container, &link, pid).await?;
        self.relay_ports(container, &link).await?;
        self.save_state(container)
    }

    /// Makes a new connection of a container that runs.
    fn plug_in(&self, container: &Container, attachment: &Attachment, pid: i32) -> Result<()> {
        let netns = network_namespace(pid)?;
        let before = owned(publishing(&container.state()));
        let endpoint = self.reserve_endpoint(container, attachment)?;
        // Recorded before it exists, so that a new engine finds it.
        self.save_state(container)?;
        self.make_interface(container, (attachment, &endpoint), (pid, &netns), false)?;
        self.route(container, &netns)?;
        self.follow_way_out(container, before)?;
        let dir = self.bundle(container.id()).join("etc");
        etc::add_addresses(&dir, &container.spec, &addresses(&endpoint))?;
        if crate::names::has_resolver(&container.state()) {
            etc::use_resolver(&dir, &container.spec)?;
        }
        Ok(())
    }

    /// Has published ports lead to the network that is the way out now, which was another one before.
    fn follow_way_out(
        &self,
        container: &Container,
        before: Option<(Attachment, Endpoint)>,
    ) -> Result<()> {
        let state = container.state();
        let now = publishing(&state);
        let (Some((from, old)), Some((to, new))) = (before, now) else {
            return Ok(());
        };
        if from.network == to.network || old.ports.is_empty() {
            return Ok(());
        }
        if old.plugins.is_some() || new.plugins.is_some() {
            return Err(Error::unsupported(
                "published ports cannot move to or from a cni network: give the network they are on a higher --gw-priority",
            ));
        }
        let moved = self.0.network.move_ports(
            (&from.network, &to_network(&from, &old)),
            (&to.network, &to_network(to, new)),
        );
        let moved = moved.map_err(|failure| failed("move the container's ports", failure))?;
        let ports = moved.iter().map(from_mapping).collect();
        change_endpoint(container, &from.network, |endpoint| endpoint.ports.clear());
        change_endpoint(container, &to.network, |endpoint| endpoint.ports = ports);
        Ok(())
    }

    /// Disconnects a container from a network, at once if it runs.
    ///
    /// # Errors
    /// It is not connected.
    pub async fn disconnect_network(&self, key: &str, container: &str, force: bool) -> Result<()> {
        let network = self.network(key)?;
        let container = match self.0.registry.find(container) {
            // Nothing of a container that is gone is connected.
            Err(error) if force && error.kind() == Kind::NotFound => return Ok(()),
            found => found?,
        };
        let _operation = container.operation.lock().await;
        self.check_connectable(&container)?;
        let state = container.state();
        if state
            .attachments
            .iter()
            .all(|known| known.network != network.id)
        {
            return Err(Error::forbidden(format!(
                "container {} is not connected to network {}",
                container.id(),
                network.name
            )));
        }
        let pid = state.pid.filter(|_| container.phase().is_running());
        block_in_place(|| self.unplug(&container, &network.id, pid));
        self.save_state(&container)?;
        if pid.is_some() {
            self.tell_of_change(&container, &network.id).await?;
        }
        Ok(())
    }

    /// Takes a connection away, as far as it exists. What fails is logged.
    fn unplug(&self, container: &Arc<Container>, network: &str, pid: Option<i32>) {
        let log = |error: Error| {
            tracing::error!(
                container = container.id(),
                error = error.chain(),
                "while disconnecting a container"
            );
        };
        let state = container.state();
        let before = owned(publishing(&state));
        let gone = state
            .attachments
            .iter()
            .find(|known| known.network == network);
        // Out of sight first: what is the way out now is among the others.
        container.change(|state| state.attachments.retain(|known| known.network != network));
        let Some((attachment, mut endpoint)) =
            gone.and_then(|gone| Some((gone, gone.endpoint.clone()?)))
        else {
            return;
        };
        if before
            .as_ref()
            .is_some_and(|(from, _)| from.network == network)
            && publishing(&container.state()).is_some()
        {
            match self.follow_way_out(container, before) {
                Ok(()) => endpoint.ports.clear(),
                Err(error) => log(error),
            }
        }
        if let Err(error) = self.withdraw(attachment, &endpoint, pid) {
            log(error);
        }
        self.take_away(container, attachment, &endpoint, true);
        let Some(pid) = pid else { return };
        if let Err(error) = network_namespace(pid).and_then(|netns| self.route(container, &netns)) {
            log(error);
        }
        let dir = self.bundle(container.id()).join("etc");
        if let Err(error) = etc::remove_addresses(&dir, &addresses(&endpoint)) {
            log(error);
        }
    }
}

impl Engine {
    /// Takes an interface away that has no end outside of the container.
    fn withdraw(
        &self,
        attachment: &Attachment,
        endpoint: &Endpoint,
        pid: Option<i32>,
    ) -> Result<()> {
        let network = self.network(&attachment.network)?;
        let (Some(pid), Driver::Macvlan | Driver::Ipvlan) = (pid, network.driver) else {
            return Ok(());
        };
        let netns = network_namespace(pid)?;
        let known = to_network(attachment, endpoint);
        let withdrawn = self.0.network.withdraw(netns.as_fd(), &known);
        withdrawn.map_err(|failure| failed("take the container's interface away", failure))
    }
}

fn owned(found: Option<(&Attachment, &Endpoint)>) -> Option<(Attachment, Endpoint)> {
    found.map(|(attachment, endpoint)| (attachment.clone(), endpoint.clone()))
}

fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    endpoint.places.iter().map(|place| place.address).collect()
}
