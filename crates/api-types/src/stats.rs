//! `GET /containers/{id}/stats`: what a container uses.

use crate::is_default;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One reading, with the CPU times of the reading before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsResponse {
    /// The container's name, with a leading slash.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The container's full id.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub read: String,
    /// When `precpu_stats` was read; `0001-01-01T00:00:00Z` where there is none.
    pub preread: String,
    /// Processes.
    pub pids_stats: PidsStats,
    /// Block IO.
    pub blkio_stats: BlkioStats,
    /// Windows: processes.
    pub num_procs: u32,
    /// Windows: storage.
    pub storage_stats: StorageStats,
    /// CPU time now.
    pub cpu_stats: CpuStats,
    /// CPU time at the reading before.
    pub precpu_stats: CpuStats,
    /// Memory.
    pub memory_stats: MemoryStats,
    /// Interface name to counters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
    /// What each interface receives and sends per second at most: of this engine alone, where there is a limit.
    #[serde(rename = "network_rate", skip_serializing_if = "is_default")]
    pub network_rate: Option<crate::NetworkRate>,
    /// Time spent waiting, by `cpu`, `memory`, `io`: of this engine alone, where the kernel keeps account of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pressure_stats: BTreeMap<String, PressureStats>,
}

/// How much time was spent waiting for a resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureStats {
    /// When at least one task waited.
    pub some: StallStats,
    /// When all waited.
    pub full: StallStats,
}

/// Shares of time in percent, and all of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StallStats {
    /// Over the last 10 seconds.
    pub avg10: f64,
    /// Over the last 60 seconds.
    pub avg60: f64,
    /// Over the last 300 seconds.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

impl Default for StatsResponse {
    fn default() -> Self {
        const NEVER: &str = "0001-01-01T00:00:00Z";
        Self {
            name: String::new(),
            id: String::new(),
            read: NEVER.to_owned(),
            preread: NEVER.to_owned(),
            pids_stats: PidsStats::default(),
            blkio_stats: BlkioStats::default(),
            num_procs: 0,
            storage_stats: StorageStats::default(),
            cpu_stats: CpuStats::default(),
            precpu_stats: CpuStats::default(),
            memory_stats: MemoryStats::default(),
            networks: BTreeMap::new(),
            network_rate: None,
            pressure_stats: BTreeMap::new(),
        }
    }
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsStats {
    /// How many there are.
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// How many there may be.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// CPU time of the container and of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuStats {
    /// The container's.
    pub cpu_usage: CpuUsage,
    /// Nanoseconds that all of the host's CPUs were busy or idle.
    #[serde(skip_serializing_if = "is_default")]
    pub system_cpu_usage: u64,
    /// CPUs of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub online_cpus: u32,
    /// How the quota bound.
    pub throttling_data: ThrottlingData,
}

/// Nanoseconds of CPU time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// In all.
    pub total_usage: u64,
    /// By CPU (cgroup v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// In user space.
    pub usage_in_usermode: u64,
}

/// How a CPU quota bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottlingData {
    /// Periods that went by.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds of waiting.
    pub throttled_time: u64,
}

/// Bytes of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStats {
    /// In use, with the page cache.
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    /// The highest usage (cgroup v1).
    #[serde(skip_serializing_if = "is_default")]
    pub max_usage: u64,
    /// memory.stat.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<String, u64>,
    /// How often the limit was hit (cgroup v1).
    #[serde(skip_serializing_if = "is_default")]
    pub failcnt: u64,
    /// The limit, or the host's memory.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
    /// Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub commitbytes: u64,
    /// Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub commitpeakbytes: u64,
    /// Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub privateworkingset: u64,
}

/// Block IO. On cgroup v2 only the first list is not null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStats {
    /// Bytes moved.
    pub io_service_bytes_recursive: Option<Vec<BlkioStatEntry>>,
    /// Operations.
    pub io_serviced_recursive: Option<Vec<BlkioStatEntry>>,
    /// Operations that wait.
    pub io_queue_recursive: Option<Vec<BlkioStatEntry>>,
    /// Nanoseconds of service.
    pub io_service_time_recursive: Option<Vec<BlkioStatEntry>>,
    /// Nanoseconds of waiting.
    pub io_wait_time_recursive: Option<Vec<BlkioStatEntry>>,
    /// Operations that were merged.
    pub io_merged_recursive: Option<Vec<BlkioStatEntry>>,
    /// Milliseconds of device time.
    pub io_time_recursive: Option<Vec<BlkioStatEntry>>,
    /// Sectors.
    pub sectors_recursive: Option<Vec<BlkioStatEntry>>,
}

/// One counter of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioStatEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `read`, `write`, ….
    pub op: String,
    /// The counter.
    pub value: u64,
}

/// Windows' storage counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageStats {
    /// Reads.
    #[serde(skip_serializing_if = "is_default")]
    pub read_count_normalized: u64,
    /// Bytes read.
    #[serde(skip_serializing_if = "is_default")]
    pub read_size_bytes: u64,
    /// Writes.
    #[serde(skip_serializing_if = "is_default")]
    pub write_count_normalized: u64,
    /// Bytes written.
    #[serde(skip_serializing_if = "is_default")]
    pub write_size_bytes: u64,
}

/// The counters of one interface, as the container sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors on reception.
    pub rx_errors: u64,
    /// Packets dropped on reception.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors on sending.
    pub tx_errors: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
    /// Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_id: String,
    /// Windows.
    #[serde(skip_serializing_if = "is_default")]
    pub instance_id: String,
}
