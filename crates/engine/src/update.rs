//! `update`: limits and restart policy of a container that exists, and what becomes of limits that the host cannot keep.
//!
//! What is changed lies in the container's state: its specification never changes. A running container's cgroup is changed first, so
//! that what the kernel refuses is not recorded.

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::model::{Limits, Phase, Restart};
use oci::runtime as rt;
use shim::CgroupSupport;
use shim::protocol::Request;
use tokio::task::block_in_place;

/// What to change; absent values stay.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Limits. `oom_kill_disable` and `ulimits` are not looked at: they are of the start.
    pub limits: Limits,
    /// No limit of processes, which an absent one does not say.
    pub unlimited_pids: bool,
    /// The restart policy.
    pub restart: Option<Restart>,
}

impl Engine {
    /// Changes a container, at once if it runs. Returns what was done differently than asked.
    ///
    /// # Errors
    /// No such container, limits that make no sense or that the kernel refuses: then nothing has changed.
    pub async fn update(&self, key: &str, update: Update) -> Result<Vec<String>> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        let phase = container.phase();
        if matches!(phase, Phase::Removing | Phase::Dead) {
            return Err(Error::conflict(format!(
                "Cannot update container {}: container is marked for removal and cannot be \"update\"",
                container.id()
            )));
        }
        let auto_remove = container.spec.lifecycle.auto_remove;
        if auto_remove && update.restart.is_some_and(|restart| restart != Restart::No) {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let before = container.snapshot().limits().clone();
        let mut limits = merge(&before, &update)?;
        let warnings = fit(&mut limits, &host_support()?)?;
        crate::spec::limits::check(&limits)?;
        let state = container.state();
        self.check_rate(&limits, &container.spec.network.mode, &state.attachments)?;
        if phase.is_running() && limits != before {
            self.update_running(&container, &limits, &before).await?;
        }
        container.change(|state| {
            state.limits = Some(limits);
            state.restart = update.restart.or(state.restart);
        });
        self.save_state(&container)?;
        self.container_event(&container, "update", []);
        Ok(warnings)
    }

    /// Has a container that runs keep other limits, all of them or none.
    async fn update_running(
        &self,
        container: &Container,
        limits: &Limits,
        before: &Limits,
    ) -> Result<()> {
        let bound = |limits: &Limits| {
            block_in_place(|| self.bound_endpoints(container, limits.network_rate))
        };
        let request = |to: &Limits, from: &Limits| {
            let resources = Box::new(resources(to, from)?);
            Ok::<_, Error>(Request::Update { resources })
        };
        let link = container.running_link()?;
        let told = link.tell(request(limits, before)?).await;
        let Err(error) = told.and_then(|()| bound(limits)) else {
            return Ok(());
        };
        // Some of it may be set: the former limits are set again, as far as the kernel takes them.
        let id = container.id();
        let restored = link.tell(request(before, limits)?).await;
        if let Err(error) = restored.and_then(|()| bound(before)) {
            tracing::warn!(
                container = id,
                error = error.chain(),
                "cannot set the former limits again"
            );
        }
        Err(Error::system(
            format!("Cannot update container {id}"),
            error,
        ))
    }
}

/// What the cgroup is told. What has become unlimited must be said: to the kernel, too, an absent value is one that stays.
fn resources(limits: &Limits, before: &Limits) -> Result<rt::Resources> {
    let mut resources = crate::spec::limits::resources(limits, Vec::new())?;
    if limits.pids.is_none() && before.pids.is_some() {
        resources.pids = Some(rt::Pids { limit: Some(-1) });
    }
    Ok(resources)
}

/// The limits after an update.
fn merge(before: &Limits, update: &Update) -> Result<Limits> {
    let asked = &update.limits;
    let conflicts = [
        (
            asked.nano_cpus.is_some() && before.cpu_period_us.is_some(),
            "Nano CPUs cannot be updated as CPU Period has already been set",
        ),
        (
            asked.nano_cpus.is_some() && before.cpu_quota_us.is_some(),
            "Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            asked.cpu_period_us.is_some() && before.nano_cpus.is_some(),
            "CPU Period cannot be updated as NanoCPUs has already been set",
        ),
        (
            asked.cpu_quota_us.is_some() && before.nano_cpus.is_some(),
            "CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
    ];
    if let Some((_, reason)) = conflicts.iter().find(|(conflict, _)| *conflict) {
        return Err(Error::conflict(format!("Conflicting options: {reason}")));
    }
    fn list<T: Clone>(asked: &[T], before: &[T]) -> Vec<T> {
        if asked.is_empty() { before } else { asked }.to_vec()
    }
    Ok(Limits {
        memory_bytes: asked.memory_bytes.or(before.memory_bytes),
        memory_swap_bytes: memory_swap(before, asked)?,
        memory_reservation_bytes: asked
            .memory_reservation_bytes
            .or(before.memory_reservation_bytes),
        memory_swappiness: asked.memory_swappiness.or(before.memory_swappiness),
        oom_kill_disable: before.oom_kill_disable,
        nano_cpus: asked.nano_cpus.or(before.nano_cpus),
        cpu_shares: asked.cpu_shares.or(before.cpu_shares),
        cpu_period_us: asked.cpu_period_us.or(before.cpu_period_us),
        cpu_quota_us: asked.cpu_quota_us.or(before.cpu_quota_us),
        cpuset_cpus: asked.cpuset_cpus.clone().or(before.cpuset_cpus.clone()),
        cpuset_mems: asked.cpuset_mems.clone().or(before.cpuset_mems.clone()),
        pids: match update.unlimited_pids {
            true => None,
            false => asked.pids.or(before.pids),
        },
        cpu_rt_period_us: asked.cpu_rt_period_us.or(before.cpu_rt_period_us),
        cpu_rt_runtime_us: asked.cpu_rt_runtime_us.or(before.cpu_rt_runtime_us),
        blkio_weight: asked.blkio_weight.or(before.blkio_weight),
        blkio_weight_devices: list(&asked.blkio_weight_devices, &before.blkio_weight_devices),
        blkio_read_bps: list(&asked.blkio_read_bps, &before.blkio_read_bps),
        blkio_write_bps: list(&asked.blkio_write_bps, &before.blkio_write_bps),
        blkio_read_iops: list(&asked.blkio_read_iops, &before.blkio_read_iops),
        blkio_write_iops: list(&asked.blkio_write_iops, &before.blkio_write_iops),
        network_rate: asked.network_rate.or(before.network_rate),
        ulimits: before.ulimits.clone(),
    })
}

/// The limit of memory and swap together after an update. Once there is one, it stays what it is when the memory changes.
fn memory_swap(before: &Limits, asked: &Limits) -> Result<Option<i64>> {
    let double = before.memory_bytes.map(|bytes| bytes.saturating_mul(2));
    let present = before.memory_swap_bytes.or(double);
    match (asked.memory_bytes, asked.memory_swap_bytes, present) {
        (_, Some(swap), _) => Ok(Some(swap)),
        (Some(memory), None, Some(swap @ 0..)) if memory > swap => Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        )),
        (Some(_), None, present) => Ok(present),
        (None, None, _) => Ok(before.memory_swap_bytes),
    }
}

/// What the host's cgroups can limit.
pub(crate) fn host_support() -> Result<CgroupSupport> {
    CgroupSupport::of_host().context(|| "look at the host's cgroups")
}

/// A limit that a host may lack, and what is said then.
struct Optional {
    there: bool,
    asked: fn(&Limits) -> bool,
    discard: fn(&mut Limits),
    warning: &'static str,
}

/// Takes out what the host cannot keep, and says so, in Docker's words.
///
/// # Errors
/// What a container must not run without.
pub(crate) fn fit(limits: &mut Limits, support: &CgroupSupport) -> Result<Vec<String>> {
    if limits.nano_cpus.is_some() && !support.cpu_quota {
        return Err(Error::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    let realtime = limits.cpu_rt_period_us.is_some() || limits.cpu_rt_runtime_us.is_some();
    if realtime && !support.cpu_realtime {
        return Err(Error::invalid(
            "Your kernel does not support CPU real-time scheduler",
        ));
    }
    let mut warnings = Vec::new();
    for optional in optional(support) {
        if !optional.there && (optional.asked)(limits) {
            (optional.discard)(limits);
            warnings.push(optional.warning.to_owned());
        }
    }
    if limits.oom_kill_disable && limits.memory_bytes.is_none() {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(warnings)
}

fn optional(support: &CgroupSupport) -> [Optional; 11] {
    [
        Optional {
            there: support.memory,
            asked: |limits| limits.memory_bytes.is_some(),
            discard: |limits| (limits.memory_bytes, limits.memory_swap_bytes) = (None, None),
            warning: "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        },
        Optional {
            there: support.swap,
            asked: |limits| limits.memory_bytes.is_some() && limits.memory_swap_bytes != Some(-1),
            discard: |limits| limits.memory_swap_bytes = Some(-1),
            warning: "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        },
        Optional {
            there: support.memory,
            asked: |limits| limits.memory_reservation_bytes.is_some(),
            discard: |limits| limits.memory_reservation_bytes = None,
            warning: "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        },
        Optional {
            there: support.swappiness,
            asked: |limits| limits.memory_swappiness.is_some(),
            discard: |limits| limits.memory_swappiness = None,
            warning: "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        },
        Optional {
            there: support.oom_kill_disable,
            asked: |limits| limits.oom_kill_disable,
            discard: |limits| limits.oom_kill_disable = false,
            warning: "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        },
        Optional {
            there: support.pids,
            asked: |limits| limits.pids.is_some(),
            discard: |limits| limits.pids = None,
            warning: "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        },
        Optional {
            there: support.cpu_shares,
            asked: |limits| limits.cpu_shares.is_some(),
            discard: |limits| limits.cpu_shares = None,
            warning: "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        },
        Optional {
            there: support.cpu_quota,
            asked: |limits| limits.cpu_period_us.is_some() || limits.cpu_quota_us.is_some(),
            discard: |limits| (limits.cpu_period_us, limits.cpu_quota_us) = (None, None),
            warning: "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        },
        Optional {
            there: support.cpuset,
            asked: |limits| limits.cpuset_cpus.is_some() || limits.cpuset_mems.is_some(),
            discard: |limits| (limits.cpuset_cpus, limits.cpuset_mems) = (None, None),
            warning: "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.",
        },
        Optional {
            there: support.io_weight,
            asked: |limits| limits.blkio_weight.is_some(),
            discard: |limits| limits.blkio_weight = None,
            warning: "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        },
        Optional {
            there: support.io_weight_device,
            asked: |limits| !limits.blkio_weight_devices.is_empty(),
            discard: |limits| limits.blkio_weight_devices.clear(),
            warning: "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> CgroupSupport {
        CgroupSupport {
            unified: false,
            memory: true,
            swap: true,
            swappiness: true,
            oom_kill_disable: true,
            cpu_shares: true,
            cpu_quota: true,
            cpu_realtime: true,
            cpuset: true,
            pids: true,
            io_weight: true,
            io_weight_device: true,
            io_rate: true,
        }
    }

    fn update(limits: Limits) -> Update {
        Update {
            limits,
            ..Update::default()
        }
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let before = Limits {
            memory_bytes: Some(100),
            cpu_shares: Some(7),
            pids: Some(3),
            ..Limits::default()
        };
        let asked = Limits {
            cpu_shares: Some(9),
            ..Limits::default()
        };
        let after = merge(&before, &update(asked)).unwrap();
        let expected = Limits {
            cpu_shares: Some(9),
            ..before.clone()
        };
        assert_eq!(after, expected);
        let unlimited = Update {
            unlimited_pids: true,
            ..Update::default()
        };
        let after = merge(&before, &unlimited).unwrap();
        assert_eq!(after.pids, None);
        let told = resources(&after, &before).unwrap();
        assert_eq!(told.pids.unwrap().limit, Some(-1));
    }

    #[test]
    fn memory_does_not_outgrow_its_swap_unnoticed() {
        let before = Limits {
            memory_bytes: Some(100),
            ..Limits::default()
        };
        let memory = |bytes| Limits {
            memory_bytes: Some(bytes),
            ..Limits::default()
        };
        assert!(merge(&before, &update(memory(201))).is_err());
        let after = merge(&before, &update(memory(150))).unwrap();
        assert_eq!(after.memory_swap_bytes, Some(200));
        let first = merge(&Limits::default(), &update(memory(201))).unwrap();
        assert_eq!(first.memory_swap_bytes, None);
    }

    #[test]
    fn a_number_of_cpus_and_a_quota_exclude_each_other() {
        let cpus = Limits {
            nano_cpus: Some(1),
            ..Limits::default()
        };
        let quota = Limits {
            cpu_quota_us: Some(1000),
            ..Limits::default()
        };
        assert!(merge(&cpus, &update(quota.clone())).is_err());
        assert!(merge(&quota, &update(cpus)).is_err());
    }

    #[test]
    fn what_the_host_cannot_keep_is_told() {
        let asked = Limits {
            memory_bytes: Some(100),
            oom_kill_disable: true,
            cpu_shares: Some(2),
            ..Limits::default()
        };
        let mut limits = asked.clone();
        assert!(fit(&mut limits, &everything()).unwrap().is_empty());
        assert_eq!(limits, asked);
        let unified = CgroupSupport {
            swap: false,
            oom_kill_disable: false,
            ..everything()
        };
        let warnings = fit(&mut limits, &unified).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!(
            (limits.memory_swap_bytes, limits.oom_kill_disable),
            (Some(-1), false)
        );
        let nothing = CgroupSupport::default();
        let cpus = Limits {
            nano_cpus: Some(1),
            ..Limits::default()
        };
        assert!(fit(&mut cpus.clone(), &nothing).is_err());
    }
}
