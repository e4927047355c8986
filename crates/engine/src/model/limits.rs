//! The limits of a container.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Limits; None is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes; −1 unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Memory in bytes to shrink to under pressure.
    pub memory_reservation_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// The OOM killer leaves it alone.
    pub oom_kill_disable: bool,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period_us: Option<u64>,
    /// Microseconds in each period.
    pub cpu_quota_us: Option<i64>,
    /// CPUs as `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes likewise.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Microseconds of a real-time period.
    #[serde(default)]
    pub cpu_rt_period_us: Option<u64>,
    /// Microseconds of real-time CPU time in each period.
    #[serde(default)]
    pub cpu_rt_runtime_us: Option<i64>,
    /// Relative weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Relative weights of devices.
    #[serde(default)]
    pub blkio_weight_devices: Vec<WeightDevice>,
    /// Bytes per second read from a device.
    pub blkio_read_bps: Vec<Throttle>,
    /// Bytes per second written to a device.
    pub blkio_write_bps: Vec<Throttle>,
    /// Operations per second read from a device.
    pub blkio_read_iops: Vec<Throttle>,
    /// Operations per second written to a device.
    pub blkio_write_iops: Vec<Throttle>,
    /// What each of its interfaces receives and sends.
    #[serde(default)]
    pub network_rate: Option<NetworkRate>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
}

/// Bytes per second of a container's interface; None: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRate {
    /// To the container.
    pub receive_bytes: Option<u64>,
    /// From it.
    pub send_bytes: Option<u64>,
}

/// A rate for a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The device's path on the host.
    pub path: PathBuf,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A weight for a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// The device's path on the host.
    pub path: PathBuf,
    /// 10 to 1000.
    pub weight: u16,
}

/// A resource limit, as setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower case, without `RLIMIT_`.
    pub name: String,
    /// What counts; −1 unlimited.
    pub soft: i64,
    /// As far as the process may raise it.
    pub hard: i64,
}
