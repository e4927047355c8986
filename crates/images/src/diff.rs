//! What a container changed: read from its upper directory, compared with what is below.

use crate::walk::{self, Node};
use crate::{Images, Result, Snapshot};
use rustix::fs::{FileType, Stat};
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was there and is another (Docker: `C`, 0).
    Modified,
    /// It was not there (Docker: `A`, 1).
    Added,
    /// It is no longer there (Docker: `D`, 2).
    Deleted,
}

/// A path that differs between a snapshot and what it is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, absolute in the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl Images {
    /// What a snapshot changed, ordered by path. Directories above a change count as modified.
    pub fn diff(&self, snapshot: &Snapshot) -> Result<Vec<Change>> {
        let upper = open_upper(snapshot)?;
        let lower = Root::from_fd(self.mount_lowers(snapshot)?);
        let mut changes = Vec::new();
        compare(&upper, Path::new("/"), Some(&lower), &mut changes)?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// Bytes in the files that a snapshot changed, each counted once.
    pub fn usage(&self, snapshot: &Snapshot) -> Result<u64> {
        let mut seen = HashSet::new();
        add_sizes(&open_upper(snapshot)?, Path::new("/"), &mut seen)
    }
}

/// The upper directory of a snapshot.
pub(crate) fn open_upper(snapshot: &Snapshot) -> Result<Node> {
    use sys::Context as _;
    let flags = crate::place::DIRECTORY;
    let upper = &snapshot.upper;
    let fd = rustix::fs::open(upper, flags, rustix::fs::Mode::empty())
        .call(|| format!("open({upper:?}, O_DIRECTORY)"))?;
    let stat = rustix::fs::fstat(&fd).call(|| format!("fstat({upper:?})"))?;
    Ok(Node { fd, stat })
}

/// Compares a directory; `lower` is what is below, where anything is. Returns whether there are changes in it.
fn compare(
    directory: &Node,
    path: &Path,
    lower: Option<&Root>,
    changes: &mut Vec<Change>,
) -> Result<bool> {
    walk::check_depth(path)?;
    let names = walk::names(directory.fd.as_fd(), path)?;
    let before = changes.len();
    for name in &names {
        let path = path.join(name);
        let Some(node) = Node::open(directory.fd.as_fd(), name, &path, true)? else {
            continue;
        };
        let below = lower
            .map(|lower| walk::stat_below(lower, &path))
            .transpose()?
            .flatten();
        let kind = match &below {
            _ if node.is_whiteout() => {
                changes.push(Change {
                    path,
                    kind: ChangeKind::Deleted,
                });
                continue;
            }
            Some(_) => ChangeKind::Modified,
            None => ChangeKind::Added,
        };
        let is_directory = node.file_type() == FileType::Directory;
        let merged = below
            .as_ref()
            .is_some_and(|stat| walk::file_type(stat) == FileType::Directory);
        if !is_directory {
            changes.push(Change { path, kind });
            continue;
        }
        let opaque = merged && node.is_opaque(&path)?;
        let mut changed = compare(&node, &path, lower.filter(|_| merged), changes)?;
        if opaque && let Some(lower) = lower {
            changed |= hidden(&node, &path, lower, changes)?;
        }
        if changed || !merged || below.is_some_and(|below| differs(&node.stat, &below)) {
            changes.push(Change { path, kind });
        }
    }
    Ok(changes.len() > before)
}

/// What an opaque directory hides is deleted.
fn hidden(directory: &Node, path: &Path, lower: &Root, changes: &mut Vec<Change>) -> Result<bool> {
    let here: HashSet<_> = walk::names(directory.fd.as_fd(), path)?
        .into_iter()
        .collect();
    let flags = crate::place::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let below = lower.open_at(path, flags, rustix::fs::Mode::empty())?;
    let before = changes.len();
    for name in walk::names(below.as_fd(), path)? {
        let path = path.join(&name);
        if !here.contains(&name) && walk::stat_below(lower, &path)?.is_some() {
            changes.push(Change {
                path,
                kind: ChangeKind::Deleted,
            });
        }
    }
    Ok(changes.len() > before)
}

/// Whether a directory is another than below; overlayfs copies all of this up with it.
fn differs(upper: &Stat, lower: &Stat) -> bool {
    let told = |stat: &Stat| {
        (
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_mtime,
            stat.st_mtime_nsec,
        )
    };
    told(upper) != told(lower)
}

fn add_sizes(directory: &Node, path: &Path, seen: &mut HashSet<u64>) -> Result<u64> {
    walk::check_depth(path)?;
    let mut bytes = 0;
    for name in walk::names(directory.fd.as_fd(), path)? {
        let path = path.join(&name);
        let Some(node) = Node::open(directory.fd.as_fd(), &name, &path, true)? else {
            continue;
        };
        if node.file_type() == FileType::Directory {
            bytes += add_sizes(&node, &path, seen)?;
        } else if seen.insert(node.stat.st_ino) {
            bytes += u64::try_from(node.stat.st_size).unwrap_or(0);
        }
    }
    Ok(bytes)
}
