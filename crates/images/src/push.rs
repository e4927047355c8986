//! Pushing an image: the layers that the registry lacks, the configuration, and last the manifest.
//!
//! What a name means for several platforms goes as their manifests, and last an index of these.

use crate::manifests::index;
use crate::records::{ImageId, ImageRecord, LayerRecord, ReferenceRecord};
use crate::sender::Sender;
use crate::store::Ingest;
use crate::{Error, Images, Result};
use oci::image::{
    CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, Manifest, Platform, media_type,
};
use oci::{Digest, Reference};
use registry::Repository;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What to push.
#[derive(Debug)]
pub struct PushRequest {
    /// Where to.
    pub repository: Arc<Repository>,
    /// Which image: a name of it, whose tag it gets there.
    pub reference: Reference,
    /// Of the images that the name means, the one for this platform alone; all without.
    pub platform: Option<Platform>,
    /// Becomes true when nobody wants it any more.
    pub stop: watch::Receiver<bool>,
}

/// An image that was pushed, or one for each of several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The image; of several, the one that the name means where no platform is asked for.
    pub id: ImageId,
    /// The digest of its manifest there, or of the index of all.
    pub digest: Digest,
    /// Bytes of that.
    pub size: u64,
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushState {
    /// It is to be looked at.
    Preparing,
    /// The repository has it.
    Exists,
    /// It was taken from another repository of the registry.
    Mounted(String),
    /// It goes.
    Pushing {
        /// Bytes of its tar that went.
        done: u64,
        /// All of them.
        size: u64,
    },
    /// It is there.
    Pushed,
}

impl Images {
    /// Pushes an image, or an index of those that a name means, telling of each layer, by its diff ID, how far it is. Blocks;
    /// network is waited for by `runtime`.
    pub fn push(
        &self,
        runtime: &Handle,
        request: &PushRequest,
        progress: &(dyn Fn(&Digest, PushState) + Sync),
    ) -> Result<Pushed> {
        let PushRequest {
            repository,
            reference,
            ..
        } = request;
        let named = self.records.reference(reference).map_err(Error::Records)?;
        let named = named.ok_or_else(|| Error::NotTagged(reference.familiar_name()))?;
        let mut ids: Vec<ImageId> = named.images().collect();
        if let Some(wanted) = &request.platform {
            ids = vec![self.choose(&reference.familiar(), &ids, wanted)?];
        }
        // The layers must not go while they are sent.
        let mut ingest = self.ingest()?;
        let mut images = Vec::new();
        for id in &ids {
            let record = self.records.image(id).map_err(Error::Records)?;
            let record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
            let layers = self.layer_records(&mut ingest, &record.layers)?;
            for layer in &layers {
                progress(&layer.diff_id, PushState::Preparing);
            }
            images.push((record, layers));
        }
        let sender = Sender::new(self, runtime, request, None, progress)?;
        let mut manifests = Vec::new();
        for (record, layers) in &images {
            manifests.push(sender.image(record, layers)?);
        }
        let top = match manifests.as_slice() {
            [one] => one.clone(),
            several => {
                for manifest in several {
                    let by_digest = reference.clone().with_digest(manifest.digest);
                    sender.wait(repository.put_manifest(&by_digest, manifest))?;
                }
                self.index_of(&ids, several)?
            }
        };
        sender.wait(repository.put_manifest(reference, &top))?;
        for ((record, _), manifest) in images.iter().zip(&manifests) {
            if self.is_plain(record)? && manifest.digest != record.manifest {
                self.replace_manifest(&record.id, manifest.digest, &manifest.bytes)?;
            }
        }
        let by_digest = reference.clone().with_digest(top.digest);
        self.add_references(|| Ok(vec![ReferenceRecord::of(by_digest, &ids)]))?;
        Ok(Pushed {
            id: ids[0],
            digest: top.digest,
            size: top.bytes.len() as u64,
        })
    }

    /// The index of the manifests of images.
    fn index_of(
        &self,
        ids: &[ImageId],
        manifests: &[registry::Manifest],
    ) -> Result<registry::Manifest> {
        let mut entries = Vec::new();
        for (id, manifest) in ids.iter().zip(manifests) {
            let size = manifest.bytes.len() as u64;
            let entry = Descriptor::new(&manifest.media_type, manifest.digest, size);
            entries.push((entry, self.config(id)?.platform.clone()));
        }
        let (digest, bytes) = index(entries);
        Ok(registry::Manifest {
            digest,
            media_type: media_type::OCI_INDEX.to_owned(),
            bytes: bytes.into(),
        })
    }

    /// What is recorded of layers, which stay as long as the ingest does.
    pub(crate) fn layer_records(
        &self,
        ingest: &mut Ingest<'_>,
        layers: &[Digest],
    ) -> Result<Vec<LayerRecord>> {
        let known = self.records.layers().map_err(Error::Records)?;
        let known: HashMap<Digest, LayerRecord> = known
            .into_iter()
            .map(|layer| (layer.diff_id, layer))
            .collect();
        let record = |diff_id: &Digest| {
            let found = known.get(diff_id).filter(|_| ingest.has_layer(diff_id));
            found
                .cloned()
                .ok_or_else(|| Error::MissingLayer(Box::new(*diff_id)))
        };
        layers.iter().map(record).collect()
    }

    /// The manifest that an image has here.
    pub(crate) fn stored_manifest(
        &self,
        record: &ImageRecord,
    ) -> Result<Option<(Box<Manifest>, Vec<u8>)>> {
        let bytes = self.blob(&record.manifest, MANIFEST_BYTES_MAX)?;
        Ok(match Document::parse(&bytes, None) {
            Ok(Document::Manifest(manifest)) if manifest.layers.len() == record.layers.len() => {
                Some((manifest, bytes))
            }
            // It came so, and is of no use here.
            _ => None,
        })
    }

    /// What the manifest of an image says besides what it is made of.
    pub(crate) fn annotations(&self, record: &ImageRecord) -> Result<BTreeMap<String, String>> {
        let manifest = self.stored_manifest(record)?;
        Ok(manifest.map_or_else(BTreeMap::new, |(manifest, _)| manifest.annotations))
    }

    /// Has the manifest of an image say this to whoever gets the image from here. Where that is nothing, only a manifest that was
    /// made here is changed: another one has its digest from a registry.
    pub fn annotate(&self, id: &ImageId, annotations: &BTreeMap<String, String>) -> Result<()> {
        let record = self.records.image(id).map_err(Error::Records)?;
        let record = record.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let Some((mut manifest, _)) = self.stored_manifest(&record)? else {
            return Ok(());
        };
        let is_other = annotations.is_empty() && !self.is_plain(&record)?;
        if is_other || manifest.annotations == *annotations {
            return Ok(());
        }
        manifest.annotations.clone_from(annotations);
        let bytes = serde_json::to_vec(&manifest).expect("a manifest has only strings as keys");
        self.replace_manifest(id, Digest::sha256(&bytes), &bytes)
    }

    /// Whether an image's manifest was made here, of layers that are not compressed.
    fn is_plain(&self, record: &ImageRecord) -> Result<bool> {
        let manifest = self.stored_manifest(record)?;
        let plain = |layer: &Descriptor| {
            matches!(
                layer.media_type.as_str(),
                media_type::OCI_LAYER | media_type::DOCKER_LAYER
            )
        };
        Ok(manifest.is_none_or(|(manifest, _)| manifest.layers.iter().all(plain)))
    }

    /// The manifest to push: the one that the image came with when its layers are those, or a new one.
    pub(crate) fn manifest_of(
        &self,
        record: &ImageRecord,
        layers: &[Descriptor],
    ) -> Result<registry::Manifest> {
        let digests =
            |layers: &[Descriptor]| layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
        if let Some((manifest, bytes)) = self.stored_manifest(record)?
            && digests(&manifest.layers) == digests(layers)
        {
            let media_type = manifest
                .media_type
                .clone()
                .unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned());
            return Ok(registry::Manifest {
                digest: record.manifest,
                media_type,
                bytes: bytes.into(),
            });
        }
        let config = self.blob(&record.id, CONFIG_BYTES_MAX)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media_type::OCI_CONFIG, record.id, config.len() as u64),
            layers: layers.to_vec(),
            subject: None,
            annotations: self.annotations(record)?,
        };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest has only strings as keys");
        Ok(registry::Manifest {
            digest: Digest::sha256(&bytes),
            media_type: media_type::OCI_MANIFEST.to_owned(),
            bytes: bytes.into(),
        })
    }
}
