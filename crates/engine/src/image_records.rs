//! The image store's records in the engine's database.

use images::records::{
    CacheRecord, ImageId, ImageRecord, LayerRecord, Records, RecordsError, ReferenceRecord, Update,
};
use oci::{Digest, Reference};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use store::{Change, Kind, Store};

/// [`Records`] on the database.
#[derive(Debug)]
pub(crate) struct ImageRecords {
    store: Arc<Store>,
}

impl ImageRecords {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn list<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<T>, RecordsError> {
        let rows = self.store.list(kind)?;
        rows.iter()
            .map(|(_, record)| Ok(serde_json::from_str(record)?))
            .collect()
    }
}

impl Records for ImageRecords {
    fn images(&self) -> Result<Vec<ImageRecord>, RecordsError> {
        self.list(Kind::Image)
    }

    fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, RecordsError> {
        let record = self.store.get(Kind::Image, &id.to_string())?;
        Ok(record
            .map(|record| serde_json::from_str(&record))
            .transpose()?)
    }

    fn layers(&self) -> Result<Vec<LayerRecord>, RecordsError> {
        self.list(Kind::Layer)
    }

    fn references(&self) -> Result<Vec<ReferenceRecord>, RecordsError> {
        let mut references: Vec<ReferenceRecord> = self.list(Kind::Reference)?;
        references.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(references)
    }

    fn reference(&self, reference: &Reference) -> Result<Option<ReferenceRecord>, RecordsError> {
        let record = self.store.get(Kind::Reference, &reference.to_string())?;
        Ok(record
            .map(|record| serde_json::from_str(&record))
            .transpose()?)
    }

    fn caches(&self) -> Result<Vec<CacheRecord>, RecordsError> {
        self.list(Kind::BuildCache)
    }

    fn cache(&self, key: &Digest) -> Result<Option<CacheRecord>, RecordsError> {
        let record = self.store.get(Kind::BuildCache, &key.to_string())?;
        Ok(record
            .map(|record| serde_json::from_str(&record))
            .transpose()?)
    }

    fn update(&self, updates: &[Update]) -> Result<(), RecordsError> {
        let removes = |update: &Update| matches!(update, Update::RemoveImage(_));
        // An image's names go with it: those that it has by then.
        let mut names: Vec<ReferenceRecord> = match updates.iter().any(removes) {
            true => self.references()?,
            false => Vec::new(),
        };
        let mut changes = Vec::new();
        for update in updates {
            changes.push(change(update)?);
            match update {
                Update::SetReference(record) => {
                    names.retain(|known| known.reference != record.reference);
                    names.push(record.clone());
                }
                Update::RemoveReference(gone) => names.retain(|known| known.reference != *gone),
                Update::RemoveImage(id) => {
                    let meant = names.extract_if(.., |record| record.means(id));
                    for record in meant.collect::<Vec<_>>() {
                        let reference = record.reference.clone();
                        let left = record.without(id);
                        changes.push(match &left {
                            Some(left) => change(&Update::SetReference(left.clone()))?,
                            None => change(&Update::RemoveReference(reference))?,
                        });
                        names.extend(left);
                    }
                }
                _ => {}
            }
        }
        Ok(self.store.apply(&changes)?)
    }
}

/// What an update means to the table that it is of.
fn change(update: &Update) -> Result<Change, RecordsError> {
    Ok(match update {
        Update::PutImage(record) => Change::Put(
            Kind::Image,
            record.id.to_string(),
            serde_json::to_string(record)?,
        ),
        Update::RemoveImage(id) => Change::Remove(Kind::Image, id.to_string()),
        Update::PutLayer(record) => Change::Put(
            Kind::Layer,
            record.diff_id.to_string(),
            serde_json::to_string(record)?,
        ),
        Update::RemoveLayer(id) => Change::Remove(Kind::Layer, id.to_string()),
        Update::SetReference(record) => {
            let key = record.reference.to_string();
            Change::Put(Kind::Reference, key, serde_json::to_string(record)?)
        }
        Update::RemoveReference(reference) => {
            Change::Remove(Kind::Reference, reference.to_string())
        }
        Update::PutCache(record) => Change::Put(
            Kind::BuildCache,
            record.key.to_string(),
            serde_json::to_string(record)?,
        ),
        Update::RemoveCache(key) => Change::Remove(Kind::BuildCache, key.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_the_image_store_expects() {
        images::records::testsuite::run(&|| {
            let store = Arc::new(Store::in_memory().unwrap());
            Box::new(ImageRecords::new(store))
        });
    }
}
