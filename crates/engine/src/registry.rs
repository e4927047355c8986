//! All containers, by id and by name.

use crate::container::Container;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The containers. The lock is held for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    containers: RwLock<BTreeMap<String, Arc<Container>>>,
}

impl Registry {
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut containers = self
            .containers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        containers.insert(container.id().to_owned(), container);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// Every container, in no order that means anything.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.select(|container| Some(Arc::clone(container)))
    }

    /// What is made of every container, where something is.
    pub(crate) fn select<T>(&self, make: impl FnMut(&Arc<Container>) -> Option<T>) -> Vec<T> {
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        containers.values().filter_map(make).collect()
    }

    /// The container with this id, this name, or the only one whose id begins so.
    pub(crate) fn find(&self, key: &str) -> Result<Arc<Container>> {
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(container) = containers.get(key) {
            return Ok(Arc::clone(container));
        }
        let name = key.strip_prefix('/').unwrap_or(key);
        if let Some(container) = containers
            .values()
            .find(|container| container.has_name(name))
        {
            return Ok(Arc::clone(container));
        }
        let is_hex = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut matches = containers
            .range(key.to_owned()..)
            .take_while(|(id, _)| is_hex && id.starts_with(key))
            .map(|(_, container)| container);
        match (matches.next(), matches.next()) {
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {key}"
            ))),
            _ => Err(Error::not_found(format!("No such container: {key}"))),
        }
    }
}
