//! The engine itself: version, info, events, disk usage.

use crate::{ContainerSummary, ImageSummary, Volume, is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// The product.
    pub platform: PlatformName,
    /// The engine and what it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentVersion>,
    /// The engine's version.
    pub version: String,
    /// The newest API version.
    pub api_version: String,
    /// The oldest API version.
    #[serde(rename = "MinAPIVersion", skip_serializing_if = "is_default")]
    pub min_api_version: String,
    /// The engine's commit.
    pub git_commit: String,
    /// Go's version, for a Docker engine.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// Go's name of the processor: `amd64`.
    pub arch: String,
    /// uname -r.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel_version: String,
    /// Experimental features are on.
    #[serde(skip_serializing_if = "is_default")]
    pub experimental: bool,
    /// RFC 3339 with nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub build_time: String,
}

/// The product's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlatformName {
    /// The name.
    pub name: String,
}

/// A component of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ComponentVersion {
    /// `Engine`, `containerd`, ….
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whatever else it says of itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// The answer of `GET /info`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// The engine's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// All containers.
    pub containers: i64,
    /// Those that run.
    pub containers_running: i64,
    /// Those that are paused.
    pub containers_paused: i64,
    /// Those that do not run.
    pub containers_stopped: i64,
    /// Images.
    pub images: i64,
    /// The storage driver.
    pub driver: String,
    /// What the storage driver says of itself.
    pub driver_status: Option<Vec<[String; 2]>>,
    /// What can be plugged in.
    pub plugins: PluginsInfo,
    /// The host can limit memory.
    pub memory_limit: bool,
    /// The host can limit swap.
    pub swap_limit: bool,
    /// The host can limit kernel memory.
    #[serde(skip_serializing_if = "is_default")]
    pub kernel_memory: bool,
    /// The host can limit TCP buffers.
    #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
    pub kernel_memory_tcp: bool,
    /// The host has CPU quotas.
    pub cpu_cfs_period: bool,
    /// The host has CPU quotas.
    pub cpu_cfs_quota: bool,
    /// The host has CPU shares.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// The host has cpusets.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// The host can limit processes.
    pub pids_limit: bool,
    /// Always false; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_iptables: Option<bool>,
    /// Always false; before API 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_ip6tables: Option<bool>,
    /// The host forwards IPv4.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// The engine logs more.
    pub debug: bool,
    /// The engine's open files.
    #[serde(rename = "NFd")]
    pub n_fd: i64,
    /// The host can switch off the OOM killer.
    pub oom_kill_disable: bool,
    /// The engine's tasks.
    #[serde(rename = "NGoroutines")]
    pub n_goroutines: i64,
    /// RFC 3339 with nanoseconds.
    pub system_time: String,
    /// The default log driver.
    pub logging_driver: String,
    /// `cgroupfs`, `systemd`, `none`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_version: String,
    /// Clients that listen to events.
    #[serde(rename = "NEventsListener")]
    pub n_events_listener: i64,
    /// uname -r.
    pub kernel_version: String,
    /// PRETTY_NAME of os-release(5).
    pub operating_system: String,
    /// VERSION_ID of os-release(5).
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// uname -m.
    pub architecture: String,
    /// The default registry.
    pub index_server_address: String,
    /// How registries are used.
    pub registry_config: Option<RegistryConfig>,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub n_cpu: i64,
    /// Bytes.
    pub mem_total: i64,
    /// Swarm.
    pub generic_resources: Option<Vec<serde_json::Value>>,
    /// The engine's data directory.
    pub docker_root_dir: String,
    /// Proxy.
    pub http_proxy: String,
    /// Proxy.
    pub https_proxy: String,
    /// Proxy.
    pub no_proxy: String,
    /// The host's name.
    pub name: String,
    /// The engine's labels.
    pub labels: Option<Vec<String>>,
    /// Experimental features are on.
    pub experimental_build: bool,
    /// The engine's version.
    pub server_version: String,
    /// OCI runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The default OCI runtime.
    pub default_runtime: String,
    /// Swarm.
    pub swarm: SwarmInfo,
    /// Containers outlive the engine.
    pub live_restore_enabled: bool,
    /// Windows.
    pub isolation: String,
    /// The reaper of `--init`.
    pub init_binary: String,
    /// Of a Docker engine.
    pub containerd_commit: Commit,
    /// Of a Docker engine.
    pub runc_commit: Commit,
    /// Of a Docker engine.
    pub init_commit: Commit,
    /// `name=seccomp,profile=builtin`, ….
    pub security_options: Option<Vec<String>>,
    /// Of a Docker engine.
    #[serde(skip_serializing_if = "is_default")]
    pub product_license: String,
    /// Where new networks' subnets come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_address_pools: Vec<AddressPool>,
    /// What filters packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<FirewallInfo>,
    /// Directories of Container Device Interface specifications.
    #[serde(rename = "CDISpecDirs")]
    pub cdi_spec_dirs: Option<Vec<String>>,
    /// Devices that device drivers found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discovered_devices: Vec<DeviceInfo>,
    /// Of a Docker engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdInfo>,
    /// What the host lacks.
    pub warnings: Option<Vec<String>>,
}

/// What can be plugged in, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PluginsInfo {
    /// Volume drivers.
    pub volume: Option<Vec<String>>,
    /// Network drivers.
    pub network: Option<Vec<String>>,
    /// Authorization plugins.
    pub authorization: Option<Vec<String>>,
    /// Log drivers.
    pub log: Option<Vec<String>>,
}

/// How registries are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegistryConfig {
    /// Networks whose registries may be insecure.
    #[serde(rename = "InsecureRegistryCIDRs")]
    pub insecure_registry_cidrs: Option<Vec<String>>,
    /// Known registries by name.
    pub index_configs: BTreeMap<String, RegistryIndex>,
    /// Mirrors of the default registry.
    pub mirrors: Option<Vec<String>>,
    /// Nothing by now; before API 1.47.
    #[serde(
        rename = "AllowNondistributableArtifactsCIDRs",
        skip_serializing_if = "Option::is_none"
    )]
    pub allow_nondistributable_artifacts_cidrs: Option<Vec<String>>,
    /// Nothing by now; before API 1.47.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_nondistributable_artifacts_hostnames: Option<Vec<String>>,
}

/// A known registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegistryIndex {
    /// Its name.
    pub name: String,
    /// Its mirrors.
    pub mirrors: Vec<String>,
    /// TLS is required.
    pub secure: bool,
    /// Docker's own.
    pub official: bool,
}

/// An OCI runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// The binary.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtime_args: Vec<String>,
    /// A shim's name.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_type: String,
    /// A shim's options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, serde_json::Value>,
    /// Annotations, such as the features document of the runtime specification.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, String>,
}

/// Swarm's state: of an engine that is in none, `inactive` and otherwise empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SwarmInfo {
    /// The node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its address.
    pub node_addr: String,
    /// `inactive`, ….
    pub local_node_state: String,
    /// Is a manager.
    pub control_available: bool,
    /// What is wrong.
    pub error: String,
    /// The managers.
    pub remote_managers: Option<Vec<serde_json::Value>>,
}

/// A commit of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Commit {
    /// The commit.
    #[serde(rename = "ID")]
    pub id: String,
    /// The commit it should be (before API 1.48).
    #[serde(skip_serializing_if = "is_default")]
    pub expected: String,
}

/// Subnets of new networks come from here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressPool {
    /// CIDR.
    pub base: String,
    /// The prefix length of each subnet.
    pub size: u8,
}

/// What filters packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FirewallInfo {
    /// `nftables`, `iptables`.
    pub driver: String,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub info: Vec<[String; 2]>,
}

/// A device that a device driver found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceInfo {
    /// The driver: `cdi`.
    pub source: String,
    /// The device's name there.
    #[serde(rename = "ID")]
    pub id: String,
}

/// Where a Docker engine's containerd is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerdInfo {
    /// Its socket.
    #[serde(skip_serializing_if = "is_default")]
    pub address: String,
    /// Its namespaces.
    pub namespaces: ContainerdNamespaces,
}

/// The namespaces a Docker engine uses in containerd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerdNamespaces {
    /// For containers.
    pub containers: String,
    /// For plugins.
    pub plugins: String,
}

/// A line of `GET /events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EventMessage {
    /// As `action`, for old clients (containers and images only).
    #[serde(rename = "status", skip_serializing_if = "is_default")]
    pub status: String,
    /// As `actor.id`, for old clients (containers and images only).
    #[serde(rename = "id", skip_serializing_if = "is_default")]
    pub id: String,
    /// The container's image, for old clients.
    #[serde(rename = "from", skip_serializing_if = "is_default")]
    pub from: String,
    /// `container`, `image`, `network`, `volume`, `daemon`, ….
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `exec_create: sh`, ….
    pub action: String,
    /// What it happened to.
    pub actor: Actor,
    /// `local`.
    #[serde(rename = "scope", skip_serializing_if = "is_default")]
    pub scope: String,
    /// Seconds since the epoch.
    #[serde(rename = "time", skip_serializing_if = "is_default")]
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Actor {
    /// Its id or name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its labels and what belongs to the event.
    pub attributes: Option<BTreeMap<String, String>>,
}

/// The answer of `GET /system/df`. What was not asked for is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    /// Bytes of all layers.
    pub layers_size: i64,
    /// Images, with shared sizes and containers counted.
    pub images: Option<Vec<ImageSummary>>,
    /// Containers, with sizes.
    pub containers: Option<Vec<ContainerSummary>>,
    /// Volumes, with usage.
    pub volumes: Option<Vec<Volume>>,
    /// Build cache.
    pub build_cache: Option<Vec<CacheRecord>>,
    /// Bytes of the build cache, before API 1.42.
    #[serde(skip_serializing_if = "is_default")]
    pub builder_size: i64,
}

/// A record of the build cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CacheRecord {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What it is based on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `exec.cachemount`, ….
    #[serde(rename = "Type")]
    pub kind: String,
    /// In words.
    pub description: String,
    /// A build uses it now.
    pub in_use: bool,
    /// An image uses it, too.
    pub shared: bool,
    /// Bytes.
    pub size: i64,
    /// RFC 3339 with nanoseconds.
    pub created_at: String,
    /// RFC 3339 with nanoseconds.
    pub last_used_at: Option<String>,
    /// How often it was used.
    pub usage_count: i64,
}

/// What the engine's check of its image store has found: the answer to `POST /system/verify`, which is this engine's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Verification {
    /// Images, layers and names that were looked at.
    pub checked: u64,
    /// Bytes of layers that were read.
    pub bytes: u64,
    /// What was wrong.
    pub findings: Vec<VerificationFinding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VerificationFinding {
    /// A layer, an image, a name, a file.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// What was done about it; nothing when it is empty.
    pub mended: String,
}
