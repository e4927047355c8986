//! What nobody uses: found first, and then removed or only told.

use crate::error::{Kind, Result};
use crate::model::Phase;
use crate::{Engine, Error};
use images::{ImageId, ListFilter, Removed};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::block_in_place;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Labels it must have, with this value where one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// Labels it must not have, with this value where one is given.
    pub without_labels: Vec<(String, Option<String>)>,
    /// Made before this time.
    pub until: Option<Timestamp>,
}

impl PruneFilter {
    pub(crate) fn admits(&self, labels: &BTreeMap<String, String>, created: Timestamp) -> bool {
        let has = |(name, value): &(String, Option<String>)| {
            labels
                .get(name)
                .is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        self.labels.iter().all(has)
            && !self.without_labels.iter().any(has)
            && self.until.is_none_or(|until| created < until)
    }
}

/// Whether to remove, or only to tell what would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Remove it.
    Remove,
    /// Tell.
    Plan,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned<T = String> {
    /// Containers by ID, volumes by name, images by each step of their removal.
    pub items: Vec<T>,
    /// Bytes that this gives back.
    pub bytes: u64,
}

impl<T> Pruned<T> {
    fn add(&mut self, item: T, bytes: u64) {
        self.items.push(item);
        self.bytes += bytes;
    }
}

impl Engine {
    /// Containers that do not run.
    ///
    /// # Errors
    /// A container that cannot be measured or removed.
    pub async fn prune_containers(&self, filter: &PruneFilter, prune: Prune) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.list() {
            let ended = matches!(
                container.state.phase,
                Phase::Created | Phase::Exited | Phase::Dead
            );
            let spec = &container.spec;
            if !ended || !filter.admits(&spec.labels, spec.created) {
                continue;
            }
            let bytes = self.disk_usage(&spec.id)?;
            if prune == Prune::Remove {
                match self.remove(&spec.id, false, false).await {
                    Ok(()) => {}
                    Err(error) if was_meanwhile(&error) => continue,
                    Err(error) => return Err(error),
                }
            }
            pruned.add(spec.id.clone(), bytes);
        }
        Ok(pruned)
    }

    /// Volumes that no container has, but for the containers `gone`; with a name of their own only when `all`.
    ///
    /// # Errors
    /// A volume that cannot be measured or removed.
    pub fn prune_volumes(
        &self,
        filter: &PruneFilter,
        all: bool,
        gone: &BTreeSet<String>,
        prune: Prune,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for volume in self.volumes()? {
            let used = self
                .volume_users(&volume.name)
                .iter()
                .any(|user| !gone.contains(user));
            let wanted = all || volume.anonymous;
            if used || !wanted || !filter.admits(&volume.labels, volume.created) {
                continue;
            }
            let bytes = block_in_place(|| self.volume_disk_usage(&volume.name))?;
            if prune == Prune::Remove {
                match block_in_place(|| self.remove_volume(&volume.name, false)) {
                    Ok(()) => {}
                    Err(error) if was_meanwhile(&error) => continue,
                    Err(error) => return Err(error),
                }
            }
            pruned.add(volume.name, bytes);
        }
        Ok(pruned)
    }

    /// Images that no container has, but for the containers `gone`; with a tag only when `all`. Blocks.
    ///
    /// # Errors
    /// The store fails.
    pub fn prune_images(
        &self,
        filter: PruneFilter,
        all: bool,
        gone: &BTreeSet<String>,
        prune: Prune,
    ) -> images::Result<Pruned<Removed>> {
        let users = |id: &ImageId| {
            let mut users = self.image_users(id);
            users.retain(|user| !gone.contains(&user.container));
            users
        };
        let filter = ListFilter {
            labels: filter.labels,
            without_labels: filter.without_labels,
            until: filter.until,
            ..ListFilter::default()
        };
        let snapshots: Vec<&str> = gone.iter().map(String::as_str).collect();
        let (items, bytes) = match prune {
            Prune::Remove => self.images().prune(all, &filter, &users)?,
            Prune::Plan => self.images().plan_prune(all, &filter, &users, &snapshots)?,
        };
        Ok(Pruned { items, bytes })
    }
}

impl Engine {
    /// Checks the image store; with `mend`, removes damaged images that no container has. Blocks, and reads all of it.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn verify_images(&self, mend: bool) -> images::Result<images::Verification> {
        let used = |id: &ImageId| !self.image_users(id).is_empty();
        self.images().verify(mend, &used)
    }
}

/// Whether something was removed or taken into use since it was found.
fn was_meanwhile(error: &Error) -> bool {
    matches!(error.kind(), Kind::Conflict | Kind::NotFound)
}
