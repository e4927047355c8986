//! What a container asks of the host: limits, namespaces, mounts, ports, restart policy.

use crate::{Mount, StrSlice, is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `port/proto` to the host's sides. `None` (null): exposed, not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// One published port's host side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// The address to listen on; empty for all.
    pub host_ip: String,
    /// A port, a range `a-b` to choose from, or empty for an ephemeral one.
    pub host_port: String,
}

/// When the engine starts the container again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`: give up after this many; 0 never.
    pub maximum_retry_count: i64,
}

/// Where the output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The log driver; empty for the engine's default.
    #[serde(rename = "Type")]
    pub driver: String,
    /// The driver's options.
    pub config: Option<BTreeMap<String, String>>,
}

/// A device node of the host, put into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// The node, or a directory of nodes, on the host.
    pub path_on_host: String,
    /// Its path in the container.
    pub path_in_container: String,
    /// Of `r`, `w`, `m`.
    pub cgroup_permissions: String,
}

/// A request to a device driver, such as for GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceRequest {
    /// The driver's name.
    pub driver: String,
    /// How many; -1 for all.
    pub count: i64,
    /// The devices, as the driver names them.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    /// Alternatives, each a list of capabilities that all must be there.
    pub capabilities: Option<Vec<Vec<String>>>,
    /// Options for the driver.
    pub options: Option<BTreeMap<String, String>>,
}

/// What passes an interface of a container, in bytes per second; 0 for any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRate {
    /// To the container.
    pub receive: u64,
    /// From it.
    pub send: u64,
}

/// The block IO weight of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// The device node on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A block IO limit of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// The device node on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// One resource limit of the process (setrlimit(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Lower case without `RLIMIT_`: `nofile`.
    pub name: String,
    /// The hard limit; -1 for unlimited.
    pub hard: i64,
    /// The soft limit; -1 for unlimited.
    pub soft: i64,
}

/// Defines a struct whose first fields are Docker's `Resources`: on the wire they lie on the same level as the others.
macro_rules! with_resources {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        pub struct $name {
            $($own)*
            /// The relative weight in CPU time; 0 for the default (1024).
            pub cpu_shares: i64,
            /// Bytes of memory; 0 unlimited.
            pub memory: i64,
            /// 10^-9 CPUs; 0 unlimited.
            pub nano_cpus: i64,
            /// The cgroup to make the container's cgroup in.
            pub cgroup_parent: String,
            /// The relative block IO weight, 10 to 1000; 0 for the default.
            pub blkio_weight: u16,
            /// Weights by device.
            pub blkio_weight_device: Option<Vec<WeightDevice>>,
            /// Bytes read per second by device.
            pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
            /// Bytes written per second by device.
            pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
            /// Reads per second by device.
            #[serde(rename = "BlkioDeviceReadIOps")]
            pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
            /// Writes per second by device.
            #[serde(rename = "BlkioDeviceWriteIOps")]
            pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
            /// Microseconds of a CPU quota's period; 0 for the default (100000).
            pub cpu_period: i64,
            /// Microseconds of CPU time in a period; 0 unlimited.
            pub cpu_quota: i64,
            /// Microseconds of a real-time period.
            pub cpu_realtime_period: i64,
            /// Microseconds of real-time CPU time in a period.
            pub cpu_realtime_runtime: i64,
            /// CPUs to run on, as in `0-3,5`.
            pub cpuset_cpus: String,
            /// Memory nodes to use, as in `0-3,5`.
            pub cpuset_mems: String,
            /// Device nodes of the host.
            pub devices: Option<Vec<DeviceMapping>>,
            /// Further rules of the device cgroup, as in `c 13:* rwm`.
            pub device_cgroup_rules: Option<Vec<String>>,
            /// Requests to device drivers.
            pub device_requests: Option<Vec<DeviceRequest>>,
            /// Bytes of kernel memory (obsolete).
            #[serde(skip_serializing_if = "is_default")]
            pub kernel_memory: i64,
            /// Bytes of TCP buffers (cgroup v1).
            #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_default")]
            pub kernel_memory_tcp: i64,
            /// The soft limit of memory in bytes; 0 none.
            pub memory_reservation: i64,
            /// Memory and swap together, in bytes; 0 for twice the memory, -1 for unlimited swap.
            pub memory_swap: i64,
            /// 0 to 100, `None` for the kernel's.
            pub memory_swappiness: Option<i64>,
            /// Do not kill on out of memory.
            pub oom_kill_disable: Option<bool>,
            /// Processes and threads; 0 or -1 unlimited, `None` in an update keeps.
            pub pids_limit: Option<i64>,
            /// Limits of the process.
            pub ulimits: Option<Vec<Ulimit>>,
            /// hull's own: what each interface of the container receives and sends; absent in an update keeps.
            #[serde(skip_serializing_if = "is_default")]
            pub network_rate: Option<NetworkRate>,
            /// Windows: CPUs.
            pub cpu_count: i64,
            /// Windows: percent of CPU.
            pub cpu_percent: i64,
            /// Windows: IO operations per second.
            #[serde(rename = "IOMaximumIOps")]
            pub io_maximum_iops: u64,
            /// Windows: IO bytes per second.
            #[serde(rename = "IOMaximumBandwidth")]
            pub io_maximum_bandwidth: u64,
        }
    };
}

/// Copies the resource fields of one struct into a [`Resources`].
macro_rules! resources_of {
    ($from:expr, { $($field:ident)* }) => { Resources { $($field: $from.$field.clone()),* } };
}

/// `fn resources` of the structs that have these fields.
macro_rules! impl_resources {
    ($($name:ident)*) => {$(
        impl $name {
            /// The resource fields alone.
            pub fn resources(&self) -> Resources {
                resources_of!(self, {
                    cpu_shares memory nano_cpus cgroup_parent blkio_weight blkio_weight_device
                    blkio_device_read_bps blkio_device_write_bps blkio_device_read_iops
                    blkio_device_write_iops cpu_period cpu_quota cpu_realtime_period
                    cpu_realtime_runtime cpuset_cpus cpuset_mems devices device_cgroup_rules
                    device_requests kernel_memory kernel_memory_tcp memory_reservation memory_swap
                    memory_swappiness oom_kill_disable pids_limit ulimits network_rate cpu_count cpu_percent
                    io_maximum_iops io_maximum_bandwidth
                })
            }
        }
    )*};
}
impl_resources! { HostConfig UpdateRequest }

with_resources! {
    /// Limits and devices: the part of [`HostConfig`] that [`UpdateRequest`] shares.
    pub struct Resources {}
}

with_resources! {
    /// The body of `POST /containers/{id}/update`.
    pub struct UpdateRequest {
        /// The new restart policy; an empty name keeps the old.
        pub restart_policy: RestartPolicy,
    }
}

with_resources! {
    /// What a container asks of the host.
    pub struct HostConfig {
        /// `source:target[:options]`.
        pub binds: Option<Vec<String>>,
        /// The client's file with the container's id.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Where output goes.
        pub log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:<id>`, or a network's name.
        pub network_mode: String,
        /// Published ports.
        pub port_bindings: Option<PortMap>,
        /// When to start again.
        pub restart_policy: RestartPolicy,
        /// Remove the container when it exits.
        pub auto_remove: bool,
        /// The driver of volumes made for this container.
        pub volume_driver: String,
        /// `container[:ro]` whose volumes to take.
        pub volumes_from: Option<Vec<String>>,
        /// The terminal's first size: rows, columns.
        pub console_size: [u32; 2],
        /// Metadata for the runtime.
        #[serde(skip_serializing_if = "crate::config::unset")]
        pub annotations: Option<BTreeMap<String, String>>,
        /// Capabilities to add; `ALL`.
        pub cap_add: Option<StrSlice>,
        /// Capabilities to drop; `ALL`.
        pub cap_drop: Option<StrSlice>,
        /// Empty, `private`, `host`.
        pub cgroupns_mode: String,
        /// DNS servers.
        pub dns: Option<Vec<String>>,
        /// Options of resolv.conf.
        pub dns_options: Option<Vec<String>>,
        /// Search domains.
        pub dns_search: Option<Vec<String>>,
        /// `name:address` for /etc/hosts.
        pub extra_hosts: Option<Vec<String>>,
        /// Supplementary groups.
        pub group_add: Option<Vec<String>>,
        /// Empty, `none`, `private`, `shareable`, `host`, `container:<id>`.
        pub ipc_mode: String,
        /// Empty or `container:<id>`.
        pub cgroup: String,
        /// `container:alias`.
        pub links: Option<Vec<String>>,
        /// -1000 to 1000.
        pub oom_score_adj: i64,
        /// Empty, `host`, `container:<id>`.
        pub pid_mode: String,
        /// All capabilities, all devices, nothing masked.
        pub privileged: bool,
        /// Publish all exposed ports on ephemeral ones.
        pub publish_all_ports: bool,
        /// The root filesystem is read-only.
        pub readonly_rootfs: bool,
        /// `name=value`, `no-new-privileges`.
        pub security_opt: Option<Vec<String>>,
        /// Options of the writable layer, such as `size`.
        #[serde(skip_serializing_if = "crate::config::unset")]
        pub storage_opt: Option<BTreeMap<String, String>>,
        /// Path to mount options.
        #[serde(skip_serializing_if = "crate::config::unset")]
        pub tmpfs: Option<BTreeMap<String, String>>,
        /// Empty or `host`.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// Empty or `host`.
        pub userns_mode: String,
        /// Bytes of /dev/shm; 0 for the default.
        pub shm_size: i64,
        /// Kernel parameters of the container's namespaces.
        #[serde(skip_serializing_if = "crate::config::unset")]
        pub sysctls: Option<BTreeMap<String, String>>,
        /// The OCI runtime's name; empty for the default.
        #[serde(skip_serializing_if = "is_default")]
        pub runtime: String,
        /// Empty or `default` (others are Windows').
        pub isolation: String,
        /// Mounts in the long form.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub mounts: Vec<Mount>,
        /// Paths to hide. `None` for the default, empty for none.
        pub masked_paths: Option<Vec<String>>,
        /// Paths to make read-only. `None` for the default, empty for none.
        pub readonly_paths: Option<Vec<String>>,
        /// Run a reaper as PID 1; `None` for the engine's default.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool>,
    }
}
