//! The host's procfs, held by a descriptor opened before anything of the container's was mounted.
//!
//! Invariant: what is opened through it is a file of procfs itself, never something mounted over it and never the target of
//! a magic link, so that a label or a kernel parameter cannot be written to a file the container chose. The container's own
//! `/proc` is never written to.

use crate::error::{Doing, Error, Result};
use rustix::fs::{FsWord, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use sys::Context;

const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
/// `PROC_ROOT_INO` of linux/proc_fs.h.
const ROOT_INODE: u64 = 1;

/// The host's procfs.
#[derive(Debug)]
pub(crate) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Opens `/proc`, and verifies that it is one, whole.
    pub(crate) fn open() -> Result<Self> {
        let doing = "opening /proc";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open("/proc", flags, Mode::empty())
            .call(|| "open(\"/proc\", O_PATH|O_DIRECTORY)")
            .doing(doing)?;
        let inode = rustix::fs::fstat(&root)
            .call(|| "fstat(</proc>)")
            .doing(doing)?
            .st_ino;
        if !is_procfs(&root).doing(doing)? || inode != ROOT_INODE {
            return Err(Error::unsupported(
                "what is mounted at /proc is not a procfs",
            ));
        }
        Ok(Self { root })
    }

    /// Opens a file by its path below `/proc`.
    pub(crate) fn file(&self, path: &str, flags: OFlags) -> sys::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(
            &self.root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .call(|| format!("openat2(</proc>, {path:?}, {flags:?})"))
    }

    /// Writes a file with one call.
    pub(crate) fn write(&self, path: &str, text: &str) -> sys::Result<()> {
        let fd = self.file(path, OFlags::WRONLY)?;
        let call = || format!("write(</proc>/{path}, {text:?})");
        match rustix::io::write(fd, text.as_bytes()).call(call)? {
            count if count == text.len() => Ok(()),
            _ => Err(sys::Error::new(call(), Errno::MSGSIZE)),
        }
    }

    /// The calling process's id in the pid namespace of the host, whatever its own.
    pub(crate) fn own_pid(&self) -> Result<i32> {
        let doing = "finding the process's id";
        let link = rustix::fs::readlinkat(&self.root, "self", Vec::new())
            .call(|| "readlinkat(</proc>, \"self\")")
            .doing(doing)?;
        let number = link.to_str().ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| Error::unsupported("/proc/self is no process id"))
    }
}

/// Whether a descriptor is of a procfs.
pub(crate) fn is_procfs(fd: impl AsFd) -> sys::Result<bool> {
    let found = rustix::fs::fstatfs(fd).call(|| "fstatfs")?;
    Ok(found.f_type == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_links_and_parents_are_refused() {
        let procfs = Procfs::open().unwrap();
        for path in [
            "self/exe",
            "self/root/etc/passwd",
            "../etc/passwd",
            "self/../../etc/passwd",
        ] {
            let error = procfs.file(path, OFlags::RDONLY).unwrap_err();
            assert!(
                matches!(error.errno, Errno::LOOP | Errno::XDEV),
                "{path}: {error}"
            );
        }
    }

    #[test]
    fn the_own_id_is_found() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        assert_eq!(Procfs::open().unwrap().own_pid().unwrap(), own);
    }
}
