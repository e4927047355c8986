//! The container's root: a detached mount made by the caller, entered by the container's init.
//!
//! Invariant: the root is in nobody's mount table but the container's, so that nothing of it can leak, block or be left over.
//! Source: pivot_root(2), kernel `Documentation/filesystems/overlayfs.rst`.

use crate::api::Rootfs;
use crate::channel::{Channel, Message};
use crate::error::{Doing, Error, Result};
use crate::hooks::reap;
use crate::init::fail;
use crate::mounts::filesystem::{Filesystem, attach, clone_tree, host};
use crate::mounts::map_ids;
use oci::runtime::Spec;
use rustix::fs::{CWD, OFlags, StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{chroot, fchdir, getegid, geteuid, pivot_root};
use rustix::thread::{capabilities, set_capabilities};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::mount::{Attributes, MOUNT_ATTR_RDONLY, overlay_adds_layers, set_attributes};
use sys::process::{Namespaces, Spawn, exit, set_filesystem_user, spawn};
use sys::root::fd_path;

/// As many layers as overlayfs takes.
const LOWERS_MAX: usize = 500;
/// A directory that every host has, for mounts that nobody else sees.
const ANY_PLACE: &str = "/sys";

/// A detached mount of the root filesystem. `users` is the container's user namespace, if its ids are to be mapped.
pub(crate) fn open(
    rootfs: Rootfs<'_>,
    spec: &Spec,
    bundle: &Path,
    users: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    match rootfs {
        Rootfs::Path => open_path(spec, bundle),
        Rootfs::Overlay {
            lowers,
            upper,
            work,
        } => overlay(lowers, upper, work, users),
    }
}

fn open_path(spec: &Spec, bundle: &Path) -> Result<OwnedFd> {
    let root = spec
        .root
        .as_ref()
        .ok_or_else(|| Error::invalid("the configuration has no root"))?;
    let path = bundle.join(&root.path);
    let doing = || format!("opening the root {}", path.display());
    // Verified by the flag: a mount of anything but a directory cannot be a root.
    let directory = host(&path, OFlags::DIRECTORY).doing_with(doing)?;
    let tree = clone_tree(directory.as_fd(), Path::new(""), true).doing_with(doing)?;
    let slave = Attributes {
        propagation: libc::MS_SLAVE,
        ..Attributes::default()
    };
    set_attributes(tree.as_fd(), true, &slave).doing_with(doing)?;
    // The mounts of the configuration, made later, have a propagation of their own.
    if let Some((propagation, true)) = propagation(spec)? {
        let below = Attributes {
            propagation,
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), true, &below).doing_with(doing)?;
        set_attributes(tree.as_fd(), false, &slave).doing_with(doing)?;
    }
    Ok(tree)
}

fn overlay(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    users: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    if lowers.is_empty() || lowers.len() > LOWERS_MAX {
        return Err(Error::invalid(format!(
            "an overlay of {} layers",
            lowers.len()
        )));
    }
    let doing = "mounting the overlay";
    let Some(users) = users else {
        let layers = Layers {
            lowers,
            upper,
            work,
            mapped: &[],
        };
        return mount_overlay(&layers).doing(doing);
    };
    // Mapped mounts of every directory, named by descriptor. Upper and work must be of one mount.
    let parent = upper
        .parent()
        .filter(|parent| work.parent() == Some(parent));
    let parent = parent.ok_or_else(|| {
        Error::invalid("the overlay's upper and work directories are not beside each other")
    })?;
    let mut held = Vec::with_capacity(lowers.len() + 1);
    let mut mapped = |path: &Path| {
        let tree = clone_tree(CWD, path, false).doing(doing)?;
        // What is mounted on it must not appear on its original.
        let private = Attributes {
            propagation: libc::MS_PRIVATE,
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), false, &private).doing(doing)?;
        map_ids(tree.as_fd(), false, users, path)?;
        let named = fd_path(tree.as_fd());
        held.push(tree);
        Ok(named)
    };
    let lowers = lowers
        .iter()
        .map(|lower| mapped(lower))
        .collect::<Result<Vec<_>>>()?;
    let parent = mapped(parent)?;
    let below = |path: &Path| parent.join(path.file_name().unwrap_or_default());
    let tree = held.last().expect("the parent was mapped last");
    let owner = fstat(tree).call(|| "fstat").doing(doing)?;
    let layers = Layers {
        lowers: &lowers,
        upper: &below(upper),
        work: &below(work),
        mapped: &held,
    };
    acting_as(owner.st_uid, owner.st_gid, || mount_overlay(&layers)).doing(doing)
}

/// Does something as another user towards filesystems, with all capabilities: overlayfs goes on to act as who mounted it, and
/// through a mapped mount only ids of the mapping can own what it makes.
fn acting_as<T>(uid: u32, gid: u32, act: impl FnOnce() -> sys::Result<T>) -> sys::Result<T> {
    let capable = capabilities(None).call(|| "capget(0)")?;
    set_filesystem_user(uid, gid)?;
    let done = set_capabilities(None, capable)
        .call(|| "capset(0)")
        .and_then(|()| act());
    set_filesystem_user(geteuid().as_raw(), getegid().as_raw())?;
    done
}

/// The directories of an overlay.
#[derive(Debug, Clone, Copy)]
struct Layers<'a> {
    lowers: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
    /// The detached mounts that the paths lead through, if ids are mapped.
    mapped: &'a [OwnedFd],
}

fn mount_overlay(layers: &Layers<'_>) -> sys::Result<OwnedFd> {
    match mount_overlay_by_layer(layers) {
        // Not every kernel that adds layers takes those of detached mounts.
        Err(error)
            if error.errno == Errno::INVAL
                && (!layers.mapped.is_empty() || !overlay_adds_layers()?) =>
        {
            mount_overlay_apart(layers)
        }
        result => result,
    }
}

fn mount_overlay_by_layer(layers: &Layers<'_>) -> sys::Result<OwnedFd> {
    let overlay = Filesystem::new("overlay")?;
    overlay.set("source", "overlay")?;
    for layer in layers.lowers {
        overlay.set("lowerdir+", text(layer)?)?;
    }
    overlay.set("upperdir", text(layers.upper)?)?;
    overlay.set("workdir", text(layers.work)?)?;
    let mount = overlay.mount(0)?;
    refuse_read_only(&mount, layers.work)?;
    Ok(mount)
}

/// The kernel makes an overlay read-only, with no more than a line in its log, when it cannot write to the work directory.
fn refuse_read_only(mount: &OwnedFd, work: &Path) -> sys::Result<()> {
    let found = fstatvfs(mount).call(|| "fstatvfs(<overlay>)")?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(sys::Error::new(
            format!("mkdir({:?})", work.join("work")),
            Errno::ROFS,
        ));
    }
    Ok(())
}

/// Mounts an overlay whose layers are one parameter, which fsconfig(2) takes up to 256 bytes of and mount(2) a page. That
/// needs a place, and so do layers of mapped mounts, so that a child does it in a mount namespace of its own, and hands the
/// mount out of it.
fn mount_overlay_apart(layers: &Layers<'_>) -> sys::Result<OwnedFd> {
    let failed = |what: &str| sys::Error::new(format!("mount(overlay, {what})"), Errno::IO);
    let (ours, theirs) = Channel::pair().map_err(|_| failed("socketpair"))?;
    let how = Spawn {
        namespaces: Namespaces::MOUNT,
        ..Spawn::default()
    };
    let child = spawn(how, || {
        let mounted = mount_overlay_here(layers).doing("mounting the overlay apart");
        match mounted.and_then(|mount| theirs.send(&Message::Go(Some(mount)))) {
            Ok(()) => exit(0),
            Err(error) => fail(&theirs, &error),
        }
    })?;
    drop(theirs);
    let answer = ours.receive();
    reap(child.pid)?;
    match answer {
        Ok(Some(Message::Go(Some(mount)))) => Ok(mount),
        Ok(Some(Message::Failed(_, text))) => Err(failed(&text)),
        _ => Err(failed("no answer")),
    }
}

fn mount_overlay_here(layers: &Layers<'_>) -> sys::Result<OwnedFd> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).call(|| "mount(\"/\", MS_PRIVATE|MS_REC)")?;
    // One upon the other: they are reached by their descriptors, and only have to be of this mount namespace.
    for tree in layers.mapped {
        let place = host(Path::new(ANY_PLACE), OFlags::DIRECTORY)?;
        attach(tree.as_fd(), place.as_fd())?;
    }
    // Named by descriptor each takes few of the page's bytes, and none that would have to be escaped.
    let open = |path: &Path| host(path, OFlags::DIRECTORY);
    let (upper, work) = (open(layers.upper)?, open(layers.work)?);
    let held = { layers.lowers.iter() }
        .map(|layer| open(layer))
        .collect::<sys::Result<Vec<_>>>()?;
    let names: Vec<_> = held
        .iter()
        .map(|fd| fd_path(fd.as_fd()).display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        names.join(":"),
        fd_path(upper.as_fd()).display(),
        fd_path(work.as_fd()).display()
    );
    let options = CString::new(options).expect("numbers and words");
    mount(
        "overlay",
        ANY_PLACE,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .call(|| format!("mount(\"overlay\", {ANY_PLACE:?}, {options:?})"))?;
    let mounted = clone_tree(CWD, Path::new(ANY_PLACE), false)?;
    refuse_read_only(&mounted, layers.work)?;
    Ok(mounted)
}

fn text(path: &Path) -> sys::Result<&str> {
    let error = || sys::Error::new(format!("fsconfig(overlay, {path:?})"), Errno::ILSEQ);
    path.to_str().ok_or_else(error)
}

/// Puts the root where it can become one, in the calling process's own mount namespace, which nothing leaves from now on:
/// at a path of the host where hooks look for it, else over the old root itself, which takes no directory.
pub(crate) fn place(root: BorrowedFd<'_>, path: Option<&Path>) -> Result<()> {
    let doing = "placing the root";
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", propagation)
        .call(|| "mount(\"/\", MS_SLAVE|MS_REC)")
        .doing(doing)?;
    let place = host(path.unwrap_or(Path::new("/")), OFlags::DIRECTORY).doing(doing)?;
    attach(root, place.as_fd()).doing(doing)
}

/// Makes the placed root the process's, and leaves nothing else in the mount namespace.
pub(crate) fn enter(root: BorrowedFd<'_>) -> Result<()> {
    let doing = "entering the root";
    fchdir(root).call(|| "fchdir(<root>)").doing(doing)?;
    // The old root is stacked upon the new one, and so is what `.` finds first.
    pivot_root(".", ".")
        .call(|| "pivot_root(\".\", \".\")")
        .doing(doing)?;
    unmount(".", UnmountFlags::DETACH)
        .call(|| "umount2(\".\", MNT_DETACH)")
        .doing(doing)?;
    rustix::process::chdir("/")
        .call(|| "chdir(\"/\")")
        .doing(doing)
}

/// Refuses a root that is to stay detached where the kernel cannot mount on what is, which it tells by not copying it either.
pub(crate) fn refuse_detached(root: BorrowedFd<'_>) -> Result<()> {
    match clone_tree(root, Path::new(""), false) {
        Err(error) if error.errno == Errno::INVAL => Err(Error::unsupported(
            "a container without a mount namespace of its own: that takes Linux 6.15",
        )),
        result => result.doing("copying the root").map(drop),
    }
}

/// Makes the root the process's where the mount namespace is not the container's own: it stays detached, in nobody's mount
/// table, and ends with the processes in it.
pub(crate) fn enter_detached(root: BorrowedFd<'_>) -> Result<()> {
    let doing = "entering the root";
    fchdir(root).call(|| "fchdir(<root>)").doing(doing)?;
    chroot(".").call(|| "chroot(\".\")").doing(doing)
}

/// Makes the root read-only if it is to be, when all below it is made.
pub(crate) fn restrict(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    let doing = "restricting the root";
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    if readonly {
        let attributes = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(root, false, &attributes).doing(doing)?;
    }
    Ok(())
}

/// The root's propagation, once it is the process's: a shared mount cannot become a root (pivot_root(2)).
pub(crate) fn propagate(root: BorrowedFd<'_>, spec: &Spec) -> Result<()> {
    let Some((propagation, _)) = propagation(spec)? else {
        return Ok(());
    };
    let attributes = Attributes {
        propagation,
        ..Attributes::default()
    };
    set_attributes(root, false, &attributes).doing("setting the root's propagation")
}

/// The propagation that a configuration gives the root, and whether to what the root's directory has mounted below it too.
fn propagation(spec: &Spec) -> Result<Option<(u64, bool)>> {
    let word = spec
        .linux
        .as_ref()
        .and_then(|linux| linux.rootfs_propagation.as_deref());
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let propagation = match word.strip_prefix('r').unwrap_or(word) {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return Err(Error::invalid(format!("rootfsPropagation {word:?}"))),
    };
    Ok(Some((propagation, word.starts_with('r'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_mount_many_layers_apart() {
        let tree = tempfile::tempdir().unwrap();
        let layer = |number: usize| tree.path().join(format!("{number}:{}", "x".repeat(60)));
        for number in 0..50 {
            std::fs::create_dir(layer(number)).unwrap();
            std::fs::write(layer(number).join("which"), number.to_string()).unwrap();
            std::fs::write(layer(number).join(format!("layer-{number}")), "").unwrap();
        }
        let (upper, work) = (tree.path().join("upper"), tree.path().join("work"));
        for directory in [&upper, &work] {
            std::fs::create_dir(directory).unwrap();
        }
        let lowers: Vec<_> = (0..50).map(layer).collect();
        let layers = Layers {
            lowers: &lowers,
            upper: &upper,
            work: &work,
            mapped: &[],
        };
        let mount = mount_overlay_apart(&layers).unwrap();
        let inside = fd_path(mount.as_fd());
        assert_eq!(std::fs::read_to_string(inside.join("which")).unwrap(), "0");
        assert!(inside.join("layer-49").exists());
        std::fs::write(inside.join("new"), "").unwrap();
        assert!(upper.join("new").exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(tree.path().to_str().unwrap()), "{mounts}");
        let without = Layers {
            lowers: &[tree.path().join("none")],
            ..layers
        };
        let error = mount_overlay_apart(&without).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
