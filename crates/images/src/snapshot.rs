//! Writable layers of containers on top of an image or a directory.
//!
//! Invariant: a snapshot is complete when its `work` directory is there, which is made last; one without is the rest of a
//! crash. Its file `lower` says what it stands on, so that layers outlive an image that was removed under a stopped
//! container. It is not synced: after a power failure that loses it, the container's changes of that moment are lost as
//! well, and [`Images::prepare`] makes it anew.

use crate::limits::SNAPSHOT_ID_BYTES_MAX;
use crate::records::ImageId;
use crate::store::{list, make_directory};
use crate::{Error, Images, Result};
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use sys::Context as _;

const LOWER: &str = "lower";
const UPPER: &str = "upper";
const WORK: &str = "work";

/// The directories of a container's overlay mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The name under which it was prepared: the container's ID.
    pub id: String,
    /// The read-only directories, the topmost first. There are up to 127 of about 100 bytes each: together they are longer
    /// than one page, which is all that `lowerdir=` takes. Give each to `fsconfig` as `lowerdir+` (Linux 6.7), or mount
    /// with paths to descriptors (`/proc/self/fd/<n>`).
    pub lowers: Vec<PathBuf>,
    /// The directory that takes the changes.
    pub upper: PathBuf,
    /// The directory that overlayfs works in; on the same file system.
    pub work: PathBuf,
}

/// What a snapshot stands on, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Lower {
    /// Layers of the store by diff ID, the topmost first, each once.
    Layers(Vec<Digest>),
    /// A directory of the host.
    Directory(PathBuf),
}

impl Lower {
    fn layers(&self) -> &[Digest] {
        match self {
            Self::Layers(layers) => layers,
            Self::Directory(_) => &[],
        }
    }
}

impl Images {
    /// Makes the directories of a container on top of an image. A snapshot that is there already is returned.
    pub fn prepare(&self, id: &str, image: &ImageId) -> Result<Snapshot> {
        check_id(id)?;
        let mut pins = self.pins();
        if let Some(snapshot) = self.snapshot(id)? {
            return Ok(snapshot);
        }
        // The image cannot go between being looked up and being pinned.
        let record = self.records.image(image).map_err(Error::Records)?;
        let record = record.ok_or_else(|| Error::NoSuchImage(image.to_string()))?;
        let layers = from_the_top(&record.layers);
        pins.add(&layers);
        pins.snapshots.insert(id.to_owned(), layers.clone());
        drop(pins);
        self.make_snapshot(id, &Lower::Layers(layers))
    }

    /// Makes the directories of a container on top of layers, the lowest first, which the caller holds. A snapshot that is
    /// there already is returned.
    pub fn prepare_on(&self, id: &str, layers: &[Digest]) -> Result<Snapshot> {
        check_id(id)?;
        let mut pins = self.pins();
        if let Some(snapshot) = self.snapshot(id)? {
            return Ok(snapshot);
        }
        let layers = from_the_top(layers);
        pins.add(&layers);
        pins.snapshots.insert(id.to_owned(), layers.clone());
        drop(pins);
        self.make_snapshot(id, &Lower::Layers(layers))
    }

    /// Makes the directories of a container on top of a directory of the host, given by an absolute path.
    pub fn prepare_directory(&self, id: &str, directory: &Path) -> Result<Snapshot> {
        check_id(id)?;
        if let Some(snapshot) = self.snapshot(id)? {
            return Ok(snapshot);
        }
        let refuse = |reason| Error::Path {
            path: directory.to_owned(),
            reason,
        };
        if !directory.is_absolute() {
            return Err(refuse("it is no absolute path"));
        }
        let path = fs::canonicalize(directory).call(|| format!("realpath({directory:?})"))?;
        if !path.is_dir() {
            return Err(refuse("it is no directory"));
        }
        self.make_snapshot(id, &Lower::Directory(path))
    }

    /// The snapshot that was prepared under this name.
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        check_id(id)?;
        let path = self.snapshots_path().join(id);
        match read_lower(&path) {
            Some(lower) if path.join(WORK).is_dir() => self.describe(id, &lower).map(Some),
            _ => Ok(None),
        }
    }

    /// The names of all snapshots, ordered.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        let paths = list(&self.snapshots_path())?;
        let names = paths
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Deletes a snapshot, and layers that only it still held. One that is absent is no error.
    pub fn remove_snapshot(&self, id: &str) -> Result<()> {
        check_id(id)?;
        self.discard(&self.snapshots_path().join(id))?;
        let mut pins = self.pins();
        let layers = pins.snapshots.remove(id).unwrap_or_default();
        let frees = pins.remove(&layers);
        drop(pins);
        if frees {
            self.collect()?;
        }
        Ok(())
    }

    fn make_snapshot(&self, id: &str, lower: &Lower) -> Result<Snapshot> {
        let made = self
            .describe(id, lower)
            .and_then(|snapshot| self.make_directories(&snapshot, lower).map(|()| snapshot));
        if made.is_err() {
            // The first error tells more than what goes wrong in taking back.
            let _ = self.remove_snapshot(id);
        }
        made
    }

    fn make_directories(&self, snapshot: &Snapshot, lower: &Lower) -> Result<()> {
        let path = self.snapshots_path().join(&snapshot.id);
        if snapshot.work.is_dir() {
            // Only `lower` was lost; the container's files are still there.
            return write_lower(&path, lower);
        }
        match make_directory(&path) {
            Err(Error::Sys(error)) if error.errno == rustix::io::Errno::EXIST => {
                // The rest of a crash.
                self.discard(&path)?;
                make_directory(&path)?;
            }
            result => result?,
        }
        write_lower(&path, lower)?;
        make_directory(&snapshot.upper)?;
        // The upper directory's attributes are those of the container's root.
        let lower =
            fs::metadata(&snapshot.lowers[0]).call(|| format!("stat({:?})", snapshot.lowers[0]))?;
        std::os::unix::fs::chown(&snapshot.upper, Some(lower.uid()), Some(lower.gid()))
            .call(|| format!("chown({:?})", snapshot.upper))?;
        fs::set_permissions(
            &snapshot.upper,
            Permissions::from_mode(lower.mode() & 0o7777),
        )
        .call(|| format!("chmod({:?})", snapshot.upper))?;
        let set_time = || fs::File::open(&snapshot.upper)?.set_modified(lower.modified()?);
        set_time().call(|| format!("utimes({:?})", snapshot.upper))?;
        make_directory(&snapshot.work)
    }

    fn describe(&self, id: &str, lower: &Lower) -> Result<Snapshot> {
        let path = self.snapshots_path().join(id);
        let lowers: Vec<PathBuf> = match lower {
            // Of an image without layers.
            Lower::Layers(layers) if layers.is_empty() => vec![self.empty_path()],
            Lower::Layers(layers) => layers
                .iter()
                .map(|layer| self.layer_path(layer).join(crate::recipe::DIFF))
                .collect(),
            Lower::Directory(directory) => vec![directory.clone()],
        };
        let id = id.to_owned();
        Ok(Snapshot {
            id,
            lowers,
            upper: path.join(UPPER),
            work: path.join(WORK),
        })
    }
}

/// Layers as overlayfs takes them: the topmost first, each once. What is lower has no effect anyway.
pub(crate) fn from_the_top(layers: &[Digest]) -> Vec<Digest> {
    let mut unique: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        if !unique.contains(layer) {
            unique.push(*layer);
        }
    }
    unique
}

/// Removes incomplete snapshots at the start; returns the others with the layers they stand on.
pub(crate) fn recover(snapshots: &Path) -> Result<Vec<(String, Vec<Digest>)>> {
    let mut found = Vec::new();
    for path in list(snapshots)? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        match (name, read_lower(&path)) {
            (Some(name), Some(lower)) if path.join(WORK).is_dir() => {
                found.push((name, lower.layers().to_vec()));
            }
            // Files of a container may still be there when only `lower` was lost: that is for the engine to see.
            (Some(name), None) if path.join(WORK).is_dir() => found.push((name, Vec::new())),
            _ => match fs::remove_dir_all(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.call(|| format!("remove_dir_all({path:?})"))?,
            },
        }
    }
    Ok(found)
}

fn write_lower(snapshot: &Path, lower: &Lower) -> Result<()> {
    let file = snapshot.join(LOWER);
    let bytes = serde_json::to_vec(lower).map_err(std::io::Error::from);
    bytes
        .and_then(|bytes| fs::write(&file, bytes))
        .call(|| format!("write({file:?})"))?;
    Ok(())
}

/// What a snapshot stands on; nothing where its file is absent or was lost.
fn read_lower(snapshot: &Path) -> Option<Lower> {
    let bytes = fs::read(snapshot.join(LOWER)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// An identifier becomes the name of a directory: it starts with a letter or digit and has only those, `_`, `-` and `.`.
fn check_id(id: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let fits = id.len() <= SNAPSHOT_ID_BYTES_MAX
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && id.bytes().all(plain);
    if fits {
        Ok(())
    } else {
        Err(Error::SnapshotId(
            id.chars().take(SNAPSHOT_ID_BYTES_MAX).collect(),
        ))
    }
}

#[cfg(test)]
mod tests;
