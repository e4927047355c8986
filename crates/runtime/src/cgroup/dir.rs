//! One directory of a cgroup filesystem, or of another of the kernel's own like it: small text files read and written by name.
//!
//! Invariant: names are single components given by this crate or checked by it; nothing here follows a symlink.

use rustix::fs::{AtFlags, Dir as DirStream, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::{Context, Error, Result};

/// The longest file read: `cgroup.procs` of as many processes as a machine can have is the longest there is.
const FILE_BYTES_MAX: usize = 32 << 20;
/// Most files are shorter.
const READ_BYTES: usize = 4096;
/// As many child groups as are looked at in one; a container can make them when its cgroup is writable.
const CHILDREN_MAX: usize = 1 << 16;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by a path of the host.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .call(|| format!("open({path:?}, O_PATH|O_DIRECTORY)"))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens a directory in it.
    pub(crate) fn child(&self, name: &OsStr) -> Result<Self> {
        let path = self.path.join(name);
        let fd = rustix::fs::openat(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .call(|| format!("open({path:?}, O_PATH|O_DIRECTORY)"))?;
        Ok(Self { fd, path })
    }

    /// Another descriptor of it.
    pub(crate) fn again(&self) -> Result<Self> {
        let fd = self
            .fd
            .try_clone()
            .call(|| format!("dup({:?})", self.path))?;
        Ok(Self {
            fd,
            path: self.path.clone(),
        })
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the directories in it.
    pub(crate) fn children(&self) -> Result<Vec<OsString>> {
        let call = || format!("getdents64({:?})", self.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, c".", flags, Mode::empty()).call(call)?;
        let mut names = Vec::new();
        for entry in DirStream::new(fd).call(call)? {
            let entry = entry.call(call)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if entry.file_type() == FileType::Directory && name != "." && name != ".." {
                names.push(name.to_owned());
            }
            if names.len() > CHILDREN_MAX {
                return Err(Error::new(call(), Errno::OVERFLOW));
            }
        }
        Ok(names)
    }

    /// Whether a file is there.
    pub(crate) fn has(&self, file: &str) -> bool {
        rustix::fs::statat(&self.fd, file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Opens a file.
    pub(crate) fn file(&self, file: &str, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, file, flags, Mode::empty())
            .call(|| format!("open({:?}, {flags:?})", self.path.join(file)))
    }

    /// Reads a file whole.
    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let call = || format!("read({:?})", self.path.join(file));
        let fd = self.file(file, OFlags::RDONLY)?;
        let mut text = vec![0; READ_BYTES];
        let mut length = 0;
        loop {
            if length == text.len() {
                text.resize(text.len() * 2, 0);
            }
            match rustix::io::read(&fd, &mut text[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::new(call(), errno)),
            }
            if length > FILE_BYTES_MAX {
                return Err(Error::new(call(), Errno::FBIG));
            }
        }
        text.truncate(length);
        String::from_utf8(text).map_err(|_| Error::new(call(), Errno::ILSEQ))
    }

    /// Reads a file that the kernel may lack.
    pub(crate) fn read_if_there(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            // Some files exist but answer that their feature is off.
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Writes a file with one call: the kernel takes each write as one command.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        let fd = self.file(file, OFlags::WRONLY)?;
        let call = || format!("write({:?}, {text:?})", self.path.join(file));
        match rustix::io::write(&fd, text.as_bytes()).call(call)? {
            count if count == text.len() => Ok(()),
            _ => Err(Error::new(call(), Errno::MSGSIZE)),
        }
    }

    /// Removes an empty directory in it; one that is gone already counts as removed.
    pub(crate) fn remove(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::new(
                format!("rmdir({:?})", self.path.join(name)),
                errno,
            )),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
