//! The option `tmpcopyup`: a tmpfs starts with a copy of what it hides.
//!
//! Invariant: both trees are walked by descriptors without following links; the source is the container's own and may be
//! anything, so its depth and number of files are bounded.

use crate::error::{Doing, Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Context;

const DEPTH_MAX: usize = 64;
const FILES_MAX: usize = 1 << 20;

/// Copies what is in `from`, an `O_PATH` descriptor of a directory, to `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut left = FILES_MAX;
    copy_directory(from, to, DEPTH_MAX, &mut left)
}

fn copy_directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    depth: usize,
    left: &mut usize,
) -> Result<()> {
    let doing = "copying what a tmpfs hides";
    let directory = open(from, c".", OFlags::DIRECTORY).doing(doing)?;
    let stat = rustix::fs::fstat(&directory)
        .call(|| "fstat")
        .doing(doing)?;
    own(to, c".", &stat).doing(doing)?;
    for entry in Dir::new(directory).call(|| "getdents64").doing(doing)? {
        let entry = entry.call(|| "getdents64").doing(doing)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left
            .checked_sub(1)
            .filter(|_| depth > 0)
            .ok_or_else(|| Error::unsupported("tmpcopyup of so many or so deep files"))?;
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
            .call(|| format!("fstatat({name:?})"))
            .doing(doing)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let mode = Mode::from_raw_mode(0o700);
            rustix::fs::mkdirat(to, name, mode)
                .call(|| format!("mkdirat({name:?})"))
                .doing(doing)?;
            let flags = OFlags::DIRECTORY | OFlags::PATH;
            let (from, to) = (
                open(from, name, flags).doing(doing)?,
                open(to, name, flags).doing(doing)?,
            );
            copy_directory(from.as_fd(), to.as_fd(), depth - 1, left)?;
        } else {
            copy_file(from, to, name, &stat).doing_with(|| format!("{doing}: {name:?}"))?;
        }
    }
    Ok(())
}

fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
) -> sys::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let source = open(from, name, OFlags::NONBLOCK)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))
                .call(|| format!("openat({name:?}, {flags:?})"))?;
            std::io::copy(
                &mut std::fs::File::from(source),
                &mut std::fs::File::from(target),
            )
            .call(|| format!("copy({name:?})"))?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())
                .call(|| format!("readlinkat({name:?})"))?;
            rustix::fs::symlinkat(&target, to, name).call(|| format!("symlinkat({name:?})"))?;
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                .call(|| format!("mknodat({name:?}, {kind:?})"))?;
        }
    }
    own(to, name, stat)
}

/// Owner and mode, as the original's.
fn own(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> sys::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .call(|| format!("fchownat({name:?})"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    // What the name is was made here, in a filesystem nobody else sees yet.
    rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
        .call(|| format!("fchmodat({name:?})"))
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> sys::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
        .call(|| format!("openat({name:?}, {flags:?})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn modes_links_and_contents_are_copied() {
        let tree = tempfile::tempdir().unwrap();
        let (from, to) = (tree.path().join("from"), tree.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("deep/er/file"), "content").unwrap();
        fs::set_permissions(from.join("deep/er/file"), PermissionsExt::from_mode(0o4750)).unwrap();
        symlink("/etc/passwd", from.join("deep/link")).unwrap();
        let (source, target) = (File::open(&from).unwrap(), File::open(&to).unwrap());
        copy(source.as_fd(), target.as_fd()).unwrap();
        assert_eq!(
            fs::read_to_string(to.join("deep/er/file")).unwrap(),
            "content"
        );
        let mode = fs::metadata(to.join("deep/er/file"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o4750);
        assert_eq!(
            fs::read_link(to.join("deep/link")).unwrap().to_str(),
            Some("/etc/passwd")
        );
    }
}
