//! Values of templates from JSON, with what Docker's structs have in Go beyond their JSON, and back.

use super::LABELS;
use gtmpl_ng::{FuncError, Value};
use std::collections::HashMap;

/// A template's value of a JSON document: a map, in which a missing key is `<no value>`.
pub(super) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::Array(values) => Value::Array(values.iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect(),
        ),
    }
}

/// Names that Docker's own structs have in Go and that its JSON spells otherwise: templates may use either.
const ALIASES: &[(&str, &str)] = &[
    ("Id", "ID"),
    ("ApiVersion", "APIVersion"),
    ("CpuShares", "CPUShares"),
    ("NanoCpus", "NanoCPUs"),
    ("CpuPeriod", "CPUPeriod"),
    ("CpuQuota", "CPUQuota"),
    ("CpuRealtimePeriod", "CPURealtimePeriod"),
    ("CpuRealtimeRuntime", "CPURealtimeRuntime"),
    ("CpuCount", "CPUCount"),
    ("CpuPercent", "CPUPercent"),
    ("CpuCfsPeriod", "CPUCfsPeriod"),
    ("CpuCfsQuota", "CPUCfsQuota"),
    ("Dns", "DNS"),
    ("DnsOptions", "DNSOptions"),
    ("DnsSearch", "DNSSearch"),
    ("HttpProxy", "HTTPProxy"),
    ("HttpsProxy", "HTTPSProxy"),
    ("id", "ID"),
    ("status", "Status"),
    ("from", "From"),
    ("scope", "Scope"),
    ("time", "Time"),
    ("timeNano", "TimeNano"),
];

/// Fields that Docker's JSON leaves out when they are empty, and that templates may ask for all the same.
const OPTIONAL: &[&str] = &[
    "Annotations",
    "ArgsEscaped",
    "CreatedAt",
    "Descriptor",
    "Driver",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Health",
    "Healthcheck",
    "ImageManifestDescriptor",
    "Init",
    "Labels",
    "MacAddress",
    "Mounts",
    "Name",
    "NetworkDisabled",
    "OnBuild",
    "OsVersion",
    "Peers",
    "Runtime",
    "Shell",
    "SizeRootFs",
    "SizeRw",
    "Status",
    "StopSignal",
    "StopTimeout",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Type",
    "UsageData",
    "User",
    "Variant",
    "Volumes",
    "WorkingDir",
];

/// Fields that hold a map of the user's keys and not a struct of Docker's.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "EndpointsConfig",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "Networks",
    "Options",
    "Ports",
    "PortBindings",
    "Runtimes",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "status",
];

/// What a template asks for beyond what JSON has.
pub(super) struct Extras {
    optional: Vec<&'static str>,
    aliases: Vec<(&'static str, &'static str)>,
}

impl Extras {
    /// Those that a template's text has somewhere.
    pub(super) fn named_in(text: &str) -> Self {
        let optional = OPTIONAL.iter().filter(|name| text.contains(**name));
        let aliases = ALIASES.iter().filter(|(_, go)| text.contains(go));
        Self {
            optional: optional.copied().collect(),
            aliases: aliases.copied().collect(),
        }
    }

    pub(super) fn value(&self, json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Array(values) => {
                Value::Array(values.iter().map(|value| self.value(value)).collect())
            }
            serde_json::Value::Object(entries) => self.fields(entries),
            scalar => from_json(scalar),
        }
    }

    fn fields(&self, entries: &serde_json::Map<String, serde_json::Value>) -> Value {
        let mut fields: HashMap<String, Value> = self
            .optional
            .iter()
            .map(|name| ((*name).to_owned(), Value::Nil))
            .collect();
        for (name, value) in entries {
            let value = match (MAPS.contains(&name.as_str()), value) {
                (true, serde_json::Value::Object(entries)) => Value::Map(
                    entries
                        .iter()
                        .map(|(key, value)| (key.clone(), self.value(value)))
                        .collect(),
                ),
                (_, value) => self.value(value),
            };
            fields.insert(name.clone(), value);
        }
        for (wire, go) in &self.aliases {
            if let Some(value) = entries.get(*wire) {
                fields.insert((*go).to_owned(), self.value(value));
            }
        }
        Value::Object(fields)
    }
}

/// Whether a struct has this field only for templates' sake.
fn is_extra(fields: &HashMap<String, Value>, name: &str, value: &Value) -> bool {
    let absent = matches!(value, Value::Nil) && OPTIONAL.contains(&name);
    let alias = || {
        ALIASES
            .iter()
            .any(|(wire, go)| *go == name && fields.contains_key(*wire))
    };
    name == LABELS || absent || alias()
}

/// Compact JSON with sorted keys.
pub(super) fn to_json(value: &Value) -> Result<String, FuncError> {
    fn convert(value: &Value) -> Option<serde_json::Value> {
        Some(match value {
            Value::NoValue | Value::Nil => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::String(text) => text.as_str().into(),
            // A number prints as JSON's grammar has it.
            Value::Number(_) => serde_json::from_str(&value.to_string()).ok()?,
            Value::Array(values) => {
                serde_json::Value::Array(values.iter().map(convert).collect::<Option<_>>()?)
            }
            Value::Object(fields) => fields
                .iter()
                .filter(|(name, value)| !is_extra(fields, name, value))
                .map(|(name, value)| Some((name.clone(), convert(value)?)))
                .collect::<Option<_>>()?,
            Value::Map(entries) => entries
                .iter()
                .map(|(name, value)| Some((name.clone(), convert(value)?)))
                .collect::<Option<_>>()?,
            Value::Function(_) => return None,
        })
    }
    let json = convert(value).ok_or_else(|| FuncError::Generic("not a JSON value".to_owned()))?;
    Ok(json.to_string())
}
