//! The files of cgroup v1, one function for each controller.
//!
//! Source: kernel `Documentation/admin-guide/cgroup-v1/`.

use super::devices::Rule;
use super::dir::Dir;
use super::limits::{check_usage, hugepage_prefix, set_then};
use crate::error::{Doing, Error, Result};
use oci::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Network};
use rustix::io::Errno;

/// `memory.limit_in_bytes` of a group without limit is the largest whole number of pages, this or a little less.
pub(super) const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// A new cpuset group has no CPU and no node, and nothing can enter it: it gets those of the group above.
pub(super) fn inherit_cpuset(parent: &Dir, group: &Dir) -> sys::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if group.read(file)?.trim().is_empty() {
            group.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

pub(super) fn devices(group: &Dir, rules: &[Rule]) -> Result<()> {
    for rule in rules {
        let (file, line) = rule.v1_line();
        group.write(file, &line).doing("setting the device rules")?;
    }
    Ok(())
}

pub(super) fn memory(group: &Dir, memory: &Memory) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let set = |file: &str, value: Option<i64>| match value.filter(|&value| value != 0) {
        Some(value) => group
            .write(file, &value.to_string())
            .doing("setting the memory limits"),
        None => Ok(()),
    };
    check_usage(group, memory, "memory.usage_in_bytes")?;
    let limit = memory.limit.filter(|&limit| limit != 0);
    let mut swap = memory.swap.filter(|&swap| swap != 0);
    if limit == Some(-1) && swap.is_none() && group.has(WITH_SWAP) {
        swap = Some(-1);
    }
    // Memory with swap may at no moment be less than memory.
    let swap_first = match (limit, swap) {
        (Some(_), Some(-1)) => true,
        (Some(_), Some(swap)) => {
            let current = group.read(LIMIT).doing("reading the memory limit")?;
            current
                .trim()
                .parse::<i64>()
                .is_ok_and(|current| current < swap)
        }
        _ => false,
    };
    if swap_first {
        set(WITH_SWAP, swap)?;
        set_limit(group, LIMIT, limit)?;
    } else {
        set_limit(group, LIMIT, limit)?;
        set(WITH_SWAP, swap)?;
    }
    set("memory.soft_limit_in_bytes", memory.reservation)?;
    set("memory.kmem.limit_in_bytes", memory.kernel)?;
    set("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp)?;
    if let Some(swappiness) = memory.swappiness {
        group
            .write("memory.swappiness", &swappiness.to_string())
            .doing("setting the swappiness")?;
    }
    if let Some(disabled) = memory.disable_oom_killer {
        group
            .write("memory.oom_control", if disabled { "1" } else { "0" })
            .doing("switching the OOM killer")?;
    }
    if memory.use_hierarchy == Some(true) {
        group
            .write("memory.use_hierarchy", "1")
            .doing("making memory accounting hierarchical")?;
    }
    Ok(())
}

fn set_limit(group: &Dir, file: &str, limit: Option<i64>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    match group.write(file, &limit.to_string()) {
        Err(error) if error.errno == Errno::BUSY => {
            let usage = group
                .read("memory.usage_in_bytes")
                .doing("reading the memory usage")?;
            let usage = usage.trim();
            let doing = format!("setting the memory limit to {limit} while {usage} are in use");
            Err(error).doing(doing)
        }
        result => result.doing("setting the memory limits"),
    }
}

pub(super) fn cpu(group: &Dir, cpu: &Cpu) -> Result<()> {
    let set = |file: &str, value: Option<String>| match value {
        Some(value) => group.write(file, &value).doing("setting the CPU limits"),
        None => Ok(()),
    };
    let number = |value: Option<u64>| value.filter(|&value| value != 0).map(|v| v.to_string());
    let signed = |value: Option<i64>| value.filter(|&value| value != 0).map(|v| v.to_string());
    set("cpu.shares", number(cpu.shares))?;
    set("cpu.rt_period_us", number(cpu.realtime_period))?;
    set("cpu.rt_runtime_us", signed(cpu.realtime_runtime))?;
    // The kernel refuses what exceeds the other value's present state, so either order can be the only one.
    let (period, quota) = (number(cpu.period), signed(cpu.quota));
    let burst = cpu.burst.map(|burst| burst.to_string());
    set_then(
        burst,
        |burst| set("cpu.cfs_burst_us", burst),
        || {
            set_then(
                period,
                |period| set("cpu.cfs_period_us", period),
                || set("cpu.cfs_quota_us", quota),
            )
        },
    )?;
    set("cpu.idle", cpu.idle.map(|idle| idle.to_string()))
}

pub(super) fn block_io(group: &Dir, block_io: &BlockIo) -> Result<()> {
    let doing = "setting the block I/O limits";
    let weight_file = |names: &[&'static str]| {
        names
            .iter()
            .find(|name| group.has(name))
            .copied()
            .ok_or_else(|| {
                Error::unsupported("block I/O weights: the kernel has neither CFQ nor BFQ groups")
            })
    };
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        let file = weight_file(&["blkio.weight", "blkio.bfq.weight"])?;
        group.write(file, &weight.to_string()).doing(doing)?;
    }
    if let Some(weight) = block_io.leaf_weight.filter(|&weight| weight != 0) {
        let file = weight_file(&["blkio.leaf_weight"])?;
        group.write(file, &weight.to_string()).doing(doing)?;
    }
    for device in &block_io.weight_device {
        let number = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight {
            let file = weight_file(&["blkio.weight_device", "blkio.bfq.weight_device"])?;
            group
                .write(file, &format!("{number} {weight}"))
                .doing(doing)?;
        }
        if let Some(weight) = device.leaf_weight {
            let file = weight_file(&["blkio.leaf_weight_device"])?;
            group
                .write(file, &format!("{number} {weight}"))
                .doing(doing)?;
        }
    }
    let throttles = [
        (
            "blkio.throttle.read_bps_device",
            &block_io.throttle_read_bps_device,
        ),
        (
            "blkio.throttle.write_bps_device",
            &block_io.throttle_write_bps_device,
        ),
        (
            "blkio.throttle.read_iops_device",
            &block_io.throttle_read_iops_device,
        ),
        (
            "blkio.throttle.write_iops_device",
            &block_io.throttle_write_iops_device,
        ),
    ];
    for (file, devices) in throttles {
        for device in devices {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            group.write(file, &line).doing(doing)?;
        }
    }
    Ok(())
}

pub(super) fn hugepages(group: &Dir, limit: &HugepageLimit) -> Result<()> {
    let prefix = hugepage_prefix(group, limit, "limit_in_bytes")?;
    let bytes = limit.limit.to_string();
    let doing = "setting the huge page limits";
    group
        .write(&format!("{prefix}.limit_in_bytes"), &bytes)
        .doing(doing)?;
    let reserved = format!("{prefix}.rsvd.limit_in_bytes");
    if group.has(&reserved) {
        group.write(&reserved, &bytes).doing(doing)
    } else {
        Ok(())
    }
}

pub(super) fn network_class(group: &Dir, network: &Network) -> Result<()> {
    let Some(class) = network.class_id else {
        return Ok(());
    };
    group
        .write("net_cls.classid", &class.to_string())
        .doing("setting the network class")
}

pub(super) fn network_priorities(group: &Dir, network: &Network) -> Result<()> {
    for interface in &network.priorities {
        let line = format!("{} {}", interface.name, interface.priority);
        group
            .write("net_prio.ifpriomap", &line)
            .doing("setting a network priority")?;
    }
    Ok(())
}
