//! The names of containers: who answers to which on which network, and who asks a resolver of its own.
//!
//! Each network that somebody made has a file of its names in the run root (docs/formats/run.md), written anew whenever an
//! endpoint comes or goes. The containers' shims answer from these files, so that names go on while the engine is away.

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::etc::RESOLVER;
use crate::link::Link;
use crate::model::{Attachment, Snapshot, State};
use crate::networks::{BRIDGE_ID, network_namespace};
use shim::protocol::{Names, Reply, Request, Upstream};
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::PoisonError;
use tokio::task::block_in_place;

/// The longest name that can be asked for.
const NAME_BYTES_MAX: usize = 253;

/// Whether a container's names are answered by a resolver: in every network but the default bridge.
pub(crate) fn has_resolver(state: &State) -> bool {
    state
        .attachments
        .iter()
        .any(|attachment| attachment.network != BRIDGE_ID)
}

/// Whether something can be a name: the files of names have words.
pub(crate) fn is_name(name: &str) -> bool {
    let is_word = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_word)
}

/// The names by which a container is found on a network: its own, what else it was to be called, its short id, its hostname.
/// None on the default bridge.
pub fn dns_names(container: &Snapshot, attachment: &Attachment) -> Vec<String> {
    if attachment.network == BRIDGE_ID {
        return Vec::new();
    }
    let spec = &container.spec;
    let further = [&spec.id[..12], &spec.isolation.hostname].map(str::to_owned);
    let mut names = vec![container.name.clone()];
    for name in attachment.wish.aliases.iter().cloned().chain(further) {
        if is_name(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Engine {
    fn names_dir(&self) -> PathBuf {
        self.0.config.run_root.join("names")
    }

    fn names_file(&self, network: &str) -> PathBuf {
        self.names_dir().join(network)
    }

    /// Writes the names of a network, or removes them with it.
    pub(crate) fn write_names(&self, id: &str) -> Result<()> {
        // Whoever comes last has seen what all others have changed.
        let _writing = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.names_file(id);
        let network = match self.network(id) {
            Err(error) if error.kind() == Kind::NotFound => {
                return match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::system(format!("remove {path:?}"), error))
                    }
                    _ => Ok(()),
                };
            }
            found => found?,
        };
        let mut text = format!("network {}\n", network.name);
        for container in self.network_users(id) {
            let own = container.state.endpoints();
            for (attachment, endpoint) in own.filter(|(a, _)| a.network == id) {
                let names = dns_names(&container, attachment).join(" ");
                for place in &endpoint.places {
                    let _ = writeln!(text, "{} {} {names}", place.address, container.spec.id);
                }
            }
        }
        let dir = self.names_dir();
        std::fs::create_dir_all(&dir).context(|| format!("make {dir:?}"))?;
        let new = dir.join(format!("{id}.new"));
        std::fs::write(&new, text).context(|| format!("write {new:?}"))?;
        std::fs::rename(&new, &path).context(|| format!("rename {new:?} to {path:?}"))
    }

    /// Writes the names of the networks that a container is connected with.
    pub(crate) fn write_names_of(&self, attachments: &[Attachment]) -> Result<()> {
        let made = attachments
            .iter()
            .filter(|attachment| attachment.network != BRIDGE_ID);
        { made }.try_for_each(|attachment| self.write_names(&attachment.network))
    }

    /// Has the container's shim answer for its names, if any network of the container has them.
    pub(crate) async fn serve_names(
        &self,
        container: &Container,
        link: &Link,
        pid: i32,
    ) -> Result<()> {
        let state = container.state();
        if !has_resolver(&state) {
            return Ok(());
        }
        let names = self.names_of(container, &state)?;
        let (udp, tcp) = match link.ask(Request::Names(names)).await? {
            Reply::Names { udp, tcp } => (udp, tcp),
            other => return Err(crate::link::unexpected(&other)),
        };
        block_in_place(|| {
            let netns = network_namespace(pid)?;
            let ports = [(network::Protocol::Udp, udp), (network::Protocol::Tcp, tcp)];
            network::redirect_names(netns.as_fd(), RESOLVER, &ports)
                .context(|| "lead the container's questions for names to its resolver")
        })
    }

    fn names_of(&self, container: &Container, state: &State) -> Result<Names> {
        let made = state
            .attachments
            .iter()
            .filter(|attachment| attachment.network != BRIDGE_ID);
        let mut links = Vec::new();
        for link in made.clone().flat_map(|attachment| &attachment.wish.links) {
            let (target, name) = link.split_once(':').unwrap_or((link, link));
            let found = self.0.registry.find(target);
            // One that is not there yet is found by its name once it is.
            let target = found.map_or_else(|_| target.to_owned(), |found| found.id().to_owned());
            links.push((name.to_owned(), target));
        }
        let leads_out = [false, true]
            .iter()
            .any(|is_ipv6| state.way_out(*is_ipv6).is_some());
        let chosen = &container.spec.network.dns;
        Ok(Names {
            files: made
                .map(|attachment| self.names_file(&attachment.network))
                .collect(),
            links,
            upstream: match leads_out {
                false => Upstream::Nobody,
                true if chosen.is_empty() => Upstream::Host,
                true => Upstream::Servers(chosen.clone()),
            },
        })
    }

    /// Writes the names of all networks, and forgets those of networks that are gone.
    pub(crate) fn restore_names(&self) -> Result<()> {
        let dir = self.names_dir();
        std::fs::create_dir_all(&dir).context(|| format!("make {dir:?}"))?;
        for entry in std::fs::read_dir(&dir).context(|| format!("list {dir:?}"))? {
            let entry = entry.context(|| format!("list {dir:?}"))?;
            let name = entry.file_name();
            let known = name
                .to_str()
                .is_some_and(|id| self.made_networks().contains_key(id));
            if !known {
                let path = entry.path();
                std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
            }
        }
        let networks = self.networks();
        let made = networks.iter().filter(|network| !network.is_predefined());
        { made }.try_for_each(|network| self.write_names(&network.id))
    }
}
