//! Records of layers and results of builds whose files are not durable yet, in front of the durable records.
//!
//! A build makes many layers, and syncing each takes longer than making it. So what it makes is told here at once, in memory, and
//! goes to the durable records when the files of all of it have been synced, with one call: before an image is made, or when the
//! build has ended without one.
//!
//! Invariant: a durable record never names what is only here. What is here is lost with the process, and its layers, which have no
//! record then, are removed by the next start.

use super::{
    CacheRecord, ImageId, ImageRecord, LayerRecord, Records, RecordsError, ReferenceRecord, Update,
};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Result<T> = std::result::Result<T, RecordsError>;

/// The records of a store.
pub(crate) struct LateRecords {
    durable: Arc<dyn Records>,
    late: Mutex<Late>,
}

#[derive(Debug, Clone, Default)]
struct Late {
    layers: HashMap<Digest, LayerRecord>,
    results: HashMap<Digest, CacheRecord>,
}

impl LateRecords {
    pub(crate) fn new(durable: Arc<dyn Records>) -> Self {
        Self {
            durable,
            late: Mutex::default(),
        }
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        // It is whole after every statement.
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn images(&self) -> Result<Vec<ImageRecord>> {
        self.durable.images()
    }

    pub(crate) fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        self.durable.image(id)
    }

    pub(crate) fn references(&self) -> Result<Vec<ReferenceRecord>> {
        self.durable.references()
    }

    pub(crate) fn reference(&self, reference: &Reference) -> Result<Option<ReferenceRecord>> {
        self.durable.reference(reference)
    }

    pub(crate) fn layers(&self) -> Result<Vec<LayerRecord>> {
        let late = self.late();
        let mut layers = self.durable.layers()?;
        layers.retain(|layer| !late.layers.contains_key(&layer.diff_id));
        layers.extend(late.layers.values().cloned());
        Ok(layers)
    }

    pub(crate) fn caches(&self) -> Result<Vec<CacheRecord>> {
        let late = self.late();
        let mut results = self.durable.caches()?;
        results.retain(|result| !late.results.contains_key(&result.key));
        results.extend(late.results.values().cloned());
        Ok(results)
    }

    pub(crate) fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>> {
        let late = self.late();
        match late.results.get(key) {
            Some(result) => Ok(Some(result.clone())),
            None => self.durable.cache(key),
        }
    }

    /// Makes durable updates, as [`Records::update`]. What they put or remove is late no more.
    pub(crate) fn update(&self, updates: &[Update]) -> Result<()> {
        let mut late = self.late();
        self.durable.update(updates)?;
        for update in updates {
            match update {
                Update::PutLayer(LayerRecord { diff_id, .. }) | Update::RemoveLayer(diff_id) => {
                    late.layers.remove(diff_id);
                }
                Update::PutCache(CacheRecord { key, .. }) | Update::RemoveCache(key) => {
                    late.results.remove(key);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells of a layer whose files may not be durable.
    pub(crate) fn add_layer(&self, layer: LayerRecord) {
        self.late().layers.insert(layer.diff_id, layer);
    }

    /// Puts a result of a build: late, where one of its layers is.
    pub(crate) fn put_result(&self, result: CacheRecord) -> Result<()> {
        let mut late = self.late();
        if { result.layers.iter() }.any(|layer| late.layers.contains_key(layer)) {
            late.results.insert(result.key, result);
            return Ok(());
        }
        drop(late);
        self.update(&[Update::PutCache(result)])
    }

    /// The layers and results that are late now. When everything that was written before has been synced, [`Self::due`] gives the
    /// updates that make them durable.
    pub(crate) fn pending(&self) -> Pending {
        Pending(self.late().clone())
    }

    /// What of it is still to be made durable. The caller holds the lock of the store under which layers are removed.
    pub(crate) fn due(&self, pending: Pending) -> Vec<Update> {
        let late = self.late();
        let Late { layers, results } = pending.0;
        let layers = { layers.into_iter() }
            .filter(|(id, _)| late.layers.contains_key(id))
            .map(|(_, layer)| Update::PutLayer(layer));
        // A newer result may stand on layers that are newer than the sync.
        let results = { results.into_iter() }
            .filter(|(key, result)| late.results.get(key) == Some(result))
            .map(|(_, result)| Update::PutCache(result));
        layers.chain(results).collect()
    }
}

/// What was late at some moment.
#[derive(Debug)]
pub(crate) struct Pending(Late);

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.layers.is_empty() && self.0.results.is_empty()
    }
}
