//! Layers that no image has (yet): held while a build counts on them, and kept as results of builds.
//!
//! Invariant: a [`CacheRecord`] pins its layers from before it is written until after it is gone, so that what it promises is
//! there.

use crate::records::{CacheRecord, Update};
use crate::store::make_directory;
use crate::{Error, Images, Result};
use oci::Digest;
use std::collections::HashSet;
use std::path::PathBuf;

/// Layers that do not go while this value lives.
#[derive(Debug)]
pub struct Hold<'a> {
    images: &'a Images,
    layers: Vec<Digest>,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if self.images.pins().remove(&self.layers) {
            // What cannot be removed now is removed by the next start.
            let _ = self.images.collect();
        }
    }
}

impl Images {
    /// Holds layers, all of which must be there.
    pub fn hold(&self, layers: &[Digest]) -> Result<Hold<'_>> {
        self.pins().add(layers);
        let hold = Hold {
            images: self,
            layers: layers.to_vec(),
        };
        // Only afterwards is what is seen certain to stay.
        match layers.iter().find(|layer| !self.layer_path(layer).is_dir()) {
            Some(lost) => Err(Error::MissingLayer(Box::new(*lost))),
            None => Ok(hold),
        }
    }

    /// The result of a build with this key, with its layers held; `None` where there is none, or where its layers are lost.
    pub fn cached(&self, key: &Digest) -> Result<Option<(CacheRecord, Hold<'_>)>> {
        let Some(record) = self.records.cache(key).map_err(Error::Records)? else {
            return Ok(None);
        };
        match self.hold(&record.layers) {
            Ok(hold) => Ok(Some((record, hold))),
            Err(Error::MissingLayer(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All results of builds, in any order.
    pub fn caches(&self) -> Result<Vec<CacheRecord>> {
        self.records.caches().map_err(Error::Records)
    }

    /// Keeps the result of a build, whose layers the caller holds, in the place of one with its key.
    pub fn keep(&self, record: CacheRecord) -> Result<()> {
        self.pins().add(&record.layers);
        let publishing = self.publishing();
        let replaced = self.records.cache(&record.key).map_err(Error::Records);
        let layers = record.layers.clone();
        let kept = replaced.and_then(|replaced| {
            self.records.put_result(record).map_err(Error::Records)?;
            Ok(replaced.map(|replaced| replaced.layers).unwrap_or_default())
        });
        // One pin of each layer is over: of those that were replaced, or of those that could not be kept.
        let (unpinned, result) = match kept {
            Ok(replaced) => (replaced, Ok(())),
            Err(error) => (layers, Err(error)),
        };
        drop(publishing);
        if self.pins().remove(&unpinned) {
            self.collect()?;
        }
        result
    }

    /// Forgets results of builds, and removes the layers that only they had. Returns those. One that is absent is no error.
    pub fn forget(&self, keys: &[Digest]) -> Result<Vec<Digest>> {
        let mut layers = Vec::new();
        let mut updates = Vec::new();
        let publishing = self.publishing();
        for key in keys {
            if let Some(record) = self.records.cache(key).map_err(Error::Records)? {
                layers.extend(record.layers);
                updates.push(Update::RemoveCache(*key));
            }
        }
        self.records.update(&updates).map_err(Error::Records)?;
        drop(publishing);
        // The lock ends with the statement: collecting takes it, too.
        let frees = self.pins().remove(&layers);
        match frees {
            true => self.collect(),
            false => Ok(Vec::new()),
        }
    }

    /// The layers that something counts on besides images, results of builds and containers: what goes on now.
    pub fn held_layers(&self) -> Result<HashSet<Digest>> {
        let kept = self.records.caches().map_err(Error::Records)?;
        Ok(self.pins().besides(&kept))
    }

    /// Bytes of the files in a layer; 0 where it is not there.
    pub fn layer_bytes(&self, diff_id: &Digest) -> Result<u64> {
        let layers = self.records.layers().map_err(Error::Records)?;
        let found = layers.iter().find(|layer| layer.diff_id == *diff_id);
        Ok(found.map_or(0, |layer| layer.size))
    }

    /// The layers that images have.
    pub fn image_layers(&self) -> Result<HashSet<Digest>> {
        let images = self.records.images().map_err(Error::Records)?;
        Ok(images.into_iter().flat_map(|image| image.layers).collect())
    }

    /// Bytes on the disk of a layer; none where it is not there.
    pub fn layer_disk_usage(&self, diff_id: &Digest) -> Result<u64> {
        crate::disk_usage(&self.layer_path(diff_id))
    }

    /// A private directory for something that is being made. What a crash leaves of it, the next start removes.
    pub fn scratch(&self) -> Result<Scratch> {
        let path = self.temporary();
        make_directory(&path)?;
        Ok(Scratch { path })
    }
}

/// A directory that goes with this value.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next start.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Records as _;
    use crate::testing::Store;
    use oci::image::ConfigFile;

    fn change(store: &Store, id: &str, below: &[Digest], name: &str) -> Digest {
        let images = &store.images;
        let snapshot = images.prepare_on(id, below).unwrap();
        std::fs::write(snapshot.upper.join(name), name).unwrap();
        let (layer, hold) = store.take(&snapshot, Some(1000)).unwrap();
        let record = CacheRecord {
            key: Digest::sha256(id.as_bytes()),
            layers: [below, &[layer]].concat(),
            document: serde_json::Value::Null,
        };
        images.keep(record).unwrap();
        drop(hold);
        images.remove_snapshot(id).unwrap();
        layer
    }

    #[test]
    fn results_keep_their_layers_until_they_are_forgotten() {
        let mut store = Store::new();
        let lower = change(&store, "a", &[], "x");
        let upper = change(&store, "b", &[lower], "y");
        store.images.settle().unwrap();
        store.reopen();
        let images = &store.images;
        let key = |id: &str| Digest::sha256(id.as_bytes());
        let (record, hold) = images.cached(&key("b")).unwrap().unwrap();
        assert_eq!(record.layers, [lower, upper]);
        assert_eq!(images.forget(&[key("a"), key("b")]).unwrap(), []);
        assert!(store.layer(&upper).is_dir());
        drop(hold);
        assert!(!store.layer(&upper).exists() && !store.layer(&lower).exists());
        assert!(images.cached(&key("b")).unwrap().is_none());
    }

    #[test]
    fn what_is_not_durable_has_no_durable_record() {
        let mut store = Store::new();
        let first = change(&store, "a", &[], "x");
        let key = |id: &str| Digest::sha256(id.as_bytes());
        assert!(store.images.cached(&key("a")).unwrap().is_some());
        assert_eq!(store.records.layers().unwrap(), []);
        assert_eq!(store.records.caches().unwrap(), []);
        store.images.settle().unwrap();
        let second = change(&store, "b", &[first], "y");
        assert_eq!(store.records.layers().unwrap().len(), 1);
        store.reopen();
        assert!(store.layer(&first).is_dir() && !store.layer(&second).exists());
        assert!(store.images.cached(&key("a")).unwrap().is_some());
        assert!(store.images.cached(&key("b")).unwrap().is_none());
    }

    #[test]
    fn what_was_forgotten_meanwhile_does_not_become_durable() {
        let store = Store::new();
        let layer = change(&store, "a", &[], "x");
        let pending = store.images.records.pending();
        assert_eq!(
            store.images.forget(&[Digest::sha256(b"a")]).unwrap(),
            [layer]
        );
        assert_eq!(store.images.records.due(pending), []);
    }

    #[test]
    fn an_image_makes_its_layers_durable() {
        let store = Store::new();
        let layer = change(&store, "a", &[], "x");
        let config = ConfigFile::default();
        store
            .images
            .make_images(vec![(config, &[layer])], &[])
            .unwrap();
        assert_eq!(store.records.layers().unwrap()[0].diff_id, layer);
        assert_eq!(store.records.caches().unwrap().len(), 1);
    }

    #[test]
    fn what_is_forgotten_takes_its_layers_along() {
        let store = Store::new();
        let layer = change(&store, "a", &[], "x");
        let gone = store.images.forget(&[Digest::sha256(b"a")]).unwrap();
        assert_eq!(gone, [layer]);
        assert!(!store.layer(&layer).exists());
    }

    #[test]
    fn an_image_takes_over_what_a_build_made() {
        let store = Store::new();
        let layer = change(&store, "a", &[], "x");
        let images = &store.images;
        let id = images
            .make_images(vec![(ConfigFile::default(), &[layer])], &[])
            .unwrap();
        images.forget(&[Digest::sha256(b"a")]).unwrap();
        assert!(store.layer(&layer).is_dir());
        images
            .remove(&id[0].to_string(), false, &|_| Vec::new())
            .unwrap();
        assert!(!store.layer(&layer).exists());
    }

    #[test]
    fn the_same_change_is_the_same_layer() {
        let store = Store::new();
        let one = change(&store, "a", &[], "x");
        let snapshot = store.images.prepare_on("b", &[]).unwrap();
        let file = std::fs::File::create(snapshot.upper.join("x")).unwrap();
        std::io::Write::write_all(&mut &file, b"x").unwrap();
        let later = std::time::Duration::from_secs(4_000_000_000);
        file.set_modified(std::time::UNIX_EPOCH + later).unwrap();
        let (again, _hold) = store.take(&snapshot, Some(1000)).unwrap();
        assert_eq!(one, again);
        let snapshot = store.images.prepare_on("c", &[one]).unwrap();
        assert!(store.take(&snapshot, None).is_none());
    }

    #[test]
    fn what_is_lost_cannot_be_held() {
        let store = Store::new();
        let lost = Digest::sha256(b"lost");
        assert!(matches!(
            store.images.hold(&[lost]),
            Err(Error::MissingLayer(_))
        ));
    }
}
