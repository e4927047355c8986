//! A container's control group, whatever the host's layout: one v2 directory, or one directory in each v1 hierarchy.
//!
//! Nothing outside this module knows of versions, hierarchies or device programs. A controller lives where the host has it,
//! so the hybrid layout (v1 controllers beside a v2 tree that may have some) needs no case of its own: each part of the
//! resources goes to the group that has its controller, in that group's version.
//!
//! Invariant: a path is a list of plain names below the mount points; what [`Cgroup::create`] made is gone after its failure
//! or after [`Cgroup::destroy`], save for the directories above the last, which containers share.
//! Source: config-linux.md "Control groups", cgroups(7).

mod creation;
mod devices;
mod dir;
mod entry;
mod layout;
mod limits;
mod oom;
mod ownership;
mod pressure;
mod properties;
mod stats;
mod support;
mod systemd;
mod v1;
mod v2;

pub use entry::SubCgroup;
pub use oom::OomEvents;
pub use pressure::{Pressure, PressureStats, Stall};
pub use stats::{BlockIoStats, CpuStats, HugepageStats, MemoryStats, PidsStats, Stats};
pub use support::Support;

pub(crate) use creation::Wanted;
pub(crate) use dir::Dir;
pub(crate) use entry::Entry;
pub(crate) use layout::{Hierarchy, Version, hierarchies, unified};
pub(crate) use properties::ANNOTATION;
pub(crate) use systemd::Unit;

use crate::error::{Doing, Error, Result};
use oci::runtime::Resources;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::Context;
use systemd::Placeholder;

/// How deep groups may lie in each other, the container's own included.
const DEPTH_MAX: usize = 64;
/// How long processes may take to vanish or to freeze.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL_MIN: Duration = Duration::from_micros(200);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(20);

/// A control group.
#[derive(Debug)]
pub struct Cgroup {
    /// Relative to each mount point, without a slash in front.
    path: PathBuf,
    groups: Vec<Group>,
    /// Who has it, when that is systemd.
    unit: Option<Unit>,
    /// Holds the unit until the container's first process is in it.
    placeholder: Option<Placeholder>,
}

/// Who makes containers' cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// The runtime itself.
    #[default]
    Direct,
    /// systemd: the machine's, or without root's rights the user's own.
    Systemd,
    /// Nobody: the container stays in its creator's.
    Disabled,
}

/// Its directory in one hierarchy.
#[derive(Debug)]
struct Group {
    hierarchy: &'static Hierarchy,
    dir: Dir,
}

impl Cgroup {
    /// Opens the directories that are there; a group that is gone has none, and acts as one without processes.
    pub fn open(path: &str) -> Result<Self> {
        if path.is_empty() {
            return Ok(Self::new(PathBuf::new()));
        }
        let path = plain(path)?;
        let mut groups = Vec::new();
        for hierarchy in hierarchies()? {
            match Dir::open(&hierarchy.mount.join(&path)) {
                Ok(dir) => groups.push(Group { hierarchy, dir }),
                Err(error) if error.errno == Errno::NOENT => {}
                Err(error) => return Err(error).doing("opening the cgroup"),
            }
        }
        Ok(Self {
            groups,
            ..Self::new(path)
        })
    }

    /// Its path below the mount points, without.
    pub(crate) fn relative_path(&self) -> &Path {
        &self.path
    }

    /// Its directory in the hierarchy that freezes.
    pub(crate) fn freezer_path(&self) -> Option<&Path> {
        let v1 = self.controller("freezer", "").ok();
        let group = v1.or_else(|| self.main_group())?;
        Some(group.dir.path())
    }

    /// Its path in each hierarchy, by what `/proc/<pid>/cgroup` calls that.
    pub(crate) fn roots(&self) -> Vec<(String, PathBuf)> {
        let named = |Group { hierarchy, .. }: &Group| match hierarchy.version {
            Version::V1 => hierarchy.controllers.clone(),
            Version::V2 => vec![String::new()],
        };
        let names = self.groups.iter().flat_map(named);
        names.map(|name| (name, self.path())).collect()
    }

    /// The same group, known to be a unit's.
    pub(crate) fn of_unit(self, unit: Option<Unit>) -> Self {
        Self { unit, ..self }
    }

    /// The unit that it is, of systemd.
    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Its path below the mount points, with a slash in front; empty for a container without a cgroup of its own.
    pub fn path(&self) -> PathBuf {
        if self.is_none() {
            return PathBuf::new();
        }
        Path::new("/").join(&self.path)
    }

    /// Whether the container has no group of its own.
    pub(crate) fn is_none(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// Sets what is set in `resources` and leaves the rest. Device rules replace all former ones.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        if self.groups.is_empty() {
            return Err(self.missing());
        }
        if let Some(unit) = &self.unit {
            self.update_unit(unit, resources)?;
        }
        if !resources.devices.is_empty() {
            self.set_devices(Some(resources))?;
        }
        self.set_limits(resources)
    }

    fn update_unit(&self, unit: &Unit, resources: &Resources) -> Result<()> {
        let unified = unified()?;
        let mut properties = properties::of_resources(unified, resources, || unit.version())?;
        if resources.devices.is_empty() {
            return unit.set(&properties);
        }
        let rules = devices::rules(&resources.devices)?;
        properties.extend(properties::of_devices(unified, &rules)?);
        // On v1 systemd denies everything before it allows what is on its list: no process may see that.
        let freeze = !unified && !self.is_frozen()?;
        if freeze {
            self.freeze()?;
        }
        let set = unit.set(&properties);
        if freeze {
            self.thaw()?;
        }
        set
    }

    /// What it has used.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for Group { hierarchy, dir } in &self.groups {
            let v1 = hierarchy.version == Version::V1;
            if !v1 {
                stats.pressure = pressure::pressure(dir).doing("reading the pressure")?;
            }
            for controller in &hierarchy.controllers {
                match (controller.as_str(), v1) {
                    ("cpu", true) => stats::cpu_v1(dir, &mut stats.cpu),
                    ("cpuacct", true) => stats::cpuacct_v1(dir, &mut stats.cpu),
                    ("cpu", false) => stats::cpu_v2(dir, &mut stats.cpu),
                    ("memory", true) => stats::memory_v1(dir, &mut stats.memory),
                    ("memory", false) => stats::memory_v2(dir, &mut stats.memory),
                    ("pids", _) => stats::pids(dir, &mut stats.pids),
                    ("blkio", true) => stats::block_io_v1(dir, &mut stats.block_io),
                    ("io", false) => stats::block_io_v2(dir, &mut stats.block_io),
                    ("hugetlb", _) => hugepage_stats(dir, v1, &mut stats),
                    _ => Ok(()),
                }
                .doing_with(|| format!("reading the usage of {controller}"))?;
            }
        }
        Ok(stats)
    }

    /// Stops every process until [`Self::thaw`], and waits until all have.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Whether it is frozen, or about to be.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some((version, dir)) = self.freezer() else {
            return Ok(false);
        };
        let text = match version {
            Version::V1 => dir.read_if_there("freezer.state"),
            Version::V2 => dir.read_if_there("cgroup.freeze"),
        };
        let text = text
            .doing("reading whether the cgroup is frozen")?
            .unwrap_or_default();
        Ok(matches!(text.trim(), "1" | "FROZEN" | "FREEZING"))
    }

    /// Every process in it and in the groups below.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let mut found = Vec::new();
        if let Some(group) = self.main_group() {
            collect_processes(&group.dir, DEPTH_MAX, &mut found).doing("listing the processes")?;
        }
        Ok(found)
    }

    /// Sends SIGKILL to every process in it and below, and waits until none is left alive.
    pub fn kill(&self) -> Result<()> {
        let Some(group) = self.main_group() else {
            return Ok(());
        };
        if group.hierarchy.version == Version::V2 {
            match group.dir.write("cgroup.kill", "1") {
                Ok(()) => {}
                // Linux 5.10 to 5.13.
                Err(error) if error.errno == Errno::NOENT => self.kill_each()?,
                Err(error) => return Err(error).doing("killing the cgroup's processes"),
            }
        }
        let gone = wait_until(|| {
            if group.hierarchy.version == Version::V1 {
                self.kill_each()?;
            }
            Ok(self.processes()?.is_empty())
        })?;
        if gone {
            return Ok(());
        }
        Err(Error::State(
            "processes of the cgroup outlive SIGKILL".into(),
        ))
    }

    /// Removes its directories and those below, which may have no process that lives; waits for those that are dying.
    pub fn destroy(&self) -> Result<()> {
        let doing = "removing the cgroup";
        if self.is_none() {
            return Ok(());
        }
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        let Some(name) = self.path.file_name() else {
            return Err(Error::invalid("the root cgroup cannot be removed"));
        };
        for Group { hierarchy, .. } in &self.groups {
            let parent = hierarchy.mount.join(&self.path);
            let parent = parent.parent().expect("a path with a name has a parent");
            let parent = match Dir::open(parent) {
                Err(error) if error.errno == Errno::NOENT => continue,
                result => result.doing(doing)?,
            };
            let mut last = None;
            let removed = wait_until(|| match remove_tree(&parent, name, DEPTH_MAX) {
                Ok(()) => Ok(true),
                Err(error) if error.errno == Errno::BUSY => {
                    last = Some(error);
                    Ok(false)
                }
                Err(error) => Err(error).doing(doing),
            })?;
            if let (false, Some(error)) = (removed, last) {
                return Err(error).doing(doing);
            }
        }
        Ok(())
    }

    /// A descriptor that tells when its memory ran out.
    pub fn oom_events(&self) -> Result<OomEvents> {
        let group = self.controller("memory", "notice of memory running out")?;
        OomEvents::watch(group.hierarchy.version, &group.dir)
    }

    /// How many of its processes the OOM killer has ended.
    pub fn oom_kills(&self) -> Result<u64> {
        let Ok(group) = self.controller("memory", "") else {
            return Ok(0);
        };
        let file = match group.hierarchy.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let table = stats::table(&group.dir, file).doing("counting OOM kills")?;
        Ok(table.get("oom_kill").copied().unwrap_or_default())
    }

    /// The group that has a controller, `asked` for.
    fn controller(&self, name: &str, asked: &str) -> Result<&Group> {
        let has = |group: &&Group| group.hierarchy.controllers.iter().any(|word| word == name);
        self.groups.iter().find(has).ok_or_else(|| {
            Error::unsupported(format!("{asked}: the host has no {name} cgroup controller"))
        })
    }

    /// The group asked for processes: the v2 one, which can also freeze and kill, else the freezer's, else any.
    fn main_group(&self) -> Option<&Group> {
        let v2 = self
            .groups
            .iter()
            .find(|group| group.hierarchy.version == Version::V2);
        v2.or_else(|| self.controller("freezer", "").ok())
            .or(self.groups.first())
    }

    fn missing(&self) -> Error {
        Error::State(if self.is_none() {
            "the container has no cgroup of its own".into()
        } else {
            "the cgroup is gone".into()
        })
    }

    fn freezer(&self) -> Option<(Version, &Dir)> {
        let group = self.main_group()?;
        Some((group.hierarchy.version, &group.dir))
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let doing = if frozen {
            "freezing the cgroup"
        } else {
            "thawing the cgroup"
        };
        let Some((version, dir)) = self.freezer() else {
            return Err(self.missing());
        };
        let settled = match version {
            Version::V1 => {
                let state = if frozen { "FROZEN" } else { "THAWED" };
                // Writing again makes the kernel look again at those that did not freeze the first time.
                wait_until(|| {
                    dir.write("freezer.state", state).doing(doing)?;
                    Ok(dir.read("freezer.state").doing(doing)?.trim() == state)
                })?
            }
            Version::V2 => {
                dir.write("cgroup.freeze", if frozen { "1" } else { "0" })
                    .doing(doing)?;
                let line = if frozen { "frozen 1" } else { "frozen 0" };
                wait_until(|| {
                    Ok(dir
                        .read("cgroup.events")
                        .doing(doing)?
                        .lines()
                        .any(|found| found == line))
                })?
            }
        };
        if settled {
            Ok(())
        } else {
            Err(Error::State(format!("{doing} took too long").into()))
        }
    }

    /// Frozen, none can fork while it is looked for; on v1 the signal takes effect with the thaw.
    fn kill_each(&self) -> Result<()> {
        let processes = self.processes()?;
        if processes.is_empty() {
            return Ok(());
        }
        self.freeze()?;
        let killed = self.processes().and_then(|processes| {
            for pid in processes {
                match kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => {
                        let call = || format!("kill({}, SIGKILL)", pid.as_raw_nonzero());
                        return Err(errno)
                            .call(call)
                            .doing("killing the cgroup's processes");
                    }
                }
            }
            Ok(())
        });
        self.thaw()?;
        killed
    }
}

fn plain(path: &str) -> Result<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let names: Vec<_> = relative.components().collect();
    let plain = names
        .iter()
        .all(|name| matches!(name, std::path::Component::Normal(_)));
    if !plain || names.is_empty() || names.len() > DEPTH_MAX || path.contains(['\0', '\n']) {
        return Err(Error::invalid(format!(
            "cgroup path {path:?} is not a list of names"
        )));
    }
    Ok(names.into_iter().collect())
}

fn collect_processes(dir: &Dir, depth: usize, found: &mut Vec<Pid>) -> sys::Result<()> {
    match dir.read("cgroup.procs") {
        Ok(text) => found.extend(
            text.lines()
                .filter_map(|line| Pid::from_raw(line.parse().ok()?)),
        ),
        // The group went away, or is a threaded one, whose processes the group above lists.
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    if depth == 0 {
        return Err(sys::Error::new(
            format!("open({:?}/…)", dir.path()),
            Errno::LOOP,
        ));
    }
    let children = match dir.children() {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NODEV) => return Ok(()),
        result => result?,
    };
    for name in children {
        match dir.child(&name) {
            Ok(child) => collect_processes(&child, depth - 1, found)?,
            Err(error) if error.errno == Errno::NOENT => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remove_tree(parent: &Dir, name: &OsStr, depth: usize) -> sys::Result<()> {
    let Err(error) = parent.remove(name) else {
        return Ok(());
    };
    if error.errno != Errno::BUSY || depth == 0 {
        return Err(error);
    }
    let dir = parent.child(name)?;
    let children = dir.children()?;
    for child in &children {
        remove_tree(&dir, child, depth - 1)?;
    }
    if children.is_empty() {
        Err(error)
    } else {
        parent.remove(name)
    }
}

/// Asks until the answer is yes or time is up; whether it was yes.
fn wait_until(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut interval = POLL_INTERVAL_MIN;
    while !done()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(interval);
        interval = (interval * 2).min(POLL_INTERVAL_MAX);
    }
    Ok(true)
}

fn hugepage_stats(dir: &Dir, v1: bool, stats: &mut Stats) -> sys::Result<()> {
    const SIZES: &str = "/sys/kernel/mm/hugepages";
    let Ok(sizes) = Dir::open(Path::new(SIZES)) else {
        return Ok(());
    };
    for size in sizes.children()? {
        let kib = size
            .to_str()
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB"));
        let Some(kib) = kib.and_then(|digits| digits.parse::<u64>().ok()) else {
            continue;
        };
        let size = match kib {
            kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
            kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        };
        let found = if v1 {
            stats::hugepages_v1(dir, &size)
        } else {
            stats::hugepages_v2(dir, &size)
        };
        stats.hugepages.insert(size, found?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_list_of_names() {
        assert_eq!(plain("/hull/x").unwrap(), Path::new("hull/x"));
        assert_eq!(plain("a//b/").unwrap(), Path::new("a/b"));
        for bad in ["", "/", "/..", "/a/../b", "a/\nb"] {
            assert!(plain(bad).is_err(), "{bad:?}");
        }
    }
}
