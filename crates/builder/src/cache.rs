//! What a step depends on, and what it led to the last time.
//!
//! Invariant: the key is the digest of everything that the result depends on: the layers below, the whole configuration that the
//! step sees, its text after expansion, and files by content, mode and owner (CVE-2024-24557). Times of files are no part of it,
//! nor are secrets. What is remembered of inputs are digests: no value of an argument is kept.

use crate::build::Build;
use crate::error::{Doing, Result};
use images::Hold;
use images::records::CacheRecord;
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Inputs that are remembered one by one; of a step with more, one digest of all.
const INPUTS_MAX: usize = 4096;
/// Changed inputs that an explanation names.
const NAMED_MAX: usize = 3;
/// Version of the keys: another meaning of an input needs another.
const KEYS_VERSION: &str = "1";

/// Everything that the result of a step depends on, by name.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    kind: &'static str,
    values: BTreeMap<String, Digest>,
    /// The digest of all, once it was asked for.
    key: OnceCell<Digest>,
}

impl Inputs {
    /// Begins with the layers below.
    pub(crate) fn new(kind: &'static str, layers: &[Digest]) -> Self {
        let mut inputs = Self {
            kind,
            values: BTreeMap::new(),
            key: OnceCell::new(),
        };
        let below: Vec<String> = layers.iter().map(Digest::to_string).collect();
        inputs.add("what is below", &below.join(" "));
        inputs
    }

    /// Adds an input. `name` is what people call it.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: &str) {
        self.key.take();
        self.values
            .insert(name.into(), Digest::sha256(value.as_bytes()));
    }

    fn key(&self) -> Digest {
        *self.key.get_or_init(|| {
            let mut text = format!("{KEYS_VERSION}\0{}\0", self.kind);
            for (name, value) in &self.values {
                let value = value.to_string();
                for part in [name, "\0", &value, "\0"] {
                    text.push_str(part);
                }
            }
            Digest::sha256(text.as_bytes())
        })
    }

    fn remembered(&self) -> BTreeMap<String, Digest> {
        match self.values.len() <= INPUTS_MAX {
            true => self.values.clone(),
            false => BTreeMap::from([("many files".to_owned(), self.key())]),
        }
    }
}

/// What is remembered of a result besides its layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The instruction as it is written.
    pub(crate) text: String,
    /// Whether it made a layer, which is the last then.
    pub(crate) made_layer: bool,
    /// When, as RFC 3339: part of images that are made of it.
    pub(crate) created: String,
    /// When it was last of use, in seconds since 1970.
    pub(crate) used_s: i64,
    /// How often it was.
    pub(crate) uses: u64,
    inputs: BTreeMap<String, Digest>,
}

/// A result of a step of this build, as it can be told elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) key: Digest,
    /// The instruction as it is written.
    pub(crate) text: String,
    pub(crate) layers: Vec<Digest>,
    /// Whether it made a layer, which is the last then.
    pub(crate) made_layer: bool,
    /// When, as RFC 3339.
    pub(crate) created: String,
}

/// A result that is there.
#[derive(Debug)]
pub(crate) struct Hit<'a> {
    pub(crate) layers: Vec<Digest>,
    pub(crate) made_layer: bool,
    pub(crate) created: String,
    pub(crate) hold: Hold<'a>,
}

/// Looks for the result of a step, and notes that it was of use.
pub(crate) fn look_up<'a>(build: &Build<'a>, inputs: &Inputs) -> Result<Option<Hit<'a>>> {
    let doing = || "look into the build cache".to_owned();
    let key = inputs.key();
    let here = build.images.cached(&key).doing(doing)?;
    // A document of another release says nothing here.
    let here = here.and_then(|(record, hold)| {
        let remembered = serde_json::from_value::<Remembered>(record.document).ok()?;
        Some((record.layers, remembered, hold))
    });
    let (layers, mut remembered, hold) = match here {
        Some(here) => here,
        None => match build.imported().result(build, &key)? {
            None => return Ok(None),
            Some((kept, hold)) => {
                let (layers, remembered) = Remembered::of(kept, inputs);
                (layers, remembered, hold)
            }
        },
    };
    remembered.used_s = jiff::Timestamp::now().as_second();
    remembered.uses += 1;
    keep(build, key, &layers, &remembered)?;
    Ok(Some(Hit {
        layers,
        made_layer: remembered.made_layer,
        created: remembered.created,
        hold,
    }))
}

impl Remembered {
    /// What is remembered here of a result from elsewhere.
    fn of(kept: Kept, inputs: &Inputs) -> (Vec<Digest>, Self) {
        let remembered = Self {
            text: kept.text,
            made_layer: kept.made_layer,
            created: kept.created,
            used_s: 0,
            uses: 0,
            inputs: inputs.remembered(),
        };
        (kept.layers, remembered)
    }
}

/// Remembers the result of a step.
pub(crate) fn remember(
    build: &Build<'_>,
    inputs: &Inputs,
    text: &str,
    layers: &[Digest],
    made_layer: bool,
    created: &str,
) -> Result<()> {
    let remembered = Remembered {
        text: text.to_owned(),
        made_layer,
        created: created.to_owned(),
        used_s: jiff::Timestamp::now().as_second(),
        uses: 0,
        inputs: inputs.remembered(),
    };
    keep(build, inputs.key(), layers, &remembered)
}

/// Keeps a result here, and notes that it is one of this build.
fn keep(build: &Build<'_>, key: Digest, layers: &[Digest], remembered: &Remembered) -> Result<()> {
    let record = CacheRecord {
        key,
        layers: layers.to_vec(),
        document: serde_json::to_value(remembered).expect("it has only strings as keys"),
    };
    { build.images.keep(record) }.doing(|| "write the build cache".to_owned())?;
    build.note_kept(Kept {
        key,
        text: remembered.text.clone(),
        layers: layers.to_vec(),
        made_layer: remembered.made_layer,
        created: remembered.created.clone(),
    });
    Ok(())
}

/// Why there was no result: in what the step differs from the one with its text that differs least, or was used last of those.
pub(crate) fn explain(build: &Build<'_>, inputs: &Inputs, text: &str) -> Result<String> {
    let records = build
        .images
        .caches()
        .doing(|| "read the build cache".to_owned())?;
    let same = records
        .into_iter()
        .filter_map(|record| serde_json::from_value::<Remembered>(record.document).ok())
        .filter(|remembered| remembered.text == text);
    let new = inputs.remembered();
    let nearest = same.min_by_key(|it| (changes(&it.inputs, &new).len(), Reverse(it.used_s)));
    Ok(match nearest {
        None => "no step with this text is in the cache".to_owned(),
        Some(nearest) => difference(&nearest.inputs, &new),
    })
}

/// Each input in which two steps differ, the changed ones first.
fn changes(old: &BTreeMap<String, Digest>, new: &BTreeMap<String, Digest>) -> Vec<String> {
    let added = new
        .keys()
        .filter(|name| !old.contains_key(*name))
        .map(|name| format!("{name} is new"));
    let changed = new
        .iter()
        .filter(|(name, value)| old.get(*name).is_some_and(|old| old != *value))
        .map(|(name, _)| format!("{name} has changed"));
    let gone = old
        .keys()
        .filter(|name| !new.contains_key(*name))
        .map(|name| format!("{name} is gone"));
    changed.chain(added).chain(gone).collect()
}

fn difference(old: &BTreeMap<String, Digest>, new: &BTreeMap<String, Digest>) -> String {
    match changes(old, new).as_slice() {
        [] => "its result was removed".to_owned(),
        few if few.len() <= NAMED_MAX => few.join(", "),
        many => {
            let rest = many.len() - NAMED_MAX;
            format!("{}, and {rest} more", many[..NAMED_MAX].join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> Inputs {
        let mut inputs = Inputs::new("run", &[]);
        for (name, value) in pairs {
            inputs.add(*name, value);
        }
        inputs
    }

    #[test]
    fn every_input_counts() {
        let one = inputs(&[("a", "1"), ("b", "2")]);
        assert_eq!(one.key(), inputs(&[("b", "2"), ("a", "1")]).key());
        for other in [
            &[("a", "1")][..],
            &[("a", "2"), ("b", "1")],
            &[("a", "1"), ("c", "2")],
        ] {
            assert_ne!(one.key(), inputs(other).key());
        }
        assert_ne!(
            Inputs::new("run", &[]).key(),
            Inputs::new("copy", &[]).key()
        );
        let layer = Digest::sha256(b"layer");
        assert_ne!(
            Inputs::new("run", &[]).key(),
            Inputs::new("run", &[layer]).key()
        );
    }

    #[test]
    fn differences_are_named() {
        let difference = |old: &[(&str, &str)], new: &[(&str, &str)]| {
            difference(&inputs(old).remembered(), &inputs(new).remembered())
        };
        assert_eq!(
            difference(&[("argument A", "1")], &[("argument A", "2")]),
            "argument A has changed"
        );
        assert_eq!(
            difference(&[("x", "1")], &[("y", "1")]),
            "y is new, x is gone"
        );
        assert_eq!(difference(&[], &[]), "its result was removed");
        let many = [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")];
        assert_eq!(
            difference(&[], &many),
            "a is new, b is new, c is new, and 2 more"
        );
    }
}
