//! Capability sets: names to bits, and how a process gets from everything to what it may keep (capabilities(7)).
//!
//! Invariant: nothing is inheritable unless the configuration says so by name (a program's file capabilities would otherwise
//! be granted through it, attack 9).

use crate::error::{Doing, Result};
use oci::runtime::Capabilities;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};
use sys::Context;

/// The names, by number (linux/capability.h).
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    inheritable: CapabilitySet,
    permitted: CapabilitySet,
    ambient: CapabilitySet,
}

impl Sets {
    /// The sets of a configuration, without what cannot be granted: what the kernel does not know, what, unless `full`, this
    /// process does not have, and what a set may not have for want of it in another (capabilities(7)). The names of those go
    /// to `missing`, for the specification asks for a warning, not an error.
    pub(crate) fn parse(
        configured: &Capabilities,
        full: bool,
        missing: &mut Vec<String>,
    ) -> Result<Self> {
        let own = capabilities(None)
            .call(|| "capget(0)")
            .doing("reading own capabilities")?;
        let available = if full {
            CapabilitySet::all()
        } else {
            own.permitted
        };
        let mut set = |names: &[String]| {
            let mut set = CapabilitySet::empty();
            for name in names {
                let found = NAMES
                    .iter()
                    .position(|known| known.eq_ignore_ascii_case(name));
                let bit = found.map(|number| CapabilitySet::from_bits_retain(1 << number));
                match bit.filter(|&bit| available.contains(bit)) {
                    Some(bit) => set |= bit,
                    None if missing.contains(name) => {}
                    None => missing.push(name.clone()),
                }
            }
            set
        };
        let bounding = set(&configured.bounding);
        let permitted = set(&configured.permitted);
        let effective = set(&configured.effective);
        let inheritable = set(&configured.inheritable);
        let ambient = set(&configured.ambient);
        let mut within = |set: CapabilitySet, others: CapabilitySet| {
            let refused = NAMES.iter().enumerate().filter(|(number, _)| {
                (set - others).contains(CapabilitySet::from_bits_retain(1 << number))
            });
            for (_, &name) in refused {
                if !missing.iter().any(|known| known == name) {
                    missing.push(name.to_owned());
                }
            }
            set & others
        };
        let inheritable = within(inheritable, bounding);
        Ok(Self {
            bounding,
            effective: within(effective, permitted),
            inheritable,
            permitted,
            ambient: within(ambient, permitted & inheritable),
        })
    }

    /// Takes from the bounding set what may never come back. Needs `CAP_SETPCAP`.
    pub(crate) fn limit(&self) -> Result<()> {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The kernel knows capabilities up to some number.
                Err(Errno::INVAL) => break,
                Err(errno) => {
                    let call = || format!("prctl(PR_CAPBSET_DROP, {number})");
                    return Err(errno)
                        .call(call)
                        .doing("limiting the capability bounding set");
                }
            }
        }
        Ok(())
    }

    /// Puts in force, after a change of user, what the sets have and what loading a system call filter takes. Everything
    /// stays permitted until [`Self::apply`].
    pub(crate) fn apply_for_now(&self) -> Result<()> {
        let doing = "setting capabilities";
        let own = capabilities(None).call(|| "capget(0)").doing(doing)?;
        let effective = (self.effective | CapabilitySet::SYS_ADMIN) & own.permitted;
        set_capabilities(None, CapabilitySets { effective, ..own })
            .call(|| format!("capset(0, effective={effective:x?})"))
            .doing(doing)
    }

    /// Puts the sets in force, for good.
    pub(crate) fn apply(&self) -> Result<()> {
        let doing = "setting capabilities";
        let sets = CapabilitySets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        };
        set_capabilities(None, sets)
            .call(|| format!("capset(0, {sets:x?})"))
            .doing(doing)?;
        if self.ambient.is_empty() {
            return Ok(());
        }
        clear_ambient_capability_set()
            .call(|| "prctl(PR_CAP_AMBIENT_CLEAR_ALL)")
            .doing(doing)?;
        for capability in self.ambient.iter() {
            configure_capability_in_ambient_set(capability, true)
                .call(|| format!("prctl(PR_CAP_AMBIENT_RAISE, {capability:?})"))
                .doing(doing)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_told_once_and_left_out() {
        let names = ["CAP_CHOWN", "CAP_TIME_TRAVEL"].map(str::to_owned).to_vec();
        let configured = Capabilities {
            bounding: names.clone(),
            permitted: names.clone(),
            effective: names,
            ..Capabilities::default()
        };
        let mut missing = Vec::new();
        let sets = Sets::parse(&configured, true, &mut missing).unwrap();
        assert_eq!(missing, ["CAP_TIME_TRAVEL"]);
        assert_eq!(sets.bounding, CapabilitySet::CHOWN);
    }

    #[test]
    fn what_a_set_may_not_have_without_another_is_told_and_left_out() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let configured = Capabilities {
            bounding: names(&["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"]),
            permitted: names(&["CAP_CHOWN", "CAP_KILL"]),
            effective: names(&["CAP_CHOWN", "CAP_FOWNER"]),
            inheritable: names(&["CAP_CHOWN", "CAP_FOWNER", "CAP_SETUID"]),
            ambient: names(&["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"]),
        };
        let mut missing = Vec::new();
        let sets = Sets::parse(&configured, true, &mut missing).unwrap();
        missing.sort_unstable();
        assert_eq!(missing, ["CAP_FOWNER", "CAP_KILL", "CAP_SETUID"]);
        assert_eq!(sets.effective, CapabilitySet::CHOWN);
        assert_eq!(
            sets.inheritable,
            CapabilitySet::CHOWN | CapabilitySet::FOWNER
        );
        assert_eq!(sets.ambient, CapabilitySet::CHOWN);
    }

    #[test]
    fn attack_09_nothing_is_inheritable_unless_asked_for() {
        let all = NAMES.map(str::to_owned).to_vec();
        let configured = Capabilities {
            bounding: all.clone(),
            effective: all.clone(),
            permitted: all,
            ..Capabilities::default()
        };
        let sets = Sets::parse(&configured, true, &mut Vec::new()).unwrap();
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }

    #[test]
    fn names_are_at_their_numbers() {
        for (number, capability) in [
            (0, CapabilitySet::CHOWN),
            (21, CapabilitySet::SYS_ADMIN),
            (40, CapabilitySet::CHECKPOINT_RESTORE),
        ] {
            assert_eq!(capability.bits(), 1 << number);
        }
        assert_eq!(NAMES[21], "CAP_SYS_ADMIN");
    }
}
