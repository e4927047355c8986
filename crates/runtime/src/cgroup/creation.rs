//! The making of a container's cgroup.
//!
//! Invariant: what was made is gone after a failure, save for the directories above the last, which containers share.

use super::dir::Dir;
use super::layout::{Hierarchy, Version, hierarchies, unified};
use super::systemd::Unit;
use super::{Cgroup, CgroupManager, Group, devices, plain, properties, v1, v2};
use crate::error::{Doing, Error, Result};
use oci::runtime::{Annotations, Pids, Resources};
use rustix::fs::Mode;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use sys::Context;

/// A group to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Names it unless the path does.
    pub(crate) id: &'a str,
    /// The configuration's.
    pub(crate) path: Option<&'a str>,
    pub(crate) manager: CgroupManager,
    pub(crate) resources: Option<&'a Resources>,
    /// May have properties for systemd.
    pub(crate) annotations: &'a Annotations,
    /// Whether none will do where none may be made.
    pub(crate) rootless: bool,
}

impl Cgroup {
    /// Makes the group, and those above it that are missing, and sets its limits. A group that is there already is taken
    /// over when it has no process. [`Self::settle`] is to follow when the container's first process is in it.
    ///
    /// Errors: [`Error::Invalid`] for a path with `..`, or limits that contradict each other; [`Error::Unsupported`] for
    /// limits whose controller the host lacks; [`Error::State`] for a group with processes.
    pub(crate) fn create(wanted: &Wanted<'_>) -> Result<Self> {
        let configured = wanted.path.filter(|path| !path.is_empty());
        let mut cgroup = match wanted.manager {
            CgroupManager::Direct => Self::new(match configured {
                Some(path) => plain(path)?,
                None => default_path(wanted)?,
            }),
            CgroupManager::Systemd => Self::start_unit(wanted, configured)?,
            CgroupManager::Disabled => return Self::none(wanted.resources),
        };
        let result = cgroup.make(wanted.rootless).and_then(|()| {
            match cgroup.set_devices(wanted.resources) {
                // Who may not say what devices are for can make no node either: the container has those bound for it.
                Err(error) if wanted.rootless && is_refusal(&error) => {}
                result => result?,
            }
            let resources = wanted.resources.map(|resources| cgroup.bearable(resources));
            resources.map_or(Ok(()), |resources| cgroup.set_limits(&resources))
        });
        match result {
            Ok(()) => Ok(cgroup),
            // Others' processes are in it, and it is not ours to remove.
            Err(error @ Error::State(_)) if cgroup.unit.is_none() => Err(error),
            Err(error) if wanted.rootless && cgroup.unit.is_none() && is_refusal(&error) => {
                // What could be made of it can be removed, and what could not is not there.
                drop(cgroup.destroy());
                Self::none(wanted.resources).map_err(|_| error)
            }
            Err(error) => Err(error.undone(cgroup.destroy())),
        }
    }

    /// No group: the container's processes stay where their maker is. Nothing can be limited then; device rules are not
    /// counted among the limits, because every configuration has some.
    fn none(resources: Option<&Resources>) -> Result<Self> {
        let limits = resources.map(|resources| Resources {
            devices: Vec::new(),
            ..resources.clone()
        });
        if limits.is_some_and(|limits| limits != Resources::default()) {
            return Err(Error::unsupported("limits of a container without a cgroup"));
        }
        Ok(Self::new(PathBuf::new()))
    }

    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            groups: Vec::new(),
            unit: None,
            placeholder: None,
        }
    }

    fn start_unit(wanted: &Wanted<'_>, path: Option<&str>) -> Result<Self> {
        let unit = Unit::parse(path, wanted.id)?;
        let unified = unified()?;
        let mut properties = properties::initial(unified, wanted.annotations)?;
        let none = Resources::default();
        let resources = wanted.resources.unwrap_or(&none);
        if !unit.user {
            let rules = devices::rules(&resources.devices)?;
            properties.extend(properties::of_devices(unified, &rules)?);
        }
        let resources = bearable_with_placeholder(resources);
        let version = || unit.version();
        properties.extend(properties::of_resources(unified, &resources, version)?);
        let (path, placeholder) = unit.start(properties)?;
        Ok(Self {
            unit: Some(unit),
            placeholder: Some(placeholder),
            ..Self::new(path)
        })
    }

    /// The limits that a process can be born under.
    fn bearable(&self, resources: &Resources) -> Resources {
        if self.placeholder.is_some() {
            bearable_with_placeholder(resources)
        } else {
            resources.clone()
        }
    }

    /// Lets go of what held the group until a process of the container's was in it.
    pub(crate) fn settle(&mut self, resources: Option<&Resources>) -> Result<()> {
        if self.placeholder.take().is_none() {
            return Ok(());
        }
        let pids = resources.and_then(|resources| resources.pids.clone());
        match pids.filter(leaves_no_room) {
            None => Ok(()),
            pids => self.update(&Resources {
                pids,
                ..Resources::default()
            }),
        }
    }

    fn make(&mut self, rootless: bool) -> Result<()> {
        for hierarchy in hierarchies()? {
            let path = hierarchy.mount.join(&self.path);
            let mode = Mode::from_raw_mode(0o755);
            let mut result = rustix::fs::mkdir(&path, mode);
            if result == Err(Errno::NOENT) {
                make_parents(hierarchy, &self.path)?;
                result = rustix::fs::mkdir(&path, mode);
            }
            match result {
                Ok(()) => {}
                // systemd has made it, for the placeholder.
                Err(Errno::EXIST) if self.unit.is_some() => {}
                Err(Errno::EXIST) => refuse_populated(&path)?,
                Err(errno) => {
                    let error = Err(errno).call(|| format!("mkdir({path:?})"));
                    return error.doing("making the cgroup");
                }
            }
            let dir = Dir::open(&path).doing("opening the cgroup")?;
            self.groups.push(Group { hierarchy, dir });
            let Group { dir, .. } = self.groups.last().expect("one was pushed");
            prepare(hierarchy, &path, dir, rootless)?;
        }
        Ok(())
    }
}

/// Whether an error is for want of rights.
fn is_refusal(error: &Error) -> bool {
    let Error::System { source, .. } = error else {
        return false;
    };
    matches!(source.errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
}

/// Where a container is whose configuration does not say. An ordinary user has rights at most beside its own group.
fn default_path(wanted: &Wanted<'_>) -> Result<PathBuf> {
    let by_id = plain(&format!("/hull/{}", wanted.id))?;
    if !wanted.rootless || !unified()? {
        return Ok(by_id);
    }
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .call(|| "read(\"/proc/self/cgroup\")")
        .doing("finding the own cgroup")?;
    Ok(beside(&text, wanted.id).unwrap_or(by_id))
}

/// A path beside the group that a v2 line of `/proc/self/cgroup` names.
fn beside(text: &str, id: &str) -> Option<PathBuf> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let above = Path::new(own).parent()?;
    plain(above.join(format!("hull-{id}")).to_str()?).ok()
}

/// Whether a limit of tasks lets no process be born beside another.
fn leaves_no_room(pids: &Pids) -> bool {
    pids.limit.is_some_and(|limit| (0..=1).contains(&limit))
}

fn bearable_with_placeholder(resources: &Resources) -> Resources {
    let mut resources = resources.clone();
    resources.pids = resources.pids.filter(|pids| !leaves_no_room(pids));
    resources
}

fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut above = hierarchy.mount.clone();
    for name in path.parent().into_iter().flat_map(Path::components) {
        above.push(name);
        match rustix::fs::mkdir(&above, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let error = Err(errno).call(|| format!("mkdir({above:?})"));
                return error.doing("making the cgroup's parents");
            }
        }
    }
    Ok(())
}

/// What must be done before a process can enter: v2 controllers enabled in every group above, v1 CPU sets filled.
fn prepare(hierarchy: &Hierarchy, path: &Path, dir: &Dir, rootless: bool) -> Result<()> {
    let above = path
        .ancestors()
        .skip(1)
        .take_while(|above| above.starts_with(&hierarchy.mount));
    let mut above: Vec<_> = above.collect();
    above.reverse();
    let doing = "preparing the cgroup";
    if hierarchy.version == Version::V2 {
        for path in above {
            let group = Dir::open(path).doing(doing)?;
            match v2::delegate(&group, &hierarchy.controllers).doing(doing) {
                // Groups above those that the user was given are as their owner wants them.
                Err(error) if rootless && is_refusal(&error) => {}
                result => result?,
            }
        }
    } else if hierarchy.controllers.iter().any(|word| word == "cpuset")
        && dir.read("cpuset.cpus").doing(doing)?.trim().is_empty()
    {
        for pair in above.windows(2) {
            let [parent, child] = [pair[0], pair[1]].map(Dir::open);
            v1::inherit_cpuset(&parent.doing(doing)?, &child.doing(doing)?).doing(doing)?;
        }
        let parent = above.last().expect("the mount point is above every group");
        v1::inherit_cpuset(&Dir::open(parent).doing(doing)?, dir).doing(doing)?;
    }
    Ok(())
}

fn refuse_populated(path: &Path) -> Result<()> {
    let doing = "looking at the cgroup that is there";
    let processes = Dir::open(path)
        .and_then(|dir| dir.read("cgroup.procs"))
        .doing(doing)?;
    match processes.lines().count() {
        0 => Ok(()),
        count => Err(Error::State(
            format!("cgroup {} has {count} processes", path.display()).into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_containers_are_beside_its_own_group() {
        let session = "1:name=systemd:/x\n0::/user.slice/user-1000.slice/session-2.scope\n";
        assert_eq!(
            beside(session, "c").unwrap(),
            Path::new("user.slice/user-1000.slice/hull-c")
        );
        assert_eq!(beside("0::/a\n", "c").unwrap(), Path::new("hull-c"));
        for none in ["", "0::/\n", "0::/../x/y\n", "1:cpu:/a/b\n"] {
            assert_eq!(beside(none, "c"), None, "{none}");
        }
    }
}
