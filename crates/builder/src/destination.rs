//! Where blobs go that are put together here: a repository of a registry, or the blobs of a client.
//!
//! Invariant: what refers to something comes after it, so that whoever has a manifest has all of it.

use crate::build::Build;
use crate::error::{Doing, Result};
use crate::remote::BlobSink;
use images::registry::{self, Purpose, Repository};
use images::{Form, Packed, PushRequest};
use oci::image::Descriptor;
use oci::{Digest, Reference};
use std::path::Path;
use std::sync::Arc;

/// Takes the parts of an image, of several, or of a cache.
pub(crate) trait Destination {
    /// Takes layers, which do not go meanwhile; what a manifest says of them, in their order. Without a form, each goes as it
    /// is known.
    fn layers(&self, diff_ids: &[Digest], form: Option<Form>) -> Result<Vec<Descriptor>>;

    /// Takes a blob.
    fn blob(&self, packed: &Packed) -> Result<()>;

    /// Takes a small blob.
    fn document(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()>;

    /// Takes a manifest or an index; the last one gets the name, where there are names.
    fn manifest(&self, blob: &Descriptor, bytes: Vec<u8>, is_last: bool) -> Result<()>;
}

/// A repository, under one name.
pub(crate) struct ToRegistry<'b, 'a> {
    build: &'b Build<'a>,
    request: PushRequest,
    /// No tag is moved.
    by_digest: bool,
}

impl<'b, 'a> ToRegistry<'b, 'a> {
    pub(crate) fn new(
        build: &'b Build<'a>,
        reference: &Reference,
        by_digest: bool,
    ) -> Result<Self> {
        let credentials = build.request.client.credentials(reference.domain())?;
        let repository = build
            .engine
            .repository(reference, credentials, Purpose::Push);
        let request = PushRequest {
            repository: repository.doing(|| format!("push {}", reference.familiar()))?,
            reference: reference.clone(),
            platform: None,
            stop: build.request.stop.clone(),
        };
        Ok(Self {
            build,
            request,
            by_digest,
        })
    }

    fn doing<T>(&self, result: images::Result<T>) -> Result<T> {
        // Waiting for the network ends early when the build does.
        self.build.check_stop()?;
        result.doing(|| format!("push {}", self.request.reference.familiar()))
    }

    fn wait<T>(&self, work: impl Future<Output = registry::Result<T>>) -> Result<T> {
        self.doing(images::wait(self.build.handle, &self.request.stop, work))
    }

    fn repository(&self) -> &Arc<Repository> {
        &self.request.repository
    }
}

impl Destination for ToRegistry<'_, '_> {
    fn layers(&self, diff_ids: &[Digest], form: Option<Form>) -> Result<Vec<Descriptor>> {
        let images = self.build.images;
        self.doing(images.push_layers(self.build.handle, &self.request, diff_ids, form, &|_, _| {}))
    }

    fn blob(&self, packed: &Packed) -> Result<()> {
        self.doing(packed.push(self.build.handle, &self.request))
    }

    fn document(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        let bytes = bytes.to_vec().into();
        self.wait(self.repository().put_document(&blob.digest, bytes))
    }

    fn manifest(&self, blob: &Descriptor, bytes: Vec<u8>, is_last: bool) -> Result<()> {
        let manifest = registry::Manifest {
            digest: blob.digest,
            media_type: blob.media_type.clone(),
            bytes: bytes.into(),
        };
        let reference = &self.request.reference;
        let name = match is_last && !self.by_digest {
            true => reference.clone(),
            false => reference.clone().with_digest(blob.digest),
        };
        self.wait(self.repository().put_manifest(&name, &manifest))
    }
}

/// Blobs of the client.
pub(crate) struct ToBlobs<'b, 'a> {
    build: &'b Build<'a>,
    /// Room for one layer at a time.
    directory: &'b Path,
    blobs: &'b dyn BlobSink,
}

impl<'b, 'a> ToBlobs<'b, 'a> {
    pub(crate) fn new(build: &'b Build<'a>, directory: &'b Path, blobs: &'b dyn BlobSink) -> Self {
        Self {
            build,
            directory,
            blobs,
        }
    }
}

impl Destination for ToBlobs<'_, '_> {
    fn layers(&self, diff_ids: &[Digest], form: Option<Form>) -> Result<Vec<Descriptor>> {
        let form = form.unwrap_or(Form::Gzip(None));
        let layer = |diff_id: &Digest| {
            self.build.check_stop()?;
            let doing = || format!("pack the layer {diff_id}");
            let packed = self.build.images.pack_layer(diff_id, form, self.directory);
            let packed = packed.doing(doing)?;
            self.blob(&packed)?;
            packed.remove().doing(doing)
        };
        diff_ids.iter().map(layer).collect()
    }

    fn blob(&self, packed: &Packed) -> Result<()> {
        let mut content = packed.open().doing(|| "open a blob".to_owned())?;
        self.blobs.write(&packed.descriptor, &mut content)
    }

    fn document(&self, blob: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.blobs.write(blob, &mut &bytes[..])
    }

    fn manifest(&self, blob: &Descriptor, bytes: Vec<u8>, _is_last: bool) -> Result<()> {
        self.document(blob, &bytes)
    }
}
