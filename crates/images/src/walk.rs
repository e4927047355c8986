//! Reading a tree that someone else may be changing: every file is opened without following symlinks, and what the open
//! descriptor says is what counts.

use crate::limits::DEPTH_MAX;
use crate::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::{Root, fd_path};

/// procfs, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf; `f_type` of statfs(2).
const KERNEL_MAGICS: [u32; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file of a tree, open.
#[derive(Debug)]
pub(crate) struct Node {
    /// For reading where it is a file or directory, `O_PATH` for anything else.
    pub(crate) fd: OwnedFd,
    /// What it is.
    pub(crate) stat: Stat,
}

impl Node {
    /// Opens a name in a directory; `None` where it is gone by now, or where another mount begins and `cross` forbids
    /// that.
    pub(crate) fn open(
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        cross: bool,
    ) -> Result<Option<Self>> {
        let call = || format!("openat2(<tree>, {path:?})");
        let mut resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
        if !cross {
            resolve |= ResolveFlags::NO_XDEV;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Ok(fd) => Self::reopen(fd, path).map(Some),
            Err(Errno::NOENT | Errno::XDEV) => Ok(None),
            Err(errno) => Err(sys::Error::new(call(), errno).into()),
        }
    }

    /// As [`Self::open`], not into another mount, in a tree that nobody changes meanwhile: there a file is what it was a moment ago, and
    /// can be opened by its name at once.
    pub(crate) fn open_still(
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<Self>> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.call(|| format!("statat(<tree>, {path:?})"))?,
        };
        let access = match file_type(&stat) {
            FileType::RegularFile | FileType::Directory => {
                OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY
            }
            _ => OFlags::PATH,
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(Self { fd, stat })),
            Err(Errno::NOENT | Errno::XDEV) => Ok(None),
            Err(errno) => Err(sys::Error::new(format!("openat2(<tree>, {path:?})"), errno).into()),
        }
    }

    /// Takes an `O_PATH` descriptor, and opens it for reading where it is a file or directory: the very one, whatever has
    /// its name now.
    pub(crate) fn reopen(fd: OwnedFd, path: &Path) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd).call(|| format!("fstat(<tree>{path:?})"))?;
        let node = Self { fd, stat };
        if !node.is_open() {
            return Ok(node);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(fd_path(node.fd.as_fd()), flags, Mode::empty())
            .call(|| format!("open(<tree>{path:?})"))?;
        Ok(Self { fd, ..node })
    }

    /// What kind of file it is.
    pub(crate) fn file_type(&self) -> FileType {
        file_type(&self.stat)
    }

    /// Whether overlayfs reads it as "not there".
    pub(crate) fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.stat.st_rdev == 0
    }

    /// Whether the calls with descriptors work on it: they do not on one that is O_PATH.
    fn is_open(&self) -> bool {
        matches!(
            self.file_type(),
            FileType::RegularFile | FileType::Directory
        )
    }

    /// Whether it is of a file system whose files the kernel makes up: their sizes and contents mean nothing in a copy.
    pub(crate) fn is_of_kernel(&self, path: &Path) -> Result<bool> {
        let statfs = rustix::fs::fstatfs(&self.fd).call(|| format!("fstatfs(<tree>{path:?})"))?;
        Ok(KERNEL_MAGICS
            .iter()
            .any(|magic| i64::from(*magic) == statfs.f_type))
    }

    /// Its extended attributes, but those of overlayfs and of the host's SELinux policy.
    pub(crate) fn xattrs(&self, path: &Path) -> Result<Xattrs> {
        Ok(self.split_xattrs(path)?.0)
    }

    /// Its extended attributes, and the names of those of overlayfs.
    pub(crate) fn split_xattrs(&self, path: &Path) -> Result<(Xattrs, Vec<Vec<u8>>)> {
        let (mut xattrs, mut overlay) = (Vec::new(), Vec::new());
        let names = match self.is_open() {
            true => grow(|buffer| rustix::fs::flistxattr(&self.fd, buffer)),
            false => grow(|buffer| rustix::fs::listxattr(fd_path(self.fd.as_fd()), buffer)),
        };
        let names = match names {
            Err(Errno::OPNOTSUPP) => return Ok((xattrs, overlay)),
            names => names.call(|| format!("listxattr(<tree>{path:?})"))?,
        };
        if names.is_empty() {
            return Ok((xattrs, overlay));
        }
        let link = fd_path(self.fd.as_fd());
        for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                overlay.push(name.to_vec());
                continue;
            }
            if name == b"security.selinux" {
                continue;
            }
            match grow(|buffer| rustix::fs::getxattr(&link, OsStr::from_bytes(name), buffer)) {
                Ok(value) => xattrs.push((name.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(errno) => {
                    let name = OsStr::from_bytes(name);
                    let call = format!("getxattr(<tree>{path:?}, {name:?})");
                    return Err(sys::Error::new(call, errno).into());
                }
            }
        }
        Ok((xattrs, overlay))
    }

    /// Removes attributes of overlayfs, but that by which a directory hides what is below.
    pub(crate) fn forget(&self, overlay: &[Vec<u8>], path: &Path) -> Result<()> {
        if overlay.is_empty() {
            return Ok(());
        }
        let link = fd_path(self.fd.as_fd());
        for name in overlay {
            let name = OsStr::from_bytes(name);
            if name == crate::layer::OPAQUE_XATTR && self.is_opaque(path)? {
                continue;
            }
            rustix::fs::removexattr(&link, name)
                .call(|| format!("removexattr(<tree>{path:?}, {name:?})"))?;
        }
        Ok(())
    }

    /// Whether overlayfs hides what lower layers have in this directory.
    pub(crate) fn is_opaque(&self, path: &Path) -> Result<bool> {
        let name = crate::layer::OPAQUE_XATTR;
        let mut value = [0; 1];
        match rustix::fs::fgetxattr(&self.fd, name, &mut value) {
            Ok(count) => Ok(count == 1 && value == *b"y"),
            // `x` says that the directory holds whiteouts of another kind; a longer value is none that is written.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(errno) => {
                Err(sys::Error::new(format!("fgetxattr(<tree>{path:?}, {name:?})"), errno).into())
            }
        }
    }
}

/// Calls with a growing buffer until the value fits.
fn grow(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            // The kernel allows no value of more than 64 KiB, and no longer list of names.
            Err(Errno::RANGE) if buffer.len() <= 64 << 10 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// The names in a directory, ordered.
pub(crate) fn names(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<OsString>> {
    let call = || format!("getdents(<tree>{path:?})");
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).call(call)? {
        let entry = entry.call(call)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The path of an open file below a root, without symlinks, relative: for as long as nobody renames anything on the way.
pub(crate) fn real_path(root: &Root, fd: BorrowedFd<'_>) -> Result<PathBuf> {
    let read = |fd| {
        let path = fd_path(fd);
        std::fs::read_link(&path).call(|| format!("readlink({path:?})"))
    };
    let (root, path) = (read(root.as_fd())?, read(fd)?);
    let below = path.strip_prefix(&root);
    let below = below.map_err(|_| {
        let call = format!("readlink(<root>) = {path:?}, outside of {root:?}");
        sys::Error::new(call, Errno::XDEV)
    })?;
    Ok(below.to_owned())
}

/// Refuses a path that is too deep to go on.
pub(crate) fn check_depth(path: &Path) -> Result<()> {
    if path.components().count() > DEPTH_MAX {
        let reason = "it is too deep to be walked";
        return Err(Error::Path {
            path: path.to_owned(),
            reason,
        });
    }
    Ok(())
}

/// The kind of file that a status tells.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(RawMode::from(stat.st_mode))
}

/// The status of a path below a directory, following no symlink; `None` where nothing is, or a whiteout.
pub(crate) fn stat_below(root: &Root, path: &Path) -> Result<Option<Stat>> {
    let fd = match root.resolve_nofollow(path) {
        Ok(fd) => fd,
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)
        .call(|| format!("fstat(<tree>{path:?})"))?;
    let whiteout = file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == 0;
    Ok((!whiteout).then_some(stat))
}
