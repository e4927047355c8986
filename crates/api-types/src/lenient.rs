//! Decodes JSON the way Go's `encoding/json` does, which is what every Docker client was tested against.
//!
//! serde's derive is strict where Go is not: it refuses `null` for a string, `"image"` for `"Image"`, and the same key
//! twice. This deserializer sits between a parsed [`Value`] and the derived code: for a struct it knows the field names,
//! so it folds the case of keys and drops nulls there. Types below must not use `#[serde(flatten)]`, which hides the
//! names.

mod list;
mod streamed;

pub use list::List;

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use std::fmt;

/// Why JSON did not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Keys from the outside in, reversed: the innermost comes first while the error travels outwards.
    path: Vec<String>,
    message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.path.iter().rev().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(f, "{dot}{key}")?;
        }
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{colon}{}", self.message)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            message: message.to_string(),
        }
    }
}

/// Decodes one JSON document. An empty body is an error; nesting is limited by the JSON parser (128).
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    match read(json) {
        Ok(value) => Ok(value),
        // What is wrong with it, if anything is, is said by the rules in full.
        Err(_) => read_by_all_rules(json),
    }
}

/// Decodes a document that gives no cause to look twice.
fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(streamed::Streamed(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

fn read_by_all_rules<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let value = serde_json::from_slice(json).map_err(serde::de::Error::custom)?;
    from_value(value)
}

/// Decodes a parsed JSON document.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

struct Lenient(Value);

impl<'de> IntoDeserializer<'de, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A scalar: `null` is Go's zero value, anything else must have the right type.
macro_rules! scalars {
    ($($method:ident => $zero:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => $zero(visitor),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(value) => visitor.visit_string(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::Array(values) => {
                visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(Lenient)))
            }
            Value::Object(entries) => visitor.visit_map(Entries::new(entries)),
        }
    }

    scalars! {
        deserialize_bool => |v: V| v.visit_bool(false),
        deserialize_i8 => |v: V| v.visit_u64(0),
        deserialize_i16 => |v: V| v.visit_u64(0),
        deserialize_i32 => |v: V| v.visit_u64(0),
        deserialize_i64 => |v: V| v.visit_u64(0),
        deserialize_u8 => |v: V| v.visit_u64(0),
        deserialize_u16 => |v: V| v.visit_u64(0),
        deserialize_u32 => |v: V| v.visit_u64(0),
        deserialize_u64 => |v: V| v.visit_u64(0),
        deserialize_f32 => |v: V| v.visit_u64(0),
        deserialize_f64 => |v: V| v.visit_u64(0),
        deserialize_str => |v: V| v.visit_str(""),
        deserialize_string => |v: V| v.visit_str(""),
        deserialize_seq => |v: V| v.visit_seq(SeqDeserializer::new(std::iter::empty::<Lenient>())),
        deserialize_map => |v: V| v.visit_map(MapDeserializer::new(std::iter::empty::<(&str, Lenient)>())),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries::new(serde_json::Map::new())),
            Value::Object(entries) => visitor.visit_map(Entries::folded(entries, fields)),
            // serde's derive would take a list as the fields in their order.
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// The entries of an object; an error on the way out learns the key it passed.
struct Entries {
    entries: std::vec::IntoIter<(String, Value)>,
    current: Option<(String, Value)>,
}

impl Entries {
    fn new(entries: serde_json::Map<String, Value>) -> Self {
        Self {
            entries: entries.into_iter().collect::<Vec<_>>().into_iter(),
            current: None,
        }
    }

    /// Keeps the entries that name a field. The exact spelling wins over another case of the same key.
    fn folded(object: serde_json::Map<String, Value>, fields: &'static [&'static str]) -> Self {
        let mut slots: Vec<Option<Value>> = fields.iter().map(|_| None).collect();
        let mut inexact = Vec::new();
        for (key, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
            match fields.iter().position(|field| *field == key) {
                Some(index) => slots[index] = Some(value),
                None => inexact.push((key, value)),
            }
        }
        for (key, value) in inexact {
            if let Some(index) = fields
                .iter()
                .position(|field| field.eq_ignore_ascii_case(&key))
            {
                slots[index].get_or_insert(value);
            }
        }
        let entries: Vec<(String, Value)> = fields
            .iter()
            .zip(slots)
            .filter_map(|(field, slot)| Some(((*field).to_owned(), slot?)))
            .collect();
        Self {
            entries: entries.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        match &self.current {
            None => Ok(None),
            Some((key, _)) => seed
                .deserialize(StringDeserializer::new(key.clone()))
                .map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self
            .current
            .take()
            .expect("serde asks for the key before its value");
        seed.deserialize(Lenient(value)).map_err(|mut error| {
            error.path.push(key);
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateRequest, HostConfig, StrSlice};

    #[test]
    fn keys_match_in_any_case_and_the_exact_one_wins() {
        let json = br#"{"image":"a","Image":"b","hostconfig":{"MEMORY":7},"Extra":{"x":[1]}}"#;
        let request: CreateRequest = from_slice(json).unwrap();
        assert_eq!(request.image, "b");
        assert_eq!(request.host_config.unwrap().memory, 7);
    }

    #[test]
    fn null_is_the_zero_value_at_every_depth() {
        let json = br#"{"Image":null,"Env":null,"Volumes":{"/x":null},"Labels":{"a":null},
            "HostConfig":{"Binds":[null],"Memory":null,"PortBindings":{"80/tcp":null}}}"#;
        let request: CreateRequest = from_slice(json).unwrap();
        assert_eq!(request.image, "");
        assert_eq!(request.env, None);
        assert!(request.volumes.unwrap().contains_key("/x"));
        assert_eq!(request.labels.unwrap()["a"], "");
        let host: HostConfig = *request.host_config.unwrap();
        assert_eq!(host.binds, Some(vec![String::new()]));
        assert_eq!(host.port_bindings.unwrap()["80/tcp"], None);
    }

    #[test]
    fn what_is_read_at_once_is_what_all_rules_say() {
        use crate::{ContainerSummary, ImageSummary, InspectResponse, JsonMessage};
        fn agree<T: DeserializeOwned + PartialEq + fmt::Debug>(json: &str, at_once: bool) {
            let fast = read::<T>(json.as_bytes());
            assert_eq!(fast.is_ok(), at_once, "{json}: {fast:?}");
            let slow = read_by_all_rules::<T>(json.as_bytes()).unwrap();
            assert_eq!(from_slice::<T>(json.as_bytes()).unwrap(), slow, "{json}");
            if let Ok(fast) = fast {
                assert_eq!(fast, slow, "{json}");
            }
        }
        let container = r#"{"id":"a","Names":["/x"],"Ports":[{"PrivatePort":80,"Type":"tcp"}],"Labels":null,
            "HostConfig":{"NetworkMode":"none","Other":{"x":[null]}},"Mounts":[{"RW":true,"Name":"\u0061"}],
            "NetworkSettings":{"Networks":{"bridge":{"IPPrefixLen":16,"Aliases":null}}},"Created":-7}"#;
        agree::<Vec<ContainerSummary>>(&format!("[{container},{container}]"), true);
        agree::<InspectResponse>(
            r#"{"State":{"Health":null},"config":{"Cmd":"ls","Volumes":{"/v":{}}}}"#,
            true,
        );
        agree::<CreateRequest>(
            r#"{"Image":"a","Cmd":null,"Env":[],"HostConfig":null}"#,
            true,
        );
        agree::<CreateRequest>(r#"{"Image":null}"#, false);
        agree::<CreateRequest>(r#"{"image":"a","Image":"b"}"#, false);
        agree::<ImageSummary>(r#"{"RepoTags":null,"Size":1}"#, false);
        agree::<JsonMessage>(
            r#"{"status":"s","progressDetail":{},"aux":{"a":[1,null,"x"]}}"#,
            true,
        );
    }

    #[test]
    fn a_command_may_be_one_string() {
        let request: CreateRequest = from_slice(br#"{"Cmd":"ls","Entrypoint":["a","b"]}"#).unwrap();
        assert_eq!(request.cmd, Some(StrSlice(vec!["ls".into()])));
        assert_eq!(
            request.entrypoint,
            Some(StrSlice(vec!["a".into(), "b".into()]))
        );
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        for (json, expected) in [
            (
                r#"{"HostConfig":{"Memory":"1g"}}"#,
                "HostConfig.Memory: invalid type: string \"1g\", expected i64",
            ),
            (
                r#"{"HostConfig":{"Memory":1.5}}"#,
                "HostConfig.Memory: invalid type: floating point `1.5`, expected i64",
            ),
            (
                r#"{"Env":{}}"#,
                "Env: invalid type: map, expected a sequence",
            ),
            (
                r#"{"HostConfig":[1]}"#,
                "HostConfig: invalid type: sequence",
            ),
            (
                r#"{"Image":1}"#,
                "Image: invalid type: integer `1`, expected a string",
            ),
            (
                r#"{"HostConfig":{"BlkioWeight":65536}}"#,
                "HostConfig.BlkioWeight: invalid value: integer `65536`, expected u16",
            ),
        ] {
            let error = from_slice::<CreateRequest>(json.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }

    #[test]
    fn broken_and_hostile_documents_are_errors() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for json in [
            "",
            "{",
            "[]",
            "1",
            "\"x\"",
            r#"{"Image":"a"} trailing"#,
            deep.as_str(),
        ] {
            assert!(
                from_slice::<CreateRequest>(json.as_bytes()).is_err(),
                "{:.20}",
                json
            );
        }
    }
}
