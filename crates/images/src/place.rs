//! Putting one entry of an archive at a name in a directory that is held open.
//!
//! Invariant: a name here is a single component, never followed when it is a symlink, and what was made is changed through
//! its descriptor. So no symlink, whether in the archive or put in the way by a running container, redirects an owner, a
//! mode or content (CVE-2021-32760, CVE-2021-41089).

use crate::tar::{Entry, Kind, Time};
use crate::{Error, Result, Writeback};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::fd_path;

/// The descriptor of a directory through which entries are made in it and its own attributes are set.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A name in an open directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The directory.
    pub(crate) parent: BorrowedFd<'a>,
    /// One component.
    pub(crate) name: &'a OsStr,
    /// The whole path, for errors.
    pub(crate) path: &'a Path,
}

impl Place<'_> {
    /// Makes a regular file that was not there.
    pub(crate) fn create_file(&self) -> sys::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, self.name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .call(|| format!("openat(<root>, {:?}, O_CREAT|O_EXCL)", self.path))
    }

    /// Makes a directory that was not there, for its owner only at first.
    pub(crate) fn create_directory(&self) -> sys::Result<()> {
        rustix::fs::mkdirat(self.parent, self.name, Mode::RWXU)
            .call(|| format!("mkdirat(<root>, {:?})", self.path))
    }

    /// Opens the directory that is there, unless it is a symlink.
    pub(crate) fn open_directory(&self) -> sys::Result<OwnedFd> {
        rustix::fs::openat(
            self.parent,
            self.name,
            DIRECTORY | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .call(|| format!("openat(<root>, {:?}, O_DIRECTORY|O_NOFOLLOW)", self.path))
    }

    /// Makes a symlink, pipe or device that was not there.
    pub(crate) fn create_special(&self, kind: &Kind) -> sys::Result<()> {
        let node = |file_type, major, minor| {
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(
                self.parent,
                self.name,
                file_type,
                Mode::RUSR | Mode::WUSR,
                device,
            )
            .call(|| {
                format!(
                    "mknodat(<root>, {:?}, {file_type:?}, {major}:{minor})",
                    self.path
                )
            })
        };
        match kind {
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), self.parent, self.name).call(
                    || {
                        format!(
                            "symlinkat({:?}, <root>, {:?})",
                            OsStr::from_bytes(target),
                            self.path
                        )
                    },
                )
            }
            Kind::CharDevice { major, minor } => node(FileType::CharacterDevice, *major, *minor),
            Kind::BlockDevice { major, minor } => node(FileType::BlockDevice, *major, *minor),
            Kind::Fifo => node(FileType::Fifo, 0, 0),
            Kind::File | Kind::Directory | Kind::HardLink { .. } => {
                unreachable!("these are made by functions of their own")
            }
        }
    }

    /// What is there, a symlink itself.
    pub(crate) fn stat(&self) -> sys::Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(sys::Error::new(
                format!("statat(<root>, {:?})", self.path),
                errno,
            )),
        }
    }

    /// Removes what is there and is no directory.
    pub(crate) fn unlink(&self) -> sys::Result<()> {
        rustix::fs::unlinkat(self.parent, self.name, AtFlags::empty())
            .call(|| format!("unlinkat(<root>, {:?})", self.path))
    }

    /// Gives a symlink, pipe or device that was just made what the entry says of it.
    pub(crate) fn finish_special(&self, entry: &Entry) -> sys::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.parent, self.name, flags, Mode::empty())
            .call(|| format!("openat(<root>, {:?}, O_PATH|O_NOFOLLOW)", self.path))?;
        let call = |what: &str| format!("{what}(<root>, {:?})", self.path);
        let (owner, group) = owner(entry);
        rustix::fs::chownat(&fd, "", owner, group, AtFlags::EMPTY_PATH)
            .call(|| call("fchownat"))?;
        let path = fd_path(fd.as_fd());
        for (name, value) in xattrs(entry) {
            let set = rustix::fs::setxattr(&path, name, value, XattrFlags::empty());
            tolerate_missing(set).call(|| call("setxattr"))?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            // The kernel follows the magic link to the very node, and nothing further: it is no symlink.
            rustix::fs::chmod(&path, Mode::from_raw_mode(entry.mode)).call(|| call("chmod"))?;
        }
        rustix::fs::utimensat(&fd, "", &times(entry.mtime), AtFlags::EMPTY_PATH)
            .call(|| call("utimensat"))
    }
}

/// The entry's extended attributes without those by which overlayfs keeps its own books: an archive could make them say
/// that a file is somewhere else.
fn xattrs(entry: &Entry) -> impl Iterator<Item = (&OsStr, &[u8])> {
    let kept =
        |name: &[u8]| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.");
    let pairs = entry.xattrs.iter().filter(move |(name, _)| kept(name));
    pairs.map(|(name, value)| (OsStr::from_bytes(name), value.as_slice()))
}

/// A file system without a kind of attribute keeps the file without it, as in Docker.
fn tolerate_missing(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Sets owner and extended attributes of a file or directory. The mode comes after: changing the owner clears setuid.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, entry: &Entry, path: &Path) -> sys::Result<()> {
    let stat = rustix::fs::fstat(fd).call(|| format!("fstat(<root>{path:?})"))?;
    // Most files are root's, and were when they were made.
    if (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid) {
        let (owner, group) = owner(entry);
        rustix::fs::fchown(fd, owner, group)
            .call(|| format!("fchown(<root>{path:?}, {}, {})", entry.uid, entry.gid))?;
    }
    set_xattrs(fd, entry, path)
}

/// Sets the extended attributes of a file or directory.
pub(crate) fn set_xattrs(fd: BorrowedFd<'_>, entry: &Entry, path: &Path) -> sys::Result<()> {
    for (name, value) in xattrs(entry) {
        let set = rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
        tolerate_missing(set).call(|| format!("fsetxattr(<root>{path:?}, {name:?})"))?;
    }
    Ok(())
}

/// Sets mode and time of a file or directory, the last that is done to it.
pub(crate) fn set_mode(
    fd: BorrowedFd<'_>,
    mode: u32,
    mtime: Option<Time>,
    path: &Path,
) -> sys::Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
        .call(|| format!("fchmod(<root>{path:?}, {mode:#o})"))?;
    let Some(mtime) = mtime else { return Ok(()) };
    rustix::fs::futimens(fd, &times(mtime)).call(|| format!("futimens(<root>{path:?})"))
}

/// Sets the times of whatever a descriptor is of, in seconds since 1970.
pub(crate) fn set_times(fd: BorrowedFd<'_>, seconds: i64, path: &Path) -> sys::Result<()> {
    let time = Time {
        seconds,
        nanoseconds: 0,
    };
    rustix::fs::utimensat(fd, "", &times(time), AtFlags::EMPTY_PATH)
        .call(|| format!("utimensat(<root>{path:?})"))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: i64::from(mtime.nanoseconds),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Writes an entry's content to its file, leaving holes where it has them.
pub(crate) fn write_content<R: std::io::BufRead, T: crate::tar::Tap>(
    reader: &mut crate::tar::Reader<R, T>,
    file: &File,
    entry: &Entry,
    path: &Path,
) -> Result<()> {
    let whole = [(0, entry.size)];
    let regions = entry
        .sparse
        .as_ref()
        .map_or(&whole[..], |sparse| &sparse.regions);
    let mut writeback = Writeback::default();
    for (offset, length) in regions {
        let mut written = 0;
        while written < *length {
            let bytes = reader.fill()?;
            let count = bytes
                .len()
                .min(usize::try_from(length - written).unwrap_or(usize::MAX));
            file.write_all_at(&bytes[..count], offset + written)
                .call(|| format!("pwrite(<root>{path:?}, {count}, {})", offset + written))?;
            reader.consume(count);
            written += count as u64;
            writeback.written(file.as_fd(), offset + written)?;
        }
    }
    writeback.finish(file.as_fd())?;
    if let Some(sparse) = &entry.sparse {
        rustix::fs::ftruncate(file, sparse.size)
            .call(|| format!("ftruncate(<root>{path:?}, {})", sparse.size))?;
    }
    Ok(())
}

/// A path of an archive as a path below some root: without empty and `.` components, `..` taken with what is before it.
/// Empty means the root itself.
pub(crate) fn clean(path: &[u8]) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if !clean.pop() {
                    let path = String::from_utf8_lossy(path).into_owned();
                    let reason = "it leads out of the archive's root".to_owned();
                    return Err(Error::Entry { path, reason });
                }
            }
            name => clean.push(OsStr::from_bytes(name)),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        for (path, expected) in [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b/.", "a/b"),
            ("a/../b", "b"),
            ("./", ""),
            ("", ""),
            ("a/b/../..", ""),
        ] {
            assert_eq!(
                clean(path.as_bytes()).unwrap(),
                Path::new(expected),
                "{path}"
            );
        }
        for path in ["..", "../a", "a/../../b", "/../a"] {
            clean(path.as_bytes()).unwrap_err();
        }
    }
}
