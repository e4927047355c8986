//! Volumes: their records, their directories, and the filesystems that some of them are.
//!
//! A volume with options of the driver is a filesystem of its own ([`local`]), mounted on the volume's directory while a container
//! that has it runs. Invariant: nothing is ever deleted through such a mount.

pub(crate) mod local;

use crate::error::{Context, Error, Kind, Result};
use crate::events::EventKind;
use crate::model::{Mount, MountSource, Spec};
use crate::{Engine, ids, quota};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

/// Which containers use the volumes that are filesystems of their own, by volume.
pub(crate) type Users = BTreeMap<String, BTreeSet<String>>;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its name was made up for a container.
    pub anonymous: bool,
    /// Options of the driver, as [`local`] reads them.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What a volume that is made is to be.
#[derive(Debug, Clone, Default)]
pub struct NewVolume {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Whether its name was made up.
    pub anonymous: bool,
}

impl Engine {
    /// Where a volume's files are.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.0
            .config
            .data_root
            .join("volumes")
            .join(name)
            .join("_data")
    }

    pub(crate) fn lock_volumes(&self) -> MutexGuard<'_, Users> {
        self.0
            .volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume, or returns the one with that name. None: a name is made up.
    ///
    /// # Errors
    /// A bad name, options that the driver has not, a volume with other options.
    pub fn create_volume(&self, name: Option<&str>, new: NewVolume) -> Result<Volume> {
        let made_up = if name.is_none() {
            Some(ids::random_id()?)
        } else {
            None
        };
        let name = name.or(made_up.as_deref()).unwrap_or_default();
        let _guard = self.lock_volumes();
        self.ensure_volume(
            name,
            NewVolume {
                anonymous: made_up.is_some(),
                ..new
            },
        )
    }

    /// Needs the volumes' lock.
    pub(crate) fn ensure_volume(&self, name: &str, new: NewVolume) -> Result<Volume> {
        ids::check_name("volume", name)?;
        local::Filesystem::read(&new.options)?;
        if let Some(record) = self.0.store.get(store::Kind::Volume, name)? {
            let found: Volume = serde_json::from_str(&record)
                .context(|| format!("read the record of volume {name}"))?;
            if !new.options.is_empty() && new.options != found.options {
                return Err(Error::conflict(format!(
                    "volume {name} already exists with other options of its driver"
                )));
            }
            return Ok(found);
        }
        let volume = Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            labels: new.labels,
            anonymous: new.anonymous,
            options: new.options,
        };
        let data = self.volume_path(name);
        // A directory without a record is the rest of a crash; it never had anything in it, or was to be removed.
        std::fs::create_dir_all(&data).context(|| format!("make {data:?}"))?;
        if let Err(error) = self.finish_volume(&volume, &data) {
            // The first error tells more than what goes wrong in taking back.
            let _ = self.remove_directory(name);
            return Err(error);
        }
        self.volume_event("create", name, []);
        Ok(volume)
    }

    /// Limits a volume that was just made, if it is to be, and writes it down.
    fn finish_volume(&self, volume: &Volume, data: &Path) -> Result<()> {
        if let (Some(bytes), Some(whole)) = (local::size(&volume.options)?, data.parent()) {
            quota::check_support("quota size", whole)?;
            self.limit_tree(&[whole, data], bytes)?;
        }
        let record = serde_json::to_string(volume).context(|| "encode a volume's record")?;
        let kept = self
            .0
            .store
            .insert(store::Kind::Volume, &volume.name, &record);
        Ok(kept?)
    }

    /// Removes a volume's directory, and its limit.
    fn remove_directory(&self, name: &str) -> Result<()> {
        let data = self.volume_path(name);
        let whole = data.parent().unwrap_or(&data);
        self.remove_limited(whole, || remove_directory(whole))
    }

    pub(crate) fn volume_event(
        &self,
        action: &str,
        name: &str,
        more: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        let more = more.into_iter();
        let mut attributes: BTreeMap<String, String> =
            more.map(|(name, value)| (name.to_owned(), value)).collect();
        attributes.insert("driver".to_owned(), "local".to_owned());
        self.0
            .events
            .emit(EventKind::Volume, action, name, attributes);
    }

    /// Mounts a volume that is a filesystem of its own, for a container, unless it is mounted already.
    pub(crate) fn mount_volume(
        &self,
        volume: &Volume,
        container: &str,
        users: &mut Users,
    ) -> Result<()> {
        let Some(filesystem) = local::Filesystem::read(&volume.options)? else {
            return Ok(());
        };
        let data = self.volume_path(&volume.name);
        if !local::is_mounted(&data)? {
            filesystem.mount(&data)?;
        }
        let of_volume = users.entry(volume.name.clone()).or_default();
        of_volume.insert(container.to_owned());
        Ok(())
    }

    /// Whether a volume is a filesystem of its own. One that is gone is none.
    fn is_filesystem(&self, name: &str) -> Result<bool> {
        match self.volume(name) {
            Ok(volume) => Ok(local::Filesystem::read(&volume.options)?.is_some()),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Knows the volumes of a container that was found running.
    pub(crate) fn adopt_volumes(&self, spec: &Spec) -> Result<()> {
        let mut users = self.lock_volumes();
        for name in volume_names(spec) {
            if self.is_filesystem(name)? {
                let of_volume = users.entry(name.to_owned()).or_default();
                of_volume.insert(spec.id.clone());
            }
        }
        Ok(())
    }

    /// Gives up the volumes of a container whose run is over; filesystems that nobody uses any more are unmounted.
    pub(crate) fn release_volumes(&self, spec: &Spec) -> Result<()> {
        let mut users = self.lock_volumes();
        for name in volume_names(spec) {
            let told = [("container", spec.id.clone())];
            self.volume_event("unmount", name, told);
            if let Some(of_volume) = users.get_mut(name) {
                of_volume.remove(&spec.id);
                if !of_volume.is_empty() {
                    continue;
                }
                users.remove(name);
            }
            // What somebody else has mounted on a plain volume is not the engine's.
            if self.is_filesystem(name)? {
                local::unmount(&self.volume_path(name))?;
            }
        }
        Ok(())
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// As the database.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let rows = self.0.store.list(store::Kind::Volume)?;
        let read = |(name, record): &(String, String)| {
            serde_json::from_str(record).context(|| format!("read the record of volume {name}"))
        };
        rows.iter().map(read).collect()
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// No such volume.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let record = self.0.store.get(store::Kind::Volume, name)?;
        let record =
            record.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))?;
        serde_json::from_str(&record).context(|| format!("read the record of volume {name}"))
    }

    /// Bytes on the disk of a volume.
    ///
    /// # Errors
    /// As walking the files.
    pub fn volume_disk_usage(&self, name: &str) -> Result<u64> {
        let data = self.volume_path(name);
        let whole = data.parent().unwrap_or(&data);
        images::disk_usage(whole).context(|| format!("measure volume {name}"))
    }

    /// The ids of the containers that mount a volume.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |mount: &Mount| matches!(&mount.source, MountSource::Volume { name: n, .. } if n == name);
        let containers = self.0.registry.all();
        let users = containers
            .iter()
            .filter(|container| container.spec.mounts.iter().any(uses));
        users.map(|container| container.id().to_owned()).collect()
    }

    /// Removes a volume and what is in it.
    ///
    /// # Errors
    /// No such volume (none with `force`), or a container mounts it.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let _guard = self.lock_volumes();
        match self.volume(name) {
            Err(error) if force && error.kind() == Kind::NotFound => return Ok(()),
            result => result?,
        };
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.delete_volume(name)
    }

    /// Removes an anonymous volume with the only container that has it.
    pub(crate) fn remove_anonymous_volume(&self, name: &str) -> Result<()> {
        let _guard = self.lock_volumes();
        self.delete_volume(name)
    }

    /// Needs the volumes' lock.
    fn delete_volume(&self, name: &str) -> Result<()> {
        self.0
            .store
            .apply(&[store::Change::Remove(store::Kind::Volume, name.to_owned())])?;
        self.remove_directory(name)?;
        self.volume_event("destroy", name, []);
        Ok(())
    }

    /// Directories of volumes without a record: the rest of a crash.
    pub(crate) fn sweep_volumes(&self) -> Result<()> {
        let root = self.0.config.data_root.join("volumes");
        let known = self.volumes()?;
        for entry in std::fs::read_dir(&root).context(|| format!("list {root:?}"))? {
            let entry = entry.context(|| format!("list {root:?}"))?;
            if known
                .iter()
                .all(|volume| *volume.name != *entry.file_name())
            {
                let path = entry.path();
                self.remove_limited(&path, || remove_directory(&path))?;
            }
        }
        Ok(())
    }

    /// Makes the volumes that a container names.
    pub(crate) fn create_volumes_of(&self, spec: &Spec) -> Result<()> {
        let _guard = self.lock_volumes();
        for mount in &spec.mounts {
            if let MountSource::Volume {
                name,
                anonymous,
                labels,
                options,
                ..
            } = &mount.source
            {
                let new = NewVolume {
                    labels: labels.clone(),
                    options: options.clone(),
                    anonymous: *anonymous,
                };
                self.ensure_volume(name, new)?;
            }
        }
        Ok(())
    }
}

fn volume_names(spec: &Spec) -> impl Iterator<Item = &str> {
    spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name, .. } => Some(name.as_str()),
        _ => None,
    })
}

/// Removes a volume's directory, once nothing is mounted in it: what is mounted there is not the engine's to delete. That it is gone
/// is no error.
fn remove_directory(path: &std::path::Path) -> Result<()> {
    local::unmount(&path.join("_data"))?;
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {path:?}"), error))
        }
        _ => Ok(()),
    }
}
