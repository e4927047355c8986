//! Paths of the container that cannot be read, and paths that cannot be written.
//!
//! Invariant: what covers a path is the host's verified null device or an empty read-only tmpfs, never something of the
//! container's (attack 14), put where a descriptor points that was resolved inside the root, and nothing of the host's that the
//! container could change.

use crate::dev;
use crate::error::{Doing, Error, Result};
use crate::mounts::filesystem::{Filesystem, attach, clone_tree};
use crate::mounts::resolve_if_there;
use oci::runtime::Linux;
use rustix::fs::{FileType, fstat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::mount::{
    Attributes, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
    set_attributes,
};
use sys::root::Root;

/// As many paths of one kind as a configuration may have.
const PATHS_MAX: usize = 4096;

/// Hides and protects the paths of a configuration; one that is not there needs neither.
pub(crate) fn apply(root: &Root, linux: &Linux) -> Result<()> {
    for paths in [&linux.masked_paths, &linux.readonly_paths] {
        if paths.len() > PATHS_MAX {
            return Err(Error::invalid(format!(
                "more than {PATHS_MAX} masked or read-only paths"
            )));
        }
    }
    for path in &linux.readonly_paths {
        protect(root, path).doing_with(|| format!("making {} read-only", path.display()))?;
    }
    mask(root, &linux.masked_paths)
}

fn protect(root: &Root, path: &Path) -> sys::Result<()> {
    let Some(target) = resolve_if_there(root, path)? else {
        return Ok(());
    };
    let tree = clone_tree(target.as_fd(), Path::new(""), true)?;
    let read_only = Attributes {
        set: MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    set_attributes(tree.as_fd(), true, &read_only)?;
    attach(tree.as_fd(), target.as_fd())
}

fn mask(root: &Root, paths: &[PathBuf]) -> Result<()> {
    let null = dev::null()?;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let doing = || format!("masking {}", path.display());
        let Some(target) = resolve_if_there(root, path).doing_with(doing)? else {
            continue;
        };
        let stat = fstat(&target).call(|| "fstat").doing_with(doing)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let tree = match (&empty, directory) {
            (_, false) => untouchable(null.as_fd()),
            // Once attached, the first can be copied (of a detached mount, only since Linux 6.15).
            (Some(first), true) => clone_tree(first.as_fd(), Path::new(""), false),
            (None, true) => {
                let made = empty_directory().doing_with(doing)?;
                attach(made.as_fd(), target.as_fd()).doing_with(doing)?;
                empty = Some(made);
                continue;
            }
        };
        tree.and_then(|tree| attach(tree.as_fd(), target.as_fd()))
            .doing_with(doing)?;
    }
    Ok(())
}

/// A detached mount of the host's null device: what root in the container changes there, its mode or owner, the host would
/// have too. It can be read and written all the same.
fn untouchable(null: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
    let tree = clone_tree(null, Path::new(""), false)?;
    let attributes = Attributes {
        set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        ..Attributes::default()
    };
    set_attributes(tree.as_fd(), false, &attributes)?;
    Ok(tree)
}

/// A detached empty directory.
fn empty_directory() -> sys::Result<OwnedFd> {
    let tmpfs = Filesystem::new("tmpfs")?;
    tmpfs.set("source", "tmpfs")?;
    tmpfs.set("nr_inodes", "1")?;
    tmpfs.set("mode", "555")?;
    tmpfs.mount(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
}
