//! Volumes, and what a container mounts.

use crate::error::{Context, Error, Kind, Result};
use crate::events::EventKind;
use crate::model::{ImageSource, Mount, MountSource, Spec};
use crate::{Engine, ids};
use images::Snapshot;
use jiff::Timestamp;
use oci::runtime as rt;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use sys::root::Root;

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

    fn lock_volumes(&self) -> MutexGuard<'_, ()> {
        self.0
            .volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume, or returns the one with that name. None: a name is made up.
    ///
    /// # Errors
    /// A bad name.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume> {
        let made_up = if name.is_none() {
            Some(ids::random_id()?)
        } else {
            None
        };
        let name = name.or(made_up.as_deref()).unwrap_or_default();
        let _guard = self.lock_volumes();
        self.ensure_volume(name, labels, made_up.is_some())
    }

    /// Needs the volumes' lock.
    fn ensure_volume(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<Volume> {
        ids::check_name("volume", name)?;
        if let Some(record) = self.0.store.get(store::Kind::Volume, name)? {
            return serde_json::from_str(&record)
                .context(|| format!("read the record of volume {name}"));
        }
        let volume = Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            labels,
            anonymous,
        };
        let data = self.volume_path(name);
        // A directory without a record is the rest of a crash; it never had anything in it, or was to be removed.
        std::fs::create_dir_all(&data).context(|| format!("make {data:?}"))?;
        let record = serde_json::to_string(&volume).context(|| "encode a volume's record")?;
        self.0.store.insert(store::Kind::Volume, name, &record)?;
        self.volume_event("create", name);
        Ok(volume)
    }

    fn volume_event(&self, action: &str, name: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.0
            .events
            .emit(EventKind::Volume, action, name, attributes);
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
        let dir = self.0.config.data_root.join("volumes").join(name);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::system(format!("remove {dir:?}"), error));
            }
            _ => {}
        }
        self.volume_event("destroy", name);
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
                std::fs::remove_dir_all(&path).context(|| format!("remove {path:?}"))?;
            }
        }
        Ok(())
    }

    /// Makes the volumes that a container names.
    pub(crate) fn create_volumes_of(&self, spec: &Spec) -> Result<()> {
        let _guard = self.lock_volumes();
        for mount in &spec.mounts {
            if let MountSource::Volume {
                name, anonymous, ..
            } = &mount.source
            {
                self.ensure_volume(name, BTreeMap::new(), *anonymous)?;
            }
        }
        Ok(())
    }

    /// What a start has to mount; empty volumes are filled with what the image has in their place.
    pub(crate) fn prepare_mounts(
        &self,
        spec: &Spec,
        snapshot: &Snapshot,
    ) -> Result<Vec<rt::Mount>> {
        let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
        // A mount below another comes after it, whatever the order of the request.
        mounts.sort_by_key(|mount| Path::new(&mount.target).components().count());
        mounts
            .into_iter()
            .map(|mount| self.prepare_mount(mount, spec, snapshot))
            .collect()
    }

    fn prepare_mount(&self, mount: &Mount, spec: &Spec, snapshot: &Snapshot) -> Result<rt::Mount> {
        let mode = if mount.read_only { "ro" } else { "rw" };
        match &mount.source {
            MountSource::Bind {
                path,
                propagation,
                non_recursive,
                recursive_read_only,
                create,
                ..
            } => {
                prepare_bind_source(path, *create)?;
                let bind = if *non_recursive { "bind" } else { "rbind" };
                let mut options = vec![bind, mode, propagation.as_deref().unwrap_or("rprivate")];
                if mount.read_only && *recursive_read_only {
                    options.push("rro");
                }
                Ok(crate::spec::bind(path, &mount.target, &options))
            }
            MountSource::Volume { name, no_copy, .. } => {
                let _guard = self.lock_volumes();
                let data = self.volume_path(name);
                // It may have been removed by force since the container was created.
                self.ensure_volume(name, BTreeMap::new(), false)?;
                if !no_copy {
                    self.fill_volume(&data, &mount.target, spec, snapshot)?;
                }
                Ok(crate::spec::bind(
                    &data,
                    &mount.target,
                    &["rbind", mode, "rprivate"],
                ))
            }
            MountSource::Tmpfs { options } => {
                let mut all: Vec<String> =
                    ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
                // What is asked for wins over the default of the same kind.
                all.retain(|default| {
                    !options
                        .iter()
                        .any(|option| default.strip_prefix("no") == Some(option))
                });
                all.extend(options.iter().filter(|option| !option.is_empty()).cloned());
                if mount.read_only {
                    all.push("ro".to_owned());
                }
                Ok(rt::Mount {
                    destination: PathBuf::from(&mount.target),
                    kind: Some("tmpfs".to_owned()),
                    source: Some(PathBuf::from("tmpfs")),
                    options: all,
                    ..rt::Mount::default()
                })
            }
        }
    }

    /// Copies what the image has at `target` into an empty volume, owner and mode of the directory included.
    fn fill_volume(
        &self,
        data: &Path,
        target: &str,
        spec: &Spec,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if matches!(spec.image, ImageSource::Directory(_)) {
            return Ok(());
        }
        let mut entries = std::fs::read_dir(data).context(|| format!("list {data:?}"))?;
        if entries.next().is_some() {
            return Ok(());
        }
        let mounted = self.0.images.mount_detached(snapshot);
        let root = Root::from_fd(mounted.context(|| "mount the image to fill a volume")?);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(source) = root.open_at(Path::new(target), flags, Mode::empty()) else {
            // The image has nothing there.
            return Ok(());
        };
        copy_tree(&Root::from_fd(source), data).context(|| format!("fill the volume for {target}"))
    }
}

/// Copies the content of a directory through a pipe of tar; the two ends run at once.
fn copy_tree(source: &Root, target: &Path) -> Result<()> {
    let (reader, mut writer) = std::io::pipe().context(|| "make a pipe")?;
    let target_root = Root::open(target).context(|| "open the volume")?;
    let metadata = rustix::fs::fstat(source)
        .map_err(std::io::Error::from)
        .context(|| "stat the image's directory")?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            images::archive::export(source, &mut writer).context(|| "read the original")?;
            writer.flush().context(|| "read the original")
        });
        let options = images::archive::ExtractOptions::default();
        let received = images::archive::extract(&target_root, Path::new("/"), reader, &options);
        let sent = sender
            .join()
            .map_err(|_| Error::new(Kind::System, "the copying thread panicked"))?;
        received.context(|| "write the copy")?;
        sent
    })?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(metadata.st_mode & 0o7777);
    std::os::unix::fs::chown(target, Some(metadata.st_uid), Some(metadata.st_gid))
        .context(|| "chown the volume")?;
    std::fs::set_permissions(target, mode).context(|| "chmod the volume")
}

fn prepare_bind_source(path: &Path, create: bool) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path)
                .context(|| format!("error while creating mount source path {path:?}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        ))),
        Err(error) => Err(Error::system(
            format!("stat the mount source {path:?}"),
            error,
        )),
    }
}
