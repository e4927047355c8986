//! What the operator wants of containers that do not say otherwise, and what of it changes while the engine runs.

use crate::Engine;
use crate::error::Result;
use crate::events::EventKind;
use crate::model::{CreateRequest, LogSpec, NetworkMode, Ulimit};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

/// What containers have that do not ask for something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The log driver; empty: json-file.
    pub log_driver: String,
    /// Options of that driver, for containers that have it.
    pub log_options: BTreeMap<String, String>,
    /// Limits of processes' resources, each for containers without one of its name.
    pub ulimits: Vec<Ulimit>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domains that names are searched in.
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5).
    pub dns_options: Vec<String>,
    /// A reaping init as PID 1.
    pub init: bool,
    /// What the runtime is called; empty: hull.
    pub runtime: String,
}

impl Defaults {
    /// Fails on what no container could have.
    ///
    /// # Errors
    /// Such as [`LogSpec::read`] has them.
    pub fn check(&self) -> Result<()> {
        LogSpec::read(&self.log_driver, &self.log_options).map(drop)
    }

    /// Gives a request what it does not say itself.
    pub(crate) fn apply(&self, request: &mut CreateRequest) {
        let named: Vec<String> = { request.limits.ulimits.iter() }
            .map(|ulimit| ulimit.name.clone())
            .collect();
        let missing = self.ulimits.iter();
        let missing = missing.filter(|ulimit| !named.contains(&ulimit.name));
        request.limits.ulimits.extend(missing.cloned());
        let network = &mut request.network;
        if matches!(network.mode, NetworkMode::Container(_)) {
            return;
        }
        if network.dns.is_empty() {
            network.dns.clone_from(&self.dns);
        }
        if network.dns_search.is_empty() {
            network.dns_search.clone_from(&self.dns_search);
        }
        if network.dns_options.is_empty() {
            network.dns_options.clone_from(&self.dns_options);
        }
    }
}

/// What can change while the engine runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The engine's labels, as `name=value`.
    pub labels: Vec<String>,
    /// Where registries are.
    pub registries: images::registry::config::Registries,
}

/// The settings, and what is made of them.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) settings: Settings,
    pub(crate) distribution: images::registry::Client,
}

impl Current {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            distribution: images::registry::Client::new(settings.registries.clone()),
            settings,
        })
    }
}

impl Engine {
    /// Takes other settings from now on; what is under way goes on with those that it began with. `told` is more of what the
    /// event says.
    pub fn reload(&self, settings: Settings, told: BTreeMap<String, String>) {
        let current = Current::new(settings);
        let mut attributes = told;
        let labels = serde_json::to_string(&current.settings.labels).unwrap_or_default();
        attributes.insert("labels".to_owned(), labels);
        *self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = current;
        let name = rustix::system::uname();
        let name = name.nodename().to_string_lossy().into_owned();
        attributes.insert("name".to_owned(), name.clone());
        self.0
            .events
            .emit(EventKind::Daemon, "reload", &name, attributes);
    }

    /// What can change while the engine runs, as it is now.
    pub fn settings(&self) -> Settings {
        self.current().settings.clone()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        let current = self.0.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}
