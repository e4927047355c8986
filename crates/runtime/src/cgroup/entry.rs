//! How a process comes into a cgroup, or into one below.

use super::{Cgroup, Dir, Group, Hierarchy, Unit, Version, hierarchies, layout, plain};
use crate::error::{Doing, Error, Result};
use rustix::fs::OFlags;
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Context;

/// The ways into a cgroup, opened with the opener's rights: whoever holds them enters, whatever became of its own rights.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Where clone3 can put a child at birth.
    born: Option<OwnedFd>,
    /// Where the child still has to put itself.
    tasks: Vec<OwnedFd>,
    /// Who has to put it there instead: an ordinary user may move nothing that is outside of what it was given.
    attached_by: Option<Unit>,
}

impl Entry {
    /// The unit whose systemd moves a process there.
    pub(crate) fn attached_by(&self) -> Option<&Unit> {
        self.attached_by.as_ref()
    }

    /// Adds the `tasks` files of groups of another kind.
    pub(crate) fn add(&mut self, tasks: Vec<OwnedFd>) {
        self.tasks.extend(tasks);
    }

    /// The directory for clone3.
    pub(crate) fn born(&self) -> Option<BorrowedFd<'_>> {
        self.born.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling thread, which must be its process's only one, where clone3 did not.
    pub(crate) fn enter(&self) -> Result<()> {
        for fd in &self.tasks {
            rustix::io::write(fd, b"0")
                .call(|| "write(<group>/tasks, \"0\")")
                .doing("entering the cgroup")?;
        }
        Ok(())
    }
}

/// A group below a container's own, which a process can be executed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// The v1 controller that it is of; unset for all, and for v2.
    pub controller: Option<String>,
    /// From the container's group on.
    pub path: String,
}

impl SubCgroup {
    fn concerns(&self, hierarchy: &Hierarchy) -> bool {
        match &self.controller {
            None => true,
            Some(name) => {
                hierarchy.version == Version::V1
                    && (hierarchy.controllers.contains(name) || hierarchy.name() == *name)
            }
        }
    }
}

impl Cgroup {
    /// Groups below it that are there, one path for all controllers or one for each of some.
    pub(crate) fn below(&self, parts: &[SubCgroup]) -> Result<Self> {
        let mut below = Self::new(self.path.clone());
        for Group { hierarchy, dir } in &self.groups {
            let part = parts.iter().find(|part| part.concerns(hierarchy));
            let path = part.map_or("/", |part| part.path.as_str());
            let doing = || format!("opening the cgroup {path} of the container");
            let mut dir = dir.again().doing_with(doing)?;
            if !path.trim_matches('/').is_empty() {
                for name in &plain(path)? {
                    dir = dir.child(name).doing_with(doing)?;
                }
            }
            below.groups.push(Group { hierarchy, dir });
        }
        let known = |part: &SubCgroup| {
            let mut hierarchies = self.groups.iter().map(|group| group.hierarchy);
            hierarchies.any(|hierarchy| part.concerns(hierarchy))
        };
        match parts.iter().find(|part| !known(part)) {
            None => Ok(below),
            Some(SubCgroup { controller, .. }) => Err(Error::invalid(format!(
                "the container has no cgroup v1 controller {:?}",
                controller.as_deref().unwrap_or_default()
            ))),
        }
    }

    /// The ways into it.
    pub(crate) fn entry(&self) -> Result<Entry> {
        let mut entry = Entry::default();
        if let Some(unit) = self.unit.as_ref().filter(|unit| unit.user) {
            entry.attached_by = Some(unit.clone());
            return Ok(entry);
        }
        for Group { hierarchy, dir } in &self.groups {
            match hierarchy.version {
                Version::V2 => {
                    let fd = dir.as_fd().try_clone_to_owned().call(|| "dup(<cgroup>)");
                    entry.born = Some(fd.doing("opening the cgroup")?);
                }
                Version::V1 => {
                    // A write of one thread's own id to `tasks` takes no lock that forks of the whole machine wait for,
                    // which one to `cgroup.procs` does.
                    let fd = dir
                        .file("tasks", OFlags::WRONLY)
                        .doing("opening the cgroup")?;
                    entry.tasks.push(fd);
                }
            }
        }
        Ok(entry)
    }

    /// The v2 directory that a process of the group is in: its own, or one below.
    pub(crate) fn group_of(&self, pid: Pid) -> Result<impl AsFd> {
        let doing = "finding the container's init in its cgroup";
        let file = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(&file)
            .call(|| format!("read({file:?})"))
            .doing(doing)?;
        let path = layout::path_in_v2(&text).filter(|path| path.starts_with(self.path()));
        let v2 = { hierarchies()?.iter() }.find(|hierarchy| hierarchy.version == Version::V2);
        let (Some(path), Some(v2)) = (path, v2) else {
            return Err(Error::State(
                "the container's init has left its cgroup".into(),
            ));
        };
        let relative = path.strip_prefix("/").unwrap_or(path);
        Dir::open(&v2.mount.join(relative)).doing(doing)
    }
}
