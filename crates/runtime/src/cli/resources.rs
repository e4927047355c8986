//! Limits, usage and freezing.

use super::arguments::{Flag, valued};
use super::{Invocation, print};
use crate::cgroup::{BlockIoStats, Cgroup, Stats};
use crate::error::{Doing, Error, Result};
use crate::resctrl::Resctrl;
use crate::state::{Known, read_bytes};
use oci::runtime::{BlockIo, Cpu, Memory, Pids, Resources, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use sys::Context;

/// The largest document read from standard input.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
const INTERVAL_DEFAULT_S: u64 = 5;

pub(super) const UPDATE_FLAGS: [Flag; 19] = [
    valued(
        "resources",
        "r",
        "path",
        "file with the limits, - for standard input; other flags are not read then",
    ),
    valued("blkio-weight", "", "10-1000", "block I/O weight"),
    valued("cpu-period", "", "us", "period of the CPU quota"),
    valued("cpu-quota", "", "us", "CPU time in each period"),
    valued("cpu-burst", "", "us", "CPU time that may accumulate"),
    valued("cpu-share", "", "number", "relative CPU weight"),
    valued("cpu-rt-period", "", "us", "real-time period"),
    valued(
        "cpu-rt-runtime",
        "",
        "us",
        "real-time CPU time in each period",
    ),
    valued("cpuset-cpus", "", "list", "CPUs"),
    valued("cpuset-mems", "", "list", "memory nodes"),
    valued(
        "cpu-idle",
        "",
        "0|1",
        "whether it runs only when nobody else does",
    ),
    valued("kernel-memory", "", "bytes", "kernel memory (cgroup v1)"),
    valued("kernel-memory-tcp", "", "bytes", "TCP buffers (cgroup v1)"),
    valued("memory", "", "bytes", "memory"),
    valued("memory-reservation", "", "bytes", "memory, soft"),
    valued(
        "memory-swap",
        "",
        "bytes",
        "memory and swap; -1 is unlimited",
    ),
    valued("pids-limit", "", "number", "tasks"),
    valued("l3-cache-schema", "", "schema", "parts of the L3 cache"),
    valued("mem-bw-schema", "", "schema", "memory bandwidth"),
];

pub(super) fn pause(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    match known.status()? {
        Status::Running | Status::Created => known.cgroup()?.freeze()?,
        status => return Err(wrong(&known, status, "paused")),
    }
    Ok(0)
}

pub(super) fn resume(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    match known.status()? {
        Status::Paused => known.cgroup()?.thaw()?,
        status => return Err(wrong(&known, status, "resumed")),
    }
    Ok(0)
}

fn wrong(known: &Known, status: Status, what: &str) -> Error {
    let id = &known.record.id;
    Error::State(format!("container {id} cannot be {what}: it is {}", status.as_str()).into())
}

pub(super) fn update(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    let resources = match invocation.arguments.value("resources") {
        Some(path) => from_file(path)?,
        None => from_flags(invocation)?,
    };
    let schema = |name| {
        let read = invocation.arguments.value("resources").is_none();
        invocation.arguments.value(name).filter(|_| read)
    };
    let (cache, bandwidth) = (schema("l3-cache-schema"), schema("mem-bw-schema"));
    if resources != Resources::default() {
        known.cgroup()?.update(&resources)?;
    }
    if cache.is_some() || bandwidth.is_some() {
        let wanted = known.intel_rdt().ok_or_else(|| {
            Error::unsupported("a schema for a container created without linux.intelRdt")
        })?;
        Resctrl::open(&known.record.id, wanted)?.update(cache, bandwidth)?;
    }
    Ok(0)
}

fn from_file(path: &str) -> Result<Resources> {
    let text = if path == "-" {
        let mut text = Vec::new();
        std::io::stdin()
            .take(DOCUMENT_BYTES_MAX)
            .read_to_end(&mut text)
            .call(|| "read(0)")
            .doing("reading the limits")?;
        text
    } else {
        let text = read_bytes(Path::new(path))?;
        text.ok_or_else(|| Error::invalid(format!("there is no {path}")))?
    };
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        doing: "reading the limits".into(),
        source,
    })
}

fn from_flags(invocation: &Invocation) -> Result<Resources> {
    let arguments = &invocation.arguments;
    let text = |name| arguments.value(name).map(str::to_owned);
    let cpu = Cpu {
        shares: arguments.number("cpu-share")?,
        quota: arguments.number("cpu-quota")?,
        burst: arguments.number("cpu-burst")?,
        period: arguments.number("cpu-period")?,
        realtime_runtime: arguments.number("cpu-rt-runtime")?,
        realtime_period: arguments.number("cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: arguments.number("cpu-idle")?,
    };
    let memory = Memory {
        limit: bytes(arguments.value("memory"))?,
        reservation: bytes(arguments.value("memory-reservation"))?,
        swap: bytes(arguments.value("memory-swap"))?,
        kernel: bytes(arguments.value("kernel-memory"))?,
        kernel_tcp: bytes(arguments.value("kernel-memory-tcp"))?,
        ..Memory::default()
    };
    let pids = Pids {
        limit: arguments.number("pids-limit")?,
    };
    let block_io = BlockIo {
        weight: arguments.number("blkio-weight")?,
        ..BlockIo::default()
    };
    Ok(Resources {
        cpu: Some(cpu).filter(|cpu| *cpu != Cpu::default()),
        memory: Some(memory).filter(|memory| *memory != Memory::default()),
        pids: Some(pids).filter(|pids| *pids != Pids::default()),
        block_io: Some(block_io).filter(|block_io| *block_io != BlockIo::default()),
        ..Resources::default()
    })
}

/// A number of bytes, with k, m, g or t behind it for powers of 1024.
fn bytes(text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let invalid = || Error::invalid(format!("{text:?} is no number of bytes"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.chars().next_back() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let number: i64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).map(Some).ok_or_else(invalid)
}

pub(super) fn events(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    let Some(init) = known.init()? else {
        return Err(wrong(&known, Status::Stopped, "watched"));
    };
    let cgroup = known.cgroup()?;
    let interval = interval(invocation.arguments.value("interval"))?;
    if invocation.arguments.has("stats") {
        print_event("stats", &known.record.id, &usage(&known, &cgroup)?)?;
        return Ok(0);
    }
    let doing = "waiting for events";
    let memory = cgroup.oom_events()?;
    let mut kills = cgroup.oom_kills()?;
    loop {
        print_event("stats", &known.record.id, &usage(&known, &cgroup)?)?;
        let mut fds = [
            PollFd::new(&init, PollFlags::IN),
            PollFd::new(&memory, PollFlags::IN),
        ];
        poll(&mut fds, Some(&interval))
            .call(|| "poll")
            .doing(doing)?;
        let (ended, noticed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if noticed {
            memory.drain()?;
        }
        // The notice comes before the kill is counted.
        let now = cgroup.oom_kills()?;
        if now > kills {
            kills = now;
            print_event("oom", &known.record.id, &Value::Null)?;
        }
        if ended {
            return Ok(0);
        }
    }
}

fn interval(text: Option<&str>) -> Result<Timespec> {
    let text = text.unwrap_or("5s");
    let (digits, millis) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => (text, 1000),
    };
    let number: u64 = if text.is_empty() {
        Some(INTERVAL_DEFAULT_S)
    } else {
        digits.parse().ok()
    }
    .filter(|&number| number > 0)
    .ok_or_else(|| Error::invalid(format!("{text:?} is no time of seconds or milliseconds")))?;
    let millis = number.saturating_mul(millis);
    Ok(Timespec {
        tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(millis % 1000 * 1_000_000).expect("less than a second"),
    })
}

fn print_event(kind: &str, id: &str, data: &Value) -> Result<()> {
    let mut event = json!({ "type": kind, "id": id });
    if !data.is_null() {
        event["data"] = data.clone();
    }
    print(&format!("{event}\n"))
}

/// The usage in the shape that runc prints and containerd reads.
fn usage(known: &Known, cgroup: &Cgroup) -> Result<Value> {
    let Stats {
        cpu,
        memory,
        pids,
        block_io,
        hugepages,
        // runc tells of it since 1.2, in another place for each resource; nobody reads it from here yet.
        pressure: _,
    } = cgroup.stats()?;
    let with_swap = memory.usage.saturating_add(memory.swap_usage);
    let unlimited = u64::MAX;
    let huge: serde_json::Map<_, _> = hugepages
        .iter()
        .map(|(size, used)| {
            let used =
                json!({ "usage": used.usage, "max": used.max_usage, "failcnt": used.failures });
            (size.clone(), used)
        })
        .collect();
    Ok(json!({
        "cpu": {
            "usage": {
                "total": cpu.total_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.kernel_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {
            "cache": memory.details.get("cache").or(memory.details.get("file")),
            "usage": {
                "limit": memory.limit.unwrap_or(unlimited),
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.failures,
            },
            "swap": { "limit": 0, "usage": with_swap, "max": 0, "failcnt": 0 },
            "kernel": { "limit": 0, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": memory.details,
        },
        "pids": { "current": pids.current, "limit": pids.limit.unwrap_or(0) },
        "blkio": {
            "ioServiceBytesRecursive": entries(&block_io, |io| [io.read_bytes, io.write_bytes]),
            "ioServicedRecursive": entries(&block_io, |io| [io.reads, io.writes]),
        },
        "hugetlb": huge,
        "intel_rdt": resource_director(known)?,
        "network_interfaces": null,
    }))
}

/// What the container's class of service may use, and what its monitoring group has counted.
fn resource_director(known: &Known) -> Result<Value> {
    let Some(wanted) = known.intel_rdt() else {
        return Ok(json!({}));
    };
    let groups = Resctrl::open(&known.record.id, wanted)?;
    let schemata = groups.schemata()?;
    let schema = |prefix: &str| schemata.iter().find(|line| line.starts_with(prefix));
    let counts = groups.counts()?;
    let of = |name: &str| {
        let counts = counts.values().filter_map(|counts| counts.get(name));
        counts.copied().collect::<Vec<_>>()
    };
    let bandwidths = of("mbm_total_bytes").into_iter().zip(of("mbm_local_bytes"));
    Ok(json!({
        "l3_cache_schema": schema("L3:"),
        "mem_bw_schema": schema("MB:"),
        "cmt_stats": of("llc_occupancy")
            .iter()
            .map(|bytes| json!({ "llc_occupancy": bytes }))
            .collect::<Vec<_>>(),
        "mbm_stats": bandwidths
            .map(|(total, local)| json!({ "mbm_total_bytes": total, "mbm_local_bytes": local }))
            .collect::<Vec<_>>(),
    }))
}

/// One line of a block I/O statistic.
#[derive(Serialize)]
struct Entry {
    major: u32,
    minor: u32,
    op: &'static str,
    value: u64,
}

fn entries(devices: &[BlockIoStats], counts: impl Fn(&BlockIoStats) -> [u64; 2]) -> Vec<Entry> {
    let lines = devices.iter().flat_map(|device| {
        let (major, minor) = (device.major, device.minor);
        ["Read", "Write"]
            .into_iter()
            .zip(counts(device))
            .map(move |(op, value)| Entry {
                major,
                minor,
                op,
                value,
            })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, expected) in [
            ("10", 10),
            ("-1", -1),
            ("2k", 2048),
            ("3MB", 3 << 20),
            ("1g", 1 << 30),
        ] {
            assert_eq!(bytes(Some(text)).unwrap(), Some(expected), "{text}");
        }
        for bad in ["", "k", "1.5m", "9999999t", "1 m", "1x"] {
            assert!(bytes(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn intervals_are_positive() {
        assert_eq!(
            interval(Some("250ms")).unwrap(),
            Timespec {
                tv_sec: 0,
                tv_nsec: 250_000_000
            }
        );
        assert_eq!(
            interval(None).unwrap(),
            Timespec {
                tv_sec: 5,
                tv_nsec: 0
            }
        );
        assert!(interval(Some("0s")).is_err() && interval(Some("x")).is_err());
    }
}
