//! A container's own configuration: what the image and the request say about its process.

use crate::is_default;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Go's `struct{}`, the value of sets: `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// An argument vector. Old clients send one string for a vector of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StrSlice(
    /// The arguments.
    pub Vec<String>,
);

impl From<Vec<String>> for StrSlice {
    fn from(args: Vec<String>) -> Self {
        Self(args)
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = StrSlice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, value: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![value.to_owned()]))
            }

            fn visit_unit<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<StrSlice, A::Error> {
                let mut args = Vec::new();
                while let Some(value) = values.next_element()? {
                    args.push(value);
                }
                Ok(StrSlice(args))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How to find out whether the container is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// Empty: the image's; `["NONE"]`: none; `["CMD", args…]`: execute; `["CMD-SHELL", line]`: in the image's shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds between two checks; 0 inherits.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    /// Nanoseconds until a check counts as failed; 0 inherits.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    /// Nanoseconds after the start in which failures do not count; 0 inherits.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    /// Nanoseconds between checks during the start period; 0 inherits.
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy; 0 inherits.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// Defines [`Config`] and [`crate::CreateRequest`], which has the same fields on the same level and two more. Flattening one
/// into the other would hide the field names from the lenient decoder.
macro_rules! with_config_fields {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            /// The host name; empty for the default (the short id).
            pub hostname: String,
            /// The domain name.
            pub domainname: String,
            /// `user[:group]`, names or numbers, resolved inside the container; empty for root.
            pub user: String,
            /// Attach stdin.
            pub attach_stdin: bool,
            /// Attach stdout.
            pub attach_stdout: bool,
            /// Attach stderr.
            pub attach_stderr: bool,
            /// `port/proto` keys.
            #[serde(skip_serializing_if = "crate::config::unset")]
            pub exposed_ports: Option<BTreeMap<String, Empty>>,
            /// Give the process a terminal.
            pub tty: bool,
            /// Keep stdin open even when nobody is attached.
            pub open_stdin: bool,
            /// Close stdin after the first attached client leaves.
            pub stdin_once: bool,
            /// `NAME=value`; in a create request also `NAME`, which removes the image's.
            pub env: Option<Vec<String>>,
            /// The command, or the arguments of the entrypoint.
            pub cmd: Option<StrSlice>,
            /// The health check.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub healthcheck: Option<HealthConfig>,
            /// Windows: the command is escaped already.
            #[serde(skip_serializing_if = "crate::is_default")]
            pub args_escaped: bool,
            /// The image as the user named it.
            pub image: String,
            /// Mount points of anonymous volumes.
            pub volumes: Option<BTreeMap<String, Empty>>,
            /// The working directory; empty for the image's, else `/`.
            pub working_dir: String,
            /// The entrypoint. `[""]` in a request resets the image's.
            pub entrypoint: Option<StrSlice>,
            /// No network at all.
            #[serde(skip_serializing_if = "crate::is_default")]
            pub network_disabled: bool,
            /// The MAC address of the first endpoint (before API 1.44).
            #[serde(skip_serializing_if = "crate::is_default")]
            pub mac_address: String,
            /// ONBUILD triggers of the image.
            pub on_build: Option<Vec<String>>,
            /// Labels.
            pub labels: Option<BTreeMap<String, String>>,
            /// The signal that asks the process to stop; empty for SIGTERM.
            #[serde(skip_serializing_if = "crate::is_default")]
            pub stop_signal: String,
            /// Seconds between the stop signal and SIGKILL; -1 waits for ever.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub stop_timeout: Option<i64>,
            /// The shell of shell-form commands.
            #[serde(skip_serializing_if = "crate::config::unset_args")]
            pub shell: Option<StrSlice>,
            $($own)*
        }
    };
}
pub(crate) use with_config_fields;

with_config_fields! {
    /// A container's configuration.
    pub struct Config {}
}

/// Go's `omitempty` of a map that may be nil.
pub(crate) fn unset<K, V>(map: &Option<BTreeMap<K, V>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

/// Go's `omitempty` of an argument vector that may be nil.
pub(crate) fn unset_args(args: &Option<StrSlice>) -> bool {
    args.as_ref().is_none_or(|args| args.0.is_empty())
}
