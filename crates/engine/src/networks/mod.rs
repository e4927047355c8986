//! Networks: those there always are, and those that somebody made, with a record each.
//!
//! A network is recorded before its bridge is made, and its bridge is gone before its record is: a new engine makes what is
//! recorded, so that a crash in between leaves nothing that nobody knows.

pub(crate) mod attach;
mod endpoint;
mod explain;
mod model;
mod options;
mod plugins;
mod ports;
mod rate;
mod relay;

pub(crate) use endpoint::{network_namespace, parse_mac};

pub use explain::PortExplanation;
pub use model::{AddressRange, BRIDGE_ID, Driver, HOST_ID, NONE_ID, Network, NetworkRequest};
pub(crate) use plugins::PluginRecord;

use crate::error::{Context, Error, Kind, Result};
use crate::events::EventKind;
use crate::model::{Attachment, EndpointWish, Phase, Snapshot};
use crate::{Engine, PruneFilter, Pruned, ids, prune::Prune};
use jiff::Timestamp;
use model::{RECORD_VERSION, is_same_subnet, ranges_of};
use network::Addressing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

/// The connection that a container has unless it asks for another.
pub(crate) fn default_attachment() -> Attachment {
    Attachment {
        network: BRIDGE_ID.to_owned(),
        name: "bridge".to_owned(),
        wish: EndpointWish::default(),
        endpoint: None,
    }
}

/// Checks the addresses of a network that other hosts have, too: nobody else tells the hosts apart.
fn check_shared(ranges: &[AddressRange]) -> Result<()> {
    let is_said = |range: &AddressRange| range.gateway.is_some() && range.pool.is_some();
    if !ranges.is_empty() && ranges.iter().all(is_said) {
        return Ok(());
    }
    Err(Error::invalid(
        "a network of several hosts (hull.network.vxlan) needs --subnet, and a --gateway and an --ip-range in it that no other host has",
    ))
}

/// A failure of the network, as the engine's.
pub(crate) fn failed(doing: &str, failure: network::Failure) -> Error {
    match failure.kind() {
        network::ErrorKind::Taken => Error::conflict(failure.to_string()),
        network::ErrorKind::Invalid => Error::invalid(failure.to_string()),
        network::ErrorKind::Conflict => Error::forbidden(failure.to_string()),
        network::ErrorKind::System => Error::system(doing, failure),
    }
}

impl Engine {
    /// Keeps calls that create or remove networks in a row.
    fn change_networks(&self) -> MutexGuard<'_, ()> {
        self.0
            .network_changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn made_networks(&self) -> BTreeMap<String, Arc<Network>> {
        let networks = self.0.networks.read();
        networks.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every network, the predefined ones first, then by name.
    pub fn networks(&self) -> Vec<Arc<Network>> {
        let mut bridge = Network::predefined("bridge", BRIDGE_ID, Driver::Bridge);
        let config = self.0.network.config(BRIDGE_ID);
        bridge.ranges = config.iter().flat_map(ranges_of).collect();
        let declared = &self.0.config;
        bridge.options = options::of_default_bridge(&declared.bridge, declared.host_binding);
        let mut networks = vec![
            Arc::new(bridge),
            Arc::new(Network::predefined("host", HOST_ID, Driver::Host)),
            Arc::new(Network::predefined("none", NONE_ID, Driver::Null)),
        ];
        let mut made: Vec<_> = self.made_networks().into_values().collect();
        made.sort_by(|a, b| a.name.cmp(&b.name));
        networks.extend(made);
        networks
    }

    /// The network with this id, this name, or the only one whose id begins so.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn network(&self, key: &str) -> Result<Arc<Network>> {
        let networks = self.networks();
        let exact = |network: &&Arc<Network>| network.id == key || network.name == key;
        if let Some(network) = networks.iter().find(exact) {
            return Ok(Arc::clone(network));
        }
        let begins = |network: &&Arc<Network>| !key.is_empty() && network.id.starts_with(key);
        let mut found = networks.iter().filter(begins);
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(Arc::clone(network)),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {key} is ambiguous ({} matches found based on ID prefix)",
                found.count() + 2
            ))),
            _ => Err(Error::not_found(format!("network {key} not found"))),
        }
    }

    /// The containers that are connected with a network, or will be when they run.
    pub fn network_users(&self, id: &str) -> Vec<Snapshot> {
        let containers = self.list();
        let uses = |container: &Snapshot| {
            let attachments = &container.state.attachments;
            attachments
                .iter()
                .any(|attachment| attachment.network == id)
        };
        containers.into_iter().filter(uses).collect()
    }

    /// Creates a network. Blocks for moments.
    ///
    /// # Errors
    /// A taken name, a request that makes no sense, a network that overlaps another.
    pub fn create_network(&self, request: NetworkRequest) -> Result<Arc<Network>> {
        ids::check_network_name(&request.name)?;
        if matches!(request.name.as_str(), "default" | "container") {
            return Err(Error::forbidden(format!(
                "operation is not permitted on predefined {} network",
                request.name
            )));
        }
        let _changes = self.change_networks();
        let exists = |network: &Arc<Network>| network.name == request.name;
        if self.networks().iter().any(exists) {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                request.name
            )));
        }
        let network = self.plan_network(request)?;
        if let Err(error) = self.make_network(&network) {
            // The first error is the one to tell; the network is known nowhere else.
            let _ = self.0.network.remove(&network.id);
            let gone = store::Change::Remove(store::Kind::Network, network.name.clone());
            self.0.store.apply(&[gone])?;
            return Err(error);
        }
        let network = Arc::new(network);
        let networks = self.0.networks.write();
        networks
            .unwrap_or_else(PoisonError::into_inner)
            .insert(network.id.clone(), Arc::clone(&network));
        self.write_names(&network.id)?;
        self.network_event(&network, "create", None);
        Ok(network)
    }

    /// Checks a request, and chooses what it leaves open.
    fn plan_network(&self, request: NetworkRequest) -> Result<Network> {
        let driver = match request.driver.as_str() {
            "" | "default" | "bridge" => Driver::Bridge,
            "macvlan" => Driver::Macvlan,
            "ipvlan" => Driver::Ipvlan,
            "cni" => Driver::Cni,
            other => {
                return Err(Error::unsupported(format!(
                    "the network driver {other:?} is not supported: there are bridge, macvlan, ipvlan and cni"
                )));
            }
        };
        let mut network = Network {
            version: RECORD_VERSION,
            id: ids::random_id()?,
            name: request.name,
            created: Timestamp::now(),
            driver,
            ranges: request.ranges,
            internal: request.internal,
            attachable: request.attachable,
            options: request.options,
            labels: request.labels,
        };
        if plugins::make(&network) {
            plugins::check(&network, request.ipv6)?;
            return Ok(network);
        }
        let mut config = network.bridge_config()?;
        if config.tunnel.is_some() {
            check_shared(&network.ranges)?;
        }
        // Whoever names a subnet of IPv6 wants IPv6.
        let ipv6 = request.ipv6 || matches!(config.ipv6, Addressing::Fixed(_));
        for (wanted, addressing, family) in [
            (request.ipv4, &mut config.ipv4, "IPv4"),
            (ipv6, &mut config.ipv6, "IPv6"),
        ] {
            match addressing {
                Addressing::None if wanted => *addressing = Addressing::Choose,
                Addressing::Fixed(range) if !wanted => {
                    return Err(Error::invalid(format!(
                        "the subnet {} is of {family}, which is not enabled",
                        range.subnet
                    )));
                }
                _ => {}
            }
        }
        let planned = self.0.network.plan(&network.id, config);
        let planned = planned.map_err(|failure| failed("plan the network", failure))?;
        for chosen in ranges_of(&planned) {
            match network
                .ranges
                .iter_mut()
                .find(|range| is_same_subnet(range, &chosen))
            {
                Some(range) => {
                    range.subnet = chosen.subnet;
                    range.gateway = chosen.gateway;
                }
                None => network.ranges.push(chosen),
            }
        }
        Ok(network)
    }

    fn make_network(&self, network: &Network) -> Result<()> {
        let record = serde_json::to_string(network).context(|| "encode a network's record")?;
        self.0
            .store
            .insert(store::Kind::Network, &network.name, &record)?;
        if plugins::make(network) {
            return Ok(());
        }
        let raised = self.0.network.raise(&network.id);
        raised.map_err(|failure| failed("make the network's bridge", failure))
    }

    /// Removes a network. Blocks for moments.
    ///
    /// # Errors
    /// A predefined one, or one that a running container is connected with.
    pub fn remove_network(&self, key: &str) -> Result<()> {
        let _changes = self.change_networks();
        let network = self.network(key)?;
        if network.is_predefined() {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        let users = self.active_users(&network.id);
        let removed = match plugins::make(&network) {
            true if users.is_empty() => Ok(()),
            true => Err(network::Failure::InUse),
            false => self.0.network.remove(&network.id),
        };
        match removed {
            Err(network::Failure::InUse) => {
                return Err(Error::forbidden(format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    users.join(", ")
                )));
            }
            removed => removed.map_err(|failure| failed("remove the network's bridge", failure))?,
        }
        let gone = store::Change::Remove(store::Kind::Network, network.name.clone());
        self.0.store.apply(&[gone])?;
        let networks = self.0.networks.write();
        networks
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&network.id);
        self.write_names(&network.id)?;
        self.network_event(&network, "destroy", None);
        Ok(())
    }

    fn active_users(&self, id: &str) -> Vec<String> {
        let users = self.network_users(id).into_iter();
        let active = users.filter_map(|container| {
            let mut endpoints = container.state.endpoints();
            let (_, endpoint) = endpoints.find(|(attachment, _)| attachment.network == id)?;
            Some(format!(
                "name:{:?} id:{:?}",
                container.name,
                &endpoint.id[..12]
            ))
        });
        active.collect()
    }

    /// Networks that no container has, running or not, but for the containers `gone`.
    ///
    /// # Errors
    /// A network that cannot be removed.
    pub fn prune_networks(
        &self,
        filter: &PruneFilter,
        gone: &BTreeSet<String>,
        prune: Prune,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for network in self.made_networks().into_values() {
            let users = self.network_users(&network.id);
            let used = users.iter().any(|user| !gone.contains(&user.spec.id));
            if used || !filter.admits(&network.labels, network.created) {
                continue;
            }
            if prune == Prune::Remove {
                match self.remove_network(&network.id) {
                    // It was removed or taken into use since.
                    Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::NotFound) => {
                        continue;
                    }
                    result => result?,
                }
            }
            pruned.items.push(network.name.clone());
        }
        Ok(pruned)
    }

    /// Reads the records, and tells the kernel's side of the networks there are.
    pub(crate) fn restore_networks(&self) -> Result<()> {
        let declare = |id: &str, config| {
            let declared = self.0.network.declare(id, config);
            declared.map_err(|failure| failed("set up a network", failure))
        };
        let mut networks = BTreeMap::new();
        for (name, record) in self.0.store.list(store::Kind::Network)? {
            let network: Network = serde_json::from_str(&record)
                .context(|| format!("read the record of network {name}"))?;
            if network.version > RECORD_VERSION {
                return Err(Error::unsupported(format!(
                    "network {name} was made by a newer release (record version {}, known up to {RECORD_VERSION})",
                    network.version
                )));
            }
            if !plugins::make(&network) {
                declare(&network.id, network.bridge_config()?)?;
            }
            networks.insert(network.id.clone(), Arc::new(network));
        }
        declare(BRIDGE_ID, self.0.config.bridge.clone())?;
        *self
            .0
            .networks
            .write()
            .unwrap_or_else(PoisonError::into_inner) = networks;
        Ok(())
    }

    /// Tells about something that happened to a network, perhaps by a container.
    pub(crate) fn network_event(&self, network: &Network, action: &str, container: Option<&str>) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.as_str().to_owned()),
        ]);
        attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
        self.0
            .events
            .emit(EventKind::Network, action, &network.id, attributes);
    }

    /// A network that a new container asks for. That it is not there is the request's fault: to clients what is not found is
    /// the image, which they go and pull.
    fn wished_network(&self, key: &str) -> Result<Arc<Network>> {
        self.network(key).map_err(|error| match error.kind() {
            Kind::NotFound => Error::invalid(error.to_string()),
            _ => error,
        })
    }

    /// What a container asks for, with the networks found; that of its network mode first.
    pub(crate) fn resolve_attachments(
        &self,
        mode: Option<&str>,
        wishes: Vec<(String, EndpointWish)>,
    ) -> Result<Vec<Attachment>> {
        let mut attachments: Vec<Attachment> = Vec::new();
        for (key, wish) in wishes {
            let key = if key == "default" { "bridge" } else { &key };
            let network = self.wished_network(key)?;
            if attachments.iter().any(|known| known.network == network.id) {
                return Err(Error::invalid(format!(
                    "network {key:?} is asked for twice"
                )));
            }
            attachments.push(attach::attachment(&network, wish)?);
        }
        let Some(mode) = mode else {
            return match attachments.first() {
                None => Ok(attachments),
                Some(other) => Err(Error::invalid(format!(
                    "conflicting options: the network mode has no place for network {:?}",
                    other.name
                ))),
            };
        };
        let network = self.wished_network(mode)?;
        match attachments
            .iter()
            .position(|known| known.network == network.id)
        {
            Some(at) => {
                let first = attachments.remove(at);
                attachments.insert(0, first);
            }
            None => attachments.insert(0, attach::attachment(&network, EndpointWish::default())?),
        }
        Ok(attachments)
    }

    /// Whether a container of this phase and mode can be connected with networks.
    fn check_connectable(&self, container: &crate::container::Container) -> Result<()> {
        use crate::model::NetworkMode;
        match &container.spec.network.mode {
            NetworkMode::Host | NetworkMode::Container(_) => Err(Error::forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            )),
            NetworkMode::None => Err(Error::forbidden(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            )),
            _ if matches!(container.phase(), Phase::Removing | Phase::Dead) => {
                Err(Error::conflict(
                    "container is marked for removal and cannot be connected or disconnected to the network",
                ))
            }
            _ => Ok(()),
        }
    }
}
