//! A container's resource usage.

use api_types as wire;
use engine::{Pressure, Stall, Stats};
use std::collections::BTreeMap;

/// Fills in what the container's cgroups and its network namespace tell.
pub(crate) fn fill(response: &mut wire::StatsResponse, stats: &Stats, pid: Option<i32>) {
    response.pids_stats = wire::PidsStats {
        current: stats.pids.current,
        limit: stats.pids.limit.unwrap_or(u64::MAX),
    };
    response.cpu_stats = wire::CpuStats {
        cpu_usage: wire::CpuUsage {
            total_usage: stats.cpu.total_ns,
            percpu_usage: stats.cpu.per_cpu_ns.clone(),
            usage_in_kernelmode: stats.cpu.kernel_ns,
            usage_in_usermode: stats.cpu.user_ns,
        },
        system_cpu_usage: system_cpu_ns().unwrap_or(0),
        online_cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        throttling_data: wire::ThrottlingData {
            periods: stats.cpu.periods,
            throttled_periods: stats.cpu.throttled_periods,
            throttled_time: stats.cpu.throttled_ns,
        },
    };
    let info = rustix::system::sysinfo();
    response.memory_stats = wire::MemoryStats {
        usage: stats.memory.usage,
        max_usage: stats.memory.max_usage,
        stats: stats.memory.details.clone(),
        failcnt: stats.memory.failures,
        limit: stats
            .memory
            .limit
            .unwrap_or_else(|| info.totalram.saturating_mul(info.mem_unit.into())),
        ..wire::MemoryStats::default()
    };
    response.blkio_stats = block_io(stats);
    response.networks = pid.map(networks).unwrap_or_default();
    let pressure = &stats.pressure;
    let kinds = [
        ("cpu", &pressure.cpu),
        ("memory", &pressure.memory),
        ("io", &pressure.io),
    ];
    let known = kinds
        .into_iter()
        .filter_map(|(name, found)| Some((name.to_owned(), self::pressure(found.as_ref()?))));
    response.pressure_stats = known.collect();
}

fn pressure(pressure: &Pressure) -> wire::PressureStats {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    let stall = |stall: Stall| wire::StallStats {
        avg10: percent(stall.average_10s),
        avg60: percent(stall.average_60s),
        avg300: percent(stall.average_300s),
        total: stall.total_us,
    };
    wire::PressureStats {
        some: stall(pressure.some),
        full: stall(pressure.full),
    }
}

fn block_io(stats: &Stats) -> wire::BlkioStats {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    for device in &stats.block_io {
        let entry = |op: &str, value| wire::BlkioStatEntry {
            major: device.major.into(),
            minor: device.minor.into(),
            op: op.to_owned(),
            value,
        };
        bytes.extend([
            entry("read", device.read_bytes),
            entry("write", device.write_bytes),
        ]);
        operations.extend([entry("read", device.reads), entry("write", device.writes)]);
    }
    wire::BlkioStats {
        io_service_bytes_recursive: Some(bytes),
        io_serviced_recursive: Some(operations),
        ..wire::BlkioStats::default()
    }
}

/// What all CPUs of the host have done, in nanoseconds: the first line of `/proc/stat`, in ticks of 10 ms.
fn system_cpu_ns() -> Option<u64> {
    const NS_PER_TICK: u64 = 10_000_000;
    /// user, nice, system, idle, iowait, irq, softirq, steal; guest times are in user already.
    const FIELDS: usize = 8;
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1).take(FIELDS);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks.saturating_mul(NS_PER_TICK))
}

/// The interfaces of a process's network namespace, the loopback interface left out.
fn networks(pid: i32) -> BTreeMap<String, wire::NetworkStats> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let interfaces = text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = counters[..]
        else {
            return None;
        };
        let stats = wire::NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..wire::NetworkStats::default()
        };
        Some((name.trim().to_owned(), stats))
    });
    interfaces.filter(|(name, _)| name != "lo").collect()
}
