//! What a build sees of layers: their tree, with room for what is written to it.

use crate::error::{Doing, Result};
use crate::stage::Made;
use images::copy::Rest;
use images::{Images, Stop};
use oci::Digest;
use sys::root::Root;

/// Layers, mounted nowhere, and a writable one on top. Both go with this value.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) root: Root,
    // After what stands on it.
    snapshot: Own<'a>,
}

impl<'a> View<'a> {
    pub(crate) fn new(images: &'a Images, layers: &[Digest]) -> Result<Self> {
        let id = engine::random_id().doing(|| "name a snapshot".to_owned())?;
        let doing = || "mount the layers of a stage".to_owned();
        let snapshot = images.prepare_on(&id, layers).doing(doing)?;
        let snapshot = Own { images, snapshot };
        let mounted = images.mount_detached(&snapshot.snapshot);
        Ok(Self {
            root: Root::from_fd(mounted.doing(doing)?),
            snapshot,
        })
    }

    /// Makes a layer of what was written to it, if anything was, and of the `rest`. Files younger than `mtime_max` (seconds since
    /// 1970) get that time.
    pub(crate) fn into_layer(
        self,
        rest: Rest<'_>,
        mtime_max: i64,
        stop: Stop<'_>,
    ) -> images::Result<Made<'a>> {
        // Its files are taken away from under the mount.
        drop(self.root);
        let Own { images, snapshot } = &self.snapshot;
        images.make_layer(snapshot, rest, Some(mtime_max), stop)
    }
}

/// A snapshot of a build's own.
#[derive(Debug)]
struct Own<'a> {
    images: &'a Images,
    snapshot: images::Snapshot,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.images.remove_snapshot(&self.snapshot.id) {
            tracing::error!(%error, "cannot remove a snapshot of a build");
        }
    }
}
