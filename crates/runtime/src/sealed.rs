//! The runtime's own executable, out of reach of containers (attack 3, CVE-2019-5736).
//!
//! A process on its way into a container is visible there, and an image can make it execute `/proc/self/exe`; whoever then
//! opens that file for writing once it runs no more overwrites the runtime on the host. So whatever enters containers runs
//! from a view of the executable that nobody can write through: a read-only overlay of its directory that is in no mount
//! table, or where that cannot be had, a sealed copy in memory.

use crate::error::{Doing, Error, Result};
use crate::mounts::filesystem::Filesystem;
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals,
    fstatvfs, memfd_create, openat,
};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use sys::Context;
use sys::process::exec_fd;

const SELF: &str = "/proc/self/exe";
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Makes sure that this process runs from such a view, by executing itself again with the same arguments if need be. To be
/// called before anything else, by every program that creates containers or executes in them, unless it was executed from
/// [`executable`] to begin with.
pub fn ensure() -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let executable = executable()?;
    let arguments = strings(std::env::args_os())?;
    let environment = strings(std::env::vars_os().map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.as_bytes());
        OsString::from_vec(variable)
    }))?;
    Err(exec_fd(executable.as_fd(), &arguments, &environment))
        .doing("executing a sealed copy of the runtime")
}

/// The running program's executable, to execute it from (execveat(2), or `/proc/self/fd/<n>`) out of reach of containers.
pub fn executable() -> Result<OwnedFd> {
    overlay()
        .or_else(|_| copy())
        .doing("sealing the runtime's executable")
}

/// Whether this process runs from such a view already.
pub fn is_sealed() -> Result<bool> {
    let doing = "looking at the runtime's executable";
    let file = File::open(SELF)
        .call(|| format!("open({SELF:?})"))
        .doing(doing)?;
    if fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(true);
    }
    let found = fstatvfs(&file).call(|| "fstatvfs").doing(doing)?;
    // A read-only mount that is in the mount table could be made writable there.
    let path = std::fs::read_link(SELF)
        .call(|| format!("readlink({SELF:?})"))
        .doing(doing)?;
    let listed = rustix::fs::stat(&path).is_ok_and(|stat| {
        rustix::fs::fstat(&file)
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
    });
    Ok(found.f_flag.contains(StatVfsMountFlags::RDONLY) && !listed)
}

/// The executable in a read-only overlay of its directory.
fn overlay() -> sys::Result<OwnedFd> {
    let path = std::fs::read_link(SELF).call(|| format!("readlink({SELF:?})"))?;
    let invalid = || sys::Error::new(format!("readlink({SELF:?})"), rustix::io::Errno::INVAL);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(invalid());
    };
    let directory = directory.to_str().ok_or_else(invalid)?;
    let overlay = Filesystem::new("overlay")?;
    // Without an upper layer there must be two lower ones.
    let list = format!(
        "{}:{}",
        directory.replace('\\', "\\\\").replace(':', "\\:"),
        "/proc/self/fdinfo"
    );
    overlay.set("lowerdir", &list)?;
    let mount = overlay.mount(sys::mount::MOUNT_ATTR_RDONLY | sys::mount::MOUNT_ATTR_NOSUID)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&mount, Path::new(name), flags, Mode::empty())
        .call(|| format!("openat(<overlay>, {name:?})"))?;
    Ok(file)
}

/// A sealed copy of the executable in memory.
fn copy() -> sys::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create("hull-runtime", flags).call(|| "memfd_create(\"hull-runtime\")")?;
    let mut memory = File::from(memory);
    let mut source = File::open(SELF).call(|| format!("open({SELF:?})"))?;
    std::io::copy(&mut source, &mut memory).call(|| "sendfile(<memfd>)")?;
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o555)).call(|| "fchmod(<memfd>)")?;
    fcntl_add_seals(&memory, SEALS).call(|| "fcntl(F_ADD_SEALS)")?;
    Ok(memory.into())
}

fn strings(texts: impl Iterator<Item = OsString>) -> Result<Vec<CString>> {
    texts
        .map(|text| {
            CString::new(text.into_vec()).map_err(|_| Error::invalid("an argument has a zero byte"))
        })
        .collect()
}
