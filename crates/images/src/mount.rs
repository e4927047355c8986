//! Overlay mounts that are attached nowhere: a descriptor is all there is of them.
//!
//! They serve a container that does not run (cp, export, commit) and comparisons with its lower layers. Sources:
//! fsopen(2), fsconfig(2), fsmount(2), the kernel's Documentation/filesystems/overlayfs.rst.

use crate::store::make_directory;
use crate::{Images, Result, Snapshot};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::mount::overlay_adds_layers;
use sys::root::fd_path;

/// What fsconfig(2) takes as one string.
const FSCONFIG_BYTES_MAX: usize = 255;

/// Everything in the upper directory is what it seems: no renamed directory that points below, no file without content.
/// [`Images::diff`] and commits read it without the kernel's help.
const PLAIN: [(&str, &str); 3] = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
];

/// The writable part of an overlay.
type Writable<'a> = Option<(&'a Path, &'a Path)>;

impl Images {
    /// Mounts a snapshot without attaching it anywhere: for cp, export and commit of a container that does not run. The
    /// mount ends with the descriptor, which can be a `sys::root::Root`.
    pub fn mount_detached(&self, snapshot: &Snapshot) -> Result<OwnedFd> {
        self.overlay(&snapshot.lowers, Some((&snapshot.upper, &snapshot.work)))
    }

    /// Mounts what a snapshot stands on, read-only and detached.
    pub(crate) fn mount_lowers(&self, snapshot: &Snapshot) -> Result<OwnedFd> {
        match snapshot.lowers.as_slice() {
            // One directory is no overlay. Its own mount hides what else is mounted below it.
            [only] => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let tree = rustix::mount::open_tree(CWD, only, flags);
                Ok(tree.call(|| format!("open_tree({only:?}, OPEN_TREE_CLONE)"))?)
            }
            lowers => self.overlay(lowers, None),
        }
    }

    fn overlay(&self, lowers: &[PathBuf], writable: Writable<'_>) -> Result<OwnedFd> {
        match overlay_by_layer(lowers, writable) {
            Err(error) if error.errno == Errno::INVAL && !overlay_adds_layers()? => {
                self.overlay_by_page(lowers, writable)
            }
            result => Ok(result?),
        }
    }

    /// The older way: all options in one page, and a mount that has a place for a moment. Descriptors keep paths short
    /// enough for any number of layers.
    fn overlay_by_page(&self, lowers: &[PathBuf], writable: Writable<'_>) -> Result<OwnedFd> {
        let target = self.temporary();
        make_directory(&target)?;
        let mounted = mount_page(lowers, writable, &target);
        let removed = std::fs::remove_dir(&target).call(|| format!("rmdir({target:?})"));
        let tree = mounted?;
        removed?;
        Ok(tree)
    }
}

fn overlay_by_layer(lowers: &[PathBuf], writable: Writable<'_>) -> sys::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .call(|| "fsopen(\"overlay\")")?;
    let set = |key: &str, value: &Path| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value)
            .call(|| format!("fsconfig({key:?}, {value:?})"))
    };
    let mut open = Vec::new();
    for lower in lowers {
        set("lowerdir+", &short(lower, &mut open)?)?;
    }
    if let Some((upper, work)) = writable {
        set("upperdir", &short(upper, &mut open)?)?;
        set("workdir", &short(work, &mut open)?)?;
    }
    for (key, value) in PLAIN {
        set(key, Path::new(value))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).call(|| "fsconfig(FSCONFIG_CMD_CREATE)")?;
    let attributes = match writable {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .call(|| "fsmount(\"overlay\")")
}

fn mount_page(lowers: &[PathBuf], writable: Writable<'_>, target: &Path) -> sys::Result<OwnedFd> {
    let mut open = Vec::new();
    let lowers = lowers
        .iter()
        .map(|lower| Ok(by_fd(lower, &mut open)?.display().to_string()));
    let lowers = lowers.collect::<sys::Result<Vec<_>>>()?;
    let mut options = format!("lowerdir={}", lowers.join(":"));
    if let Some((upper, work)) = writable {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            options.push_str(&format!(",{key}={}", by_fd(path, &mut open)?.display()));
        }
    }
    for (key, value) in PLAIN {
        options.push_str(&format!(",{key}={value}"));
    }
    let call = || format!("mount(\"overlay\", {target:?}, \"overlay\", 0, {options:?})");
    let data = CString::new(options.clone()).map_err(|_| sys::Error::new(call(), Errno::INVAL))?;
    let flags = if writable.is_some() {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str()).call(call)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, target, flags)
        .call(|| format!("open_tree({target:?}, OPEN_TREE_CLONE)"));
    rustix::mount::unmount(target, UnmountFlags::DETACH).call(|| format!("umount({target:?})"))?;
    tree
}

/// A path that fsconfig(2) takes: the same, or through a descriptor, which is kept in `open`.
fn short(path: &Path, open: &mut Vec<OwnedFd>) -> sys::Result<PathBuf> {
    if path.as_os_str().len() <= FSCONFIG_BYTES_MAX {
        return Ok(path.to_owned());
    }
    by_fd(path, open)
}

fn by_fd(path: &Path, open: &mut Vec<OwnedFd>) -> sys::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?}, O_PATH)"))?;
    let short = fd_path(fd.as_fd());
    open.push(fd);
    Ok(short)
}

/// The older way, on any kernel.
#[cfg(test)]
pub(crate) fn by_page(images: &Images, snapshot: &Snapshot) -> Result<OwnedFd> {
    images.overlay_by_page(&snapshot.lowers, Some((&snapshot.upper, &snapshot.work)))
}
