//! Docker's wire types, API 1.51: what crosses the socket, in both directions, and nothing else.
//!
//! Invariants:
//! - A value serialises to the JSON dockerd (or docker's client) would emit for it. Go's nil slices and maps are `null`
//!   where the Go field has no `omitempty`: such fields are `Option<Vec<_>>` or `Option<BTreeMap<_, _>>` here. Where Go
//!   omits, or where dockerd never leaves the field nil, the field is a plain collection.
//! - [`from_slice`] accepts what Go's decoder accepts: missing and null fields are zero values, unknown fields are
//!   skipped, keys match without regard to case; a wrong type is an error that names the field.
//! - Units and zero values are Docker's; no type here decides anything.
//!
//! Source: moby's `api/swagger.yaml` v1.51 and the JSON tags of `api/types` at v28.5.

mod auth;
mod build;
mod checkpoint;
mod config;
mod container;
mod exec;
mod filters;
mod host_config;
mod image;
mod lenient;
mod mount;
mod network;
mod progress;
mod stats;
mod system;
mod volume;

pub use auth::{AuthConfig, AuthResponse};
pub use build::{
    BuildEvent, BuildFinding, BuildWish, COMPONENT_DETAIL as BUILD_EVENTS, ContextChanges,
    EVENT_ID, HEADER_SECRET, KeptContext, MARKS_BYTES_MAX, PART_ARCHIVE, PART_CACHES, PART_CONTEXT,
    PART_DOCKERFILE, PART_IGNORE, PART_LAYOUTS, PART_MARKS, PART_NAMED, SECRETS_BYTES_MAX,
    STREAM_CACHE, STREAM_OUTPUT,
};
pub use checkpoint::{CheckpointCreateRequest, CheckpointSummary};
pub use config::{Config, Empty, HealthConfig, StrSlice};
pub use container::{
    ChangeKind, ContainerPruneResponse, ContainerSummary, ContainerSummaryHostConfig,
    CreateRequest, CreateResponse, DriverData, FilesystemChange, Health, HealthcheckResult,
    InspectResponse, MountPoint, NetworkSettings, PathStat, PortSummary, PortsRequest, State,
    SummaryNetworkSettings, TopResponse, UpdateResponse, WaitExitError, WaitResponse, go_mode,
};
pub use exec::{ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest};
pub use filters::Filters;
pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, NetworkRate, PortBinding, PortMap,
    Resources, RestartPolicy, ThrottleDevice, Ulimit, UpdateRequest, WeightDevice,
};
pub use image::{
    BuildPruneResponse, Descriptor, DistributionInspect, HistoryItem, ImageConfig, ImageDeleteItem,
    ImageInspect, ImageMetadata, ImagePruneResponse, ImageSummary, ManifestImage, ManifestSize,
    ManifestSummary, Platform, RootFs, SearchResult, UnpackedSize,
};
pub use lenient::{Error, List, from_slice, from_value};
pub use mount::{
    BindOptions, Mount, MountDriver, MountImageOptions, SecretOptions, TmpfsOptions, VolumeOptions,
};
pub use network::{
    Address, ConfigReference, EndpointIpamConfig, EndpointResource, EndpointSettings, Ipam,
    IpamConfig, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, NetworkPruneResponse, NetworkingConfig, PortExplanation, PortReach,
};
pub use progress::{JsonError, JsonMessage, JsonProgress};
pub use stats::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    PressureStats, StallStats, StatsResponse, StorageStats, ThrottlingData,
};
pub use system::{
    Actor, AddressPool, CacheRecord, Commit, ComponentVersion, ContainerdInfo,
    ContainerdNamespaces, DeviceInfo, DiskUsage, EventMessage, FirewallInfo, Info, PlatformName,
    PluginsInfo, RegistryConfig, RegistryIndex, Runtime, SwarmInfo, Verification,
    VerificationFinding, Version,
};
pub use volume::{
    Volume, VolumeCreateRequest, VolumeListResponse, VolumePruneResponse, VolumeUsage,
};

use serde::{Deserialize, Serialize};

/// The newest API version these types describe.
pub const API_VERSION: &str = "1.51";

/// The oldest API version that an engine here still answers, and that a client here still speaks.
pub const API_VERSION_MIN: &str = "1.24";

/// The media type of a hijacked stream that is one terminal's bytes, unframed.
pub const MEDIA_TYPE_RAW_STREAM: &str = "application/vnd.docker.raw-stream";

/// The media type of a stream in which frames of stdout and stderr alternate, each behind an 8-byte header.
pub const MEDIA_TYPE_MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// The header of `HEAD` and `GET /containers/{id}/archive`: base64 (standard, padded) of a [`PathStat`]'s JSON.
pub const HEADER_PATH_STAT: &str = "X-Docker-Container-Path-Stat";

/// The body of every answer with an error status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// What went wrong, in words for a person.
    pub message: String,
}

/// The answer of `POST /commit` and `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdResponse {
    /// The new object's full id.
    pub id: String,
}

/// Go's `omitempty` of scalars and structs behind pointers.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
