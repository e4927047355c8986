//! Records that end with the process: for tests, and as the example of an implementation.

use super::{
    CacheRecord, ImageId, ImageRecord, LayerRecord, Records, RecordsError, ReferenceRecord, Update,
};
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Records in memory.
#[derive(Debug, Default)]
pub struct MemoryRecords {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    images: BTreeMap<ImageId, ImageRecord>,
    layers: BTreeMap<Digest, LayerRecord>,
    references: BTreeMap<Reference, ReferenceRecord>,
    caches: BTreeMap<Digest, CacheRecord>,
}

impl MemoryRecords {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No update can stop half-way: a poisoned lock still guards whole tables.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for MemoryRecords {
    fn images(&self) -> Result<Vec<ImageRecord>, RecordsError> {
        Ok(self.tables().images.values().cloned().collect())
    }

    fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, RecordsError> {
        Ok(self.tables().images.get(id).cloned())
    }

    fn layers(&self) -> Result<Vec<LayerRecord>, RecordsError> {
        Ok(self.tables().layers.values().cloned().collect())
    }

    fn references(&self) -> Result<Vec<ReferenceRecord>, RecordsError> {
        Ok(self.tables().references.values().cloned().collect())
    }

    fn reference(&self, reference: &Reference) -> Result<Option<ReferenceRecord>, RecordsError> {
        Ok(self.tables().references.get(reference).cloned())
    }

    fn caches(&self) -> Result<Vec<CacheRecord>, RecordsError> {
        Ok(self.tables().caches.values().cloned().collect())
    }

    fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>, RecordsError> {
        Ok(self.tables().caches.get(key).cloned())
    }

    fn update(&self, updates: &[Update]) -> Result<(), RecordsError> {
        let mut tables = self.tables();
        for update in updates {
            match update {
                Update::PutImage(record) => {
                    tables.images.insert(record.id, record.clone());
                }
                Update::RemoveImage(id) => {
                    tables.images.remove(id);
                    let names = std::mem::take(&mut tables.references).into_iter();
                    tables.references = names
                        .filter_map(|(name, record)| Some((name, record.without(id)?)))
                        .collect();
                }
                Update::PutLayer(record) => {
                    tables.layers.insert(record.diff_id, record.clone());
                }
                Update::RemoveLayer(diff_id) => {
                    tables.layers.remove(diff_id);
                }
                Update::SetReference(record) => {
                    tables
                        .references
                        .insert(record.reference.clone(), record.clone());
                }
                Update::RemoveReference(reference) => {
                    tables.references.remove(reference);
                }
                Update::PutCache(record) => {
                    tables.caches.insert(record.key, record.clone());
                }
                Update::RemoveCache(key) => {
                    tables.caches.remove(key);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_records_pass_the_suite() {
        crate::records::testsuite::run(&|| Box::new(super::MemoryRecords::default()));
    }
}
