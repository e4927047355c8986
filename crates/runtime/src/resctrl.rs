//! Classes of service and monitoring groups of Intel's resource director, and of what else has the kernel's resctrl.
//!
//! ```text
//! <resctrl>/              the default class
//!   schemata  tasks       what it may use; who is in it
//!   mon_groups/<id>/      a container's monitoring group
//!   <closID or id>/       another class, with the same files
//! ```
//!
//! Invariant: a class is removed with its container only when it was made for that container alone, and a monitoring group
//! always.
//! Source: config-linux.md "IntelRdt", kernel `Documentation/filesystems/resctrl.rst`.

use crate::cgroup::Dir;
use crate::error::{Doing, Error, Result};
use crate::mountinfo;
use crate::procfs::Procfs;
use oci::runtime::IntelRdt;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use sys::Context;

/// As many lines as a configuration may have for the schemata.
const LINES_MAX: usize = 1024;
/// A name of the default class.
const DEFAULT: &str = "/";

const SCHEMATA: &str = "schemata";
const TASKS: &str = "tasks";
const MONITORED: &str = "mon_groups";

/// A container's groups.
#[derive(Debug)]
pub(crate) struct Resctrl {
    root: PathBuf,
    /// Of the class below the root; unset for the default one.
    class: Option<String>,
    /// Whether the class is the container's alone.
    own: bool,
    /// Of the monitoring group, if there is one.
    monitored: Option<String>,
}

impl Resctrl {
    /// Makes what a container's configuration wants of it.
    ///
    /// Errors: [`Error::Unsupported`] when no resctrl is mounted, [`Error::Invalid`] for a class that is there with another
    /// schema, or is not there and has none.
    pub(crate) fn create(id: &str, wanted: &IntelRdt) -> Result<Self> {
        Self::create_at(mounted()?, id, wanted)
    }

    /// The groups of a container that was created so.
    pub(crate) fn open(id: &str, wanted: &IntelRdt) -> Result<Self> {
        Self::named(mounted()?, id, wanted)
    }

    fn named(root: PathBuf, id: &str, wanted: &IntelRdt) -> Result<Self> {
        let given = wanted.clos_id.as_deref().filter(|name| !name.is_empty());
        let class = match given {
            Some(DEFAULT) => None,
            Some(name) => Some(checked(name)?.to_owned()),
            None => Some(checked(id)?.to_owned()),
        };
        // What the older words mean is one and the same for the kernel.
        let monitors = [
            wanted.enable_monitoring,
            wanted.enable_cmt,
            wanted.enable_mbm,
        ];
        Ok(Self {
            root,
            own: given.is_none(),
            class,
            monitored: monitors
                .contains(&Some(true))
                .then(|| checked(id).map(str::to_owned))
                .transpose()?,
        })
    }

    fn create_at(root: PathBuf, id: &str, wanted: &IntelRdt) -> Result<Self> {
        let lines = lines(wanted)?;
        let groups = Self::named(root, id, wanted)?;
        let made = groups.make_class(!lines.is_empty())?;
        let filled = groups.fill(wanted, &lines, made);
        match filled {
            Ok(()) => Ok(groups),
            Err(error) if made => {
                let undone = groups.remove_class();
                Err(error.undone(undone))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the class unless it is there; whether it was made.
    fn make_class(&self, has_schema: bool) -> Result<bool> {
        let Some(name) = &self.class else {
            return Ok(false);
        };
        let path = self.class_path();
        if !self.own && !has_schema && !path.is_dir() {
            return Err(Error::invalid(format!(
                "there is no class of service {name:?}, and no schema to make it with"
            )));
        }
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) if !self.own => Ok(false),
            Err(errno) => Err(errno)
                .call(|| format!("mkdir({path:?})"))
                .doing("making the class of service"),
        }
    }

    fn fill(&self, wanted: &IntelRdt, lines: &[String], made: bool) -> Result<()> {
        let class = self.open_class()?;
        if !made && class_is_settled(wanted) {
            let found = class.read(SCHEMATA).doing("reading the schemata")?;
            for schema in [&wanted.l3_cache_schema, &wanted.mem_bw_schema] {
                compare(schema.as_deref().unwrap_or_default(), &found)?;
            }
        }
        write_lines(&class, lines)?;
        let Some(name) = &self.monitored else {
            return Ok(());
        };
        let path = self.class_path().join(MONITORED).join(name);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755))
            .call(|| format!("mkdir({path:?})"))
            .doing("making the monitoring group")
    }

    /// The files whose writers enter the groups, with the number of a task or 0 for themselves. The class comes first:
    /// entering it leaves a monitoring group of another.
    pub(crate) fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let class = self.open_class()?;
        let mut files = vec![open_tasks(&class)?];
        if let Some(name) = &self.monitored {
            let path = self.class_path().join(MONITORED).join(name);
            let group = Dir::open(&path).doing("opening the monitoring group")?;
            files.push(open_tasks(&group)?);
        }
        Ok(files)
    }

    /// Sets the schemas that are given.
    pub(crate) fn update(&self, l3_cache: Option<&str>, bandwidth: Option<&str>) -> Result<()> {
        let wanted = IntelRdt {
            l3_cache_schema: l3_cache.map(str::to_owned),
            mem_bw_schema: bandwidth.map(str::to_owned),
            ..IntelRdt::default()
        };
        write_lines(&self.open_class()?, &lines(&wanted)?)
    }

    /// The lines of the class's schemata.
    pub(crate) fn schemata(&self) -> Result<Vec<String>> {
        let text = self.open_class()?.read(SCHEMATA);
        let text = text.doing("reading the schemata")?;
        Ok(text.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// What the monitoring group has counted: by domain (`mon_L3_00`) and event (`llc_occupancy`).
    pub(crate) fn counts(&self) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
        let mut counts = BTreeMap::new();
        let Some(name) = &self.monitored else {
            return Ok(counts);
        };
        let doing = "reading the monitoring group";
        let path = self.class_path().join(MONITORED).join(name);
        let data = Dir::open(&path.join("mon_data")).doing(doing)?;
        for domain in data.children().doing(doing)? {
            let group = data.child(&domain).doing(doing)?;
            let mut events = BTreeMap::new();
            for event in ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"] {
                // The kernel says "Unavailable" and "Error" of what it could not read.
                let text = group.read_if_there(event).doing(doing)?;
                let number = text.and_then(|text| text.trim().parse().ok());
                events.extend(number.map(|number| (event.to_owned(), number)));
            }
            counts.insert(domain.to_string_lossy().into_owned(), events);
        }
        Ok(counts)
    }

    /// Removes what was made for a container that was created so. Without a resctrl there is nothing left of it.
    pub(crate) fn destroy_of(id: &str, wanted: &IntelRdt) -> Result<()> {
        match mount_point()? {
            Some(root) => Self::named(root, id, wanted)?.destroy(),
            None => Ok(()),
        }
    }

    /// Removes what was made for the container.
    pub(crate) fn destroy(&self) -> Result<()> {
        if let Some(name) = &self.monitored {
            let path = self.class_path().join(MONITORED);
            remove(&path, name).doing("removing the monitoring group")?;
        }
        if self.own {
            self.remove_class()
        } else {
            Ok(())
        }
    }

    fn remove_class(&self) -> Result<()> {
        let Some(name) = &self.class else {
            return Ok(());
        };
        remove(&self.root, name).doing("removing the class of service")
    }

    fn class_path(&self) -> PathBuf {
        match &self.class {
            Some(name) => self.root.join(name),
            None => self.root.clone(),
        }
    }

    fn open_class(&self) -> Result<Dir> {
        Dir::open(&self.class_path()).doing("opening the class of service")
    }
}

fn open_tasks(group: &Dir) -> Result<OwnedFd> {
    let file = group.file(TASKS, OFlags::WRONLY);
    file.doing("opening the class of service")
}

fn remove(parent: &Path, name: &str) -> sys::Result<()> {
    match Dir::open(parent) {
        Err(error) if error.errno == Errno::NOENT => Ok(()),
        parent => parent?.remove(OsStr::new(name)),
    }
}

/// A name that is one directory, and none of resctrl's own.
fn checked(name: &str) -> Result<&str> {
    let own = ["info", "mon_data", MONITORED, ".", ".."];
    if name.is_empty() || name.contains(['/', '\0', '\n']) || own.contains(&name) {
        return Err(Error::invalid(format!(
            "{name:?} is not the name of a class of service"
        )));
    }
    Ok(name)
}

/// Whether a class that is there must already be as the configuration wants it.
fn class_is_settled(wanted: &IntelRdt) -> bool {
    wanted.l3_cache_schema.is_some() || wanted.mem_bw_schema.is_some()
}

/// The lines to be written, in order.
fn lines(wanted: &IntelRdt) -> Result<Vec<String>> {
    let invalid = |what: &str| Err(Error::invalid(format!("linux.intelRdt: {what}")));
    let mut lines: Vec<String> = Vec::new();
    // Some callers write the schema of more than one level there.
    let cache = wanted.l3_cache_schema.iter().flat_map(|text| text.lines());
    lines.extend(cache.map(str::to_owned));
    if let Some(bandwidth) = wanted
        .mem_bw_schema
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        if !bandwidth.starts_with("MB:") || bandwidth.contains('\n') {
            return invalid("memBwSchema is not one line that begins with MB:");
        }
        lines.push(bandwidth.to_owned());
    }
    if wanted.schemata.iter().any(|line| line.contains('\n')) {
        return invalid("a line of the schemata is more than one");
    }
    lines.extend(wanted.schemata.iter().cloned());
    if lines.len() > LINES_MAX {
        return invalid("too many lines for the schemata");
    }
    Ok(lines)
}

fn write_lines(class: &Dir, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    class
        .write(SCHEMATA, &text)
        .doing("setting the schemata; the kernel says why not in info/last_cmd_status")
}

/// Checks that each domain of a schema is in the schemata found with the same value, however that is written.
fn compare(schema: &str, found: &str) -> Result<()> {
    let found: Vec<_> = found.lines().filter_map(parse).collect();
    for line in schema.lines().filter(|line| !line.trim().is_empty()) {
        let parsed = parse(line);
        let (resource, domains) =
            parsed.ok_or_else(|| Error::invalid(format!("linux.intelRdt: the schema {line:?}")))?;
        let present = found.iter().find(|(other, _)| *other == resource);
        let same = present.is_some_and(|(_, present)| {
            domains
                .iter()
                .all(|(domain, value)| present.get(domain) == Some(value))
        });
        if !same {
            return Err(Error::invalid(format!(
                "the class of service is there with another schema than {line:?}"
            )));
        }
    }
    Ok(())
}

/// `L3:0=7f0;1=1f`: masks are hexadecimal, bandwidths are not.
fn parse(line: &str) -> Option<(&str, BTreeMap<u32, u64>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let radix = if resource.ends_with("MB") || resource.ends_with("MBA") {
        10
    } else {
        16
    };
    let domains = domains.split(';').map(|domain| {
        let (number, value) = domain.split_once('=')?;
        let value = u64::from_str_radix(value.trim(), radix).ok()?;
        Some((number.trim().parse().ok()?, value))
    });
    Some((resource, domains.collect::<Option<_>>()?))
}

/// Where it is mounted.
fn mount_point() -> Result<Option<PathBuf>> {
    let mounts = mountinfo::read(&Procfs::open()?)?.into_iter();
    let mut found = mounts.filter(|mount| mount.kind == "resctrl" && mount.whole);
    Ok(found.next().map(|mount| mount.place))
}

fn mounted() -> Result<PathBuf> {
    mount_point()?.ok_or_else(|| {
        Error::unsupported(
            "linux.intelRdt: no resctrl is mounted; where the CPU has it, it belongs to /sys/fs/resctrl",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as the kernel's would be, with a class of two domains.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for class in ["", "gold"] {
            let class = tree.path().join(class);
            std::fs::create_dir_all(class.join(MONITORED)).unwrap();
            std::fs::write(
                class.join(SCHEMATA),
                "    MB:0=100;1= 70\n    L3:0=07f0;1=001f\n",
            )
            .unwrap();
            std::fs::write(class.join(TASKS), "").unwrap();
        }
        tree
    }

    fn wanted(text: &str) -> IntelRdt {
        serde_json::from_str(text).unwrap()
    }

    fn create(tree: &tempfile::TempDir, text: &str) -> Result<Resctrl> {
        Resctrl::create_at(tree.path().to_owned(), "c", &wanted(text))
    }

    fn schemata(tree: &tempfile::TempDir, class: &str) -> String {
        std::fs::read_to_string(tree.path().join(class).join(SCHEMATA)).unwrap()
    }

    #[test]
    fn a_class_that_is_there_is_joined_and_kept() {
        let tree = tree();
        let before = schemata(&tree, "gold");
        let groups = create(&tree, r#"{"closID":"gold"}"#).unwrap();
        assert_eq!(groups.tasks().unwrap().len(), 1);
        assert_eq!(schemata(&tree, "gold"), before);
        groups.destroy().unwrap();
        assert!(tree.path().join("gold").is_dir());
        assert!(
            create(&tree, r#"{"closID":"silver"}"#)
                .unwrap_err()
                .to_string()
                .contains("silver")
        );
        assert!(!tree.path().join("silver").exists());
    }

    #[test]
    fn the_default_class_is_the_root() {
        let tree = tree();
        let groups = create(&tree, r#"{"closID":"/","enableMonitoring":true}"#).unwrap();
        let group = tree.path().join("mon_groups/c");
        assert!(group.is_dir());
        groups.destroy().unwrap();
        assert!(!group.exists() && tree.path().is_dir());
    }

    #[test]
    fn a_class_of_another_schema_is_refused() {
        let tree = tree();
        let same = r#"{"closID":"gold","l3CacheSchema":"L3:0=7f0","memBwSchema":"MB:1=70"}"#;
        create(&tree, same).unwrap();
        for other in ["L3:0=7f1", "L3:2=7f0", "L2:0=1", "L3=1"] {
            let tree = self::tree();
            let text = format!(r#"{{"closID":"gold","l3CacheSchema":"{other}"}}"#);
            let before = schemata(&tree, "gold");
            assert!(create(&tree, &text).is_err(), "{other}");
            assert_eq!(schemata(&tree, "gold"), before);
        }
    }

    #[test]
    fn schemata_come_last_and_in_one_write() {
        let tree = tree();
        let text = r#"{"closID":"gold","schemata":["L2:0=1"],"memBwSchema":"MB:0=100","l3CacheSchema":"L3:1=1f"}"#;
        let groups = create(&tree, text).unwrap();
        let found = schemata(&tree, "gold");
        assert!(found.starts_with("L3:1=1f\nMB:0=100\nL2:0=1\n"), "{found}");
        assert_eq!(
            groups.schemata().unwrap()[..3],
            ["L3:1=1f", "MB:0=100", "L2:0=1"]
        );
        groups.update(Some("L3:0=f"), None).unwrap();
        assert!(schemata(&tree, "gold").starts_with("L3:0=f\n"));
    }

    #[test]
    fn a_class_of_its_own_is_gone_after_a_failure_and_with_the_container() {
        let tree = tree();
        // Only the kernel makes the files of a new class.
        let error = create(&tree, r#"{"schemata":["L3:0=1"]}"#).unwrap_err();
        assert!(error.chain().contains("schemata"), "{}", error.chain());
        assert!(!tree.path().join("c").exists());
        let groups = create(&tree, "{}").unwrap();
        assert!(tree.path().join("c").is_dir());
        assert!(create(&tree, "{}").is_err());
        groups.destroy().unwrap();
        groups.destroy().unwrap();
        assert!(!tree.path().join("c").exists());
    }

    #[test]
    fn names_and_lines_cannot_be_more_than_that() {
        let tree = tree();
        for bad in [
            r#"{"closID":"../x","schemata":["L3:0=1"]}"#,
            r#"{"closID":"info"}"#,
            r#"{"closID":"gold","schemata":["L3:0=1\nMB:0=1"]}"#,
            r#"{"closID":"gold","memBwSchema":"L3:0=1"}"#,
            r#"{"closID":"gold","memBwSchema":"MB:0=1\nL3:0=1"}"#,
        ] {
            assert!(create(&tree, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_counted_is_told_by_domain() {
        let tree = tree();
        let groups = create(&tree, r#"{"closID":"/","enableCMT":true}"#).unwrap();
        let domain = tree.path().join("mon_groups/c/mon_data/mon_L3_00");
        std::fs::create_dir_all(&domain).unwrap();
        std::fs::write(domain.join("llc_occupancy"), "4096\n").unwrap();
        std::fs::write(domain.join("mbm_total_bytes"), "Unavailable\n").unwrap();
        let counts = groups.counts().unwrap();
        assert_eq!(
            counts["mon_L3_00"],
            BTreeMap::from([("llc_occupancy".into(), 4096)])
        );
    }
}
