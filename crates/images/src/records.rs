//! What is remembered of images, and the trait through which.
//!
//! Invariant: an [`ImageRecord`] is only ever put together with the [`LayerRecord`]s it names, and only after their
//! directories and blobs are durable; it is removed before they are. So a record never promises what the disk lacks, and
//! what the disk has without a record may be deleted.

mod late;
mod memory;
#[cfg(any(test, feature = "testsuite"))]
pub mod testsuite;

pub(crate) use late::LateRecords;
pub use memory::MemoryRecords;

use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

/// The digest of an image's configuration.
pub type ImageId = Digest;

/// What an implementation of [`Records`] fails with.
pub type RecordsError = Box<dyn std::error::Error + Send + Sync>;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The digest of the configuration, which is a blob.
    pub id: ImageId,
    /// The digest of the manifest, which is a blob.
    pub manifest: Digest,
    /// The diff IDs of the layers, the lowest first. One may appear several times.
    pub layers: Vec<Digest>,
    /// When the image came into this store, in nanoseconds since 1970.
    pub added_ns: i64,
}

/// A layer: the directory `layers/<diff-id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of the layer's tar, uncompressed.
    pub diff_id: Digest,
    /// Bytes of the files in it.
    pub size: u64,
    /// Bytes of the tar that it was unpacked from, and can be made into again.
    pub tar_size: u64,
}

/// A layer stack that a build has made, and may use again. It keeps its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// The digest of everything that the result depends on.
    pub key: Digest,
    /// The diff IDs of the layers, the lowest first.
    pub layers: Vec<Digest>,
    /// What else the builder remembers of it; it alone reads that.
    pub document: serde_json::Value,
}

/// A name of an image, or of one for each of several platforms. It has a tag or a digest, not both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// The name.
    pub reference: Reference,
    /// The image that it means where no platform is asked for.
    pub image: ImageId,
    /// The images for other platforms that it means, too, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<ImageId>,
}

impl ReferenceRecord {
    /// A name of images, of which there is one at least: the first is meant where no platform is asked for.
    pub fn of(reference: Reference, images: &[ImageId]) -> Self {
        let (image, others) = images.split_first().expect("a name means an image");
        Self {
            reference,
            image: *image,
            others: others.to_vec(),
        }
    }

    /// All images that it means, the one first that it means where no platform is asked for.
    pub fn images(&self) -> impl Iterator<Item = ImageId> + '_ {
        std::iter::once(self.image).chain(self.others.iter().copied())
    }

    /// Whether it means an image, for whatever platform.
    pub fn means(&self, id: &ImageId) -> bool {
        self.image == *id || self.others.contains(id)
    }

    /// What is left of it without an image; `None` where it meant no other.
    pub fn without(mut self, id: &ImageId) -> Option<Self> {
        self.others.retain(|other| other != id);
        if self.image == *id {
            if self.others.is_empty() {
                return None;
            }
            self.image = self.others.remove(0);
        }
        Some(self)
    }
}

/// One change of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Adds an image, or replaces the record with its ID.
    PutImage(ImageRecord),
    /// Removes an image. Nothing may name it afterwards: names lose it in the same transaction, and go where they mean no other.
    RemoveImage(ImageId),
    /// Adds a layer, or replaces the record with its diff ID.
    PutLayer(LayerRecord),
    /// Removes a layer.
    RemoveLayer(Digest),
    /// Makes a name mean an image, or several, whatever it meant before.
    SetReference(ReferenceRecord),
    /// Removes a name.
    RemoveReference(Reference),
    /// Adds a result of a build, or replaces the one with its key.
    PutCache(CacheRecord),
    /// Removes a result of a build.
    RemoveCache(Digest),
}

/// Durable records of images, layers and references; the engine implements it on its database.
///
/// [`Images`](crate::Images) serialises its own updates; an implementation only has to make each call one transaction and
/// to allow calls from several threads. [`testsuite::run`] checks an implementation.
pub trait Records: Send + Sync {
    /// All images, in any order.
    fn images(&self) -> Result<Vec<ImageRecord>, RecordsError>;

    /// The image with this ID.
    fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, RecordsError>;

    /// All layers, in any order.
    fn layers(&self) -> Result<Vec<LayerRecord>, RecordsError>;

    /// All names, in any order.
    fn references(&self) -> Result<Vec<ReferenceRecord>, RecordsError>;

    /// What a name means.
    fn reference(&self, reference: &Reference) -> Result<Option<ReferenceRecord>, RecordsError>;

    /// All results of builds, in any order.
    fn caches(&self) -> Result<Vec<CacheRecord>, RecordsError>;

    /// The result of a build with this key.
    fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>, RecordsError>;

    /// Makes all updates, in their order, durably and in one transaction: all of them or none. Removing what is not there
    /// is no error.
    fn update(&self, updates: &[Update]) -> Result<(), RecordsError>;
}
