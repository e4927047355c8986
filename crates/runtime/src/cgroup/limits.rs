//! The configuration's resources, each handed to the group that has its controller, in that group's version.

use super::dir::Dir;
use super::layout::Version;
use super::{Cgroup, devices, v1, v2};
use crate::error::{Doing, Error, Result};
use oci::runtime::{Cpu, HugepageLimit, Memory, Rdma, Resources};

impl Cgroup {
    pub(super) fn set_devices(&self, resources: Option<&Resources>) -> Result<()> {
        let rules = devices::rules(resources.map_or(&[], |resources| &resources.devices))?;
        if let Ok(group) = self.controller("devices", "") {
            return v1::devices(&group.dir, &rules);
        }
        match self.main_group() {
            Some(group) if group.hierarchy.version == Version::V2 => {
                v2::devices(&group.dir, &rules)
            }
            _ => Err(Error::unsupported(
                "device rules: no cgroup hierarchy has them",
            )),
        }
    }

    pub(super) fn set_limits(&self, resources: &Resources) -> Result<()> {
        if let Some(memory) = &resources.memory {
            self.apply(
                "memory",
                "memory limits",
                |dir| v1::memory(dir, memory),
                |dir| v2::memory(dir, memory),
            )?;
        }
        if let Some(cpu) = &resources.cpu {
            let bandwidth = Cpu {
                cpus: None,
                mems: None,
                ..cpu.clone()
            };
            if bandwidth != Cpu::default() {
                self.apply(
                    "cpu",
                    "CPU limits",
                    |dir| v1::cpu(dir, cpu),
                    |dir| v2::cpu(dir, cpu),
                )?;
            }
            for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
                if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                    let group = self.controller("cpuset", "a CPU set")?;
                    group
                        .dir
                        .write(file, value)
                        .doing_with(|| format!("setting {file}"))?;
                }
            }
        }
        if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
            // No task could be born with 0, of which 1 only differs in that; it is also what systemd takes.
            let limit = if limit < 0 {
                "max".into()
            } else {
                limit.max(1).to_string()
            };
            let group = self.controller("pids", "a limit of tasks")?;
            group
                .dir
                .write("pids.max", &limit)
                .doing("setting the limit of tasks")?;
        }
        if let Some(io) = &resources.block_io {
            if let Ok(group) = self.controller("blkio", "") {
                v1::block_io(&group.dir, io)?;
            } else {
                v2::block_io(&self.controller("io", "block I/O limits")?.dir, io)?;
            }
        }
        self.set_rare_limits(resources)
    }

    fn set_rare_limits(&self, resources: &Resources) -> Result<()> {
        for limit in &resources.hugepage_limits {
            self.apply(
                "hugetlb",
                "huge page limits",
                |dir| v1::hugepages(dir, limit),
                |dir| v2::hugepages(dir, limit),
            )?;
        }
        for (device, limits) in &resources.rdma {
            let group = self.controller("rdma", "RDMA limits")?;
            group
                .dir
                .write("rdma.max", &rdma_line(device, limits))
                .doing("setting the RDMA limits")?;
        }
        if let Some(network) = &resources.network {
            if network.class_id.is_some() {
                v1::network_class(&self.controller("net_cls", "a network class")?.dir, network)?;
            }
            if !network.priorities.is_empty() {
                v1::network_priorities(
                    &self.controller("net_prio", "network priorities")?.dir,
                    network,
                )?;
            }
        }
        if !resources.unified.is_empty() {
            let group = self
                .groups
                .iter()
                .find(|group| group.hierarchy.version == Version::V2);
            let group = group.ok_or_else(|| {
                Error::unsupported("unified resources: the host has no cgroup v2")
            })?;
            v2::unified(&group.dir, resources)?;
        }
        Ok(())
    }

    fn apply(
        &self,
        controller: &str,
        asked: &str,
        v1: impl FnOnce(&Dir) -> Result<()>,
        v2: impl FnOnce(&Dir) -> Result<()>,
    ) -> Result<()> {
        let group = self.controller(controller, asked)?;
        match group.hierarchy.version {
            Version::V1 => v1(&group.dir),
            Version::V2 => v2(&group.dir),
        }
    }
}

/// Refuses a limit of memory below what is in use, where the configuration wants that looked at before.
pub(super) fn check_usage(group: &Dir, memory: &Memory, file: &str) -> Result<()> {
    let (Some(true), Some(limit @ 1..)) = (memory.check_before_update, memory.limit) else {
        return Ok(());
    };
    let usage = group.read(file).doing("reading the memory usage")?;
    let usage = usage.trim();
    if usage.parse::<i64>().is_ok_and(|usage| usage > limit) {
        return Err(Error::invalid(format!(
            "memory limit {limit} is less than the {usage} in use"
        )));
    }
    Ok(())
}

/// `hugetlb.2MB` where the group knows that size.
pub(super) fn hugepage_prefix(group: &Dir, limit: &HugepageLimit, file: &str) -> Result<String> {
    let prefix = format!("hugetlb.{}", limit.page_size);
    let word = limit
        .page_size
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric());
    if word && group.has(&format!("{prefix}.{file}")) {
        return Ok(prefix);
    }
    Err(Error::unsupported(format!(
        "huge pages of size {:?}",
        limit.page_size
    )))
}

fn rdma_line(device: &str, limits: &Rdma) -> String {
    let mut line = device.to_owned();
    for (key, value) in [
        ("hca_handle", limits.hca_handles),
        ("hca_object", limits.hca_objects),
    ] {
        if let Some(value) = value {
            line = format!("{line} {key}={value}");
        }
    }
    line
}

/// Sets one value and then others that it may have to wait for: tried before, and again after them when it was too early.
pub(super) fn set_then<T: Clone>(
    value: Option<T>,
    set: impl Fn(Option<T>) -> Result<()>,
    others: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let early = set(value.clone()).is_ok();
    others()?;
    if early { Ok(()) } else { set(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_came_too_early_is_set_again() {
        let ready = std::cell::Cell::new(false);
        let set = |_| {
            if ready.get() {
                Ok(())
            } else {
                Err(Error::invalid("too early"))
            }
        };
        set_then(Some(1), set, || {
            ready.set(true);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn rdma_limits_are_one_line() {
        let limits = Rdma {
            hca_handles: Some(2),
            hca_objects: None,
        };
        assert_eq!(rdma_line("mlx5_1", &limits), "mlx5_1 hca_handle=2");
    }
}
