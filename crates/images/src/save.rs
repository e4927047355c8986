//! Writing images as an archive that is both what `docker load` reads and an OCI layout, as Docker writes it since 25.
//!
//! Layers are written as plain tars, made again from their recipes: their digests are the diff IDs, and the image IDs stay
//! what they are. Everything is at `blobs/sha256/<hex>` once, whatever number of images has it.

use crate::layout::{LayoutArchive, blob_path, named};
use crate::manifests::plain_manifest;
use crate::recipe::reassemble;
use crate::records::{ImageId, LayerRecord};
use crate::{Error, Images, Result};
use oci::digest::{Algorithm, Hasher};
use oci::image::{ArchiveImage, CONFIG_BYTES_MAX, Descriptor, media_type};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::io::Write;

impl Images {
    /// Writes images, given by name or ID, as an archive that is both docker-archive and OCI layout. A repository's name
    /// without tag means all its tags.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<()> {
        let selected = self.select(names)?;
        // The layers must not go while they are written.
        let mut ingest = self.ingest()?;
        let sizes: HashMap<Digest, LayerRecord> = self
            .records
            .layers()
            .map_err(Error::Records)?
            .into_iter()
            .map(|layer| (layer.diff_id, layer))
            .collect();
        let mut archive = LayoutArchive::new(out)?;
        let (mut listed, mut manifests) = (Vec::new(), Vec::new());
        for (id, references) in &selected {
            let missing = || Error::NoSuchImage(id.to_string());
            let record = self
                .records
                .image(id)
                .map_err(Error::Records)?
                .ok_or_else(missing)?;
            let mut layers = Vec::new();
            for diff_id in &record.layers {
                let layer = sizes.get(diff_id).filter(|_| ingest.has_layer(diff_id));
                let layer = layer.ok_or_else(|| Error::MissingLayer(Box::new(*diff_id)))?;
                archive.layer(self, layer)?;
                layers.push((*diff_id, layer.tar_size));
            }
            let config = self.blob(id, CONFIG_BYTES_MAX)?;
            let (digest, bytes) = plain_manifest(*id, config.len(), layers.into_iter());
            archive.blob(id, &config)?;
            archive.blob(&digest, &bytes)?;
            let manifest = Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64);
            manifests.extend(named(&manifest, references));
            listed.push(ArchiveImage {
                config: blob_path(id),
                repo_tags: references.iter().map(Reference::familiar).collect(),
                layers: record.layers.iter().map(blob_path).collect(),
            });
        }
        archive.finish(&manifests, &listed)
    }

    /// The images that names mean, in the order they were first named, each with the names to save.
    fn select(&self, names: &[String]) -> Result<Vec<(ImageId, Vec<Reference>)>> {
        let mut selected: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        let mut add = |id: ImageId, reference: Option<Reference>| {
            let at = selected
                .iter()
                .position(|(other, _)| *other == id)
                .unwrap_or_else(|| {
                    selected.push((id, Vec::new()));
                    selected.len() - 1
                });
            let references = &mut selected[at].1;
            references.extend(reference.filter(|new| !references.contains(new)));
        };
        let records = self.records.references().map_err(Error::Records)?;
        for name in names {
            let parsed = name.parse::<Reference>().ok();
            let repository = parsed
                .as_ref()
                .filter(|r| r.tag().is_none() && r.digest().is_none());
            let mut whole: Vec<_> = records
                .iter()
                .filter(|r| repository.is_some_and(|name| name.same_repository(&r.reference)))
                .filter(|r| r.reference.tag().is_some())
                .collect();
            if !whole.is_empty() {
                whole.sort_by(|a, b| a.reference.cmp(&b.reference));
                whole
                    .into_iter()
                    .for_each(|r| add(r.image, Some(r.reference.clone())));
                continue;
            }
            let id = self.resolve(name)?;
            let reference = parsed.map(Reference::to_target);
            let named = |reference: &Reference| {
                records
                    .iter()
                    .any(|r| r.reference == *reference && r.image == id)
            };
            add(id, reference.filter(|r| r.tag().is_some() && named(r)));
        }
        Ok(selected)
    }
}

/// A sink that hashes what goes through, and takes no more than was announced.
struct Checked<W> {
    out: W,
    hasher: Hasher,
    left: u64,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len() as u64;
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "the layer is larger than it was",
            )
        })?;
        self.hasher.update(bytes);
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl Images {
    /// Writes a layer's tar, and checks that it is what it was.
    pub(crate) fn write_layer(&self, layer: &LayerRecord, out: impl Write) -> Result<()> {
        let path = self.layer_path(&layer.diff_id);
        let mut checked = Checked {
            out,
            hasher: Hasher::new(Algorithm::Sha256),
            left: layer.tar_size,
        };
        reassemble(&path, &mut checked)?;
        if checked.left > 0 || checked.hasher.finish() != layer.diff_id {
            let reason = "its files are not what they were".to_owned();
            return Err(Error::Damaged { path, reason });
        }
        Ok(())
    }
}
