//! Limits, as requests and answers say them.

use super::connections::network_rate;
use super::create::{Result, non_empty};
use crate::http::Error;
use api_types as wire;
use engine::model::{Limits, Throttle, Ulimit, WeightDevice};
use std::path::PathBuf;

/// Reads limits, of a create request or an update.
pub(crate) fn limits(resources: &wire::Resources) -> Result<Limits> {
    let unsigned = |name: &str, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Error::bad_request(format!(
            "{name} cannot be negative: {value}"
        ))),
    };
    let throttles = |list: &Option<Vec<wire::ThrottleDevice>>| -> Vec<Throttle> {
        let list = list.iter().flatten();
        list.map(|throttle| Throttle {
            path: PathBuf::from(&throttle.path),
            rate: throttle.rate,
        })
        .collect()
    };
    let ulimits = resources.ulimits.iter().flatten();
    Ok(Limits {
        memory_bytes: positive(resources.memory),
        memory_swap_bytes: positive(resources.memory_swap),
        memory_reservation_bytes: positive(resources.memory_reservation),
        memory_swappiness: resources
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok()),
        oom_kill_disable: resources.oom_kill_disable.unwrap_or(false),
        nano_cpus: positive(resources.nano_cpus),
        cpu_shares: unsigned("CPU shares", resources.cpu_shares)?,
        cpu_period_us: unsigned("the CPU period", resources.cpu_period)?,
        cpu_quota_us: positive(resources.cpu_quota),
        cpuset_cpus: non_empty(&resources.cpuset_cpus),
        cpuset_mems: non_empty(&resources.cpuset_mems),
        pids: resources.pids_limit.filter(|limit| *limit > 0),
        cpu_rt_period_us: unsigned("the real-time CPU period", resources.cpu_realtime_period)?,
        cpu_rt_runtime_us: positive(resources.cpu_realtime_runtime),
        blkio_weight_devices: resources
            .blkio_weight_device
            .iter()
            .flatten()
            .map(|device| WeightDevice {
                path: PathBuf::from(&device.path),
                weight: device.weight,
            })
            .collect(),
        blkio_weight: Some(resources.blkio_weight).filter(|weight| *weight != 0),
        blkio_read_bps: throttles(&resources.blkio_device_read_bps),
        blkio_write_bps: throttles(&resources.blkio_device_write_bps),
        blkio_read_iops: throttles(&resources.blkio_device_read_iops),
        blkio_write_iops: throttles(&resources.blkio_device_write_iops),
        network_rate: resources
            .network_rate
            .as_ref()
            .map(|rate| engine::model::NetworkRate {
                receive_bytes: Some(rate.receive).filter(|bytes| *bytes > 0),
                send_bytes: Some(rate.send).filter(|bytes| *bytes > 0),
            }),
        ulimits: ulimits
            .map(|ulimit| Ulimit {
                name: ulimit.name.clone(),
                soft: ulimit.soft,
                hard: ulimit.hard,
            })
            .collect(),
    })
}

pub(super) fn set_limits(host: &mut wire::HostConfig, limits: &Limits) {
    let signed = |value: Option<u64>| {
        value
            .and_then(|value| i64::try_from(value).ok())
            .unwrap_or(0)
    };
    let throttles = |list: &[Throttle]| {
        let wire = |throttle: &Throttle| wire::ThrottleDevice {
            path: throttle.path.display().to_string(),
            rate: throttle.rate,
        };
        Some(list.iter().map(wire).collect())
    };
    host.memory = limits.memory_bytes.unwrap_or(0);
    host.memory_swap = limits
        .memory_swap_bytes
        .or(limits.memory_bytes.map(|bytes| bytes.saturating_mul(2)))
        .unwrap_or(0);
    host.memory_reservation = limits.memory_reservation_bytes.unwrap_or(0);
    host.memory_swappiness = limits
        .memory_swappiness
        .and_then(|value| i64::try_from(value).ok());
    host.oom_kill_disable = Some(limits.oom_kill_disable);
    host.nano_cpus = limits.nano_cpus.unwrap_or(0);
    host.cpu_shares = signed(limits.cpu_shares);
    host.cpu_period = signed(limits.cpu_period_us);
    host.cpu_quota = limits.cpu_quota_us.unwrap_or(0);
    host.cpuset_cpus = limits.cpuset_cpus.clone().unwrap_or_default();
    host.cpuset_mems = limits.cpuset_mems.clone().unwrap_or_default();
    host.pids_limit = limits.pids;
    host.blkio_weight = limits.blkio_weight.unwrap_or(0);
    host.cpu_realtime_period = signed(limits.cpu_rt_period_us);
    host.cpu_realtime_runtime = limits.cpu_rt_runtime_us.unwrap_or(0);
    let weights = limits.blkio_weight_devices.iter();
    let weight = |device: &engine::model::WeightDevice| wire::WeightDevice {
        path: device.path.display().to_string(),
        weight: device.weight,
    };
    host.blkio_weight_device = Some(weights.map(weight).collect());
    host.blkio_device_read_bps = throttles(&limits.blkio_read_bps);
    host.blkio_device_write_bps = throttles(&limits.blkio_write_bps);
    host.blkio_device_read_iops = throttles(&limits.blkio_read_iops);
    host.blkio_device_write_iops = throttles(&limits.blkio_write_iops);
    host.network_rate = network_rate(limits);
    let ulimits = limits.ulimits.iter();
    host.ulimits = Some(
        ulimits
            .map(|u| wire::Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
    );
}

/// Names the first limit that only Windows has.
pub(super) fn refuse_windows_limits(resources: &wire::Resources) -> Result<()> {
    let asked = [
        (resources.cpu_count != 0, "--cpu-count"),
        (resources.cpu_percent != 0, "--cpu-percent"),
        (resources.io_maximum_iops != 0, "--io-maxiops"),
        (resources.io_maximum_bandwidth != 0, "--io-maxbandwidth"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Error::bad_request(format!(
            "{flag} is for Windows containers"
        ))),
        None => Ok(()),
    }
}

fn positive(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}
