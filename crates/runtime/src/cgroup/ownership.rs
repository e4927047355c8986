//! Whose a container's cgroup is: its user's, where that may write to it.
//!
//! Invariant: on cgroup v2 only, with a cgroup namespace and a writable mount of the container's own, and of the group itself
//! only what the kernel says may be delegated: its limits stay out of the container's reach.
//! Source: config-linux.md "Cgroup ownership", cgroups(7) "Cgroups delegation".

use super::{Cgroup, Dir, Group, Version, unified};
use crate::error::{Doing, Result};
use oci::runtime::{IdMapping, NamespaceKind, Spec};
use rustix::fs::{AtFlags, Uid, chownat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::path::Path;
use sys::Context;

/// The kernel's list of what may be delegated.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// For kernels without.
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Gives the group to the user of a container's process, where the configuration lets that write to it.
    pub(crate) fn give_to_user(&self, spec: &Spec) -> Result<()> {
        let Some(owner) = owner(spec).filter(|_| geteuid().is_root()) else {
            return Ok(());
        };
        if !unified()? {
            return Ok(());
        }
        let list = std::fs::read_to_string(DELEGATE).ok();
        let names = match &list {
            Some(list) => list.lines().collect(),
            None => FILES.to_vec(),
        };
        let v2 = |group: &&Group| group.hierarchy.version == Version::V2;
        let mut groups = self.groups.iter().filter(v2);
        groups.try_for_each(|group| give(&group.dir, &names, owner))
    }
}

fn give(group: &Dir, names: &[&str], owner: u32) -> Result<()> {
    // The directory itself first.
    for name in std::iter::once(".").chain(names.iter().copied()) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match chownat(group, name, Some(Uid::from_raw(owner)), None, flags) {
            // Of a controller that the group has not.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let call = || format!("fchownat({:?}, {owner})", group.path().join(name));
                return Err(errno)
                    .call(call)
                    .doing("giving the cgroup to the container's user");
            }
        }
    }
    Ok(())
}

/// The host's id of the process's user, if the cgroup is to be that user's.
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux.as_ref()?;
    let own = |kind| {
        let mut namespaces = linux.namespaces.iter();
        namespaces.any(|namespace| namespace.kind == kind && namespace.path.is_none())
    };
    let writable = spec.mounts.iter().any(|mount| {
        mount.destination == Path::new("/sys/fs/cgroup")
            && mount.source.as_deref() == Some(Path::new("cgroup"))
            && !mount.options.iter().any(|option| option == "ro")
    });
    if !writable || !own(NamespaceKind::Cgroup) {
        return None;
    }
    let uid = spec.process.as_ref()?.user.uid;
    if !own(NamespaceKind::User) {
        // Without one of its own the ids are the host's, and root needs nothing.
        return Some(uid).filter(|&uid| uid != 0);
    }
    let of = |mapping: &IdMapping| {
        let distance = uid.checked_sub(mapping.container_id)?;
        (distance < mapping.size).then(|| mapping.host_id + distance)
    };
    linux.uid_mappings.iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn spec(options: &str, namespaces: &str) -> Spec {
        let text = format!(
            r#"{{"process":{{"user":{{"uid":5}}}},
            "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":[{options}]}}],
            "linux":{{"namespaces":[{namespaces}],"uidMappings":[{{"containerID":1,"hostID":1000,"size":10}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_owner_is_the_hosts_id_of_the_user_where_that_may_write() {
        let both = r#"{"type":"cgroup"},{"type":"user"}"#;
        assert_eq!(owner(&spec(r#""rw""#, both)), Some(1004));
        assert_eq!(owner(&spec(r#""ro""#, both)), None);
        assert_eq!(owner(&spec("", r#"{"type":"user"}"#)), None);
        let joined = r#"{"type":"cgroup","path":"/proc/self/ns/cgroup"},{"type":"user"}"#;
        assert_eq!(owner(&spec("", joined)), None);
        assert_eq!(owner(&spec("", r#"{"type":"cgroup"}"#)), Some(5));
    }

    #[test]
    fn only_what_may_be_delegated_is_given() {
        if !geteuid().is_root() {
            return;
        }
        let tree = tempfile::tempdir().unwrap();
        for name in ["cgroup.procs", "memory.max"] {
            std::fs::write(tree.path().join(name), "").unwrap();
        }
        give(&Dir::open(tree.path()).unwrap(), &FILES, 1234).unwrap();
        let owner = |name: &str| std::fs::metadata(tree.path().join(name)).unwrap().uid();
        assert_eq!(
            ["", "cgroup.procs", "memory.max"].map(owner),
            [1234, 1234, 0]
        );
    }
}
