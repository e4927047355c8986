//! Which cgroup hierarchies the host has and where they are mounted.
//!
//! The layout is systemd's, which every distribution has (file-hierarchy(7)): cgroup v2 at `/sys/fs/cgroup` itself, or a
//! tmpfs there with one directory for each v1 hierarchy, named by its controllers, and v2 at `unified` (the hybrid).

use crate::error::{Doing, Error, Result};
use rustix::fs::{FsWord, StatFs, statfs};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use sys::Context;

const MOUNT_POINT: &str = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;
const CGROUP_SUPER_MAGIC: FsWord = 0x0027_e0eb;

/// As many hierarchies as the kernel can have (one for each controller, named ones beside).
const HIERARCHIES_MAX: usize = 64;

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its interface.
    pub(crate) version: Version,
    /// Controllers bound to it; for a named hierarchy `name=…`.
    pub(crate) controllers: Vec<String>,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
}

impl Hierarchy {
    /// The directory's name below `/sys/fs/cgroup` in the v1 layout: `cpu,cpuacct`, `systemd`, `unified`.
    pub(crate) fn name(&self) -> String {
        if self.version == Version::V2 {
            return "unified".into();
        }
        let words = self.controllers.iter();
        words
            .map(|word| word.strip_prefix("name=").unwrap_or(word))
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// The host's hierarchies, found once in a process's life.
pub(crate) fn hierarchies() -> Result<&'static [Hierarchy]> {
    static FOUND: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = find()?;
    Ok(FOUND.get_or_init(|| found))
}

/// Whether v2 alone is mounted.
pub(crate) fn unified() -> Result<bool> {
    Ok(matches!(
        hierarchies()?,
        [Hierarchy {
            version: Version::V2,
            ..
        }]
    ))
}

fn find() -> Result<Vec<Hierarchy>> {
    let mount = Path::new(MOUNT_POINT);
    if is(mount, CGROUP2_SUPER_MAGIC) {
        return Ok(vec![v2(mount)?]);
    }
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .call(|| "read(\"/proc/self/cgroup\")")
        .doing("finding the cgroup hierarchies")?;
    let mut found = Vec::new();
    for controllers in controllers_of(&text) {
        let mut hierarchy = Hierarchy {
            version: Version::V1,
            controllers,
            mount: PathBuf::new(),
        };
        hierarchy.mount = mount.join(hierarchy.name());
        // A hierarchy that nobody mounted, or somewhere of their own, is nobody's to use.
        if is(&hierarchy.mount, CGROUP_SUPER_MAGIC) {
            found.push(hierarchy);
        }
    }
    let hybrid = mount.join("unified");
    if is(&hybrid, CGROUP2_SUPER_MAGIC) {
        found.push(v2(&hybrid)?);
    }
    if found.is_empty() {
        return Err(Error::unsupported(format!(
            "no cgroup hierarchy is mounted at {MOUNT_POINT}"
        )));
    }
    Ok(found)
}

/// The controllers of each v1 hierarchy in the text of `/proc/<pid>/cgroup` (cgroups(7)): `4:memory:/user`.
fn controllers_of(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines().take(HIERARCHIES_MAX).filter_map(|line| {
        let controllers = line.split(':').nth(1)?;
        let words: Vec<_> = controllers.split(',').map(str::to_owned).collect();
        // The line of v2 names no controllers.
        (!controllers.is_empty()).then_some(words)
    })
}

/// The group of v2 in such a text.
pub(super) fn path_in_v2(text: &str) -> Option<&Path> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(Path::new)
}

fn v2(mount: &Path) -> Result<Hierarchy> {
    let file = mount.join("cgroup.controllers");
    let text = std::fs::read_to_string(&file)
        .call(|| format!("read({file:?})"))
        .doing("finding the cgroup controllers")?;
    let controllers = text.split_whitespace().map(str::to_owned).collect();
    Ok(Hierarchy {
        version: Version::V2,
        controllers,
        mount: mount.to_owned(),
    })
}

fn is(path: &Path, magic: FsWord) -> bool {
    statfs(path).is_ok_and(|StatFs { f_type, .. }| f_type == magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_named_by_their_controllers() {
        let text = "9:name=systemd:/\n3:cpu,cpuacct:/a:b\n0::/init.scope\n";
        let found: Vec<_> = controllers_of(text)
            .map(|controllers| {
                Hierarchy {
                    version: Version::V1,
                    controllers,
                    mount: PathBuf::new(),
                }
                .name()
            })
            .collect();
        assert_eq!(found, ["systemd", "cpu,cpuacct"]);
        assert_eq!(path_in_v2(text), Some(Path::new("/init.scope")));
        assert_eq!(path_in_v2("9:name=systemd:/0::x\n"), None);
    }
}
