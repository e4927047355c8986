//! Images: list, inspect, history, removal.

use crate::{DriverData, Empty, HealthConfig, is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an OCI manifest or index says of a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// The blob's media type.
    pub media_type: String,
    /// `algorithm:hex`.
    pub digest: String,
    /// Bytes.
    pub size: i64,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the image runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Go's name of the processor: `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Windows' version.
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    pub os_version: String,
    /// Required features.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The processor's variant: `v8`.
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

/// An element of `GET /images/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// Containers of this image; -1 not counted.
    pub containers: i64,
    /// Seconds since the epoch.
    pub created: i64,
    /// `sha256:<hex>` of the configuration.
    pub id: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The image this was built on, where known.
    pub parent_id: String,
    /// The image's manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// What there is for each platform, where that is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestSummary>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images; -1 not counted.
    pub shared_size: i64,
    /// Bytes of all layers.
    pub size: i64,
    /// As `size`, for API versions before 1.44.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_size: i64,
}

/// The answer of `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    /// `sha256:<hex>` of the configuration.
    pub id: String,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// The image this was built on, where known.
    pub parent: String,
    /// The message of a commit or import.
    pub comment: String,
    /// RFC 3339 with nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
    /// The Docker version that made it.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// What its containers start from.
    pub config: Option<ImageConfig>,
    /// Go's name of the processor: `amd64`.
    pub architecture: String,
    /// The processor's variant.
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Windows' version.
    #[serde(skip_serializing_if = "is_default")]
    pub os_version: String,
    /// Bytes of all layers.
    pub size: i64,
    /// As `size`, for API versions before 1.44.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_size: i64,
    /// Where its layers are.
    pub graph_driver: DriverData,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What only this host knows of it.
    pub metadata: ImageMetadata,
    /// The image's manifest or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// What there is for each platform, where that is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<ManifestSummary>,
}

/// One of the images that a name means, each for a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestSummary {
    /// `sha256:<hex>`, by which the image is found.
    #[serde(rename = "ID")]
    pub id: String,
    /// The manifest.
    pub descriptor: Descriptor,
    /// Whether all of it is there.
    pub available: bool,
    /// Bytes.
    pub size: ManifestSize,
    /// `image`.
    pub kind: String,
    /// Of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_data: Option<ManifestImage>,
}

/// Bytes of what a manifest refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestSize {
    /// Of blobs as they came, where those are kept.
    pub content: i64,
    /// Of all.
    pub total: i64,
}

/// An image of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestImage {
    /// What it runs on.
    pub platform: Platform,
    /// Bytes.
    pub size: UnpackedSize,
    /// The IDs of its containers.
    pub containers: Vec<String>,
}

/// Bytes of an unpacked image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnpackedSize {
    /// Of the files in its layers.
    pub unpacked: i64,
}

/// What containers of an image start from: the OCI configuration's `config` with Docker's additions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user[:group]`.
    pub user: String,
    /// `port/proto` keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    /// The entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// The command.
    pub cmd: Option<Vec<String>>,
    /// Mount points of volumes.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// The working directory.
    pub working_dir: String,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that asks the process to stop.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    /// Windows: the command is escaped already.
    #[serde(skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    /// The health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// ONBUILD triggers.
    pub on_build: Option<Vec<String>>,
    /// The shell of shell-form commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Empty; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Empty; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Empty; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stdin: Option<bool>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stdout: Option<bool>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach_stderr: Option<bool>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_stdin: Option<bool>,
    /// False; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_once: Option<bool>,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// Diff ids, the lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// What only this host knows of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageMetadata {
    /// RFC 3339 with nanoseconds; `0001-01-01T00:00:00Z` never.
    pub last_tag_time: String,
}

impl Default for ImageMetadata {
    fn default() -> Self {
        Self {
            last_tag_time: "0001-01-01T00:00:00Z".to_owned(),
        }
    }
}

/// An element of `GET /images/{name}/history`, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    /// The step's comment.
    pub comment: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// The instruction.
    pub created_by: String,
    /// The image's id for the newest step, `<missing>` for the others.
    pub id: String,
    /// Bytes of the step's layer.
    pub size: i64,
    /// `name:tag`.
    pub tags: Option<Vec<String>>,
}

/// An element of the answer of `DELETE /images/{name}`: one of the two is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDeleteItem {
    /// An image or layer that is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub deleted: String,
    /// A reference that is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub untagged: String,
}

/// An element of the answer of `GET /images/search`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// How many like it.
    pub star_count: i64,
    /// Whether the registry vouches for it.
    pub is_official: bool,
    /// The repository.
    pub name: String,
    /// Always false by now.
    pub is_automated: bool,
    /// A line about it.
    pub description: String,
}

/// The answer of `GET /distribution/{name}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DistributionInspect {
    /// The manifest or index that the name means.
    pub descriptor: Descriptor,
    /// What there are images for.
    pub platforms: Option<Vec<Platform>>,
}

/// The answer of `POST /build/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildPruneResponse {
    /// What is gone.
    pub caches_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// The answer of `POST /images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagePruneResponse {
    /// What is gone.
    pub images_deleted: Option<Vec<ImageDeleteItem>>,
    /// Bytes.
    pub space_reclaimed: u64,
}
