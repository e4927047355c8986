//! The store: its directories, and the operations on them.

use crate::records::{ImageId, Records};
use crate::{
    Change, CommitOptions, Image, ImportOptions, ListFilter, Loaded, Progress, Removed, Result,
    Snapshot, User,
};
use oci::Reference;
use oci::image::History;
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The images of one engine.
pub struct Images {
    root: PathBuf,
    records: Arc<dyn Records>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the store below `root` (made with 0700 when absent) and removes what a crash left.
    pub fn open(root: &Path, records: Arc<dyn Records>) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            records,
        })
    }

    /// Loads the images of an archive: as `docker save` writes it, or an OCI layout as tar; plain, gzip or zstd.
    /// All of them become visible at once, or none.
    pub fn load(
        &self,
        archive: impl Read + Send,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Loaded>> {
        let _ = (archive, progress, &self.records);
        todo!()
    }

    /// Makes an image with one layer of the tar of a root file system (plain, gzip or zstd).
    pub fn import(&self, tar: impl Read + Send, options: &ImportOptions) -> Result<ImageId> {
        let _ = (tar, options);
        todo!()
    }

    /// Writes images, given by name or ID, as an archive that is both docker-archive and OCI layout.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<()> {
        let _ = (names, out);
        todo!()
    }

    /// Lists images, the youngest first.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Image>> {
        let _ = filter;
        todo!()
    }

    /// The image with this name, ID or unambiguous start of an ID.
    pub fn get(&self, name_or_id: &str) -> Result<Image> {
        let _ = name_or_id;
        todo!()
    }

    /// How an image came to be, the last step first, with the size of the layer that each step made.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<(History, u64)>> {
        let _ = name_or_id;
        todo!()
    }

    /// Gives an image another name, taking it from whatever image had it.
    pub fn tag(&self, name_or_id: &str, target: &Reference) -> Result<()> {
        let _ = (name_or_id, target);
        todo!()
    }

    /// Removes a name, and the image with its last one; or an image by ID. `users` tells which containers use an image:
    /// those that run forbid its removal, those that are stopped do unless `force`.
    ///
    /// There are no intermediate images to prune: layers belong to no image in particular.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Vec<Removed>> {
        let _ = (name_or_id, force, users);
        todo!()
    }

    /// Removes the images that the filter lists and no container uses; those with tags only when `all`. Returns what was
    /// removed and how many bytes that gave back.
    pub fn prune(
        &self,
        all: bool,
        filter: &ListFilter,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<(Vec<Removed>, u64)> {
        let _ = (all, filter, users);
        todo!()
    }

    /// Makes an image of a snapshot: the base's layers and one with the changes (or see [`CommitOptions::flatten`]).
    pub fn commit(
        &self,
        snapshot: &Snapshot,
        base: Option<&ImageId>,
        options: &CommitOptions,
    ) -> Result<ImageId> {
        let _ = (snapshot, base, options);
        todo!()
    }

    /// Makes the directories of a container on top of an image. A snapshot that is there already is returned.
    pub fn prepare(&self, id: &str, image: &ImageId) -> Result<Snapshot> {
        let _ = (id, image);
        todo!()
    }

    /// Makes the directories of a container on top of a directory of the host.
    pub fn prepare_directory(&self, id: &str, directory: &Path) -> Result<Snapshot> {
        let _ = (id, directory);
        todo!()
    }

    /// The snapshot that was prepared under this name.
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>> {
        let _ = id;
        todo!()
    }

    /// The names of all snapshots.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        todo!()
    }

    /// Deletes a snapshot, and layers that only it still held. One that is absent is no error.
    pub fn remove_snapshot(&self, id: &str) -> Result<()> {
        let _ = id;
        todo!()
    }

    /// Bytes that a snapshot's changes take.
    pub fn usage(&self, snapshot: &Snapshot) -> Result<u64> {
        let _ = snapshot;
        todo!()
    }

    /// Mounts a snapshot without attaching it anywhere: for cp, export and commit of a container that does not run. The
    /// mount ends with the descriptor, which can be a `sys::root::Root`.
    pub fn mount_detached(&self, snapshot: &Snapshot) -> Result<OwnedFd> {
        let _ = snapshot;
        todo!()
    }

    /// What a snapshot changed, ordered by path.
    pub fn diff(&self, snapshot: &Snapshot) -> Result<Vec<Change>> {
        let _ = snapshot;
        todo!()
    }
}
