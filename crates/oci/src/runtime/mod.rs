//! The runtime specification's configuration (`config.json`), state and features, version 1.3.
//!
//! Reading is lenient the way other runtimes are: unknown fields are ignored, Go's `null` for an empty list or map is an
//! empty one, and words that newer specifications may add (capabilities, architectures, mount options …) stay strings, so
//! that the runtime decides whether an unknown one is a warning or an error. Writing omits what is unset.
//!
//! Source: opencontainers/runtime-spec `config.md`, `config-linux.md`, `runtime.md`, `features.md`.

mod features;
mod linux;
mod process;
mod resources;
mod seccomp;
mod state;

pub use features::*;
pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;
pub use state::*;

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The newest version of the specification these types describe.
pub const VERSION: &str = "1.3.0";

/// Free-form key and value pairs.
pub type Annotations = BTreeMap<String, String>;

/// A container's configuration: the content of a bundle's `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The specification version the bundle complies with, as semantic version.
    pub oci_version: String,
    /// The container's process; needed by `start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The hostname, set in the container's UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The NIS domain name, set in the container's UTS namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounts beyond the root, made in this order.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    /// Programs to run at points of the lifecycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free-form metadata.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: Annotations,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// The root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: PathBuf,
    /// Whether the container may not write to it.
    #[serde(skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// A mount below the root.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Absolute path inside the container.
    pub destination: PathBuf,
    /// Filesystem type as in `/proc/filesystems`; `bind`, or unset with a bind option.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Device, or for bind mounts a path: absolute, or relative to the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Options as fstab(5) spells them, with the specification's additions.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    /// User ids of an idmapped mount.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an idmapped mount.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs to run at points of the lifecycle, in listed order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated: with `createRuntime`, before it.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, after the container's were made and before its root was entered.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub create_container: Vec<Hook>,
    /// In the container's namespaces and root, before its process is executed.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the container's process was executed.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container was deleted.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub poststop: Vec<Hook>,
}

/// One program to run; it reads the container's [`State`] from its standard input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments, the first being the program's own name.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    /// Environment as `NAME=value`.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// Seconds until it is killed; more than zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Go's encoder writes an empty slice or map as `null`.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_list_is_an_empty_one() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","mounts":null,"annotations":null,
                "process":{"args":null,"cwd":"/","capabilities":{"bounding":null}},
                "linux":{"namespaces":null,"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":null}}}"#,
        )
        .unwrap();
        assert_eq!(spec.mounts, []);
        assert!(spec.process.unwrap().args.is_empty());
    }

    #[test]
    fn unknown_words_and_fields_survive_the_parse() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"9.9.9","future":{"x":1},
                "process":{"cwd":"/","capabilities":{"bounding":["CAP_FROM_THE_FUTURE"]},
                           "rlimits":[{"type":"RLIMIT_NEW","hard":1,"soft":1}]},
                "linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NEW"]}}}"#,
        )
        .unwrap();
        let capabilities = spec.process.unwrap().capabilities.unwrap();
        assert_eq!(capabilities.bounding, ["CAP_FROM_THE_FUTURE"]);
    }

    #[test]
    fn an_unknown_namespace_or_action_is_refused() {
        let namespace = r#"{"linux":{"namespaces":[{"type":"dimension"}]}}"#;
        let error = serde_json::from_str::<Spec>(namespace)
            .unwrap_err()
            .to_string();
        assert!(error.contains("dimension"), "{error}");
        let action = r#"{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_PRAY"}}}"#;
        assert!(serde_json::from_str::<Spec>(action).is_err());
    }

    #[test]
    fn what_is_unset_is_not_written() {
        let spec = Spec {
            oci_version: VERSION.into(),
            ..Spec::default()
        };
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"ociVersion":"1.3.0"}"#
        );
    }
}
