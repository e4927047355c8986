//! Looking whether the store is what the records say, and mending what is not.
//!
//! Every blob is hashed, and every layer's tar is made again and hashed: nothing is taken on trust. What is damaged cannot be
//! made anew from here; mending removes the images that need it, so that a pull or a load brings them whole. A container keeps
//! what it stands on: an image that one uses is told of and left.

use crate::records::{CacheRecord, ImageId, ImageRecord, LayerRecord, Update};
use crate::store::list;
use crate::{Error, Images, Result};
use oci::image::{CONFIG_BYTES_MAX, ConfigFile, MANIFEST_BYTES_MAX};
use oci::{Digest, Reference};
use std::collections::{HashMap, HashSet};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What: a layer, an image, a name.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// What was done about it.
    pub mended: Option<String>,
}

/// What was looked at, and what was wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Images, layers and names that were looked at.
    pub checked: usize,
    /// Bytes of layers that were read.
    pub bytes: u64,
    /// What was wrong.
    pub findings: Vec<Finding>,
}

impl Images {
    /// Checks the whole store; reads all of it. With `mend`, removes damaged images that no container uses, as `used` tells.
    pub fn verify(&self, mend: bool, used: &dyn Fn(&ImageId) -> bool) -> Result<Verification> {
        let images = self.records.images().map_err(Error::Records)?;
        let layers = self.records.layers().map_err(Error::Records)?;
        let mut found = Verification::default();
        let mut broken: HashMap<Digest, String> = HashMap::new();
        for layer in &layers {
            found.checked += 1;
            match self.verify_layer(layer) {
                Ok(()) => found.bytes += layer.tar_size,
                Err(problem) => {
                    broken.insert(layer.diff_id, problem);
                }
            }
        }
        if mend {
            self.forget_broken(&broken)?;
        }
        let recorded: HashSet<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let mut damaged: HashSet<ImageId> = HashSet::new();
        for image in &images {
            found.checked += 1;
            if let Some(problem) = self.verify_image(image, &recorded, &broken) {
                damaged.insert(image.id);
                let mended = self.remove_damaged(image, mend, used)?;
                let object = self.called(image)?;
                found.findings.push(Finding {
                    object,
                    problem,
                    mended,
                });
            }
        }
        let used_layers: HashSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
        let pinned = self.pins().without_snapshots(&[]);
        for layer in &layers {
            let layer = layer.diff_id;
            if used_layers.contains(&layer) {
                continue;
            }
            let object = format!("layer {layer}, which no image has");
            if let Some(problem) = broken.remove(&layer) {
                found.findings.push(Finding {
                    object,
                    problem,
                    mended: None,
                });
            } else if !pinned.contains(&layer) && self.has_record(&layer.hex())? {
                let problem = "no container has it, either".to_owned();
                found.findings.push(Finding {
                    object,
                    problem,
                    mended: None,
                });
            }
        }
        self.verify_names(&images, &damaged, mend, &mut found)?;
        self.verify_strays(&images, &recorded, &mut found)?;
        Ok(found)
    }

    /// Makes a layer's tar again, and throws it away.
    fn verify_layer(&self, layer: &LayerRecord) -> Result<(), String> {
        let written = self.write_layer(layer, std::io::sink());
        written.map_err(|error| format!("layer {}: {}", layer.diff_id, crate::error::chain(&error)))
    }

    /// What is wrong with an image.
    fn verify_image(
        &self,
        image: &ImageRecord,
        recorded: &HashSet<Digest>,
        broken: &HashMap<Digest, String>,
    ) -> Option<String> {
        let config = match self.blob(&image.id, CONFIG_BYTES_MAX) {
            Ok(bytes) => ConfigFile::parse(&bytes),
            Err(error) => {
                return Some(format!(
                    "its configuration: {}",
                    crate::error::chain(&error)
                ));
            }
        };
        match config {
            Ok(config) if config.rootfs.diff_ids == image.layers => {}
            Ok(_) => return Some("its record has other layers than its configuration".to_owned()),
            Err(error) => return Some(format!("its configuration: {error}")),
        }
        if let Err(error) = self.blob(&image.manifest, MANIFEST_BYTES_MAX) {
            return Some(format!("its manifest: {}", crate::error::chain(&error)));
        }
        let problem = |layer: &Digest| match broken.get(layer) {
            Some(problem) => Some(problem.clone()),
            None if recorded.contains(layer) => None,
            None => Some(format!("layer {layer} has no record")),
        };
        image.layers.iter().find_map(problem)
    }

    /// Forgets results of builds with damaged layers: they would be used again, and keep the layers from being brought anew.
    fn forget_broken(&self, broken: &HashMap<Digest, String>) -> Result<()> {
        let results = self.caches()?;
        let is_broken =
            |result: &&CacheRecord| result.layers.iter().any(|layer| broken.contains_key(layer));
        let keys: Vec<Digest> = results
            .iter()
            .filter(is_broken)
            .map(|result| result.key)
            .collect();
        self.forget(&keys).map(drop)
    }

    /// Removes an image whose parts are damaged.
    fn remove_damaged(
        &self,
        image: &ImageRecord,
        mend: bool,
        used: &dyn Fn(&ImageId) -> bool,
    ) -> Result<Option<String>> {
        if !mend {
            return Ok(None);
        }
        if used(&image.id) {
            return Ok(None);
        }
        self.retire(&[Update::RemoveImage(image.id)], &[image.id])?;
        Ok(Some("removed: pull or load it again".to_owned()))
    }

    /// An image as people know it.
    fn called(&self, image: &ImageRecord) -> Result<String> {
        let names = self.references_of(&image.id)?;
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        Ok(match names[..] {
            [] => format!("image {}", image.id),
            _ => format!("image {} ({})", image.id, names.join(", ")),
        })
    }

    /// Names of images that are not there.
    fn verify_names(
        &self,
        images: &[ImageRecord],
        removed: &HashSet<ImageId>,
        mend: bool,
        found: &mut Verification,
    ) -> Result<()> {
        let known: HashSet<ImageId> = images.iter().map(|image| image.id).collect();
        for record in self.records.references().map_err(Error::Records)? {
            found.checked += 1;
            let is_lost = |id: &ImageId| !known.contains(id) && !removed.contains(id);
            let lost: Vec<ImageId> = record.images().filter(is_lost).collect();
            let mut left = Some(record);
            for id in lost {
                let Some(record) = left.take() else { break };
                let object = record.reference.familiar();
                let problem = format!("it names {id}, which is not there");
                let reference = record.reference.clone();
                left = record.without(&id);
                let mut mended = None;
                if mend {
                    let update = match &left {
                        Some(record) => Update::SetReference(record.clone()),
                        None => Update::RemoveReference(reference),
                    };
                    self.records.update(&[update]).map_err(Error::Records)?;
                    mended = Some("removed".to_owned());
                }
                found.findings.push(Finding {
                    object,
                    problem,
                    mended,
                });
            }
        }
        Ok(())
    }

    /// Files that no record has: what is being added meanwhile is in `tmp`, so that there are none.
    fn verify_strays(
        &self,
        images: &[ImageRecord],
        recorded: &HashSet<Digest>,
        found: &mut Verification,
    ) -> Result<()> {
        let blobs = images.iter().flat_map(|image| [image.id, image.manifest]);
        let blobs: HashSet<String> = blobs.map(|digest| digest.hex()).collect();
        let layers: HashSet<String> = recorded.iter().map(Digest::hex).collect();
        let problem = "no record has it: the next start removes it";
        for (directory, known) in [(self.blobs_path(), blobs), (self.layers_path(), layers)] {
            for path in list(&directory)? {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if !known.contains(name) && path.exists() && !self.has_record(name)? {
                    found.findings.push(Finding {
                        object: path.display().to_string(),
                        problem: problem.to_owned(),
                        mended: None,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether something came into the records since they were read.
    fn has_record(&self, hex: &str) -> Result<bool> {
        let images = self.records.images().map_err(Error::Records)?;
        let layers = self.records.layers().map_err(Error::Records)?;
        let mut named = images.iter().flat_map(|image| [image.id, image.manifest]);
        Ok(named.any(|digest| digest.hex() == hex)
            || layers.iter().any(|layer| layer.diff_id.hex() == hex))
    }
}

#[cfg(test)]
mod tests {
    use crate::records::CacheRecord;
    use crate::testing::Store;

    #[test]
    fn a_whole_store_has_nothing_to_tell() {
        let store = Store::new();
        store.import("busybox", "content");
        let found = store.images.verify(true, &|_| false).unwrap();
        assert_eq!(found.findings, []);
        assert_eq!(found.checked, 3);
    }

    #[test]
    fn a_changed_file_is_found_and_its_image_removed() {
        let store = Store::new();
        let id = store.import("busybox", "content");
        let layer = store.images.get("busybox").unwrap().layers()[0];
        let result = CacheRecord {
            key: layer,
            layers: vec![layer],
            document: serde_json::Value::Null,
        };
        store.images.keep(result).unwrap();
        let file = store.images.layer_path(&layer).join("diff/file");
        std::fs::write(&file, "CONTENT").unwrap();
        let told = store.images.verify(false, &|_| false).unwrap();
        assert_eq!(told.findings.len(), 1);
        assert!(told.findings[0].object.contains("busybox") && told.findings[0].mended.is_none());
        // A container stands on it.
        let kept = store.images.verify(true, &|used| *used == id).unwrap();
        assert_eq!(kept.findings[0].mended, None);
        store.images.get("busybox").unwrap();
        let mended = store.images.verify(true, &|_| false).unwrap();
        assert!(mended.findings[0].mended.is_some());
        assert!(store.images.get("busybox").is_err());
        assert!(!store.images.layer_path(&layer).exists());
        assert_eq!(store.images.verify(false, &|_| false).unwrap().findings, []);
    }

    #[test]
    fn a_lost_blob_is_found() {
        let store = Store::new();
        let id = store.import("busybox", "content");
        std::fs::remove_file(store.images.blobs_path().join(id.hex())).unwrap();
        let found = store.images.verify(false, &|_| false).unwrap();
        assert!(
            found.findings[0].problem.contains("configuration"),
            "{found:?}"
        );
        std::fs::write(store.images.blobs_path().join("stray"), "").unwrap();
        let found = store.images.verify(true, &|_| false).unwrap();
        assert!(
            found
                .findings
                .iter()
                .any(|finding| finding.object.ends_with("stray"))
        );
    }
}
