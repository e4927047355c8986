//! Entering the root without pivot_root(2), which cannot leave a ramdisk's root.
//!
//! The old root stays in the mount namespace, below the new one. Who may call chroot(2) can come back to it; so that this gives
//! nobody the host's procfs and sysfs, these are taken away first. What of them is locked, because the mount namespace is of
//! a less privileged user namespace, is covered.
//! Source: runc(8) `--no-pivot`, proc_pid_mountinfo(5), mount(2) `MS_MOVE`.

use crate::error::{Doing, Result};
use crate::mountinfo;
use crate::mounts::filesystem::{Filesystem, attach, host};
use crate::procfs::Procfs;
use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, chroot, fchdir};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use sys::Context;

/// Makes the placed root the process's.
pub(crate) fn enter(root: BorrowedFd<'_>, procfs: &Procfs) -> Result<()> {
    let doing = "entering the root without pivot_root";
    let found = statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .call(|| "statx(<root>)")
        .doing(doing)?;
    let table = mountinfo::read(procfs)?;
    let inside = mountinfo::below(&table, found.stx_mnt_id);
    for mount in &table {
        let shows_host = mount.whole && matches!(mount.kind.as_str(), "proc" | "sysfs");
        if shows_host && !inside.contains(&mount.id) {
            hide(&mount.place).doing(doing)?;
        }
    }
    fchdir(root).call(|| "fchdir(<root>)").doing(doing)?;
    let place = table.iter().find(|mount| mount.id == found.stx_mnt_id);
    if place.is_none_or(|mount| mount.place != Path::new("/")) {
        let old = host(Path::new("/"), OFlags::DIRECTORY).doing(doing)?;
        attach(root, old.as_fd()).doing(doing)?;
    }
    chroot(".").call(|| "chroot(\".\")").doing(doing)?;
    chdir("/").call(|| "chdir(\"/\")").doing(doing)
}

fn hide(place: &Path) -> sys::Result<()> {
    match unmount(place, UnmountFlags::DETACH) {
        // What it was mounted in is gone already.
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::INVAL | Errno::PERM) => {
            let target = host(place, OFlags::DIRECTORY)?;
            let cover = Filesystem::new("tmpfs")?.mount(0)?;
            attach(cover.as_fd(), target.as_fd())
        }
        Err(errno) => Err(errno).call(|| format!("umount2({place:?}, MNT_DETACH)")),
    }
}
