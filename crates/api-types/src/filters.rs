//! The `filters` query parameter of lists, prunes and events.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::btree_map::{self, BTreeMap};
use std::collections::btree_set::{self, BTreeSet};
use std::fmt;

/// The largest `filters` parameter that is parsed, in bytes.
const FILTERS_BYTES_MAX: usize = 1 << 20;

/// Names to sets of values. On the wire `{"name":{"value":true}}`, from old clients `{"name":["value"]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Adds a value.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().insert(value.into());
    }

    /// The values of one filter, sorted; empty where it is not given.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .get(name)
            .map(BTreeSet::iter)
            .unwrap_or_default()
            .map(String::as_str)
    }

    /// Whether a filter is given at all.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there are no filters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The filters' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All pairs of name and value, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .flat_map(|(name, values)| values.iter().map(|v| (name.as_str(), v.as_str())))
    }

    /// The value of the query parameter; `None` when there is nothing to filter.
    pub fn to_query(&self) -> Option<String> {
        (!self.is_empty())
            .then(|| serde_json::to_string(self).expect("a map of strings serialises"))
    }

    /// Parses the value of the query parameter; an empty one is no filter.
    pub fn from_query(query: &str) -> Result<Self, crate::Error> {
        if query.is_empty() {
            return Ok(Self::default());
        }
        if query.len() > FILTERS_BYTES_MAX {
            return Err(serde::de::Error::custom(format_args!(
                "filters are longer than {FILTERS_BYTES_MAX} bytes"
            )));
        }
        crate::from_slice(query.as_bytes())
    }
}

impl Serialize for Filters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Set<'a>(btree_set::Iter<'a, String>);
        impl Serialize for Set<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.clone().map(|value| (value, true)))
            }
        }
        let entries: btree_map::Iter<'_, String, BTreeSet<String>> = self.0.iter();
        serializer.collect_map(entries.map(|(name, values)| (name, Set(values.iter()))))
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, Values>::deserialize(deserializer)?;
        Ok(Self(
            map.into_iter()
                .map(|(name, values)| (name, values.0))
                .collect(),
        ))
    }
}

/// The values of one filter in either form. In the newer one, a value that maps to false is given all the same, as in
/// Docker's engine.
struct Values(BTreeSet<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings or a map of strings to booleans")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut values = BTreeSet::new();
                while let Some(value) = seq.next_element()? {
                    values.insert(value);
                }
                Ok(Values(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values = BTreeSet::new();
                while let Some((value, _)) = map.next_entry::<String, bool>()? {
                    values.insert(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse_to_the_same() {
        let new =
            Filters::from_query(r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#);
        let old = Filters::from_query(r#"{"label":["a=b","c"],"status":["exited"]}"#);
        assert_eq!(new, old);
        let filters = new.unwrap();
        assert_eq!(filters.get("label").collect::<Vec<_>>(), ["a=b", "c"]);
        assert_eq!(filters.get("none").count(), 0);
        assert_eq!(
            filters.to_query().unwrap(),
            r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#
        );
    }

    #[test]
    fn nothing_is_no_parameter() {
        assert_eq!(Filters::from_query("").unwrap().to_query(), None);
        assert_eq!(Filters::from_query("{}").unwrap().to_query(), None);
    }

    #[test]
    fn malformed_filters_are_errors() {
        let long = format!(r#"{{"a":["{}"]}}"#, "x".repeat(FILTERS_BYTES_MAX));
        for query in [
            "x",
            "[]",
            r#"{"a":1}"#,
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":[1]}"#,
            &long,
        ] {
            assert!(Filters::from_query(query).is_err(), "{query:.30}");
        }
    }
}
