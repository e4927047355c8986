//! Images as blobs of the client: `oci-layout://` of a named context.
//!
//! What is wanted of them is taken into the store as an archive of the same content would be, which checks every digest; the
//! image has no name there. Source: image-spec 1.1, image-layout.md.

use crate::build::Build;
use crate::error::{Doing, Error, Result};
use crate::remote::BlobSource;
use images::{Image, LayoutArchive};
use oci::Digest;
use oci::image::{Descriptor, Document, MANIFEST_BYTES_MAX, Manifest, Platform, media_type};
use std::cell::Cell;
use std::io::{BufWriter, PipeWriter, Read};

/// Indexes in each other.
const DEPTH_MAX: usize = 4;

/// An image of the client.
#[derive(Debug)]
pub struct LayoutImage {
    /// Where it is, for messages.
    pub name: String,
    /// Its blobs.
    pub blobs: Box<dyn BlobSource>,
    /// Its manifest, or the index that has it.
    pub manifest: Digest,
}

impl LayoutImage {
    fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let source = self.blobs.read(digest, None)?;
        let read = source.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.doing(|| format!("read {digest} of {}", self.name))?;
        match Digest::sha256(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(Error::Invalid(format!(
                "{}: {digest} is damaged: its digest is {found}",
                self.name
            ))),
        }
    }

    /// The manifest for a platform, and its text.
    fn manifest(&self, platform: &Platform) -> Result<(Box<Manifest>, Vec<u8>)> {
        let wrong = |why: String| Error::Invalid(format!("{}: {why}", self.name));
        let mut digest = self.manifest;
        for _ in 0..DEPTH_MAX {
            let bytes = self.document(&digest)?;
            match Document::parse(&bytes, None).map_err(|error| wrong(error.to_string()))? {
                Document::Manifest(manifest) => return Ok((manifest, bytes)),
                Document::Index(index) => {
                    let found = images::choose_platform(&index.manifests, platform);
                    // An index in an index often says nothing of platforms.
                    let alone = index
                        .manifests
                        .first()
                        .filter(|it| index.manifests.len() == 1 && it.platform.is_none());
                    let none =
                        || Error::NotFound(format!("{} has no image for {platform}", self.name));
                    digest = found.or(alone).ok_or_else(none)?.digest;
                }
            }
        }
        Err(wrong(format!(
            "more than {DEPTH_MAX} indexes in each other"
        )))
    }
}

/// The content of a blob, and whether the failure was there.
struct Watched<'c> {
    content: Box<dyn Read + Send + 'c>,
    failed: &'c Cell<bool>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.content
            .read(buffer)
            .inspect_err(|_| self.failed.set(true))
    }
}

impl Build<'_> {
    /// An image of the client, which the store has from now on.
    pub(crate) fn layout_image(&self, layout: &LayoutImage, platform: &Platform) -> Result<Image> {
        let (manifest, bytes) = layout.manifest(platform)?;
        let id = manifest.config.digest.to_string();
        if let Ok(image) = self.images.get(&id) {
            return Ok(image);
        }
        let doing = || format!("take {}", layout.name);
        let (input, output) = std::io::pipe().doing(doing)?;
        let failed = Cell::new(false);
        let (written, loaded) = std::thread::scope(|scope| {
            let loading = scope.spawn(|| self.images.load(input, Some(platform), &mut |_| {}));
            let written = self.write(layout, &manifest, &bytes, output, &failed);
            (written, loading.join())
        });
        let loaded = loaded.map_err(|_| Error::Invalid("the loader has failed".to_owned()))?;
        match (written, loaded) {
            // What was not given on cannot have been loaded.
            (Err(error), _) if failed.get() || matches!(error, Error::Cancelled) => Err(error),
            (_, Err(error)) => Err(error).doing(doing),
            (Err(error), Ok(_)) => Err(error),
            (Ok(()), Ok(_)) => self.images.get(&id).doing(doing),
        }
    }

    fn write(
        &self,
        layout: &LayoutImage,
        manifest: &Manifest,
        bytes: &[u8],
        output: PipeWriter,
        failed: &Cell<bool>,
    ) -> Result<()> {
        let doing = || format!("read {}", layout.name);
        let mut archive = LayoutArchive::new(BufWriter::new(output)).doing(doing)?;
        let kind = manifest.media_type.as_deref();
        let kind = kind.unwrap_or(media_type::OCI_MANIFEST);
        let top = Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64);
        archive.content(&top, &mut &*bytes).doing(doing)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.check_stop()?;
            let content = layout.blobs.read(&blob.digest, Some(blob.size));
            let content = content.inspect_err(|_| failed.set(true))?;
            archive
                .content(blob, &mut Watched { content, failed })
                .doing(doing)?;
        }
        archive.finish(&[top], &[]).doing(doing)
    }
}
