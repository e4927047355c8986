//! What a cgroup has used, read from either version's files.
//!
//! A controller or file that the host lacks leaves its numbers at zero or unset: statistics are an account, not a demand.

use super::PressureStats;
use super::dir::Dir;
use super::v1::UNLIMITED;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sys::Result;

/// As many lines of one file as are looked at.
const LINES_MAX: usize = 4096;

/// What a cgroup has used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block input and output by device.
    pub block_io: Vec<BlockIoStats>,
    /// Huge pages by size as the files name it: `2MB`.
    pub hugepages: BTreeMap<String, HugepageStats>,
    /// Time spent waiting for resources.
    #[serde(default)]
    pub pressure: PressureStats,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// Nanoseconds in all.
    pub total_ns: u64,
    /// Nanoseconds in user mode.
    pub user_ns: u64,
    /// Nanoseconds in the kernel.
    pub kernel_ns: u64,
    /// Nanoseconds on each CPU (cgroup v1 only).
    pub per_cpu_ns: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting for the next.
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    pub usage: u64,
    /// The most that ever was in use; 0 where the kernel does not say.
    pub max_usage: u64,
    /// Unset is unlimited.
    pub limit: Option<u64>,
    /// Times the limit was hit.
    pub failures: u64,
    /// Swap in use (v1: memory and swap together less memory).
    pub swap_usage: u64,
    /// Processes the OOM killer ended.
    pub oom_kills: u64,
    /// The lines of `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// Unset is unlimited.
    pub limit: Option<u64>,
}

/// Block input and output of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoStats {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub write_bytes: u64,
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageStats {
    /// In use.
    pub usage: u64,
    /// The most that ever was in use (cgroup v1 only).
    pub max_usage: u64,
    /// Times the limit was hit.
    pub failures: u64,
}

const TICK_NS: u64 = 10_000_000;

pub(super) fn cpu_v1(dir: &Dir, stats: &mut CpuStats) -> Result<()> {
    let lines = table(dir, "cpu.stat")?;
    stats.periods = lines.get("nr_periods").copied().unwrap_or_default();
    stats.throttled_periods = lines.get("nr_throttled").copied().unwrap_or_default();
    stats.throttled_ns = lines.get("throttled_time").copied().unwrap_or_default();
    Ok(())
}

pub(super) fn cpuacct_v1(dir: &Dir, stats: &mut CpuStats) -> Result<()> {
    stats.total_ns = number(dir, "cpuacct.usage")?;
    let lines = table(dir, "cpuacct.stat")?;
    // USER_HZ is 100 on every Linux of today.
    stats.user_ns = lines
        .get("user")
        .copied()
        .unwrap_or_default()
        .saturating_mul(TICK_NS);
    stats.kernel_ns = lines
        .get("system")
        .copied()
        .unwrap_or_default()
        .saturating_mul(TICK_NS);
    let per_cpu = dir
        .read_if_there("cpuacct.usage_percpu")?
        .unwrap_or_default();
    stats.per_cpu_ns = per_cpu
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(())
}

pub(super) fn cpu_v2(dir: &Dir, stats: &mut CpuStats) -> Result<()> {
    let lines = table(dir, "cpu.stat")?;
    let get = |key: &str| lines.get(key).copied().unwrap_or_default();
    stats.total_ns = get("usage_usec").saturating_mul(1000);
    stats.user_ns = get("user_usec").saturating_mul(1000);
    stats.kernel_ns = get("system_usec").saturating_mul(1000);
    stats.periods = get("nr_periods");
    stats.throttled_periods = get("nr_throttled");
    stats.throttled_ns = get("throttled_usec").saturating_mul(1000);
    Ok(())
}

pub(super) fn memory_v1(dir: &Dir, stats: &mut MemoryStats) -> Result<()> {
    stats.usage = number(dir, "memory.usage_in_bytes")?;
    stats.max_usage = number(dir, "memory.max_usage_in_bytes")?;
    stats.failures = number(dir, "memory.failcnt")?;
    stats.limit =
        Some(number(dir, "memory.limit_in_bytes")?).filter(|&bytes| bytes < UNLIMITED && bytes > 0);
    let with_swap = number(dir, "memory.memsw.usage_in_bytes")?;
    stats.swap_usage = with_swap.saturating_sub(stats.usage);
    stats.oom_kills = table(dir, "memory.oom_control")?
        .get("oom_kill")
        .copied()
        .unwrap_or_default();
    stats.details = table(dir, "memory.stat")?;
    Ok(())
}

pub(super) fn memory_v2(dir: &Dir, stats: &mut MemoryStats) -> Result<()> {
    stats.usage = number(dir, "memory.current")?;
    stats.max_usage = number(dir, "memory.peak")?;
    stats.limit = limit(dir, "memory.max")?;
    stats.swap_usage = number(dir, "memory.swap.current")?;
    let events = table(dir, "memory.events")?;
    stats.failures = events.get("max").copied().unwrap_or_default();
    stats.oom_kills = events.get("oom_kill").copied().unwrap_or_default();
    stats.details = table(dir, "memory.stat")?;
    Ok(())
}

pub(super) fn pids(dir: &Dir, stats: &mut PidsStats) -> Result<()> {
    stats.current = number(dir, "pids.current")?;
    stats.limit = limit(dir, "pids.max")?;
    Ok(())
}

pub(super) fn block_io_v1(dir: &Dir, stats: &mut Vec<BlockIoStats>) -> Result<()> {
    let mut devices = BTreeMap::new();
    for (file, bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        // BFQ counts what it schedules, the throttle what passes any scheduler.
        let mut text = None;
        for prefix in ["blkio.throttle", "blkio.bfq"] {
            let found = dir.read_if_there(&format!("{prefix}.{file}_recursive"))?;
            text = text.or(found.filter(|text| text.contains(':')));
        }
        for line in text.unwrap_or_default().lines().take(LINES_MAX) {
            let mut words = line.split_whitespace();
            let (Some(device), Some(operation), Some(Ok(count))) = (
                words.next().and_then(device_number),
                words.next(),
                words.next().map(str::parse),
            ) else {
                continue;
            };
            let entry = device_entry(&mut devices, device);
            match (operation, bytes) {
                ("Read", true) => entry.read_bytes = count,
                ("Write", true) => entry.write_bytes = count,
                ("Read", false) => entry.reads = count,
                ("Write", false) => entry.writes = count,
                _ => {}
            }
        }
    }
    stats.extend(devices.into_values());
    Ok(())
}

pub(super) fn block_io_v2(dir: &Dir, stats: &mut Vec<BlockIoStats>) -> Result<()> {
    let text = dir.read_if_there("io.stat")?.unwrap_or_default();
    let mut devices = BTreeMap::new();
    for line in text.lines().take(LINES_MAX) {
        let mut words = line.split_whitespace();
        let Some(device) = words.next().and_then(device_number) else {
            continue;
        };
        let entry = device_entry(&mut devices, device);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.reads = value,
                "wios" => entry.writes = value,
                _ => {}
            }
        }
    }
    stats.extend(devices.into_values());
    Ok(())
}

pub(super) fn hugepages_v1(dir: &Dir, size: &str) -> Result<HugepageStats> {
    Ok(HugepageStats {
        usage: number(dir, &format!("hugetlb.{size}.usage_in_bytes"))?,
        max_usage: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes"))?,
        failures: number(dir, &format!("hugetlb.{size}.failcnt"))?,
    })
}

pub(super) fn hugepages_v2(dir: &Dir, size: &str) -> Result<HugepageStats> {
    let events = table(dir, &format!("hugetlb.{size}.events"))?;
    Ok(HugepageStats {
        usage: number(dir, &format!("hugetlb.{size}.current"))?,
        max_usage: 0,
        failures: events.get("max").copied().unwrap_or_default(),
    })
}

fn device_entry(
    devices: &mut BTreeMap<(u32, u32), BlockIoStats>,
    (major, minor): (u32, u32),
) -> &mut BlockIoStats {
    let new = BlockIoStats {
        major,
        minor,
        ..BlockIoStats::default()
    };
    devices.entry((major, minor)).or_insert(new)
}

fn device_number(word: &str) -> Option<(u32, u32)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn number(dir: &Dir, file: &str) -> Result<u64> {
    let text = dir.read_if_there(file)?.unwrap_or_default();
    Ok(text.trim().parse().unwrap_or_default())
}

fn limit(dir: &Dir, file: &str) -> Result<Option<u64>> {
    // Unlimited is the word `max`, which is no number.
    Ok(dir
        .read_if_there(file)?
        .and_then(|text| text.trim().parse().ok()))
}

/// A file of lines `key number`.
pub(super) fn table(dir: &Dir, file: &str) -> Result<BTreeMap<String, u64>> {
    let text = dir.read_if_there(file)?.unwrap_or_default();
    let lines = text.lines().take(LINES_MAX).filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, Dir) {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(tree.path().join(name), text).unwrap();
        }
        let dir = Dir::open(tree.path()).unwrap();
        (tree, dir)
    }

    #[test]
    fn v2_numbers_are_converted_to_nanoseconds_and_max_to_unlimited() {
        let (_tree, dir) = dir(&[
            (
                "cpu.stat",
                "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nmax 5\noom 2\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\n",
            ),
        ]);
        let mut stats = Stats::default();
        cpu_v2(&dir, &mut stats.cpu).unwrap();
        memory_v2(&dir, &mut stats.memory).unwrap();
        pids(&dir, &mut stats.pids).unwrap();
        block_io_v2(&dir, &mut stats.block_io).unwrap();
        assert_eq!((stats.cpu.total_ns, stats.cpu.periods), (7000, 2));
        assert_eq!(
            (
                stats.memory.limit,
                stats.memory.failures,
                stats.memory.oom_kills
            ),
            (None, 5, 1)
        );
        assert_eq!(
            stats.pids,
            PidsStats {
                current: 3,
                limit: Some(10)
            }
        );
        assert_eq!(
            (stats.block_io[0].write_bytes, stats.block_io[0].writes),
            (20, 2)
        );
    }

    #[test]
    fn v1_block_io_comes_from_the_throttle_files() {
        let (_tree, dir) = dir(&[
            (
                "blkio.throttle.io_service_bytes_recursive",
                "254:0 Read 10\n254:0 Write 4\nTotal 14\n",
            ),
            (
                "blkio.throttle.io_serviced_recursive",
                "254:0 Read 1\n254:0 Write 2\nTotal 3\n",
            ),
        ]);
        let mut stats = Vec::new();
        block_io_v1(&dir, &mut stats).unwrap();
        let expected = BlockIoStats {
            major: 254,
            minor: 0,
            read_bytes: 10,
            write_bytes: 4,
            reads: 1,
            writes: 2,
        };
        assert_eq!(stats, [expected]);
    }

    #[test]
    fn a_v1_group_without_limit_has_none() {
        let (_tree, dir) = dir(&[("memory.limit_in_bytes", "9223372036854771712\n")]);
        let mut stats = MemoryStats::default();
        memory_v1(&dir, &mut stats).unwrap();
        assert_eq!(stats.limit, None);
    }
}
