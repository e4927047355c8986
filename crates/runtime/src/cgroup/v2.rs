//! The files of cgroup v2, one function for each controller, with the specification's v1 numbers converted.
//!
//! Source: kernel `Documentation/admin-guide/cgroup-v2.rst`.

use super::devices::{self, Rule};
use super::dir::Dir;
use super::limits::{check_usage, hugepage_prefix, set_then};
use crate::error::{Doing, Error, Result};
use oci::runtime::{BlockIo, Cpu, HugepageLimit, Memory, Resources};
use rustix::io::Errno;
use std::os::fd::AsFd;

pub(super) const PERIOD_DEFAULT_US: u64 = 100_000;

/// Hands the controllers down to the groups below `group`, as far as they were handed down to it.
pub(super) fn delegate(group: &Dir, controllers: &[String]) -> sys::Result<()> {
    let enabled = group.read("cgroup.subtree_control")?;
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    let mut missing: Vec<_> = { controllers.iter() }
        .filter(|name| !has(&enabled, name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let available = group.read("cgroup.controllers")?;
    missing.retain(|name| has(&available, name));
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().map(|name| format!("+{name}")).collect();
    group.write("cgroup.subtree_control", &words.join(" "))
}

pub(super) fn devices(group: &Dir, rules: &[Rule]) -> Result<()> {
    let doing = "setting the device rules";
    let program = sys::bpf::load_device_program(&devices::program(rules)).doing(doing)?;
    let old = sys::bpf::device_programs(group.as_fd()).doing(doing)?;
    let replaced = if let [only] = old.as_slice() {
        Some(only.as_fd())
    } else {
        None
    };
    sys::bpf::attach_device_program(group.as_fd(), program.as_fd(), replaced).doing(doing)?;
    if replaced.is_none() {
        for program in &old {
            sys::bpf::detach_device_program(group.as_fd(), program.as_fd()).doing(doing)?;
        }
    }
    Ok(())
}

pub(super) fn memory(group: &Dir, memory: &Memory) -> Result<()> {
    let doing = "setting the memory limits";
    for (asked, name) in [
        (
            memory.kernel.is_some_and(|limit| limit > 0),
            "a limit of kernel memory",
        ),
        (
            memory.kernel_tcp.is_some_and(|limit| limit > 0),
            "a limit of TCP memory",
        ),
        (memory.swappiness.is_some(), "swappiness"),
        (
            memory.disable_oom_killer == Some(true),
            "switching off the OOM killer",
        ),
    ] {
        if asked {
            return Err(Error::unsupported(format!("{name}: cgroup v2 has none")));
        }
    }
    let limit = memory.limit.filter(|&limit| limit != 0);
    check_usage(group, memory, "memory.current")?;
    if let Some(swap) = swap_alone(memory)? {
        match group.write("memory.swap.max", &swap) {
            // Without swap accounting there is nothing to unlimit.
            Err(error) if error.errno == Errno::NOENT && swap == "max" => {}
            result => result.doing(doing)?,
        }
    }
    if let Some(limit) = limit {
        group.write("memory.max", &or_max(limit)).doing(doing)?;
    }
    if let Some(reservation) = memory.reservation.filter(|&bytes| bytes != 0) {
        group
            .write("memory.low", &or_max(reservation))
            .doing(doing)?;
    }
    Ok(())
}

/// The specification limits memory and swap together, cgroup v2 swap alone.
pub(super) fn swap_alone(memory: &Memory) -> Result<Option<String>> {
    let limit = memory.limit.filter(|&limit| limit != 0);
    match (limit, memory.swap.filter(|&swap| swap != 0)) {
        (Some(-1), None) | (_, Some(-1)) => Ok(Some("max".into())),
        (_, None) => Ok(None),
        (Some(limit @ 0..), Some(swap)) if swap >= limit => Ok(Some((swap - limit).to_string())),
        (Some(0..), Some(_)) => Err(Error::invalid(
            "the limit of memory and swap is less than that of memory",
        )),
        (_, Some(_)) => Err(Error::invalid("a swap limit needs a memory limit")),
    }
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

pub(super) fn cpu(group: &Dir, cpu: &Cpu) -> Result<()> {
    let doing = "setting the CPU limits";
    if cpu.realtime_period.is_some_and(|us| us != 0)
        || cpu.realtime_runtime.is_some_and(|us| us != 0)
    {
        return Err(Error::unsupported(
            "real-time CPU limits: cgroup v2 has none",
        ));
    }
    if let Some(idle) = cpu.idle {
        group.write("cpu.idle", &idle.to_string()).doing(doing)?;
    }
    // An idle group's weight is fixed.
    if let Some(shares) = cpu
        .shares
        .filter(|&shares| shares != 0 && cpu.idle != Some(1))
    {
        group
            .write("cpu.weight", &weight_of_shares(shares).to_string())
            .doing(doing)?;
    }
    let quota = cpu.quota.filter(|&quota| quota != 0);
    let period = cpu.period.filter(|&period| period != 0);
    let bandwidth = if quota.is_none() && period.is_none() {
        None
    } else {
        let quota = match quota {
            Some(quota) => or_max(quota),
            None => group
                .read("cpu.max")
                .doing("reading the CPU limits")?
                .split_whitespace()
                .next()
                .unwrap_or("max")
                .to_owned(),
        };
        Some(format!("{quota} {}", period.unwrap_or(PERIOD_DEFAULT_US)))
    };
    let set = |file: &str, value: Option<String>| match value {
        Some(value) => group.write(file, &value).doing(doing),
        None => Ok(()),
    };
    let burst = cpu.burst.map(|burst| burst.to_string());
    set_then(
        burst,
        |burst| set("cpu.max.burst", burst),
        || set("cpu.max", bandwidth),
    )
}

/// Shares (2 to 262144, 1024 by default) as a weight (1 to 10000, 100 by default): the curve through these three points that
/// Kubernetes and the other runtimes agreed on.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    const SHARES_MIN: u64 = 2;
    const SHARES_MAX: u64 = 262_144;
    if shares <= SHARES_MIN {
        return 1;
    }
    if shares >= SHARES_MAX {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "less than 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000 by the curve's construction"
    )]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight
}

pub(super) fn block_io(group: &Dir, block_io: &BlockIo) -> Result<()> {
    let doing = "setting the block I/O limits";
    if block_io.leaf_weight.is_some_and(|weight| weight != 0)
        || block_io
            .weight_device
            .iter()
            .any(|device| device.leaf_weight.is_some())
    {
        return Err(Error::unsupported(
            "block I/O leaf weights: cgroup v2 has none",
        ));
    }
    // BFQ has the specification's range; the cost model's goes from 1 to 10000.
    let bfq = group.has("io.bfq.weight");
    let file = if bfq { "io.bfq.weight" } else { "io.weight" };
    let scaled = |weight: u16| {
        if bfq {
            weight.into()
        } else {
            io_weight(weight)
        }
    };
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        group
            .write(file, &scaled(weight).to_string())
            .doing(doing)?;
    }
    for device in &block_io.weight_device {
        let Some(weight) = device.weight else {
            continue;
        };
        let line = format!("{}:{} {}", device.major, device.minor, scaled(weight));
        group.write(file, &line).doing(doing)?;
    }
    let throttles = [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ];
    for (key, devices) in throttles {
        for device in devices {
            let rate = if device.rate == 0 {
                "max".into()
            } else {
                device.rate.to_string()
            };
            let line = format!("{}:{} {key}={rate}", device.major, device.minor);
            group.write("io.max", &line).doing(doing)?;
        }
    }
    Ok(())
}

pub(super) fn hugepages(group: &Dir, limit: &HugepageLimit) -> Result<()> {
    let prefix = hugepage_prefix(group, limit, "max")?;
    let bytes = limit.limit.to_string();
    let doing = "setting the huge page limits";
    group.write(&format!("{prefix}.max"), &bytes).doing(doing)?;
    let reserved = format!("{prefix}.rsvd.max");
    if group.has(&reserved) {
        group.write(&reserved, &bytes).doing(doing)
    } else {
        Ok(())
    }
}

/// A block I/O weight (10 to 1000) as the cost model's (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// Writes files as they are asked for.
pub(super) fn unified(group: &Dir, resources: &Resources) -> Result<()> {
    for (file, value) in &resources.unified {
        let plain = file
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if file.is_empty() || file.starts_with('.') || !plain {
            return Err(Error::invalid(format!(
                "{file:?} is not the name of a cgroup file"
            )));
        }
        group
            .write(file, value)
            .doing_with(|| format!("setting {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Dir) {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(tree.path().join(name), text).unwrap();
        }
        let group = Dir::open(tree.path()).unwrap();
        (tree, group)
    }

    #[test]
    fn shares_keep_their_three_fixed_points() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
        assert_eq!([0, 3, u64::MAX].map(weight_of_shares), [1, 2, 10_000]);
    }

    #[test]
    fn a_period_alone_keeps_the_quota() {
        let (_tree, group) = group(&[("cpu.max", "5000 9\n")]);
        cpu(
            &group,
            &Cpu {
                period: Some(20_000),
                ..Cpu::default()
            },
        )
        .unwrap();
        assert_eq!(group.read("cpu.max").unwrap(), "5000 20000");
    }

    #[test]
    fn swap_is_what_exceeds_memory() {
        let (_tree, group) = group(&[("memory.max", ""), ("memory.swap.max", "")]);
        let limits = Memory {
            limit: Some(1 << 20),
            swap: Some(3 << 20),
            ..Memory::default()
        };
        memory(&group, &limits).unwrap();
        assert_eq!(group.read("memory.max").unwrap(), "1048576");
        assert_eq!(group.read("memory.swap.max").unwrap(), "2097152");
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (limit, swap) in [(Some(2), Some(1)), (None, Some(1)), (Some(-1), Some(1))] {
            let memory = Memory {
                limit,
                swap,
                ..Memory::default()
            };
            assert!(swap_alone(&memory).is_err(), "{memory:?}");
        }
    }

    #[test]
    fn a_limit_below_the_usage_is_refused_when_asked_to() {
        let (_tree, group) = group(&[("memory.max", "max"), ("memory.current", "4096\n")]);
        let limits = Memory {
            limit: Some(1),
            check_before_update: Some(true),
            ..Memory::default()
        };
        assert!(memory(&group, &limits).is_err());
        assert_eq!(group.read("memory.max").unwrap(), "max");
    }

    #[test]
    fn a_unified_name_cannot_be_a_path() {
        let (_tree, group) = group(&[("memory.high", "")]);
        for name in ["../memory.high", "a/b", "", "..", "memory.high\n"] {
            let resources = Resources {
                unified: [(name.to_owned(), "1".to_owned())].into(),
                ..Resources::default()
            };
            assert!(unified(&group, &resources).is_err(), "{name:?}");
        }
    }

    #[test]
    fn controllers_are_delegated_once() {
        let (_tree, group) = group(&[
            ("cgroup.subtree_control", "cpu io\n"),
            ("cgroup.controllers", "cpu io memory pids\n"),
        ]);
        let all = ["cpu", "pids", "memory", "rdma"].map(str::to_owned);
        delegate(&group, &all).unwrap();
        assert_eq!(
            group.read("cgroup.subtree_control").unwrap(),
            "+pids +memory"
        );
    }

    #[test]
    fn weights_are_scaled_unless_bfq_takes_them() {
        let io = BlockIo {
            weight: Some(505),
            ..BlockIo::default()
        };
        let (_tree, cost) = group(&[("io.weight", "")]);
        block_io(&cost, &io).unwrap();
        assert_eq!(cost.read("io.weight").unwrap(), "5000");
        let (_tree, bfq) = group(&[("io.bfq.weight", ""), ("io.weight", "")]);
        block_io(&bfq, &io).unwrap();
        assert_eq!(bfq.read("io.bfq.weight").unwrap(), "505");
    }

    /// A group of the host's own v2 tree, be it one beside v1.
    struct Real(std::path::PathBuf);

    impl Real {
        fn make() -> Option<Self> {
            let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(std::path::Path::new);
            let mount = mounts
                .into_iter()
                .find(|path| path.join("cgroup.procs").exists())?;
            let path = mount.join(format!("hull-test-devices-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Some(Self(path))
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn the_kernel_takes_device_programs_and_obeys_the_last() {
        use rustix::process::{WaitOptions, waitpid};
        use sys::process::{Spawn, exit, spawn};
        let Some(real) = Real::make() else { return };
        let group = Dir::open(&real.0).unwrap();
        let opens = |path: &str| {
            let path = std::ffi::CString::new(path).unwrap();
            let how = Spawn {
                cgroup: Some(group.as_fd()),
                ..Spawn::default()
            };
            let child = spawn(how, || {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                let opened = rustix::fs::open(path.as_c_str(), flags, rustix::fs::Mode::empty());
                exit(i32::from(opened.is_err()))
            })
            .unwrap();
            let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())
                .unwrap()
                .unwrap();
            status.exit_status() == Some(0)
        };
        assert!(opens("/dev/kmsg"));
        devices(&group, &devices::rules(&[]).unwrap()).unwrap();
        assert!(opens("/dev/null") && !opens("/dev/kmsg"));
        let kmsg = oci::runtime::DeviceRule {
            allow: true,
            kind: Some("c".into()),
            major: Some(1),
            minor: Some(11),
            access: Some("r".into()),
        };
        devices(&group, &devices::rules(&[kmsg]).unwrap()).unwrap();
        assert!(opens("/dev/kmsg"));
        assert_eq!(sys::bpf::device_programs(group.as_fd()).unwrap().len(), 1);
    }
}
