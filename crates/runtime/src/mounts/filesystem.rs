//! New filesystems and detached mounts of them (fsopen(2), fsconfig(2), fsmount(2)).

use super::options::Options;
use crate::error::{Doing, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::mount::context_error;

/// A filesystem being configured.
#[derive(Debug)]
pub(crate) struct Filesystem<'a> {
    kind: &'a str,
    context: OwnedFd,
}

impl<'a> Filesystem<'a> {
    /// Starts with a type.
    pub(crate) fn new(kind: &'a str) -> sys::Result<Self> {
        let context =
            fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).call(|| format!("fsopen({kind:?})"))?;
        Ok(Self { kind, context })
    }

    /// Sets a parameter.
    pub(crate) fn set(&self, key: &str, value: &str) -> sys::Result<()> {
        fsconfig_set_string(&self.context, key, value).map_err(|errno| {
            self.error(
                format!("fsconfig({}, {key:?}, {value:?})", self.kind),
                errno,
            )
        })
    }

    /// Sets a parameter without value.
    pub(crate) fn flag(&self, key: &str) -> sys::Result<()> {
        fsconfig_set_flag(&self.context, key)
            .map_err(|errno| self.error(format!("fsconfig({}, {key:?})", self.kind), errno))
    }

    /// Makes the filesystem, and a detached mount of it with `MOUNT_ATTR_…` attributes.
    pub(crate) fn mount(self, attributes: u64) -> sys::Result<OwnedFd> {
        fsconfig_create(&self.context).map_err(|errno| {
            self.error(
                format!("fsconfig({}, FSCONFIG_CMD_CREATE)", self.kind),
                errno,
            )
        })?;
        let bits = u32::try_from(attributes).expect("attributes of fsmount have 32 bits");
        let attributes = MountAttrFlags::from_bits_retain(bits);
        fsmount(&self.context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.error(format!("fsmount({}, {attributes:?})", self.kind), errno))
    }

    fn error(&self, call: String, errno: Errno) -> sys::Error {
        context_error(self.context.as_fd(), call, errno)
    }
}

/// Filesystems of which the kernel has one for a namespace: whether such a mount is read-only is its own matter.
const SHARED: [&str; 6] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts"];

/// Makes a filesystem and a detached mount of it with everything that the options say of both.
pub(crate) fn create(
    kind: &str,
    source: Option<&str>,
    options: &Options,
    more: &[(&str, &str)],
) -> Result<OwnedFd> {
    let make = || {
        let filesystem = Filesystem::new(kind)?;
        if let Some(source) = source {
            filesystem.set("source", source)?;
        }
        for (key, value) in more {
            filesystem.set(key, value)?;
        }
        for (key, value) in &options.parameters {
            match value {
                Some(value) => filesystem.set(key, value)?,
                None => filesystem.flag(key)?,
            }
        }
        for flag in &options.superblock {
            filesystem.flag(flag)?;
        }
        if options.read_only() && !SHARED.contains(&kind) {
            filesystem.flag("ro")?;
        }
        filesystem.mount(options.attributes.set | options.recursive.set)
    };
    make().doing_with(|| format!("making a {kind} filesystem"))
}

/// A detached mount of a part of another.
pub(crate) fn clone_tree(
    directory: BorrowedFd<'_>,
    path: &Path,
    recursive: bool,
) -> sys::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(directory, path, flags).call(|| format!("open_tree({path:?}, {flags:?})"))
}

/// Puts a detached mount where a descriptor points.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> sys::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).call(|| "move_mount(<mount>, <target>)")
}

/// Opens a path of the host as it is.
pub(crate) fn host(path: &Path, flags: OFlags) -> sys::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).call(|| format!("open({path:?}, {flags:?})"))
}
