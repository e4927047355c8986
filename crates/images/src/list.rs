//! Finding images by name and ID, listing them, naming them.

use crate::image::{Image, ListFilter};
use crate::records::{ImageId, ImageRecord, ReferenceRecord};
use crate::{Error, Images, Result, platform};
use jiff::Timestamp;
use oci::image::{CONFIG_BYTES_MAX, ConfigFile, History, Platform};
use oci::{Digest, Reference};
use patterns::Pattern;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Hexadecimal digits of an ID that people see.
const SHORT_ID_DIGITS: usize = 12;
/// Hexadecimal digits of a whole ID.
const ID_DIGITS: usize = 64;

impl Images {
    /// As [`Images::get`]: of the images that a name means, the one for a platform, if that is wanted. None that runs there
    /// counts as not there.
    pub fn get_for(&self, name_or_id: &str, wanted: Option<&Platform>) -> Result<Image> {
        let ids = self.resolve(name_or_id)?;
        let id = match wanted {
            None => ids[0],
            Some(wanted) => self.choose(name_or_id, &ids, wanted)?,
        };
        let record = self.records.image(&id).map_err(Error::Records)?;
        let record = record.ok_or_else(|| missing(name_or_id))?;
        let size = self.size(&record)?;
        let names = self.records.references().map_err(Error::Records)?;
        let others = others_of(&id, &names);
        let names = names.into_iter().filter(|name| name.means(&id));
        let names = names.map(|name| name.reference).collect();
        self.image(record, names, others, size)
    }

    /// The image with this name, ID or unambiguous start of an ID.
    pub fn get(&self, name_or_id: &str) -> Result<Image> {
        self.get_for(name_or_id, None)
    }

    /// Of images, the one for a platform.
    pub(crate) fn choose(&self, name: &str, ids: &[ImageId], wanted: &Platform) -> Result<ImageId> {
        let configs = ids.iter().map(|id| Ok((self.config(id)?, *id)));
        let configs = configs.collect::<Result<Vec<_>>>()?;
        let all = configs.iter().map(|(config, id)| (&config.platform, *id));
        platform::best(all, wanted).ok_or_else(|| Error::OtherPlatform {
            name: name.to_owned(),
            found: shown(&configs),
            wanted: platform::shown(wanted),
        })
    }

    /// Lists images, the youngest first. Those for other platforms that only names of another image mean are told of with that.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Image>> {
        let patterns = filter.references.iter().map(|text| pattern(text));
        let patterns = patterns.collect::<Result<Vec<_>>>()?;
        let created = |name: &Option<String>| -> Result<Option<Timestamp>> {
            name.as_ref()
                .map(|name| Ok(self.get(name)?.created().unwrap_or_default()))
                .transpose()
        };
        let (before, since) = (created(&filter.before)?, created(&filter.since)?);
        let records = self.records.references().map_err(Error::Records)?;
        let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
        for record in &records {
            let names = names.entry(record.image).or_default();
            names.push(record.reference.clone());
        }
        let beside: HashSet<ImageId> = { records.iter() }
            .flat_map(|record| record.others.iter().copied())
            .filter(|id| !names.contains_key(id))
            .collect();
        let sizes = self.layer_sizes()?;
        let stacks = self.records.images().map_err(Error::Records)?;
        let size = |record: &ImageRecord| -> u64 {
            record.layers.iter().filter_map(|id| sizes.get(id)).sum()
        };
        let all: HashMap<ImageId, u64> = { stacks.iter() }
            .map(|record| (record.id, size(record)))
            .collect();
        let mut images = Vec::new();
        for record in stacks {
            if beside.contains(&record.id) {
                continue;
            }
            let others = others_of(&record.id, &records);
            let ids = std::iter::once(&record.id).chain(&others);
            let size = ids.filter_map(|id| all.get(id)).sum();
            let references = names.remove(&record.id).unwrap_or_default();
            let mut image = self.image(record, references, others, size)?;
            let time = image.created().unwrap_or_default();
            let in_time = before.is_none_or(|before| time < before)
                && since.is_none_or(|since| time > since)
                && filter.until.is_none_or(|until| time < until);
            if in_time && has_labels(&image, filter) && has_names(&mut image, filter, &patterns) {
                images.push(image);
            }
        }
        images.sort_by_key(|image| (std::cmp::Reverse(image.created()), image.id));
        Ok(images)
    }

    /// How an image came to be, the last step first, with the size of the layer that each step made.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<(History, u64)>> {
        let image = self.get(name_or_id)?;
        let sizes = self.layer_sizes()?;
        let mut layers = image.layers().iter();
        let mut history = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer {
                None
            } else {
                layers.next()
            };
            history.push((
                step.clone(),
                layer.and_then(|id| sizes.get(id)).copied().unwrap_or(0),
            ));
        }
        // Configurations need not tell of every layer.
        for layer in layers {
            let step = History {
                comment: "<missing>".to_owned(),
                ..History::default()
            };
            history.push((step, sizes.get(layer).copied().unwrap_or(0)));
        }
        history.reverse();
        Ok(history)
    }

    /// Gives an image, or all that a name means, another name, taking it from whatever image had it.
    pub fn tag(&self, name_or_id: &str, target: &Reference) -> Result<()> {
        if target.digest().is_some() {
            let reason = "refusing to create a tag with a digest reference".to_owned();
            return Err(Error::Argument(reason));
        }
        self.add_references(|| {
            let images = self.resolve(name_or_id)?;
            let target = target.clone().to_target();
            Ok(vec![ReferenceRecord::of(target, &images)])
        })
    }

    /// Notes under which digest a registry has an image of this store, or several, and their manifests there.
    pub fn note_pushed(&self, images: &[(ImageId, Vec<u8>)], reference: Reference) -> Result<()> {
        for (id, manifest) in images {
            self.replace_manifest(id, Digest::sha256(manifest), manifest)?;
        }
        let ids: Vec<ImageId> = images.iter().map(|(id, _)| *id).collect();
        self.add_references(|| Ok(vec![ReferenceRecord::of(reference, &ids)]))
    }

    /// The tags that a repository has here, ordered.
    pub fn tags_of(&self, name: &Reference) -> Result<Vec<Reference>> {
        let records = self.records.references().map_err(Error::Records)?;
        let names = records.into_iter().map(|record| record.reference);
        let mut tags: Vec<Reference> = names
            .filter(|other| other.tag().is_some() && other.same_repository(name))
            .collect();
        tags.sort();
        Ok(tags)
    }

    /// What a name, an ID or the start of an ID means; names come first. It is one image at least, and first the one that is
    /// meant where no platform is asked for.
    pub(crate) fn resolve(&self, name_or_id: &str) -> Result<Vec<ImageId>> {
        let missing = || missing(name_or_id);
        if let Ok(id) = name_or_id.parse::<Digest>() {
            return match self.records.image(&id).map_err(Error::Records)? {
                Some(record) => Ok(vec![record.id]),
                None => Err(missing()),
            };
        }
        if let Ok(reference) = name_or_id.parse::<Reference>() {
            let found = self.records.reference(&reference.to_target());
            if let Some(record) = found.map_err(Error::Records)? {
                return Ok(record.images().collect());
            }
        }
        let hex = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
        if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(missing());
        }
        let images = self.records.images().map_err(Error::Records)?;
        let mut found = images
            .iter()
            .filter(|image| image.id.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(image), None) => Ok(vec![image.id]),
            (Some(_), Some(_)) => Err(Error::AmbiguousId(name_or_id.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// The names of an image, ordered.
    pub(crate) fn references_of(&self, id: &ImageId) -> Result<Vec<Reference>> {
        let records = self.records.references().map_err(Error::Records)?;
        let mut names: Vec<_> = records
            .into_iter()
            .filter(|r| r.means(id))
            .map(|r| r.reference)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Makes what a caller sees of an image.
    fn image(
        &self,
        record: ImageRecord,
        mut names: Vec<Reference>,
        others: Vec<ImageId>,
        size: u64,
    ) -> Result<Image> {
        names.sort();
        let config = self.config(&record.id)?;
        let (digests, tags) = names.into_iter().partition(|name| name.digest().is_some());
        Ok(Image {
            id: record.id,
            record,
            config,
            tags,
            digests,
            others,
            size,
        })
    }

    /// The configuration of an image.
    pub(crate) fn config(&self, id: &ImageId) -> Result<Arc<ConfigFile>> {
        self.configs.get(id, || {
            let bytes = self.blob(id, CONFIG_BYTES_MAX)?;
            let what = id.to_string();
            ConfigFile::parse(&bytes).map_err(|source| Error::Document { what, source })
        })
    }

    pub(crate) fn layer_sizes(&self) -> Result<HashMap<Digest, u64>> {
        let layers = self.records.layers().map_err(Error::Records)?;
        Ok(layers
            .into_iter()
            .map(|layer| (layer.diff_id, layer.size))
            .collect())
    }

    fn size(&self, record: &ImageRecord) -> Result<u64> {
        let sizes = self.layer_sizes()?;
        Ok(record.layers.iter().filter_map(|id| sizes.get(id)).sum())
    }
}

/// The images for other platforms that the names of an image mean.
fn others_of(id: &ImageId, names: &[ReferenceRecord]) -> Vec<ImageId> {
    let mut others = Vec::new();
    let named = names.iter().filter(|name| name.image == *id);
    for other in named.flat_map(|name| &name.others) {
        if !others.contains(other) {
            others.push(*other);
        }
    }
    others
}

/// The platforms of images, as people write them.
fn shown(images: &[(Arc<ConfigFile>, ImageId)]) -> String {
    let all = images
        .iter()
        .map(|(config, _)| platform::shown(&config.platform));
    all.collect::<Vec<_>>().join(", ")
}

/// Nothing has this name or ID. A name is told with the tag that was meant, as Docker does.
fn missing(name_or_id: &str) -> Error {
    let named = match name_or_id.parse::<Digest>() {
        Ok(_) => None,
        Err(_) => name_or_id.parse::<Reference>().ok(),
    };
    let shown = named.map(|named| named.to_target().familiar());
    Error::NoSuchImage(shown.unwrap_or_else(|| name_or_id.to_owned()))
}

/// Whether an image has the labels that are asked for, and none that are not wanted.
fn has_labels(image: &Image, filter: &ListFilter) -> bool {
    let labels = &image.config.config.labels;
    let has = |(key, value): &(String, Option<String>)| match (labels.get(key), value) {
        (Some(found), Some(value)) => found == value,
        (found, _) => found.is_some(),
    };
    filter.labels.iter().all(has) && !filter.without_labels.iter().any(has)
}

/// A pattern of names, as `--filter reference=` takes them: Go's `path.Match`.
fn pattern(text: &str) -> Result<Pattern> {
    let malformed = || Error::Argument(format!("{text:?} is a malformed pattern"));
    Pattern::new(text, false).ok_or_else(malformed)
}

/// Whether an image is named as it is asked for; leaves the names that are.
fn has_names(image: &mut Image, filter: &ListFilter, patterns: &[Pattern]) -> bool {
    if filter
        .dangling
        .is_some_and(|dangling| dangling != image.is_dangling())
    {
        return false;
    }
    if patterns.is_empty() {
        return true;
    }
    // A name matches whole, or without its tag.
    let matches = |name: &Reference| {
        let (whole, untagged) = (name.familiar(), name.familiar_name());
        let mut patterns = patterns.iter();
        patterns.any(|pattern| pattern.matches(&whole) || pattern.matches(&untagged))
    };
    image.tags.retain(matches);
    image.digests.retain(matches);
    !image.tags.is_empty() || !image.digests.is_empty()
}

/// An ID as people see it.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT_ID_DIGITS).unwrap_or(hex)
}

/// Whether a text, which resolved to an image, was its ID or the start of it rather than a name.
pub(crate) fn is_id_of(text: &str, id: &ImageId) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() <= ID_DIGITS && id.hex().starts_with(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_tag() {
        let id = format!("sha256:{}", "a".repeat(64));
        for (text, told) in [
            ("x", "x:latest"),
            ("docker.io/library/x:1", "x:1"),
            (id.as_str(), id.as_str()),
            ("No Name", "No Name"),
        ] {
            assert_eq!(missing(text).to_string(), format!("No such image: {told}"));
        }
    }
}
