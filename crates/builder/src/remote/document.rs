//! The list of results that lies beside the layers of a cache: docs/formats/build-cache.md.
//!
//! Invariant: a document that was read refers to layers that it names; it comes from strangers.

use crate::cache::Kept;
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What a cache's configuration is.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.hull.build-cache.config.v1+json";
/// What a cache is.
pub(crate) const ARTIFACT_TYPE: &str = "application/vnd.hull.build-cache.v1";
/// A cache mount: a tar, compressed with gzip.
pub(crate) const MOUNT_TYPE: &str = "application/vnd.hull.build-cache.mount.v1.tar+gzip";
/// The version of what is written here.
const VERSION: u32 = 1;

/// The results of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    version: u32,
    /// The diff IDs of the layers, in the order of the manifest's; in an image, of some of its layers.
    pub(crate) layers: Vec<Digest>,
    results: Vec<Entry>,
    /// The IDs of cache mounts, in the order in which they follow the layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<String>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The digest of what it depends on.
    key: Digest,
    /// The instruction.
    text: String,
    /// Places in the list of layers, the lowest first.
    layers: Vec<usize>,
    /// Whether the last of them is the step's own.
    made_layer: bool,
    /// When it was made, as RFC 3339.
    created: String,
}

impl Document {
    /// The list of some results.
    pub(crate) fn new<'k>(results: impl IntoIterator<Item = &'k Kept>) -> Self {
        let mut layers = Vec::new();
        let mut places = HashMap::new();
        let mut entries = BTreeMap::new();
        for kept in results {
            let place = |layer: &Digest| {
                *places.entry(*layer).or_insert_with(|| {
                    layers.push(*layer);
                    layers.len() - 1
                })
            };
            let entry = Entry {
                key: kept.key,
                text: kept.text.clone(),
                layers: kept.layers.iter().map(place).collect(),
                made_layer: kept.made_layer,
                created: kept.created.clone(),
            };
            entries.insert(kept.key, entry);
        }
        Self {
            version: VERSION,
            layers,
            results: entries.into_values().collect(),
            mounts: Vec::new(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// A sentence on why it is of no use.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        read.checked()
    }

    /// Reads one that is in another document.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub(crate) fn of_value(value: serde_json::Value) -> Result<Self, String> {
        let read: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        read.checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.version != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", self.version));
        }
        let mut places = self.results.iter().flat_map(|entry| &entry.layers);
        match places.find(|place| **place >= self.layers.len()) {
            Some(place) => Err(format!("it has no layer {place}, which a result refers to")),
            None => Ok(self),
        }
    }

    /// Its results by their keys.
    pub(crate) fn results(&self) -> impl Iterator<Item = Kept> + '_ {
        self.results.iter().map(|entry| Kept {
            key: entry.key,
            text: entry.text.clone(),
            layers: entry
                .layers
                .iter()
                .map(|place| self.layers[*place])
                .collect(),
            made_layer: entry.made_layer,
            created: entry.created.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(key: &str, layers: &[&str]) -> Kept {
        Kept {
            key: Digest::sha256(key.as_bytes()),
            text: format!("RUN {key}"),
            layers: layers
                .iter()
                .map(|name| Digest::sha256(name.as_bytes()))
                .collect(),
            made_layer: true,
            created: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn results_are_written_and_read() {
        let all = [
            kept("b", &["1", "2"]),
            kept("a", &["1"]),
            kept("c", &["1", "3"]),
        ];
        let document = Document::new(&all);
        assert_eq!(document.layers.len(), 3);
        let bytes = serde_json::to_vec(&document).unwrap();
        let again = Document::read(&bytes).unwrap();
        assert_eq!(again, document);
        let mut found: Vec<Kept> = again.results().collect();
        found.sort_by(|a, b| a.text.cmp(&b.text));
        assert_eq!(found[1], all[0]);
    }

    #[test]
    fn what_is_foreign_is_refused() {
        let document = serde_json::to_value(Document::new(&[kept("a", &["1"])])).unwrap();
        for (pointer, value) in [
            ("/version", serde_json::json!(2)),
            ("/results/0/layers", serde_json::json!([1])),
            ("/results/0/layers", serde_json::json!([-1])),
            ("/results/0/key", serde_json::json!("md5:00")),
            ("/layers", serde_json::json!("x")),
        ] {
            let mut other = document.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            Document::of_value(other).unwrap_err();
        }
        Document::read(b"{}").unwrap_err();
    }
}
