//! Writing images as an archive that is both what `docker load` reads and an OCI layout, as Docker writes it since 25. What is there
//! for several platforms is an index in the layout; Docker's own list has one of its images.
//!
//! Layers are written as plain tars, made again from their recipes: their digests are the diff IDs, and the image IDs stay
//! what they are. Everything is at `blobs/sha256/<hex>` once, whatever number of images has it.

use crate::layout::{LayoutArchive, blob_path, named};
use crate::manifests::{index, plain_manifest};
use crate::recipe::reassemble;
use crate::records::{ImageId, LayerRecord};
use crate::{Error, Images, Result};
use oci::digest::{Algorithm, Hasher};
use oci::image::{ArchiveImage, CONFIG_BYTES_MAX, Descriptor, Platform, media_type};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::io::Write;

/// What is saved of one thing that is named.
struct Selected {
    /// Its images, of each platform one; the first is what Docker's list of images has.
    images: Vec<ImageId>,
    references: Vec<Reference>,
}

impl Images {
    /// Writes images, given by name or ID, as an archive that is both docker-archive and OCI layout. A repository's name
    /// without tag means all its tags. Of what has images for several platforms all are written, or the one for a platform.
    pub fn save(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        out: impl Write,
    ) -> Result<()> {
        let selected = self.select(names, platform)?;
        // The layers must not go while they are written.
        let mut ingest = self.ingest()?;
        let layers = self.records.layers().map_err(Error::Records)?;
        let layers = layers.into_iter().map(|layer| (layer.diff_id, layer));
        let layers: HashMap<Digest, LayerRecord> = layers.collect();
        let mut archive = LayoutArchive::new(out)?;
        let (mut listed, mut manifests) = (Vec::new(), Vec::new());
        for Selected { images, references } in &selected {
            let mut entries = Vec::new();
            for id in images {
                let missing = || Error::NoSuchImage(id.to_string());
                let record = self.records.image(id).map_err(Error::Records)?;
                let record = record.ok_or_else(missing)?;
                let mut stack = Vec::new();
                for diff_id in &record.layers {
                    let layer = layers.get(diff_id).filter(|_| ingest.has_layer(diff_id));
                    let layer = layer.ok_or_else(|| Error::MissingLayer(Box::new(*diff_id)))?;
                    archive.layer(self, layer)?;
                    stack.push((*diff_id, layer.tar_size));
                }
                if entries.is_empty() {
                    listed.push(ArchiveImage {
                        config: blob_path(id),
                        repo_tags: references.iter().map(Reference::familiar).collect(),
                        layers: record.layers.iter().map(blob_path).collect(),
                    });
                }
                let config = self.blob(id, CONFIG_BYTES_MAX)?;
                let annotations = self.annotations(&record)?;
                let (digest, bytes) =
                    plain_manifest(*id, config.len(), stack.into_iter(), annotations);
                archive.blob(id, &config)?;
                archive.blob(&digest, &bytes)?;
                let size = bytes.len() as u64;
                let manifest = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
                entries.push((manifest, self.config(id)?.platform.clone()));
            }
            let top = match entries.as_slice() {
                [(manifest, _)] => manifest.clone(),
                _ => {
                    let (digest, bytes) = index(entries);
                    archive.blob(&digest, &bytes)?;
                    Descriptor::new(media_type::OCI_INDEX, digest, bytes.len() as u64)
                }
            };
            manifests.extend(named(&top, references));
        }
        archive.finish(&manifests, &listed)
    }

    /// What names mean, in the order it was first named.
    fn select(&self, names: &[String], platform: Option<&Platform>) -> Result<Vec<Selected>> {
        let mut selected: Vec<Selected> = Vec::new();
        let mut add = |name: &str, ids: Vec<ImageId>, reference: Option<Reference>| -> Result<()> {
            let images = match platform {
                Some(wanted) => vec![self.choose(name, &ids, wanted)?],
                None => ids,
            };
            let at =
                { selected.iter().position(|other| other.images == images) }.unwrap_or_else(|| {
                    let references = Vec::new();
                    selected.push(Selected { images, references });
                    selected.len() - 1
                });
            let references = &mut selected[at].references;
            references.extend(reference.filter(|new| !references.contains(new)));
            Ok(())
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
                for record in whole {
                    let reference = record.reference.clone();
                    add(name, record.images().collect(), Some(reference))?;
                }
                continue;
            }
            let ids = self.resolve(name)?;
            let reference = parsed.map(Reference::to_target);
            let named = |reference: &Reference| {
                records
                    .iter()
                    .any(|r| r.reference == *reference && r.image == ids[0])
            };
            let reference = reference.filter(|r| r.tag().is_some() && named(r));
            add(name, ids, reference)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Store;
    use oci::image::Index;

    const BOTH: [&str; 2] = ["linux/s390x", "linux/riscv64"];

    fn saved(store: &Store, names: &[&str], platform: Option<&str>) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let platform = platform.map(|text| text.parse().unwrap());
        let mut archive = Vec::new();
        let out = &mut archive;
        store.images.save(&names, platform.as_ref(), out).unwrap();
        archive
    }

    #[test]
    fn all_platforms_come_back_under_all_names() {
        let (from, to) = (Store::new(), Store::new());
        let ids = from.several(&["x:1", "x:2", "y:1"], &BOTH);
        let archive = saved(&from, &["x", "y:1"], None);
        assert_eq!(archive, saved(&from, &["x", "y:1"], None));
        let loaded = to.load(&archive).unwrap();
        assert_eq!(loaded.len(), 1);
        let names: Vec<String> = loaded[0]
            .references
            .iter()
            .map(Reference::familiar)
            .collect();
        assert_eq!(names, ["x:1", "x:2", "y:1"]);
        for name in ["x:1", "x:2", "y:1"] {
            let image = to.images.get(name).unwrap();
            assert_eq!((image.id, image.others), (ids[0], vec![ids[1]]));
        }
        // What is there again brings nothing.
        let before = to.content();
        to.load(&archive).unwrap();
        assert_eq!(to.content(), before);
    }

    #[test]
    fn one_platform_comes_alone() {
        let (from, to) = (Store::new(), Store::new());
        let ids = from.several(&["x:1"], &BOTH);
        let archive = saved(&from, &["x:1"], Some(BOTH[1]));
        to.load(&archive).unwrap();
        assert_eq!(to.images.get("x:1").unwrap().id, ids[1]);
        let archive = saved(&from, &["x:1"], None);
        let (wanted, other) = (BOTH[1].parse().unwrap(), "linux/arm".parse().unwrap());
        let to = Store::new();
        let load = |platform| {
            to.images
                .load(archive.as_slice(), Some(platform), &mut |_| {})
        };
        load(&wanted).unwrap();
        let image = to.images.get("x:1").unwrap();
        assert_eq!((image.id, image.others), (ids[1], Vec::new()));
        load(&other).unwrap_err();
        // By its ID, an image has no name.
        let archive = saved(&from, &[&ids[1].to_string()], None);
        assert_eq!(Store::new().load(&archive).unwrap()[0].references, []);
    }

    #[test]
    fn the_same_manifests_are_the_same_index() {
        let manifest = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(b"m"), 1);
        let (digest, bytes) = index(vec![(manifest, BOTH[0].parse().unwrap())]);
        assert_eq!(digest, Digest::sha256(&bytes));
        let read: Index = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read.manifests[0].platform, Some(BOTH[0].parse().unwrap()));
    }
}
