//! Capabilities, masked paths and the system call filter.

use crate::error::{Error, Result};
use crate::model::{Isolation, Seccomp};
use oci::runtime as rt;
use std::path::PathBuf;

/// Every capability of capabilities(7), without `CAP_`, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless asked otherwise: Docker's fourteen.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Shown as empty: they tell of the host, or let root inside reach it.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

/// Shown, but not writable.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The masked and the read-only paths.
pub(super) fn paths(isolation: &Isolation) -> (Vec<PathBuf>, Vec<PathBuf>) {
    if isolation.privileged || isolation.unmasked_paths {
        return (Vec::new(), Vec::new());
    }
    let masked = isolation.masked_paths.clone();
    let read_only = isolation.read_only_paths.clone();
    (
        masked.unwrap_or_else(|| MASKED.map(PathBuf::from).to_vec()),
        read_only.unwrap_or_else(|| READ_ONLY.map(PathBuf::from).to_vec()),
    )
}

/// Strips `CAP_` and checks the name.
fn capability(name: &str) -> Result<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.into_iter().find(|known| *known == bare).ok_or_else(|| {
        Error::invalid(format!(
            "invalid capability: {name:?}: capabilities(7) lists those that exist"
        ))
    })
}

/// The names a container gets: the default, or all when that is asked for, plus and minus.
fn granted(isolation: &Isolation) -> Result<Vec<&'static str>> {
    if isolation.privileged {
        return Ok(ALL.to_vec());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let add_all = isolation.cap_add.iter().any(is_all);
    let drop_all = isolation.cap_drop.iter().any(is_all);
    let mut names: Vec<&'static str> = match (add_all, drop_all) {
        (true, _) => ALL.to_vec(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT.to_vec(),
    };
    for name in isolation.cap_drop.iter().filter(|name| !is_all(name)) {
        let dropped = capability(name)?;
        names.retain(|name| *name != dropped);
    }
    for name in isolation.cap_add.iter().filter(|name| !is_all(name)) {
        let added = capability(name)?;
        if !names.contains(&added) {
            names.push(added);
        }
    }
    Ok(names)
}

/// The capability sets of the container's process. Nothing is inheritable or ambient (CVE-2022-24769).
pub(super) fn capabilities(isolation: &Isolation) -> Result<rt::Capabilities> {
    Ok(sets(&granted(isolation)?))
}

/// The sets of a privileged process.
pub(super) fn all_capabilities() -> rt::Capabilities {
    sets(&ALL)
}

fn prefixed(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

fn host() -> crate::seccomp::Host<'static> {
    crate::seccomp::Host {
        architecture: std::env::consts::ARCH,
        lsm_denies_alg: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

fn sets(names: &[&str]) -> rt::Capabilities {
    let names = prefixed(names);
    rt::Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..rt::Capabilities::default()
    }
}

/// The system call filter; None for a privileged or unconfined container.
pub(super) fn seccomp(isolation: &Isolation) -> Result<Option<rt::Seccomp>> {
    let names = || granted(isolation).map(|names| prefixed(&names));
    match &isolation.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if isolation.privileged => Ok(None),
        Seccomp::Default => Ok(Some(crate::seccomp::default_profile(&names()?, host()))),
        Seccomp::Profile(json) => crate::seccomp_profile::resolve(json, &names()?).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> Result<Vec<&'static str>> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        granted(&Isolation {
            cap_add: owned(add),
            cap_drop: owned(drop),
            ..Isolation::default()
        })
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        assert_eq!(names(&[], &[]).unwrap(), DEFAULT);
        assert_eq!(names(&["chown"], &["ALL"]).unwrap(), ["CHOWN"]);
        assert!(
            !names(&["ALL"], &["CAP_SYS_ADMIN"])
                .unwrap()
                .contains(&"SYS_ADMIN")
        );
        assert!(
            names(&["CAP_SYS_ADMIN"], &[])
                .unwrap()
                .contains(&"SYS_ADMIN")
        );
        assert!(names(&["CAP_FLY"], &[]).is_err());
    }

    #[test]
    fn nothing_is_inheritable() {
        let sets = capabilities(&Isolation {
            privileged: true,
            ..Isolation::default()
        })
        .unwrap();
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        assert_eq!(sets.bounding.len(), ALL.len());
    }
}
