//! Which namespaces a container gets new, which it joins, and the user ids of a new user namespace.
//!
//! Source: config-linux.md "Namespaces" and "User namespace mappings", namespaces(7), user_namespaces(7), time_namespaces(7).

use crate::error::{Doing, Error, Result};
use crate::id_maps;
use crate::procfs::Procfs;
use oci::runtime::{IdMapping, Linux, NamespaceKind, Spec, TimeOffset};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::process::{Child, Namespaces, Spawn, exit, setns, spawn};

/// What a container's namespaces are, checked, with those to join open.
#[derive(Debug)]
pub(crate) struct Plan {
    /// To be made.
    pub(crate) new: Namespaces,
    /// To be entered, the user namespace first: it gives the rights over the others.
    pub(crate) joined: Vec<(Namespaces, OwnedFd)>,
}

impl Plan {
    /// Reads a configuration.
    pub(crate) fn new(spec: &Spec) -> Result<Self> {
        let mut plan = Self {
            new: Namespaces::NONE,
            joined: Vec::new(),
        };
        let mut seen = Namespaces::NONE;
        let Some(linux) = &spec.linux else {
            return Ok(plan);
        };
        for namespace in &linux.namespaces {
            let kind = bits(namespace.kind);
            if seen.contains(kind) {
                return Err(Error::invalid(format!(
                    "namespace {:?} twice",
                    namespace.kind
                )));
            }
            seen = seen.with(kind);
            match &namespace.path {
                None => plan.new = plan.new.with(kind),
                Some(path) => plan.joined.push((kind, open(path)?)),
            }
        }
        plan.joined
            .sort_by_key(|(kind, _)| *kind != Namespaces::USER);
        plan.check(spec, linux)?;
        Ok(plan)
    }

    /// Whether the container has its own of that kind, new or joined.
    pub(crate) fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.joins(kind).is_some()
    }

    /// The namespace of that kind to be entered.
    pub(crate) fn joins(&self, kind: Namespaces) -> Option<&OwnedFd> {
        self.joined
            .iter()
            .find(|(joined, _)| *joined == kind)
            .map(|(_, fd)| fd)
    }

    fn check(&self, spec: &Spec, linux: &Linux) -> Result<()> {
        let refuse = |condition: bool, text: &'static str| {
            if condition {
                Err(Error::invalid(text))
            } else {
                Ok(())
            }
        };
        let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        refuse(
            mapped && !self.new.contains(Namespaces::USER),
            "user id mappings need a new user namespace",
        )?;
        refuse(
            self.new.contains(Namespaces::USER)
                && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()),
            "a new user namespace needs user and group id mappings",
        )?;
        refuse(
            !linux.time_offsets.is_empty() && !self.new.contains(Namespaces::TIME),
            "time offsets need a new time namespace",
        )?;
        refuse(
            (spec.hostname.is_some() || spec.domainname.is_some()) && !self.has(Namespaces::UTS),
            "a host name needs a UTS namespace of its own",
        )
    }
}

fn bits(kind: NamespaceKind) -> Namespaces {
    match kind {
        NamespaceKind::Pid => Namespaces::PID,
        NamespaceKind::Network => Namespaces::NET,
        NamespaceKind::Mount => Namespaces::MOUNT,
        NamespaceKind::Ipc => Namespaces::IPC,
        NamespaceKind::Uts => Namespaces::UTS,
        NamespaceKind::User => Namespaces::USER,
        NamespaceKind::Cgroup => Namespaces::CGROUP,
        NamespaceKind::Time => Namespaces::TIME,
    }
}

/// The namespaces a configuration gives a container of its own, new or joined.
pub(crate) fn own(spec: &Spec) -> Namespaces {
    let listed = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    listed.fold(Namespaces::NONE, |all, namespace| {
        all.with(bits(namespace.kind))
    })
}

/// Opens the file of a namespace.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .call(|| format!("open({path:?}, O_RDONLY)"))
        .doing("opening a namespace to join")
}

/// The pid namespace of future children, put back when dropped: children of this thread are born there meanwhile.
#[derive(Debug)]
pub(crate) struct BirthPlace {
    own: OwnedFd,
}

impl BirthPlace {
    /// Lets children be born in a pid namespace: that of a process, by a pidfd, or that of a `/proc/<pid>/ns/pid`.
    pub(crate) fn set(fd: impl AsFd) -> Result<Self> {
        let own = open(Path::new("/proc/self/ns/pid"))?;
        setns(fd.as_fd(), Namespaces::PID).doing("choosing the pid namespace")?;
        Ok(Self { own })
    }

    /// Puts it back.
    pub(crate) fn restore(self) -> Result<()> {
        setns(self.own.as_fd(), Namespaces::PID).doing("putting the pid namespace back")
    }
}

/// Opens a namespace of another process.
pub(crate) fn of(procfs: &Procfs, pid: Pid, name: &str) -> Result<OwnedFd> {
    follow(
        procfs,
        &format!("{}/ns", pid.as_raw_nonzero()),
        name,
        OFlags::RDONLY,
    )
    .doing("opening the namespaces of a process")
}

/// Opens the root of another process.
pub(crate) fn root_of(procfs: &Procfs, pid: Pid) -> Result<OwnedFd> {
    follow(
        procfs,
        &pid.as_raw_nonzero().to_string(),
        "root",
        OFlags::PATH,
    )
    .doing("opening the root of a process")
}

/// Opens a magic link, which leads to a namespace or a root, whatever the process did.
fn follow(procfs: &Procfs, directory: &str, name: &str, flags: OFlags) -> sys::Result<OwnedFd> {
    let opened = procfs.file(directory, OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::fs::openat(opened, name, flags | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open(</proc>/{directory}/{name})"))
}

/// A user namespace with these maps, for idmapped mounts; no process is in it.
pub(crate) fn user_namespace(
    procfs: &Procfs,
    users: &[IdMapping],
    groups: &[IdMapping],
) -> Result<OwnedFd> {
    let how = Spawn {
        namespaces: Namespaces::USER,
        ..Spawn::default()
    };
    // An ended process keeps its credentials, and with them the namespace, until it is waited for.
    let Child { pid, .. } = spawn(how, || exit(0)).doing("making a user namespace")?;
    let found = id_maps::write(procfs, pid, users, groups).and_then(|()| of(procfs, pid, "user"));
    waitpid(Some(pid), WaitOptions::empty())
        .call(|| "waitpid")
        .doing("making a user namespace")?;
    found
}

/// Makes a time namespace with these offsets of the clocks, and enters it with the calling, only thread.
pub(crate) fn enter_time(procfs: &Procfs, offsets: &BTreeMap<String, TimeOffset>) -> Result<()> {
    let doing = "setting the time namespace's offsets";
    let mut text = String::new();
    for (clock, TimeOffset { secs, nanosecs }) in offsets {
        if clock.bytes().any(|byte| !byte.is_ascii_lowercase()) {
            return Err(Error::invalid(format!("{clock:?} is no clock")));
        }
        writeln!(text, "{clock} {secs} {nanosecs}").expect("a String takes what is written");
    }
    sys::process::unshare(Namespaces::TIME).doing(doing)?;
    procfs.write("self/timens_offsets", &text).doing(doing)?;
    let pid = Pid::from_raw(procfs.own_pid()?).expect("a process id is not 0");
    let namespace = of(procfs, pid, "time_for_children")?;
    setns(namespace.as_fd(), Namespaces::TIME).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(linux: &str) -> Spec {
        serde_json::from_str(&format!("{{\"linux\":{linux}}}")).unwrap()
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#,
            r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            r#"{"namespaces":[{"type":"mount"}],"timeOffsets":{"monotonic":{"secs":1}}}"#,
        ] {
            assert!(Plan::new(&spec(bad)).is_err(), "{bad}");
        }
        let mut named = spec(r#"{"namespaces":[{"type":"mount"}]}"#);
        named.hostname = Some("x".into());
        assert!(Plan::new(&named).is_err());
    }

    #[test]
    fn the_user_namespace_is_entered_first() {
        let spec = spec(
            r#"{"namespaces":[{"type":"mount"},{"type":"ipc","path":"/proc/self/ns/ipc"},
                              {"type":"user","path":"/proc/self/ns/user"}]}"#,
        );
        let plan = Plan::new(&spec).unwrap();
        let kinds: Vec<_> = plan.joined.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Namespaces::USER, Namespaces::IPC]);
    }

    #[test]
    fn a_user_namespace_without_processes_has_its_maps() {
        let mapping = [IdMapping {
            container_id: 0,
            host_id: 100_000,
            size: 65536,
        }];
        let procfs = Procfs::open().unwrap();
        let namespace = user_namespace(&procfs, &mapping, &mapping).unwrap();
        let child = spawn(Spawn::default(), || {
            let joined = setns(namespace.as_fd(), Namespaces::USER);
            let map = joined
                .is_ok()
                .then(|| std::fs::read_to_string("/proc/self/uid_map"));
            let expected = ["0", "100000", "65536"];
            let same =
                map.is_some_and(|map| map.is_ok_and(|map| map.split_whitespace().eq(expected)));
            exit(i32::from(!same))
        })
        .unwrap();
        let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())
            .unwrap()
            .unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }
}
