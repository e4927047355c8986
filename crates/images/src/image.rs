//! Images as callers see them, and what they may say when they make, list and remove them.

use crate::records::{ImageId, ImageRecord};
use jiff::Timestamp;
use oci::image::{Config, ConfigFile, Platform};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An image with all that is known of it.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// What is remembered of it.
    pub record: ImageRecord,
    /// Its configuration.
    pub config: Arc<ConfigFile>,
    /// Its names with a tag, ordered.
    pub tags: Vec<Reference>,
    /// Its names with a digest, ordered.
    pub digests: Vec<Reference>,
    /// The images for other platforms that its names mean, too.
    pub others: Vec<ImageId>,
    /// Bytes of the files in its layers; in a list, in those of the others, too.
    pub size: u64,
}

impl Image {
    /// When the image was made, if its configuration says so in a way that can be read.
    pub fn created(&self) -> Option<Timestamp> {
        self.config.created.as_deref()?.parse().ok()
    }

    /// Whether no tag names it.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }

    /// The images that its names mean: itself, and those for other platforms.
    pub fn ids(&self) -> impl Iterator<Item = &ImageId> {
        std::iter::once(&self.id).chain(&self.others)
    }

    /// The diff IDs of its layers, the lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.record.layers
    }
}

/// An image that an archive brought, or one for each of several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image; of several, the one that the names mean where no platform is asked for.
    pub id: ImageId,
    /// The names it was given; empty when the archive has none for it.
    pub references: Vec<Reference>,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The layer: its path in the archive.
    pub layer: &'a str,
    /// Bytes of it that were read.
    pub read: u64,
    /// Its size in the archive, in bytes.
    pub size: u64,
}

/// What an import makes of a tar of a root file system.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The image's name; it is untagged without.
    pub reference: Option<Reference>,
    /// Dockerfile instructions that shape the configuration, such as `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// The comment in the history.
    pub message: String,
    /// What the image runs on; this machine's platform without.
    pub platform: Option<Platform>,
}

/// What a commit makes of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Who made the image.
    pub author: String,
    /// The comment in the history.
    pub message: String,
    /// The command in the history.
    pub created_by: String,
    /// Dockerfile instructions that shape the configuration, after `config`.
    pub changes: Vec<String>,
    /// The container's configuration; the base image's without.
    pub config: Option<Config>,
    /// The image's name; it is untagged without.
    pub reference: Option<Reference>,
    /// Make one layer of the whole tree, lower layers included, instead of one of the changes on top of the base's
    /// layers. This is what makes a whole image of a container on a host's directory.
    pub flatten: bool,
}

/// Which images to list. An image has to meet every condition; the default lists all.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only those without a tag, or only those with one.
    pub dangling: Option<bool>,
    /// Labels they must have, with this value where one is given.
    pub labels: Vec<(String, Option<String>)>,
    /// Labels they must not have, with this value where one is given.
    pub without_labels: Vec<(String, Option<String>)>,
    /// Patterns of familiar names (`busy*`, `user/*:1.*`), any of which must match one of its names. The others of its
    /// names are left out.
    pub references: Vec<String>,
    /// Made before this image.
    pub before: Option<String>,
    /// Made after this image.
    pub since: Option<String>,
    /// Made before this time.
    pub until: Option<Timestamp>,
}

/// One thing that a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name of an image is gone.
    Untagged(Reference, ImageId),
    /// An image is gone.
    Deleted(ImageId),
    /// A layer is gone, by its diff ID.
    DeletedLayer(Digest),
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The container's ID.
    pub container: String,
    /// Whether it runs (or is paused, or restarts).
    pub running: bool,
}

/// The parsed configurations of images. They never change: an ID is the digest of its configuration.
#[derive(Debug, Default)]
pub(crate) struct ImageCache {
    configs: Mutex<HashMap<ImageId, Arc<ConfigFile>>>,
}

impl ImageCache {
    fn configs(&self) -> MutexGuard<'_, HashMap<ImageId, Arc<ConfigFile>>> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration of an image, read with `read` the first time.
    pub(crate) fn get<E>(
        &self,
        id: &ImageId,
        read: impl FnOnce() -> Result<ConfigFile, E>,
    ) -> Result<Arc<ConfigFile>, E> {
        if let Some(config) = self.configs().get(id) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(read()?);
        self.configs().insert(*id, Arc::clone(&config));
        Ok(config)
    }

    /// Forgets an image that is gone.
    pub(crate) fn forget(&self, id: &ImageId) {
        self.configs().remove(id);
    }
}
