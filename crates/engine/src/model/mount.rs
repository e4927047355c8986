//! What is mounted in a container.

use crate::mounts::Secret;
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Something mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Not writable.
    pub read_only: bool,
    /// How it was asked for.
    #[serde(default)]
    pub form: MountForm,
}

/// How a mount was asked for, which inspection shows again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountForm {
    /// In one word (`-v`, `--tmpfs`).
    #[default]
    Short,
    /// In fields (`--mount`).
    Long,
    /// Not at all: another container, or the image, has it.
    Inherited,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute.
        path: PathBuf,
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; None: `rprivate`.
        propagation: Option<String>,
        /// Without the mounts below it.
        non_recursive: bool,
        /// Read-only counts for the mounts below it, too.
        recursive_read_only: bool,
        /// Made as a directory when it is not there (`-v`), else an error (`--mount`).
        create: bool,
        /// How the request said it, for inspection.
        mode: String,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// Whether the name was made up for this container.
        anonymous: bool,
        /// Do not fill an empty volume with what the image has there.
        no_copy: bool,
        /// Only this path of it; empty: all.
        #[serde(default)]
        subpath: String,
        /// Labels that it gets if it is made for this container.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// Options of its driver, likewise.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// How the request said it, for inspection.
        mode: String,
    },
    /// The files of an image, read-only.
    Image {
        /// How the request named it.
        reference: String,
        /// Its id; empty in a request.
        id: String,
        /// Only this path of it; empty: all.
        subpath: String,
    },
    /// The files of layers without an image, the lowest first. Whoever makes the container holds them; what is written to them goes
    /// with the container.
    Layers {
        /// Their diff IDs.
        layers: Vec<Digest>,
        /// Only this path of them; empty: all.
        subpath: String,
    },
    /// The files of a directory of the host, which nobody changes meanwhile: what is written to them goes with the container.
    Overlaid {
        /// Absolute.
        directory: PathBuf,
        /// Only this path of it, links in it being its own; empty: all.
        subpath: String,
    },
    /// A file of the host in memory of its own, read-only.
    Secret(Secret),
    /// Memory.
    Tmpfs {
        /// Options as mount(8), `size=64m`.
        options: Vec<String>,
    },
}
