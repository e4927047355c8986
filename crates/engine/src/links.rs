//! `--link` on the default bridge: another container's address under names of one's own in `/etc/hosts`, and what it publishes to
//! others in the environment, as Docker has done it since before networks had names.

use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::etc::HostLine;
use crate::model::{NetworkMode, Port, Snapshot};
use crate::networks::BRIDGE_ID;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::task::block_in_place;

/// What links give a container when it starts.
#[derive(Debug, Default)]
pub(crate) struct Linked {
    /// Lines for its hosts file.
    pub(crate) hosts: Vec<HostLine>,
    /// `NAME=value`.
    pub(crate) environment: Vec<String>,
}

/// The container and the name that a link has for it: `container:name`, or one word for both.
fn split(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

impl Engine {
    /// Checks links when they are asked for, and replaces names by ids, which stay.
    pub(crate) fn resolve_links(&self, mode: &NetworkMode, links: &mut [String]) -> Result<()> {
        if !links.is_empty() && *mode != NetworkMode::Bridge {
            return Err(Error::invalid(
                "conflicting options: --link is for the default bridge; networks that somebody made have links of their own",
            ));
        }
        for link in links {
            let (target, name) = split(link);
            if !crate::names::is_name(name) {
                return Err(Error::invalid(format!("{name:?} is no name for a link")));
            }
            let target = self
                .0
                .registry
                .find(target)
                .map_err(|_| Error::invalid(format!("could not get container for {target}")))?;
            *link = format!("{}:{name}", target.id());
        }
        Ok(())
    }

    /// What the links of a container lead to now.
    ///
    /// # Errors
    /// A container that does not run, or is not on the default bridge.
    pub(crate) fn follow_links(&self, container: &Container) -> Result<Linked> {
        let mut linked = Linked::default();
        for link in container.snapshot().links() {
            let (id, name) = split(link);
            let target = self.0.registry.find(id)?.snapshot();
            let address = bridge_address(&target).filter(|_| target.state.phase.is_running());
            let address = address.ok_or_else(|| {
                Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{name}",
                    target.name,
                    container.name()
                ))
            })?;
            linked.hosts.push(HostLine {
                address,
                names: names(&target, name),
            });
            linked
                .environment
                .extend(environment(&container.name(), name, &target, address));
        }
        Ok(linked)
    }

    /// The names that links give containers, as `parent/name`, by the id of the container that is linked.
    pub fn link_names(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        // Links are made when a container is created, and only removed later: of most nothing but that is looked at.
        let linked = self.0.registry.select(|parent| {
            let has_had = !parent.spec.network.links.is_empty();
            has_had.then(|| parent.snapshot())
        });
        for parent in linked {
            for (target, name) in parent.links().iter().map(|link| split(link)) {
                let names = names.entry(target.to_owned()).or_default();
                names.push(format!("{}/{name}", parent.name));
            }
        }
        names
    }

    /// Removes a link by its name, `parent/name`. The linked container stays as it is.
    ///
    /// # Errors
    /// The name of a container, or of no link.
    pub async fn remove_link(&self, name: &str) -> Result<()> {
        let Some((parent, alias)) = name.trim_start_matches('/').rsplit_once('/') else {
            self.0.registry.find(name)?;
            return Err(Error::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let missing = || Error::not_found(format!("No such container: {name}"));
        let parent = self.0.registry.find(parent).map_err(|_| missing())?;
        let _operation = parent.operation.lock().await;
        let links = parent.snapshot().links().to_vec();
        let (gone, kept): (Vec<String>, Vec<String>) =
            { links.into_iter() }.partition(|link| split(link).1 == alias);
        let gone = gone.first().ok_or_else(missing)?;
        parent.change(|state| state.links = Some(kept));
        block_in_place(|| {
            self.save_state(&parent)?;
            if !parent.phase().is_running() {
                return Ok(());
            }
            let target = self.0.registry.find(split(gone).0)?.snapshot();
            crate::etc::remove_names(
                &self.bundle(parent.id()).join("etc"),
                &names(&target, alias),
            )
        })
    }

    /// Writes the address of a container that has just started into the hosts files of those that run and are linked to it.
    pub(crate) fn update_links_to(&self, target: &Snapshot) -> Result<()> {
        let Some(address) = bridge_address(target) else {
            return Ok(());
        };
        for container in self.0.registry.all() {
            let snapshot = container.snapshot();
            let mut own = { snapshot.links().iter() }
                .map(|link| split(link))
                .filter(|(id, _)| *id == target.spec.id);
            if let Some((_, name)) = own.next()
                && container.phase().is_running()
            {
                let line = HostLine {
                    address,
                    names: names(target, name),
                };
                crate::etc::replace_line(&self.bundle(container.id()).join("etc"), &line)?;
            }
        }
        Ok(())
    }
}

fn bridge_address(container: &Snapshot) -> Option<IpAddr> {
    let mut endpoints = container.state.endpoints();
    let (_, endpoint) = endpoints.find(|(attachment, _)| attachment.network == BRIDGE_ID)?;
    Some(endpoint.place(false)?.address)
}

fn names(target: &Snapshot, name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    for further in [target.spec.id[..12].to_owned(), target.name.clone()] {
        if !names.contains(&further) {
            names.push(further);
        }
    }
    names
}

/// What the environment says of a linked container, in Docker's words.
fn environment(own: &str, name: &str, target: &Snapshot, address: IpAddr) -> Vec<String> {
    let prefix = name.to_ascii_uppercase().replace('-', "_");
    let url = |port: &Port| {
        let protocol = port.protocol.as_str();
        format!("{protocol}://{address}:{}", port.number)
    };
    let mut lines = vec![format!("{prefix}_NAME=/{own}/{name}")];
    let mut ports = target.spec.network.exposed.clone();
    ports.sort_unstable();
    lines.extend(
        ports
            .first()
            .map(|port| format!("{prefix}_PORT={}", url(port))),
    );
    for port in &ports {
        let protocol = port.protocol.as_str();
        let one = format!(
            "{prefix}_PORT_{}_{}",
            port.number,
            protocol.to_ascii_uppercase()
        );
        lines.extend([
            format!("{one}={}", url(port)),
            format!("{one}_ADDR={address}"),
            format!("{one}_PORT={}", port.number),
            format!("{one}_PROTO={protocol}"),
        ]);
    }
    let own_variables = target.spec.process.environment.iter();
    lines.extend(own_variables.filter_map(|variable| {
        let (variable, value) = variable.split_once('=')?;
        let is_everybodys = matches!(variable, "HOME" | "PATH");
        (!is_everybodys).then(|| format!("{prefix}_ENV_{variable}={value}"))
    }));
    lines
}
