//! What a process is given by numbers: resource limits, scheduling, priorities, affinity, memory policy, personality.
//!
//! Checked where the caller can still be told; applied from outside where a user namespace would lack the rights, else by the
//! process itself.
//! Source: config.md "process", config-linux.md, getrlimit(2), sched_setattr(2), ioprio_set(2), set_mempolicy(2), personality(2).

use crate::error::{Doing, Error, Result};
use crate::procfs::Procfs;
use oci::runtime::{Linux, MemoryPolicy, Process, Scheduler};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use sys::Context;
use sys::process::{
    SchedulingAttributes, personality, set_io_priority, set_memory_policy, set_scheduling,
};

/// The numbers of one process.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    resources: Vec<(Resource, Rlimit)>,
    oom_score_adj: Option<i32>,
    scheduling: Option<SchedulingAttributes>,
    io_priority: Option<(u16, u16)>,
    memory_policy: Option<(u32, Vec<u64>)>,
    personality: Option<libc::c_ulong>,
}

impl Limits {
    /// Reads a process's, and for a container's first process those of the container.
    pub(crate) fn parse(process: &Process, linux: Option<&Linux>) -> Result<Self> {
        let mut limits = Self {
            oom_score_adj: process.oom_score_adj,
            ..Self::default()
        };
        for limit in &process.rlimits {
            let resource = resource(&limit.kind)?;
            if limits.resources.iter().any(|(other, _)| *other == resource) {
                return Err(Error::invalid(format!("{} twice", limit.kind)));
            }
            if limit.soft > limit.hard {
                return Err(Error::invalid(format!("{}: soft exceeds hard", limit.kind)));
            }
            let value = |value: u64| Some(value).filter(|&value| value != u64::MAX);
            let limit = Rlimit {
                current: value(limit.soft),
                maximum: value(limit.hard),
            };
            limits.resources.push((resource, limit));
        }
        if limits
            .oom_score_adj
            .is_some_and(|score| !(-1000..=1000).contains(&score))
        {
            return Err(Error::invalid("oomScoreAdj is not between -1000 and 1000"));
        }
        limits.scheduling = process.scheduler.as_ref().map(scheduling).transpose()?;
        if let Some(priority) = &process.io_priority {
            let class = match priority.class.as_str() {
                "IOPRIO_CLASS_RT" => 1,
                "IOPRIO_CLASS_BE" => 2,
                "IOPRIO_CLASS_IDLE" => 3,
                other => return Err(Error::invalid(format!("I/O priority class {other:?}"))),
            };
            let level = u16::try_from(priority.priority)
                .ok()
                .filter(|&level| level < 8);
            let level = level.ok_or_else(|| {
                Error::invalid(format!(
                    "I/O priority {} is not between 0 and 7",
                    priority.priority
                ))
            })?;
            limits.io_priority = Some((class, level));
        }
        if let Some(linux) = linux {
            limits.memory_policy = linux
                .memory_policy
                .as_ref()
                .map(memory_policy)
                .transpose()?;
            limits.personality = match &linux.personality {
                None => None,
                Some(found) if !found.flags.is_empty() => {
                    return Err(Error::unsupported(format!(
                        "personality flags {:?}",
                        found.flags
                    )));
                }
                Some(found) => Some(match found.domain.as_str() {
                    "LINUX" => 0,
                    "LINUX32" => 8,
                    other => return Err(Error::invalid(format!("personality {other:?}"))),
                }),
            };
        }
        Ok(limits)
    }

    /// Sets the OOM score of a process, by its directory in procfs.
    pub(crate) fn score(&self, procfs: &Procfs, process: &str) -> Result<()> {
        let Some(score) = self.oom_score_adj else {
            return Ok(());
        };
        procfs
            .write(&format!("{process}/oom_score_adj"), &score.to_string())
            .doing("setting the OOM score")
    }

    /// Raises hard limits that are below those asked for, of the calling process or another, while there are rights over it
    /// from outside of its user namespace. What is lowered waits for [`Self::apply`]: setting up may take more.
    pub(crate) fn raise(&self, pid: Option<Pid>) -> Result<()> {
        for &(resource, wanted) in &self.resources {
            let own = getrlimit(resource);
            let higher = match (wanted.maximum, own.maximum) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(wanted), Some(own)) => wanted > own,
            };
            if higher {
                set(
                    pid,
                    resource,
                    Rlimit {
                        maximum: wanted.maximum,
                        ..own
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Applies everything else to the calling process.
    pub(crate) fn apply(&self) -> Result<()> {
        for &(resource, limit) in &self.resources {
            set(None, resource, limit)?;
        }
        if let Some(attributes) = &self.scheduling {
            set_scheduling(attributes).doing("setting the scheduling policy")?;
        }
        if let Some((class, level)) = self.io_priority {
            set_io_priority(class, level).doing("setting the I/O priority")?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            set_memory_policy(*mode, nodes).doing("setting the memory policy")?;
        }
        if let Some(domain) = self.personality {
            personality(domain).doing("setting the personality")?;
        }
        Ok(())
    }
}

fn set(pid: Option<Pid>, resource: Resource, limit: Rlimit) -> Result<()> {
    prlimit(pid, resource, limit)
        .call(|| format!("prlimit64({pid:?}, {resource:?}, {limit:?})"))
        .doing_with(|| format!("setting the limit {resource:?}"))
        .map(drop)
}

fn resource(name: &str) -> Result<Resource> {
    Ok(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => return Err(Error::invalid(format!("unknown limit {other:?}"))),
    })
}

fn scheduling(scheduler: &Scheduler) -> Result<SchedulingAttributes> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => return Err(Error::unsupported("SCHED_ISO: no kernel has it")),
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::invalid(format!("scheduling policy {other:?}"))),
    };
    let mut flags = 0;
    for name in &scheduler.flags {
        flags |= match name.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::invalid(format!("scheduling flag {other:?}"))),
        };
    }
    let priority = u32::try_from(scheduler.priority.unwrap_or(0))
        .map_err(|_| Error::invalid("the scheduling priority is negative"))?;
    Ok(SchedulingAttributes {
        policy,
        flags,
        nice: scheduler.nice.unwrap_or(0),
        priority,
        runtime: scheduler.runtime.unwrap_or(0),
        deadline: scheduler.deadline.unwrap_or(0),
        period: scheduler.period.unwrap_or(0),
    })
}

/// As many NUMA nodes as kernels are built for at most (`CONFIG_NODES_SHIFT`), and CPUs as a CPU set has.
const NODES_MAX: usize = 1024;

fn memory_policy(policy: &MemoryPolicy) -> Result<(u32, Vec<u64>)> {
    let mut mode = match policy.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        other => return Err(Error::invalid(format!("memory policy {other:?}"))),
    };
    for flag in &policy.flags {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => return Err(Error::invalid(format!("memory policy flag {other:?}"))),
        };
    }
    let nodes = list(&policy.nodes, NODES_MAX)?;
    let mut mask = vec![0_u64; nodes.iter().max().map_or(0, |highest| highest / 64 + 1)];
    for node in nodes {
        mask[node / 64] |= 1 << (node % 64);
    }
    Ok((mode, mask))
}

/// Lets the calling process run on a list of CPUs only.
pub(crate) fn set_affinity(cpus: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in list(cpus, CpuSet::MAX_CPU)? {
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .call(|| format!("sched_setaffinity(0, {cpus:?})"))
        .doing("setting the CPU affinity")
}

/// The numbers of a list such as `0-3,7`, each less than `end`.
pub(crate) fn list(text: &str, end: usize) -> Result<Vec<usize>> {
    let invalid = || Error::invalid(format!("{text:?} is no list of numbers below {end}"));
    let mut numbers = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| word.trim().parse().ok().filter(|&number| number < end);
        let (first, last): (usize, usize) = number(first).zip(number(last)).ok_or_else(invalid)?;
        if first > last {
            return Err(invalid());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(text: &str) -> Process {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(list("0-2, 7", 64).unwrap(), [0, 1, 2, 7]);
        assert!(list("", 64).unwrap().is_empty());
        for bad in ["3-1", "x", "64", "1-", "-1", "0-99999999999999999999"] {
            assert!(list(bad, 64).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_are_a_bit_set() {
        let policy = MemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0,65".into(),
            flags: Vec::new(),
        };
        assert_eq!(memory_policy(&policy).unwrap(), (2, vec![1, 2]));
    }

    #[test]
    fn contradictions_and_unknown_words_are_refused() {
        for bad in [
            r#"{"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]}"#,
            r#"{"rlimits":[{"type":"RLIMIT_CORE"},{"type":"RLIMIT_CORE"}]}"#,
            r#"{"rlimits":[{"type":"RLIMIT_PATIENCE"}]}"#,
            r#"{"oomScoreAdj":-1001}"#,
            r#"{"scheduler":{"policy":"SCHED_ISO"}}"#,
            r#"{"scheduler":{"policy":"SCHED_FIFO","priority":-1}}"#,
            r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#,
        ] {
            assert!(Limits::parse(&process(bad), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_largest_number_is_no_limit() {
        let limits = r#"{"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":18446744073709551615}]}"#;
        let limits = Limits::parse(&process(limits), None).unwrap();
        assert_eq!(
            limits.resources[0].1,
            Rlimit {
                current: Some(1),
                maximum: None
            }
        );
    }
}
