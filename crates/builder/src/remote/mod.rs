//! Caches elsewhere: results of steps in registries, in images, and in directories of clients.
//!
//! ```text
//! options    what a client asks for: type, mode, ref, …
//! document   the list of results, as it lies beside the layers            docs/formats/build-cache.md
//! import     looking a key up elsewhere, and fetching its layers
//! export     sending the results of a build
//! ```
//!
//! Invariant: what is imported is as good as what its digests say, and no more: a key is believed to whom the user has named as
//! a source, a layer only when its content has the digest that was asked for. A source that cannot be used is a warning; the
//! build goes on without it.

mod document;
mod export;
mod import;
mod options;

pub(crate) use document::Document;
pub(crate) use export::{export, results};
pub(crate) use import::Imported;
pub(crate) use options::form;
pub use options::{CacheExport, CacheImport, CacheKind, CacheMode};

use crate::error::Result;
use oci::image::Descriptor;
use oci::{Digest, Reference};
use std::fmt;
use std::io::Read;

/// Gives blobs by their digests.
pub trait BlobSource: fmt::Debug + Send + Sync {
    /// The content of a blob. Whether it is what its digest says is for the reader to check.
    ///
    /// # Errors
    /// There is no such blob, or whoever has it is gone.
    fn read(&self, digest: &Digest, size: Option<u64>) -> Result<Box<dyn Read + Send + '_>>;
}

/// Takes blobs.
pub trait BlobSink: fmt::Debug {
    /// Takes a blob, which may be there already.
    ///
    /// # Errors
    /// Whoever gets it takes no more.
    fn write(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<()>;
}

/// A cache that is read.
#[derive(Debug)]
pub enum CacheSource {
    /// What a reference names at its registry: a cache, or an image that has one in it.
    Registry(Reference),
    /// An image of the engine that has a cache in it.
    Image(String),
    /// Blobs of the client.
    Client {
        /// What the client calls it.
        name: String,
        /// The blobs.
        blobs: Box<dyn BlobSource>,
        /// The manifest among them.
        manifest: Digest,
    },
}

impl CacheSource {
    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Registry(reference) => reference.familiar(),
            Self::Image(name) | Self::Client { name, .. } => name.clone(),
        }
    }
}

/// A cache that is written.
#[derive(Debug)]
pub struct CacheTarget {
    /// Where to.
    pub place: CachePlace,
    /// What.
    pub options: CacheExport,
}

/// Where a cache is written.
#[derive(Debug)]
pub enum CachePlace {
    /// Into the configuration of the image that is built.
    Inline,
    /// To a registry, under this name.
    Registry(Reference),
    /// To the client.
    Client {
        /// Takes the blobs.
        blobs: Box<dyn BlobSink + Send + Sync>,
    },
}
