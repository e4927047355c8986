//! An OCI layout as one tar, which can also be what `docker load` reads.
//!
//! Everything is at `blobs/sha256/<hex>` once, whatever refers to it. Source: image-spec 1.1 image-layout.md; Docker's
//! `manifest.json`.

use crate::records::LayerRecord;
use crate::tar::{Entry, Kind, Writer};
use crate::{Error, Images, Result};
use oci::image::{ArchiveImage, Descriptor, Index, Layout, annotation, media_type};
use oci::{Digest, Reference};
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};

/// The mode of the archive's files, as Docker's.
const FILE_MODE: u32 = 0o444;
/// The mode of its directories.
const DIRECTORY_MODE: u32 = 0o755;

/// An archive while it is written.
#[derive(Debug)]
pub struct LayoutArchive<W> {
    tar: Writer<W>,
    written: HashSet<Digest>,
}

impl<W: Write> LayoutArchive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Result<Self> {
        let mut tar = Writer::new(out);
        for directory in ["blobs/", "blobs/sha256/"] {
            tar.entry(&Entry::new(directory, Kind::Directory, DIRECTORY_MODE))?;
        }
        Ok(Self {
            tar,
            written: HashSet::new(),
        })
    }

    /// Writes a small blob, once.
    pub(crate) fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.written.insert(*digest) {
            self.file(&blob_path(digest), bytes)?;
        }
        Ok(())
    }

    /// Writes a blob, once. What `content` gives must be as long as its descriptor says.
    pub fn content(&mut self, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        if !self.written.insert(blob.digest) {
            return Ok(());
        }
        self.tar.entry(&Entry {
            size: blob.size,
            ..Entry::new(blob_path(&blob.digest), Kind::File, FILE_MODE)
        })?;
        let copied = std::io::copy(&mut content.take(blob.size), &mut Content(&mut self.tar));
        match copied.map_err(Error::Output)? {
            bytes if bytes == blob.size => Ok(()),
            bytes => Err(Error::Archive(format!(
                "{} has {bytes} bytes, not {}",
                blob.digest, blob.size
            ))),
        }
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        self.tar.entry(&Entry {
            size,
            ..Entry::new(path, Kind::File, FILE_MODE)
        })?;
        Ok(self.tar.content(bytes)?)
    }

    /// Writes a layer's tar, and checks that it is what it was.
    pub(crate) fn layer(&mut self, images: &Images, layer: &LayerRecord) -> Result<()> {
        if !self.written.insert(layer.diff_id) {
            return Ok(());
        }
        let entry = Entry::new(blob_path(&layer.diff_id), Kind::File, FILE_MODE);
        self.tar.entry(&Entry {
            size: layer.tar_size,
            ..entry
        })?;
        images.write_layer(layer, Content(&mut self.tar))
    }

    /// Ends the archive: what its index has, and what Docker knows its images by, where it is to know them.
    pub fn finish(mut self, manifests: &[Descriptor], images: &[ArchiveImage]) -> Result<()> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: manifests.to_vec(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let layout = Layout {
            image_layout_version: "1.0.0".to_owned(),
        };
        let json = "documents have only strings as keys";
        self.file("index.json", &serde_json::to_vec(&index).expect(json))?;
        if !images.is_empty() {
            self.file("manifest.json", &serde_json::to_vec(&images).expect(json))?;
        }
        self.file("oci-layout", &serde_json::to_vec(&layout).expect(json))?;
        self.tar.finish()?;
        Ok(())
    }
}

/// The content of an entry.
struct Content<'a, W>(&'a mut Writer<W>);

impl<W: Write> Write for Content<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.content(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a blob is in a layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What an index says of something: once for each of its names, or once without.
pub fn named(plain: &Descriptor, references: &[Reference]) -> Vec<Descriptor> {
    if references.is_empty() {
        return vec![plain.clone()];
    }
    let named = |reference: &Reference| {
        let tag = reference.tag().unwrap_or_default().to_owned();
        let mut descriptor = plain.clone();
        descriptor.annotations.extend([
            (
                annotation::CONTAINERD_NAME.to_owned(),
                reference.to_string(),
            ),
            (annotation::REF_NAME.to_owned(), tag),
        ]);
        descriptor
    };
    references.iter().map(named).collect()
}
