//! What a container is and how it is: the engine's own shapes.
//!
//! A [`Spec`] never changes after `create`, so its record on disk is its own serialisation, with [`SPEC_VERSION`] and a
//! default for every field that came later. A [`State`] does change; what of it survives the engine is in
//! [`crate::container::record`].

mod limits;
mod mount;
mod network;
mod state;

pub use limits::{Limits, NetworkRate, Throttle, Ulimit, WeightDevice};
pub use mount::{Mount, MountForm, MountSource};
pub use network::{
    Attachment, Endpoint, EndpointWish, NetworkMode, NetworkSpec, Place, Port, PortMapping,
    Protocol, PublishedPort,
};
pub use state::{Phase, Snapshot, State};

use crate::cdi::DeviceRequest;
use crate::health::Check;
use jiff::Timestamp;
use oci::image::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version of [`Spec`]'s serialisation.
pub const SPEC_VERSION: u32 = 1;

/// A container's identity and configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// [`SPEC_VERSION`] when it was written.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was created.
    pub created: Timestamp,
    /// What the image is called in the request.
    pub image_reference: String,
    /// Where the root filesystem comes from.
    pub image: ImageSource,
    /// What runs.
    pub process: ProcessSpec,
    /// How it is isolated.
    pub isolation: Isolation,
    /// Its limits.
    pub limits: Limits,
    /// What is mounted, in addition to what every container has.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: NetworkSpec,
    /// What happens when it ends.
    pub lifecycle: Lifecycle,
    /// Where output goes.
    pub log: LogSpec,
    /// Labels, the image's included.
    pub labels: BTreeMap<String, String>,
    /// Free annotations for the OCI configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// How to find out whether it is well.
    #[serde(default)]
    pub health: Option<Check>,
    /// The containers whose mounts it has taken over, as `name[:mode]`, for inspection.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    /// Options of the writable layer: `size`.
    #[serde(default)]
    pub storage: BTreeMap<String, String>,
    /// What inspection repeats.
    #[serde(default)]
    pub echo: Echo,
}

/// Words of the request that change nothing here, and that inspection repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// What the runtime was called; empty: by no name.
    pub runtime: String,
    /// `default`, or empty.
    pub isolation: String,
    /// The driver for volumes that the request did not name.
    pub volume_driver: String,
}

/// Where a root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An image, by its id (`sha256:…`).
    Image(String),
    /// A directory of the host, as the read-only layer.
    Directory(PathBuf),
    /// Layers that are no image (yet), by diff ID, the lowest first: a step of a build.
    Layers(Vec<oci::Digest>),
}

/// What runs. The image's configuration is already merged in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`: arguments of the entrypoint, or the command.
    pub command: Vec<String>,
    /// `NAME=value`, the image's first.
    pub environment: Vec<String>,
    /// `NAME=value` that no record and no answer has: secrets of one run, which another engine does not know any more.
    #[serde(skip)]
    pub unrecorded_environment: Vec<String>,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    /// As `USER`: empty means root.
    pub user: String,
    /// Further groups, by name or number.
    pub groups: Vec<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether standard input stays open.
    pub open_stdin: bool,
    /// Whether standard input ends with the first client's.
    pub stdin_once: bool,
    /// What the creating client said it would attach, for inspection only.
    pub attach: AttachFlags,
    /// Height and width of the terminal to begin with.
    pub console_size: Option<(u16, u16)>,
}

/// Which streams a client attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachFlags {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A namespace: one of its own, the host's, or another container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(String),
}

/// The IPC namespace and `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipc {
    /// Its own, with a `/dev/shm` of its own.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// That of another, shareable container, by id.
    Container(String),
}

/// How a container is isolated.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Isolation {
    /// Everything the host has, devices included.
    pub privileged: bool,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// Host name; empty: the first twelve digits of the id.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// PID namespace.
    pub pid: Namespace,
    /// IPC namespace.
    pub ipc: Ipc,
    /// UTS namespace: private or the host's.
    pub uts: Namespace,
    /// Cgroup namespace: private or the host's.
    pub cgroup: Namespace,
    /// A user namespace of its own, over a subordinate range.
    pub user_namespace: bool,
    /// Capabilities beyond the default, without `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default.
    pub cap_drop: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Whether set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// An AppArmor profile, or `unconfined`; None: the engine's, where the host has AppArmor.
    pub apparmor: Option<String>,
    /// Whether no path of `/proc` and `/sys` is masked or read-only.
    pub unmasked_paths: bool,
    /// Paths to mask, instead of the default.
    #[serde(default)]
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths to make read-only, instead of the default.
    #[serde(default)]
    pub read_only_paths: Option<Vec<PathBuf>>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices of drivers.
    #[serde(default)]
    pub device_requests: Vec<DeviceRequest>,
    /// Further cgroup device rules, as `c 1:3 rwm`.
    pub device_rules: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// A reaping init as PID 1.
    pub init: bool,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Adjustment of the OOM killer's choice.
    pub oom_score_adj: i32,
    /// The parent cgroup, instead of the engine's.
    pub cgroup_parent: Option<String>,
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The engine's own.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's JSON.
    Profile(String),
}

/// A device of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host: a node, or a directory of nodes.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: String,
    /// Of `r`, `w`, `m`.
    pub access: String,
}

/// What happens when a container ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// When to start it again.
    pub restart: Restart,
    /// Remove it when it has ended.
    pub auto_remove: bool,
    /// What `stop` sends; None: SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds until `stop` kills; None: 10. Negative: never.
    pub stop_timeout_s: Option<i64>,
}

/// When to start a container again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times; 0: any number.
    OnFailure(u32),
    /// Whenever it has ended, and when the engine starts.
    Always,
    /// As always, unless it was stopped by hand.
    UnlessStopped,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The driver.
    pub driver: LogDriver,
    /// The options as requested, for inspection.
    pub options: BTreeMap<String, String>,
    /// When a file is rotated; None: never.
    pub max_bytes: Option<u64>,
    /// How many files are kept.
    pub files_max: u32,
}

/// A log driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Files of JSON lines.
    JsonFile,
    /// The same, compressed, in a place of the engine's own.
    Local,
    /// systemd's journal.
    Journald,
    /// A syslog server.
    Syslog,
    /// Nowhere.
    None,
}

/// A request for a container; what the image says is not merged in yet.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Its name; None: one is made up.
    pub name: Option<String>,
    /// The image: a reference, an id, or a directory of the host (absolute, or beginning with `.`).
    pub image: String,
    /// Which of the images that the reference means; a directory is for whatever platform.
    pub platform: Option<Platform>,
    /// Instead of the image's entrypoint. An empty list, or a single empty word, means none.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// The rest of what runs; its empty fields are the image's.
    pub process: ProcessSpec,
    /// Isolation.
    pub isolation: Isolation,
    /// Limits.
    pub limits: Limits,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Paths that get an anonymous volume, in addition to the image's.
    pub volumes: Vec<String>,
    /// Network.
    pub network: NetworkSpec,
    /// What it asks of networks, by their name or id.
    pub wishes: Vec<(String, EndpointWish)>,
    /// What happens when it ends.
    pub lifecycle: Lifecycle,
    /// Where output goes.
    pub log: LogSpec,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// How to find out whether it is well; what it leaves out is the image's.
    pub health: Option<Check>,
    /// Containers whose mounts it takes over, as `name[:mode]`.
    pub volumes_from: Vec<String>,
    /// Options of the writable layer.
    pub storage: BTreeMap<String, String>,
    /// What inspection repeats.
    pub echo: Echo,
}
