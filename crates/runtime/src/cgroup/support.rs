//! Which limits the host's hierarchies can keep.
//!
//! Source: kernel `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`. Some files exist only below the root, so a group of
//! the first level counts as well.

use super::layout::{Hierarchy, Version, hierarchies};
use crate::error::Result;

/// What can be limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one answer for each limit")]
pub struct Support {
    /// Whether cgroup v2 alone is mounted.
    pub unified: bool,
    /// Memory.
    pub memory: bool,
    /// Swap.
    pub swap: bool,
    /// How eagerly memory is swapped.
    pub swappiness: bool,
    /// Switching off the OOM killer.
    pub oom_kill_disable: bool,
    /// Weights of CPU time.
    pub cpu_shares: bool,
    /// Quotas of CPU time.
    pub cpu_quota: bool,
    /// Real-time CPU time.
    pub cpu_realtime: bool,
    /// Sets of CPUs and memory nodes.
    pub cpuset: bool,
    /// Numbers of tasks.
    pub pids: bool,
    /// Weights of block I/O.
    pub io_weight: bool,
    /// Weights of block I/O by device.
    pub io_weight_device: bool,
    /// Rates of block I/O.
    pub io_rate: bool,
}

impl Support {
    /// Looks at the host's hierarchies.
    ///
    /// # Errors
    /// No hierarchy is mounted.
    pub fn of_host() -> Result<Self> {
        let all = hierarchies()?;
        let find = |controller: &str| {
            let has = |hierarchy: &&Hierarchy| {
                { hierarchy.controllers.iter() }.any(|name| name == controller)
            };
            all.iter().find(has)
        };
        let v1_or_v2 = |controller: (&str, &str), files: (&[&str], &[&str])| {
            let found = find(controller.0).or_else(|| find(controller.1));
            found.is_some_and(|hierarchy| match hierarchy.version {
                Version::V1 => files.0.iter().any(|file| has_file(hierarchy, file)),
                Version::V2 => files.1.iter().any(|file| has_file(hierarchy, file)),
            })
        };
        let memory = |v1: &str, v2: &[&str]| v1_or_v2(("memory", "memory"), (&[v1], v2));
        let cpu = |v1: &str, v2: &[&str]| v1_or_v2(("cpu", "cpu"), (&[v1], v2));
        let io = |v1: &[&str], v2: &[&str]| v1_or_v2(("blkio", "io"), (v1, v2));
        Ok(Self {
            unified: all.iter().all(|one| one.version == Version::V2),
            memory: find("memory").is_some(),
            swap: memory("memory.memsw.limit_in_bytes", &["memory.swap.max"]),
            swappiness: memory("memory.swappiness", &[]),
            oom_kill_disable: memory("memory.oom_control", &[]),
            cpu_shares: cpu("cpu.shares", &["cpu.weight"]),
            cpu_quota: cpu("cpu.cfs_quota_us", &["cpu.max"]),
            cpu_realtime: cpu("cpu.rt_runtime_us", &[]),
            cpuset: find("cpuset").is_some(),
            pids: find("pids").is_some(),
            io_weight: io(
                &["blkio.weight", "blkio.bfq.weight"],
                &["io.weight", "io.bfq.weight"],
            ),
            io_weight_device: io(
                &["blkio.weight_device", "blkio.bfq.weight_device"],
                &["io.weight", "io.bfq.weight"],
            ),
            io_rate: io(&["blkio.throttle.read_bps_device"], &["io.max"]),
        })
    }
}

/// Whether the hierarchy has such a file, in its root or in a group of the first level.
fn has_file(hierarchy: &Hierarchy, file: &str) -> bool {
    if hierarchy.mount.join(file).exists() {
        return true;
    }
    let groups = std::fs::read_dir(&hierarchy.mount);
    { groups.into_iter().flatten().flatten() }.any(|group| group.path().join(file).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_host_has_is_found() {
        let support = Support::of_host().unwrap();
        assert!(
            support.memory && support.pids && support.cpu_shares,
            "{support:?}"
        );
        assert!(
            !(support.unified && support.oom_kill_disable),
            "{support:?}"
        );
    }
}
