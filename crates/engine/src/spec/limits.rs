//! Cgroup resources and resource limits.

use crate::error::{Context, Error, Result};
use crate::model::{Limits, Throttle, WeightDevice};
use oci::runtime as rt;
use rustix::fs::{FileType, major, minor};
use std::collections::BTreeSet;
use std::path::Path;

/// The CPU quota's period in microseconds when only a number of CPUs is given; the kernel's default.
const CPU_PERIOD_US: i64 = 100_000;

/// The resource limits of setrlimit(2).
const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The cgroup's resources.
pub(crate) fn resources(limits: &Limits, devices: Vec<rt::DeviceRule>) -> Result<rt::Resources> {
    Ok(rt::Resources {
        devices,
        memory: memory(limits),
        cpu: cpu(limits),
        pids: limits.pids.map(|limit| rt::Pids {
            limit: Some(if limit > 0 { limit } else { -1 }),
        }),
        block_io: block_io(limits)?,
        ..rt::Resources::default()
    })
}

/// The least memory a container can be limited to: below it the runtime itself could not start it.
const MEMORY_BYTES_MIN: i64 = 6 << 20;

/// Checks limits for what makes no sense, in the words Docker's users know.
pub(crate) fn check(limits: &Limits) -> Result<()> {
    check_memory(limits)?;
    check_cpu(limits)?;
    let weight = |weight: u16| (10..=1000).contains(&weight);
    if !limits.blkio_weight.is_none_or(weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    rlimits(limits).map(drop)
}

fn check_memory(limits: &Limits) -> Result<()> {
    let memory = limits.memory_bytes;
    if memory.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    match (memory, limits.memory_swap_bytes) {
        (None, Some(swap)) if swap > 0 => {
            return Err(Error::invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ));
        }
        (Some(bytes), Some(swap)) if swap > 0 && swap < bytes => {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        _ => {}
    }
    let reservation = limits.memory_reservation_bytes;
    if reservation.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if memory
        .zip(reservation)
        .is_some_and(|(limit, reservation)| limit < reservation)
    {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if limits.memory_swappiness.is_some_and(|value| value > 100) {
        return Err(Error::invalid(
            "Invalid value: memory swappiness has a range of 0 to 100",
        ));
    }
    Ok(())
}

fn check_cpu(limits: &Limits) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wanted = limits.nano_cpus.unwrap_or(0);
    if wanted < 0 || u64::try_from(wanted).is_ok_and(|nano| nano > cpus as u64 * 1_000_000_000) {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if limits.nano_cpus.is_some()
        && (limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some())
    {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
        ));
    }
    let period = |period: u64| (1000..=1_000_000).contains(&period);
    if !limits.cpu_period_us.is_none_or(period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    // A negative quota is none.
    if limits
        .cpu_quota_us
        .is_some_and(|quota| (1..1000).contains(&quota))
    {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    let realtime = limits.cpu_rt_runtime_us.zip(limits.cpu_rt_period_us);
    if realtime.is_some_and(|(runtime, period)| u64::try_from(runtime).is_ok_and(|us| us > period))
    {
        return Err(Error::invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    check_set("CPUs", "cpus", limits.cpuset_cpus.as_deref(), CPUS_ONLINE)?;
    check_set(
        "memory nodes",
        "mems",
        limits.cpuset_mems.as_deref(),
        NODES_ONLINE,
    )
}

/// Where the kernel tells which CPUs and memory nodes there are.
const CPUS_ONLINE: &str = "/sys/devices/system/cpu/online";
const NODES_ONLINE: &str = "/sys/devices/system/node/online";

/// How large a number in a set can be: the kernel's own limit of CPUs is 8192.
const SET_MEMBER_MAX: u32 = 8191;

/// Checks that a set is one, and that its members exist.
fn check_set(what: &str, name: &str, set: Option<&str>, online: &str) -> Result<()> {
    let Some(set) = set else { return Ok(()) };
    let wanted = parse_set(set)
        .ok_or_else(|| Error::invalid(format!("Invalid value {set} for cpuset {name}")))?;
    // A kernel without such a file has a single node.
    let text = std::fs::read_to_string(online).unwrap_or_else(|_| "0".to_owned());
    let available = text.trim();
    let there = parse_set(available).unwrap_or_default();
    if wanted.is_subset(&there) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {what} are not available - requested {set}, available: {available}"
    )))
}

/// Reads `0-2,5`.
fn parse_set(text: &str) -> Option<BTreeSet<u32>> {
    let number = |digits: &str| {
        let number = digits.trim().parse::<u32>().ok()?;
        (number <= SET_MEMBER_MAX).then_some(number)
    };
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

fn memory(limits: &Limits) -> Option<rt::Memory> {
    let memory = rt::Memory {
        limit: limits.memory_bytes,
        reservation: limits.memory_reservation_bytes,
        // As Docker: as much swap again as memory, unless said otherwise.
        swap: limits
            .memory_swap_bytes
            .or(limits.memory_bytes.map(|bytes| bytes.saturating_mul(2))),
        swappiness: limits.memory_swappiness,
        disable_oom_killer: limits.oom_kill_disable.then_some(true),
        ..rt::Memory::default()
    };
    (memory != rt::Memory::default()).then_some(memory)
}

fn cpu(limits: &Limits) -> Option<rt::Cpu> {
    let from_cpus = limits
        .nano_cpus
        .map(|nano| nano.saturating_mul(CPU_PERIOD_US) / 1_000_000_000);
    let period = from_cpus.and(u64::try_from(CPU_PERIOD_US).ok());
    let cpu = rt::Cpu {
        shares: limits.cpu_shares,
        quota: from_cpus.or(limits.cpu_quota_us),
        period: period.or(limits.cpu_period_us),
        realtime_period: limits.cpu_rt_period_us,
        realtime_runtime: limits.cpu_rt_runtime_us,
        cpus: limits.cpuset_cpus.clone(),
        mems: limits.cpuset_mems.clone(),
        ..rt::Cpu::default()
    };
    (cpu != rt::Cpu::default()).then_some(cpu)
}

fn block_io(limits: &Limits) -> Result<Option<rt::BlockIo>> {
    let block_io = rt::BlockIo {
        weight: limits.blkio_weight,
        weight_device: weights(&limits.blkio_weight_devices)?,
        throttle_read_bps_device: throttles(&limits.blkio_read_bps)?,
        throttle_write_bps_device: throttles(&limits.blkio_write_bps)?,
        throttle_read_iops_device: throttles(&limits.blkio_read_iops)?,
        throttle_write_iops_device: throttles(&limits.blkio_write_iops)?,
        ..rt::BlockIo::default()
    };
    Ok((block_io != rt::BlockIo::default()).then_some(block_io))
}

fn throttles(throttles: &[Throttle]) -> Result<Vec<rt::ThrottleDevice>> {
    let resolve = |throttle: &Throttle| {
        let (major, minor) = block_device(&throttle.path)?;
        let rate = throttle.rate;
        Ok(rt::ThrottleDevice { major, minor, rate })
    };
    throttles.iter().map(resolve).collect()
}

fn weights(weights: &[WeightDevice]) -> Result<Vec<rt::WeightDevice>> {
    let resolve = |device: &WeightDevice| {
        let (major, minor) = block_device(&device.path)?;
        Ok(rt::WeightDevice {
            major,
            minor,
            weight: Some(device.weight),
            leaf_weight: None,
        })
    };
    weights.iter().map(resolve).collect()
}

/// The numbers of a block device.
fn block_device(path: &Path) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path)
        .map_err(std::io::Error::from)
        .context(|| format!("stat {path:?}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(Error::invalid(format!(
            "{path:?} is no block device: its use cannot be limited"
        )));
    }
    Ok((major(stat.st_rdev).into(), minor(stat.st_rdev).into()))
}

/// The process's resource limits.
pub(super) fn rlimits(limits: &Limits) -> Result<Vec<rt::Rlimit>> {
    let value = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let convert = |ulimit: &crate::model::Ulimit| {
        let name = ulimit.name.as_str();
        if !RLIMITS.contains(&name) {
            return Err(Error::invalid(format!(
                "invalid ulimit type: {name}: setrlimit(2) knows {}",
                RLIMITS.join(", ")
            )));
        }
        let (soft, hard) = (value(ulimit.soft), value(ulimit.hard));
        if soft > hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {name}: {} > {}",
                ulimit.soft, ulimit.hard
            )));
        }
        Ok(rt::Rlimit {
            kind: format!("RLIMIT_{}", name.to_ascii_uppercase()),
            soft,
            hard,
        })
    };
    limits.ulimits.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_strictly() {
        let read = |text: &str| parse_set(text).map(|set| set.into_iter().collect::<Vec<_>>());
        assert_eq!(read("0-2,5"), Some(vec![0, 1, 2, 5]));
        for bad in ["", ",", "1-", "2-1", "x", "0-9999", "-1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpus_become_a_quota() {
        let limits = Limits {
            nano_cpus: Some(1_500_000_000),
            ..Limits::default()
        };
        let cpu = cpu(&limits).unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
    }

    #[test]
    fn swap_is_twice_the_memory_unless_said_otherwise() {
        let limits = Limits {
            memory_bytes: Some(10),
            ..Limits::default()
        };
        assert_eq!(memory(&limits).unwrap().swap, Some(20));
        let limits = Limits {
            memory_bytes: Some(10),
            memory_swap_bytes: Some(-1),
            ..Limits::default()
        };
        assert_eq!(memory(&limits).unwrap().swap, Some(-1));
        assert_eq!(memory(&Limits::default()), None);
    }

    #[test]
    fn a_soft_limit_over_the_hard_one_is_refused() {
        let ulimit = |name: &str, soft, hard| Limits {
            ulimits: vec![crate::model::Ulimit {
                name: name.to_owned(),
                soft,
                hard,
            }],
            ..Limits::default()
        };
        assert!(rlimits(&ulimit("nofile", 2, 1)).is_err());
        assert!(rlimits(&ulimit("nofiles", 1, 1)).is_err());
        let unlimited = rlimits(&ulimit("core", -1, -1)).unwrap();
        assert_eq!(
            (unlimited[0].kind.as_str(), unlimited[0].soft),
            ("RLIMIT_CORE", u64::MAX)
        );
    }
}
