//! The directories of the store, and how something comes into them and goes again.
//!
//! ```text
//! blobs/sha256/<hex>        configurations and manifests
//! layers/<hex>/             one layer by diff ID: diff/ (its files), recipe (how they become its tar again),
//!                           displaced/ (files that a later entry of the same tar replaced; mostly absent)
//! empty/                    what an image without layers stands on
//! snapshots/<id>/           lower (what it stands on), upper/ and work/ (for overlayfs)
//! tmp/<number>/             whatever is being made or deleted
//! ```
//!
//! Invariant: something is made in `tmp`, made durable, moved to its place by one rename, and then recorded; it is deleted
//! in the opposite order. So after a crash at any point what is in `tmp`, and what has no record, can be deleted. Layers of a build
//! are moved first, and made durable together before the first of them is recorded ([`LateRecords`]).
//!
//! A layer lives while an image has it, a snapshot stands on it, a result of a build has it, or a load or build that is under
//! way counts on it. All but the first are *pins*, counted in memory; those of snapshots are read from their `lower` files at
//! the start, those of results from the records.
//!
//! Locks: `publishing` (one at a time adds to or removes from blobs and layers) before `pins`.

use crate::image::ImageCache;
use crate::pull::Arrivals;
use crate::records::{
    CacheRecord, ImageId, LateRecords, LayerRecord, Records, ReferenceRecord, Update,
};
use crate::{Error, Result, snapshot};
use oci::Digest;
use rustix::fs::{IFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sys::Context as _;

const BLOBS: &str = "blobs";
const SHA256: &str = "blobs/sha256";
const LAYERS: &str = "layers";
const EMPTY: &str = "empty";
const SNAPSHOTS: &str = "snapshots";
const TMP: &str = "tmp";

/// The images of one engine.
pub struct Images {
    root: PathBuf,
    pub(crate) records: LateRecords,
    pub(crate) configs: ImageCache,
    pub(crate) arrivals: Arrivals,
    /// Held while blobs and layers are added or removed.
    publishing: Mutex<()>,
    pins: Mutex<Pins>,
    /// The name of the next directory in `tmp`.
    next: AtomicU64,
}

/// What keeps layers besides images.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// How often each layer is counted on.
    counts: HashMap<Digest, usize>,
    /// The layers under each snapshot.
    pub(crate) snapshots: HashMap<String, Vec<Digest>>,
    /// Layers that no image has any more: they go with their last pin.
    orphans: HashSet<Digest>,
}

impl Pins {
    pub(crate) fn add(&mut self, layers: &[Digest]) {
        for layer in layers {
            *self.counts.entry(*layer).or_default() += 1;
        }
    }

    /// The layers that are pinned by anything but these snapshots.
    pub(crate) fn without_snapshots(&self, gone: &[&str]) -> HashSet<Digest> {
        let mut counts = self.counts.clone();
        let layers = gone
            .iter()
            .filter_map(|id| self.snapshots.get(*id))
            .flatten();
        for layer in layers {
            if let Some(count) = counts.get_mut(layer) {
                *count -= 1;
            }
        }
        counts.retain(|_, count| *count > 0);
        counts.into_keys().collect()
    }

    /// The layers that are pinned more often than by snapshots and by these results of builds.
    pub(crate) fn besides(&self, known: &[CacheRecord]) -> HashSet<Digest> {
        let mut counts = self.counts.clone();
        let of_snapshots = self.snapshots.values().flatten();
        for layer in { known.iter() }
            .flat_map(|record| &record.layers)
            .chain(of_snapshots)
        {
            if let Some(count) = counts.get_mut(layer) {
                *count = count.saturating_sub(1);
            }
        }
        counts.retain(|_, count| *count > 0);
        counts.into_keys().collect()
    }

    /// Takes pins away; returns whether that frees layers that nothing else keeps.
    pub(crate) fn remove(&mut self, layers: &[Digest]) -> bool {
        let mut frees = false;
        for layer in layers {
            if let Some(count) = self.counts.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(layer);
                    frees |= self.orphans.contains(layer);
                }
            }
        }
        frees
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the store below `root` (made with 0700 when absent) and removes what a crash left. Only one process may have
    /// a store open.
    pub fn open(root: &Path, records: Arc<dyn Records>) -> Result<Self> {
        for directory in ["", BLOBS, SHA256, LAYERS, SNAPSHOTS, EMPTY, TMP] {
            make_private(&root.join(directory), directory.is_empty())?;
        }
        for directory in [SNAPSHOTS, TMP] {
            spread(&root.join(directory))?;
        }
        // It becomes the root of containers, whose processes need not be root.
        let empty = root.join(EMPTY);
        fs::set_permissions(&empty, Permissions::from_mode(0o755))
            .call(|| format!("chmod({empty:?}, 0755)"))?;
        let root = fs::canonicalize(root).call(|| format!("realpath({root:?})"))?;
        let images = Self {
            root,
            records: LateRecords::new(records),
            configs: ImageCache::default(),
            arrivals: Arrivals::default(),
            publishing: Mutex::default(),
            pins: Mutex::default(),
            next: AtomicU64::new(0),
        };
        images.clean()?;
        Ok(images)
    }

    /// The directory of the store.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join(LAYERS).join(diff_id.hex())
    }

    pub(crate) fn empty_path(&self) -> PathBuf {
        self.root.join(EMPTY)
    }

    pub(crate) fn layers_path(&self) -> PathBuf {
        self.root.join(LAYERS)
    }

    pub(crate) fn blobs_path(&self) -> PathBuf {
        self.root.join(SHA256)
    }

    pub(crate) fn snapshots_path(&self) -> PathBuf {
        self.root.join(SNAPSHOTS)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join(BLOBS)
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        // The counts are whole after every statement that can panic.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A name in `tmp` that nothing has.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join(TMP).join(number.to_string())
    }

    /// Reads a small blob, checking that it is what it was.
    pub(crate) fn blob(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
            .call(|| format!("open({path:?})"))?;
        if Digest::sha256(&bytes) != *digest {
            return Err(Error::Damaged {
                path,
                reason: "it is not what its name says".to_owned(),
            });
        }
        Ok(bytes)
    }

    /// Starts to make something.
    pub(crate) fn ingest(&self) -> Result<Ingest<'_>> {
        let directory = self.temporary();
        make_directory(&directory)?;
        Ok(Ingest {
            images: self,
            directory,
            next: 0,
            pinned: Vec::new(),
        })
    }

    /// Removes a directory of the store: it disappears at once, its files after that.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let to = self.temporary();
        match fs::rename(path, &to) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            result => result.call(|| format!("rename({path:?}, {to:?})"))?,
        }
        Ok(fs::remove_dir_all(&to).call(|| format!("remove_dir_all({to:?})"))?)
    }

    /// Removes what a crash left, and counts the pins of snapshots.
    fn clean(&self) -> Result<()> {
        for path in list(&self.root.join(TMP))? {
            remove_any(&path)?;
        }
        let images = self.records.images().map_err(Error::Records)?;
        let layers = self.records.layers().map_err(Error::Records)?;
        let blobs: HashSet<_> = images
            .iter()
            .flat_map(|image| [image.id, image.manifest])
            .map(|d| d.hex())
            .collect();
        let named: HashSet<_> = layers.iter().map(|layer| layer.diff_id.hex()).collect();
        for (directory, known) in [(SHA256, blobs), (LAYERS, named)] {
            for path in list(&self.root.join(directory))? {
                let name = path.file_name().and_then(|name| name.to_str());
                if !name.is_some_and(|name| known.contains(name)) {
                    remove_any(&path)?;
                }
            }
        }
        let used: HashSet<_> = images
            .iter()
            .flat_map(|image| &image.layers)
            .copied()
            .collect();
        let mut pins = self.pins();
        for (id, layers) in snapshot::recover(&self.snapshots_path())? {
            pins.add(&layers);
            pins.snapshots.insert(id, layers);
        }
        for result in self.records.caches().map_err(Error::Records)? {
            pins.add(&result.layers);
        }
        pins.orphans = layers
            .iter()
            .map(|l| l.diff_id)
            .filter(|id| !used.contains(id))
            .collect();
        drop(pins);
        self.collect().map(drop)
    }

    /// Names images, which must not go meanwhile. `names` is asked while no name changes.
    pub(crate) fn add_references(
        &self,
        names: impl FnOnce() -> Result<Vec<ReferenceRecord>>,
    ) -> Result<()> {
        let _publishing = self.publishing();
        let names = names()?;
        for id in names.iter().flat_map(ReferenceRecord::images) {
            let found = self.records.image(&id).map_err(Error::Records)?;
            found.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        }
        let updates: Vec<_> = names.into_iter().map(Update::SetReference).collect();
        self.records.update(&updates).map_err(Error::Records)
    }

    /// Gives an image another manifest. The old one goes unless another image has it.
    pub(crate) fn replace_manifest(
        &self,
        id: &ImageId,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<()> {
        let mut ingest = self.ingest()?;
        let from = ingest.path();
        let mut file = create_private(&from)?;
        file.write_all(bytes).call(|| format!("write({from:?})"))?;
        file.sync_all().call(|| format!("fsync({from:?})"))?;
        let _publishing = self.publishing();
        let record = self.records.image(id).map_err(Error::Records)?;
        let mut record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        if record.manifest == digest {
            return Ok(());
        }
        let old = std::mem::replace(&mut record.manifest, digest);
        let to = self.blob_path(&digest);
        fs::rename(&from, &to).call(|| format!("rename({from:?}, {to:?})"))?;
        let parent = self.root.join(SHA256);
        rustix::fs::fsync(open_directory(&parent)?).call(|| format!("fsync({parent:?})"))?;
        self.records
            .update(&[Update::PutImage(record)])
            .map_err(Error::Records)?;
        let images = self.records.images().map_err(Error::Records)?;
        if images
            .iter()
            .all(|image| image.manifest != old && image.id != old)
        {
            remove_any(&self.blob_path(&old))?;
        }
        Ok(())
    }

    /// Removes images and names from the records, and then what nothing needs any more. Returns the layers that are gone.
    pub(crate) fn retire(&self, updates: &[Update], images: &[ImageId]) -> Result<Vec<Digest>> {
        let publishing = self.publishing();
        let mut blobs = HashSet::new();
        let mut layers = HashSet::new();
        for id in images {
            if let Some(record) = self.records.image(id).map_err(Error::Records)? {
                blobs.extend([record.id, record.manifest]);
                layers.extend(record.layers);
            }
        }
        self.records.update(updates).map_err(Error::Records)?;
        for record in self.records.images().map_err(Error::Records)? {
            for kept in [record.id, record.manifest] {
                blobs.remove(&kept);
            }
            for kept in record.layers {
                layers.remove(&kept);
            }
        }
        for blob in blobs {
            self.configs.forget(&blob);
            remove_any(&self.blob_path(&blob))?;
        }
        self.pins().orphans.extend(layers);
        drop(publishing);
        self.collect()
    }

    /// Makes everything durable that builds have made so far.
    ///
    /// # Errors
    /// The disk fails, or the records.
    pub fn settle(&self) -> Result<()> {
        let pending = self.records.pending();
        if pending.is_empty() {
            return Ok(());
        }
        let directory = open_directory(&self.root)?;
        rustix::fs::syncfs(&directory).call(|| format!("syncfs({:?})", self.root))?;
        let _publishing = self.publishing();
        let due = self.records.due(pending);
        self.records.update(&due).map_err(Error::Records)
    }

    /// Lets a layer go with its last pin, unless an image has it.
    pub(crate) fn release_with_last_pin(&self, layer: Digest) -> Result<()> {
        // An image that is being published takes its layers from the orphans under the same lock.
        let _publishing = self.publishing();
        let images = self.records.images().map_err(Error::Records)?;
        if images.iter().all(|image| !image.layers.contains(&layer)) {
            self.pins().orphans.insert(layer);
        }
        Ok(())
    }

    /// Removes the layers that neither image nor pin keeps. Returns them.
    pub(crate) fn collect(&self) -> Result<Vec<Digest>> {
        let publishing = self.publishing();
        let mut pins = self.pins();
        let dead: Vec<Digest> = pins
            .orphans
            .iter()
            .filter(|id| !pins.counts.contains_key(*id))
            .copied()
            .collect();
        if dead.is_empty() {
            return Ok(dead);
        }
        let updates: Vec<_> = dead.iter().map(|id| Update::RemoveLayer(*id)).collect();
        self.records.update(&updates).map_err(Error::Records)?;
        let mut doomed = Vec::new();
        for id in &dead {
            pins.orphans.remove(id);
            let (from, to) = (self.layer_path(id), self.temporary());
            match fs::rename(&from, &to) {
                Ok(()) => doomed.push(to),
                // It was removed by hand; there is nothing to do.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.call(|| format!("rename({from:?}, {to:?})"))?,
            }
        }
        drop(pins);
        drop(publishing);
        for path in doomed {
            remove_any(&path)?;
        }
        Ok(dead)
    }
}

/// Something that is being made: a directory in `tmp`, and pins on layers that are there already. Both go with it.
pub(crate) struct Ingest<'a> {
    images: &'a Images,
    directory: PathBuf,
    next: u64,
    pinned: Vec<Digest>,
}

/// A layer that was unpacked in `tmp`.
#[derive(Debug, Clone)]
pub(crate) struct NewLayer {
    /// Its diff ID.
    pub(crate) diff_id: Digest,
    /// Bytes in its files.
    pub(crate) size: u64,
    /// Bytes of its tar.
    pub(crate) tar_size: u64,
    /// Its directory.
    pub(crate) path: PathBuf,
}

impl Ingest<'_> {
    /// A path in the directory that nothing has.
    pub(crate) fn path(&mut self) -> PathBuf {
        self.next += 1;
        self.directory.join(self.next.to_string())
    }

    /// Whether the store has a layer; if so, it will until this ends.
    pub(crate) fn has_layer(&mut self, diff_id: &Digest) -> bool {
        if !self.pinned.contains(diff_id) {
            self.images.pins().add(&[*diff_id]);
            self.pinned.push(*diff_id);
        }
        self.images.layer_path(diff_id).is_dir()
    }

    /// Moves layers and blobs to their places and makes the updates, all or nothing. Layers and images that are there
    /// already stay what they are. `updates` is asked while no name changes.
    pub(crate) fn publish(
        &mut self,
        layers: &[NewLayer],
        blobs: &[(Digest, Vec<u8>)],
        updates: impl FnOnce() -> Result<Vec<Update>>,
    ) -> Result<()> {
        let mut moves = Vec::new();
        for layer in layers {
            if !self.has_layer(&layer.diff_id) {
                moves.push((layer.path.clone(), self.images.layer_path(&layer.diff_id)));
            }
        }
        let mut files = Vec::new();
        for (digest, bytes) in blobs {
            let path = self.path();
            create_private(&path)?
                .write_all(bytes)
                .call(|| format!("write({path:?})"))?;
            files.push((digest, path));
        }
        // One call for all files of all layers, before any of them has a name that counts; and for what builds have made so far.
        let pending = self.images.records.pending();
        let directory = open_directory(&self.directory)?;
        rustix::fs::syncfs(&directory).call(|| format!("syncfs({:?})", self.directory))?;

        let _publishing = self.images.publishing();
        let mut updates = updates()?;
        let (mut wanted, mut stacked) = (HashSet::new(), Vec::new());
        for update in &mut updates {
            if let Update::PutImage(image) = update {
                if let Some(there) = self
                    .images
                    .records
                    .image(&image.id)
                    .map_err(Error::Records)?
                {
                    *image = there;
                }
                wanted.extend([image.id, image.manifest]);
                stacked.extend(image.layers.iter().copied());
            }
        }
        let files = files
            .into_iter()
            .filter(|(digest, _)| wanted.contains(*digest));
        moves.extend(files.map(|(digest, path)| (path, self.images.blob_path(digest))));
        let mut done = Vec::new();
        let result = self.place(&moves, &stacked, &mut done).and_then(|()| {
            let due = self.images.records.due(pending);
            updates.splice(0..0, layers.iter().map(NewLayer::update).chain(due));
            self.images.records.update(&updates).map_err(Error::Records)
        });
        if result.is_err() {
            self.undo(&done);
            return result;
        }
        let mut pins = self.images.pins();
        for layer in &stacked {
            pins.orphans.remove(layer);
        }
        Ok(())
    }

    /// Moves a layer to its place, where it is recorded when it is durable. One that is there already stays what it is.
    pub(crate) fn publish_late(&mut self, layer: &NewLayer) -> Result<()> {
        let _publishing = self.images.publishing();
        if self.has_layer(&layer.diff_id) {
            return Ok(());
        }
        let (from, to) = (&layer.path, self.images.layer_path(&layer.diff_id));
        fs::rename(from, &to).call(|| format!("rename({from:?}, {to:?})"))?;
        self.images.records.add_layer(layer.record());
        Ok(())
    }

    /// Renames everything to its place, sees that all layers of the new images are there, and makes the names durable.
    /// What is there already is left.
    fn place(
        &self,
        moves: &[(PathBuf, PathBuf)],
        stacked: &[Digest],
        done: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<()> {
        for (from, to) in moves {
            if to.exists() {
                continue;
            }
            fs::rename(from, to).call(|| format!("rename({from:?}, {to:?})"))?;
            done.push((from.clone(), to.clone()));
        }
        // Another ingest may have taken back a layer that this one found there.
        if let Some(lost) = stacked
            .iter()
            .find(|layer| !self.images.layer_path(layer).is_dir())
        {
            return Err(Error::MissingLayer(Box::new(*lost)));
        }
        for parent in [LAYERS, SHA256] {
            let path = self.images.root.join(parent);
            rustix::fs::fsync(open_directory(&path)?).call(|| format!("fsync({path:?})"))?;
        }
        Ok(())
    }

    /// Takes back what was moved; it then goes with the directory.
    fn undo(&self, done: &[(PathBuf, PathBuf)]) {
        for (from, to) in done {
            // What cannot be moved back has no record: the next start removes it.
            let _ = fs::rename(to, from);
        }
    }
}

impl NewLayer {
    fn update(&self) -> Update {
        Update::PutLayer(self.record())
    }

    fn record(&self) -> LayerRecord {
        let Self {
            diff_id,
            size,
            tar_size,
            ..
        } = *self;
        LayerRecord {
            diff_id,
            size,
            tar_size,
        }
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next start.
        let _ = fs::remove_dir_all(&self.directory);
        let frees = self.images.pins().remove(&self.pinned);
        if frees {
            let _ = self.images.collect();
        }
    }
}

/// Makes a directory that only root may enter, or makes one that is there so (CVE-2021-41091).
fn make_private(path: &Path, with_parents: bool) -> Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(with_parents)
        .create(path)
        .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
        .call(|| format!("mkdir({path:?}, 0700)"))?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .call(|| format!("chmod({path:?}, 0700)"))?;
    Ok(())
}

/// Has ext4 look for room for each directory that is made in this one by itself, instead of beside the others. Where thousands of
/// files have just been deleted, it passes over their inodes one by one for every new file, for minutes (`recently_deleted` in the
/// kernel's `fs/ext4/ialloc.c`): what a build has thrown away would hold up the next.
fn spread(path: &Path) -> Result<()> {
    let directory = open_directory(path)?;
    let set = rustix::fs::ioctl_getflags(&directory)
        .and_then(|flags| rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR));
    match set {
        // Other file systems have no such attribute.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => Ok(()),
        result => Ok(result.call(|| format!("ioctl({path:?}, FS_IOC_SETFLAGS, FS_TOPDIR_FL)"))?),
    }
}

/// Makes a directory with 0700.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    Ok(DirBuilder::new()
        .mode(0o700)
        .create(path)
        .call(|| format!("mkdir({path:?}, 0700)"))?)
}

fn create_private(path: &Path) -> Result<File> {
    let mut options = File::options();
    let open = options.write(true).create_new(true).mode(0o600).open(path);
    Ok(open.call(|| format!("open({path:?}, O_CREAT|O_EXCL, 0600)"))?)
}

fn open_directory(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?})"))?)
}

/// The paths in a directory.
pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    };
    Ok(std::io::Result::call(read(), || {
        format!("getdents({path:?})")
    })?)
}

/// Removes a file or a tree; nothing where nothing is.
fn remove_any(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => Ok(result.call(|| format!("remove({path:?})"))?),
    }
}

#[cfg(test)]
mod tests;
