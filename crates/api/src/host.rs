//! What the host lacks, as `/info` warns of it: dockerd's words where it has some, and what to do about it.

use engine::CgroupSupport;

/// What of the host matters to containers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) cgroups: &'a CgroupSupport,
    pub(crate) forwards_ipv4: bool,
    /// The first of them on a bridge switches forwarding on, so until then nothing is wrong.
    pub(crate) containers_run: bool,
    /// How many user namespaces may be made.
    pub(crate) user_namespaces_max: u64,
}

impl<'a> Host<'a> {
    pub(crate) fn look(cgroups: &'a CgroupSupport, containers_run: bool) -> Self {
        let setting = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let forwards = setting("/proc/sys/net/ipv4/ip_forward");
        // A kernel without user namespaces has no such file.
        let namespaces = setting("/proc/sys/user/max_user_namespaces");
        Self {
            cgroups,
            forwards_ipv4: forwards.trim() == "1",
            containers_run,
            user_namespaces_max: namespaces.trim().parse().unwrap_or(0),
        }
    }

    /// A line for each thing that is missing.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let cgroups = self.cgroups;
        let enable = match cgroups.unified {
            true => "enable the controller below the root: cgroup.subtree_control",
            false => {
                "mount its hierarchy, and see that cgroup_disable= of the kernel's command line does not name it"
            }
        };
        let oom = cgroups.oom_kill_disable || cgroups.unified;
        let lacking = [
            (cgroups.memory, "No memory limit support", enable),
            (
                cgroups.swap,
                "No swap limit support",
                "boot with swapaccount=1 on the kernel's command line",
            ),
            (
                oom,
                "No oom kill disable support",
                "the memory hierarchy of cgroup v1 has it",
            ),
            (cgroups.cpu_quota, "No cpu cfs quota support", CPU_QUOTA),
            (cgroups.cpu_quota, "No cpu cfs period support", CPU_QUOTA),
            (cgroups.cpu_shares, "No cpu shares support", enable),
            (cgroups.cpuset, "No cpuset support", enable),
            (cgroups.pids, "No pids limit support", enable),
            (
                cgroups.io_weight,
                "No blkio weight support",
                "a disk's scheduler has to be bfq: /sys/block/*/queue/scheduler",
            ),
            (cgroups.io_rate, "No blkio throttle support", enable),
            (
                self.forwards_ipv4 || !self.containers_run,
                "IPv4 forwarding is disabled",
                "containers on bridges reach nobody: sysctl -w net.ipv4.ip_forward=1",
            ),
            (
                self.user_namespaces_max > 0,
                "No user namespaces",
                "sysctl -w user.max_user_namespaces=15000, without which --userns private fails",
            ),
        ];
        { lacking.iter() }
            .filter(|(there, ..)| !there)
            .map(|(_, what, hint)| format!("WARNING: {what} (hint: {hint})"))
            .collect()
    }
}

const CPU_QUOTA: &str = "the kernel needs CONFIG_CFS_BANDWIDTH, and the controller cpu";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_a_hint() {
        let all = CgroupSupport {
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
            unified: false,
        };
        let host = |cgroups| Host {
            cgroups,
            forwards_ipv4: true,
            containers_run: true,
            user_namespaces_max: 1,
        };
        assert!(host(&all).warnings().is_empty());
        let without_swap = CgroupSupport { swap: false, ..all };
        let warnings = host(&without_swap).warnings();
        assert_eq!(
            warnings,
            [
                "WARNING: No swap limit support (hint: boot with swapaccount=1 on the kernel's command line)"
            ]
        );
        // cgroup v2 has no such switch, so nothing is missing there.
        let unified = CgroupSupport {
            unified: true,
            oom_kill_disable: false,
            ..all
        };
        assert!(host(&unified).warnings().is_empty());
        let closed = Host {
            forwards_ipv4: false,
            user_namespaces_max: 0,
            ..host(&all)
        };
        assert_eq!(closed.warnings().len(), 2);
        let idle = Host {
            containers_run: false,
            ..closed
        };
        assert_eq!(idle.warnings().len(), 1);
    }
}
