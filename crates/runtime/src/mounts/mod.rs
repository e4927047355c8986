//! Mounts below the container's root, made by its init inside the new mount namespace.
//!
//! Each is a detached mount first, gets all its attributes, and is then put where a descriptor points that was resolved
//! inside the root: no path is resolved twice, none of the image's symlinks leads out (attacks 6, 7, 13, 17), and at no moment
//! is a mount visible without its restrictions. Nothing is mounted over parts of procfs but those few files that say what the
//! machine has (attack 4).

mod cgroup;
mod copy_up;
pub(crate) mod filesystem;
pub(crate) mod options;
mod source;

pub(crate) use source::{Prepared, map_ids, prepare};

use crate::error::{Doing, Error, Result};
use crate::procfs::is_procfs;
use filesystem::{attach, create};
use options::{Options, Recursion};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use sys::Context;
use sys::mount::{Attributes, set_attributes};
use sys::root::Root;

pub(crate) const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Files of procfs that may be mounted over: what lxcfs shows of the machine, and two switches.
const PROC_FILES: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Where the mounts of a container go, and what they must know of it.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// Its root.
    pub(crate) root: &'a Root,
    /// SELinux label of its filesystems.
    pub(crate) label: Option<&'a str>,
    /// Its cgroup below the mount points.
    pub(crate) cgroup: &'a Path,
    /// Whether it sees that cgroup as the root of all.
    pub(crate) cgroup_namespace: bool,
}

impl Site<'_> {
    /// Makes one mount.
    pub(crate) fn mount(&self, prepared: &Prepared<'_>) -> Result<()> {
        let Prepared {
            mount,
            options,
            source,
        } = prepared;
        let destination = lexical(&mount.destination)?;
        let kind = mount.kind.as_deref().unwrap_or_default();
        if options.remount {
            return self.change(&destination, options);
        }
        let doing = || format!("mounting {}", destination.display());
        if let Some(source) = source {
            let target = if source.directory {
                self.root.create_dir_all(&destination, DIRECTORY_MODE)
            } else {
                self.root.create_file(&destination, FILE_MODE)
            };
            let target = target.doing_with(doing)?;
            check_target(
                &destination,
                target.as_fd(),
                Some(source.tree.as_fd()),
                kind,
            )?;
            restrict(source.tree.as_fd(), options).doing_with(doing)?;
            return attach(source.tree.as_fd(), target.as_fd()).doing_with(doing);
        }
        let there = kind == "tmpfs"
            && resolve_if_there(self.root, &destination)
                .doing_with(doing)?
                .is_some();
        let target = match kind {
            "" => {
                return Err(Error::invalid(format!(
                    "the mount at {} has no type",
                    destination.display()
                )));
            }
            "proc" | "sysfs" => self.plain_directory(&destination)?,
            _ => self
                .root
                .create_dir_all(&destination, DIRECTORY_MODE)
                .doing_with(doing)?,
        };
        check_target(&destination, target.as_fd(), None, kind)?;
        if kind == "cgroup" {
            return cgroup::mount(self, target, options);
        }
        let made = self.filesystem(kind, prepared, target.as_fd(), there)?;
        change_propagation(made.as_fd(), options).doing_with(doing)?;
        attach(made.as_fd(), target.as_fd()).doing_with(doing)
    }

    /// A new filesystem, with what the place it is for gives it; `there` is whether a tmpfs's place was there before.
    fn filesystem(
        &self,
        kind: &str,
        prepared: &Prepared<'_>,
        target: BorrowedFd<'_>,
        there: bool,
    ) -> Result<OwnedFd> {
        let Prepared { mount, options, .. } = prepared;
        let mut more = Vec::new();
        let has = |key: &str| options.parameters.iter().any(|(name, _)| name == key);
        let mode;
        if there && !has("mode") {
            // A tmpfs takes the place of a directory, whose mode programs know. A new place is everybody's, as the kernel has it.
            let stat = rustix::fs::fstat(target)
                .call(|| "fstat")
                .doing("mounting a tmpfs")?;
            mode = format!("{:o}", stat.st_mode & 0o7777);
            more.push(("mode", mode.as_str()));
        }
        let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup2");
        if let Some(label) = self.label.filter(|label| labelled && !label.is_empty()) {
            more.push(("context", label));
        }
        let source = mount
            .source
            .as_deref()
            .and_then(Path::to_str)
            .filter(|s| !s.is_empty());
        let made = create(kind, source, options, &more)?;
        if options.copy_up {
            if kind != "tmpfs" {
                return Err(Error::invalid("the option tmpcopyup is for tmpfs"));
            }
            if there {
                copy_up::copy(target, made.as_fd())?;
            }
        }
        Ok(made)
    }

    /// The directory for a filesystem that others rely on to be where its path says.
    fn plain_directory(&self, destination: &Path) -> Result<OwnedFd> {
        self.root
            .create_dir_all(destination, DIRECTORY_MODE)
            .and_then(|_| {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
                self.root.open_at(destination, flags, Mode::empty())
            })
            .doing_with(|| format!("{} must be a directory, not a link", destination.display()))
    }

    /// Changes the mount that is at a place.
    fn change(&self, destination: &Path, options: &Options) -> Result<()> {
        let doing = || format!("remounting {}", destination.display());
        let target = self.root.resolve(destination).doing_with(doing)?;
        if options.bind.is_none()
            && !(options.parameters.is_empty() && options.superblock.is_empty())
        {
            use rustix::mount::{
                FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fspick,
            };
            let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
            let context = fspick(&target, "", flags)
                .call(|| "fspick")
                .doing_with(doing)?;
            for (key, value) in &options.parameters {
                match value {
                    Some(value) => fsconfig_set_string(&context, key, value),
                    None => fsconfig_set_flag(&context, key),
                }
                .call(|| format!("fsconfig({key:?}, {value:?})"))
                .doing_with(doing)?;
            }
            for flag in &options.superblock {
                fsconfig_set_flag(&context, *flag)
                    .call(|| format!("fsconfig({flag:?})"))
                    .doing_with(doing)?;
            }
            fsconfig_reconfigure(&context)
                .call(|| "fsconfig(RECONFIGURE)")
                .doing_with(doing)?;
        }
        restrict(target.as_fd(), options).doing_with(doing)
    }
}

/// The attributes and the propagation of a bind mount. Without a word about the latter, what the host mounts below the source
/// appears, and nothing goes the other way.
fn restrict(tree: BorrowedFd<'_>, options: &Options) -> sys::Result<()> {
    if !options.recursive.is_empty() {
        set_attributes(tree, true, &options.recursive)?;
    }
    if !options.attributes.is_empty() {
        set_attributes(tree, false, &options.attributes)?;
    }
    if !options.remount {
        let recursive = options.bind == Some(Recursion::Below);
        let settled = options.propagation.iter().any(|(kind, recursion)| {
            *kind == libc::MS_SHARED || *recursion == Recursion::Below || !recursive
        });
        if !settled {
            let propagation = Attributes {
                propagation: libc::MS_SLAVE,
                ..Attributes::default()
            };
            set_attributes(tree, recursive, &propagation)?;
        }
    }
    change_propagation(tree, options)
}

fn change_propagation(tree: BorrowedFd<'_>, options: &Options) -> sys::Result<()> {
    for &(propagation, recursion) in &options.propagation {
        let attributes = Attributes {
            propagation,
            ..Attributes::default()
        };
        set_attributes(tree, recursion == Recursion::Below, &attributes)?;
    }
    Ok(())
}

/// Refuses what would hide the container's procfs or parts of it.
fn check_target(
    destination: &Path,
    target: BorrowedFd<'_>,
    source: Option<BorrowedFd<'_>>,
    kind: &str,
) -> Result<()> {
    let doing = "looking at a mount's destination";
    let refused = |why: &str| {
        Err(Error::invalid(format!(
            "mounting {} would {why}",
            destination.display()
        )))
    };
    let procfs = match source {
        Some(source) => is_procfs(source).doing(doing)?,
        None => kind == "proc",
    };
    if destination == Path::new("/proc") {
        return if procfs {
            Ok(())
        } else {
            refused("replace the procfs")
        };
    }
    if destination == Path::new("/") {
        return refused("hide the root");
    }
    let allowed = PROC_FILES.iter().any(|file| destination == Path::new(file));
    if !procfs && !allowed && is_procfs(target).doing(doing)? {
        return refused("hide a part of the procfs");
    }
    Ok(())
}

/// A destination as its words say: absolute, without `.` and `..`.
fn lexical(path: &Path) -> Result<PathBuf> {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("a mount has no destination"));
    }
    Ok(plain)
}

/// Opens a path of the container unless it has none.
pub(crate) fn resolve_if_there(root: &Root, path: &Path) -> sys::Result<Option<OwnedFd>> {
    match root.resolve(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_plain() {
        assert_eq!(lexical(Path::new("a/./b/../c")).unwrap(), Path::new("/a/c"));
        assert_eq!(
            lexical(Path::new("/../../proc/")).unwrap(),
            Path::new("/proc")
        );
        assert!(lexical(Path::new("")).is_err());
    }

    #[test]
    fn attack_04_only_procfs_comes_to_proc() {
        let directory = tempfile::tempdir().unwrap();
        let plain = std::fs::File::open(directory.path()).unwrap();
        let procfs = std::fs::File::open("/proc").unwrap();
        let attributes = std::fs::File::open("/proc/self/attr").unwrap();
        let check =
            |destination: &str, target: &std::fs::File, source: Option<&std::fs::File>, kind| {
                check_target(
                    Path::new(destination),
                    target.as_fd(),
                    source.map(AsFd::as_fd),
                    kind,
                )
                .is_ok()
            };
        assert!(check("/proc", &plain, None, "proc"));
        assert!(check("/proc", &plain, Some(&procfs), "bind"));
        assert!(!check("/proc", &plain, None, "tmpfs"));
        assert!(!check("/proc", &plain, Some(&plain), "bind"));
        assert!(!check("/proc/self/attr", &attributes, None, "tmpfs"));
        // Through a link of the image, whose words are harmless.
        assert!(!check("/harmless", &attributes, Some(&plain), "bind"));
        assert!(check("/proc/meminfo", &attributes, Some(&plain), "bind"));
        assert!(!check("/", &plain, Some(&plain), "bind"));
    }
}
