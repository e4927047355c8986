//! The runtime's own executable, out of reach of containers (attack 3, CVE-2019-5736).
//!
//! A process on its way into a container is visible there, and an image can make it execute `/proc/self/exe`; whoever then
//! opens that file for writing once it runs no more overwrites the runtime on the host. So whatever enters containers runs
//! from a view of the executable that nobody can write through: a read-only mount of that one file which is in no mount
//! namespace, so that nobody can reach it to change it; or where that cannot be had, a sealed copy in memory. How it gets
//! there is decision 11 in docs/adr.

use crate::error::{Doing, Error, Result};
use crate::mounts::filesystem::{clone_tree, host};
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals,
    fstatvfs, memfd_create,
};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use sys::Context;
use sys::mount::{Attributes, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, set_attributes};
use sys::process::exec_fd;

const SELF: &str = "/proc/self/exe";
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Set for the second execution, which must not lead to a third.
const MARK: &str = "_HULL_SEALED";

/// Makes sure that this process runs from such a view: by mapping itself anew from it, or, where the kernel does not let it,
/// by executing itself again with the same arguments. To be called before anything else, by every program that creates
/// containers or executes in them, unless it was executed from [`executable`] to begin with.
pub fn ensure() -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    // What keeps it from this, keeps it from nothing else: it is the shorter way to the same.
    if exchange().is_ok() {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Error::unsupported("running out of reach of containers"));
    }
    let executable = executable()?;
    let arguments = strings(std::env::args_os())?;
    let variables = std::env::vars_os().chain([(MARK.into(), "1".into())]);
    let environment = strings(variables.map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.as_bytes());
        OsString::from_vec(variable)
    }))?;
    Err(exec_fd(executable.as_fd(), &arguments, &environment))
        .doing("executing a sealed view of the runtime")
}

/// The running program's executable, to execute it from (execveat(2), or `/proc/self/fd/<n>`) out of reach of containers.
pub fn executable() -> Result<OwnedFd> {
    // The copy is for kernels before 5.12, and for whoever may not mount.
    mount()
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
    if !found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(false);
    }
    // A read-only mount of a mount namespace could be made writable there; what is in none has no name but its root's.
    let path = std::fs::read_link(SELF)
        .call(|| format!("readlink({SELF:?})"))
        .doing(doing)?;
    Ok(path == Path::new("/"))
}

/// Goes on as a program of the mount.
fn exchange() -> sys::Result<()> {
    sys::executable::replace(mount()?.as_fd())
}

/// The executable in a read-only mount of its own.
fn mount() -> sys::Result<OwnedFd> {
    let file = host(Path::new(SELF), OFlags::empty())?;
    let mount = clone_tree(file.as_fd(), Path::new(""), false)?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
    set_attributes(
        mount.as_fd(),
        false,
        &Attributes {
            set: attributes,
            ..Attributes::default()
        },
    )?;
    Ok(mount)
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
