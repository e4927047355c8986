//! Kernel parameters of the container's namespaces.
//!
//! Invariant: only parameters that belong to a namespace the container has of its own are written, by exact names (attack
//! 42), to files of the host's own procfs (attack 16), which show the writer's namespaces.
//! Source: config-linux.md "Sysctl", proc(5), namespaces(7).

use crate::error::{Doing, Error, Result};
use crate::procfs::Procfs;
use oci::runtime::Linux;
use std::collections::BTreeMap;
use sys::process::Namespaces;

/// As many parameters as one configuration may have.
const PARAMETERS_MAX: usize = 4096;

/// Parameters of the IPC namespace.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The parameters of a configuration as paths below `/proc/sys`, checked against the namespaces it has of its own.
pub(crate) fn check(linux: &Linux, own: Namespaces) -> Result<BTreeMap<String, &str>> {
    if linux.sysctl.len() > PARAMETERS_MAX {
        return Err(Error::invalid(format!(
            "more than {PARAMETERS_MAX} kernel parameters"
        )));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in &linux.sysctl {
        let path = path_of(name)
            .ok_or_else(|| Error::invalid(format!("{name:?} is no kernel parameter")))?;
        if value.contains(['\0', '\n']) {
            return Err(Error::invalid(format!(
                "the value of {name:?} has several lines"
            )));
        }
        let needed = match path.as_str() {
            path if IPC.contains(&path) || path.starts_with("fs/mqueue/") => Namespaces::IPC,
            path if path.starts_with("net/") => Namespaces::NET,
            "kernel/hostname" | "kernel/domainname" => Namespaces::UTS,
            _ => {
                return Err(Error::invalid(format!(
                    "kernel parameter {name:?} is not of a namespace: it would change the host"
                )));
            }
        };
        if !own.contains(needed) {
            return Err(Error::invalid(format!(
                "kernel parameter {name:?} needs a namespace of its own: it would change the host"
            )));
        }
        if checked.insert(path, value.as_str()).is_some() {
            return Err(Error::invalid(format!("kernel parameter {name:?} twice")));
        }
    }
    Ok(checked)
}

/// Writes checked parameters.
pub(crate) fn apply(procfs: &Procfs, parameters: &BTreeMap<String, &str>) -> Result<()> {
    for (path, value) in parameters {
        procfs
            .write(&format!("sys/{path}"), value)
            .doing_with(|| format!("setting the kernel parameter {path}"))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward`, or with slashes where a part has dots: `net/ipv4/conf/eth0.1/forwarding`.
fn path_of(name: &str) -> Option<String> {
    let slashes = name
        .find(['.', '/'])
        .is_some_and(|first| name.as_bytes()[first] == b'/');
    let path = if slashes {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    let plain = path.split('/').all(|part| {
        let word = part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.@:".contains(&b));
        word && !part.is_empty() && part != "." && part != ".."
    });
    (plain && path.contains('/')).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str, own: Namespaces) -> Option<String> {
        let linux = Linux {
            sysctl: [(name.into(), value.into())].into(),
            ..Linux::default()
        };
        check(&linux, own)
            .ok()
            .map(|found| found.keys().next().unwrap().clone())
    }

    #[test]
    fn names_are_paths_with_dots_or_slashes() {
        let own = Namespaces::NET.with(Namespaces::IPC);
        assert_eq!(
            checked("net.ipv4.ip_forward", "1", own).as_deref(),
            Some("net/ipv4/ip_forward")
        );
        assert_eq!(
            checked("net/ipv4/conf/eth0.1/forwarding", "1", own).as_deref(),
            Some("net/ipv4/conf/eth0.1/forwarding")
        );
        assert_eq!(
            checked("kernel.shmmax", "1", own).as_deref(),
            Some("kernel/shmmax")
        );
    }

    #[test]
    fn attack_42_nothing_but_an_exact_name_of_an_own_namespace_passes() {
        let own = Namespaces::NET.with(Namespaces::IPC).with(Namespaces::UTS);
        for bad in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net..kernel",
            "net.ipv4\nkernel.core_pattern",
            "kernel/sem ",
            "/net/x",
            "net",
            "",
        ] {
            assert_eq!(checked(bad, "1", own), None, "{bad:?}");
        }
        assert_eq!(checked("kernel.sem", "1\n2", own), None);
        assert_eq!(checked("net.ipv4.ip_forward", "1", Namespaces::IPC), None);
        assert_eq!(checked("fs.mqueue.msg_max", "1", Namespaces::NET), None);
    }
}
