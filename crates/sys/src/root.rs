//! Untrusted paths: every path below a rootfs, volume or build context is resolved through [`Root`].
//!
//! Invariant: no function here ever resolves to a file outside the root, whatever symlinks the tree holds and whoever
//! renames directories meanwhile, because the kernel resolves with `RESOLVE_IN_ROOT` (openat2(2)) and the result is a
//! file descriptor, which is then used instead of the path. Absolute symlinks are resolved against the root, as in a
//! chroot; magic links (`/proc/<pid>/fd/<n>`) are refused.

use crate::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// openat2 gives EAGAIN when a rename raced with the resolution of `..`; this many times in a row is an attack or a bug.
const RACE_RETRIES_MAX: u32 = 128;

/// As many dangling symlinks as the kernel would follow in one path (MAXSYMLINKS).
const SYMLINKS_MAX: u32 = 40;

/// A directory that nothing resolved through it can leave.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory at a path that the host controls (symlinks in it are followed).
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .call(|| format!("open({path:?}, O_PATH|O_DIRECTORY)"))?;
        Ok(Self { fd })
    }

    /// Takes a descriptor of a directory, of a detached mount (fsmount(2), open_tree(2)), or of `/proc/<pid>/root`.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens `path` in the root, following symlinks unless `flags` has `O_NOFOLLOW`. `mode` counts with `O_CREAT` only.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        // An absolute path means the root's own; openat2 with RESOLVE_IN_ROOT agrees. An empty one means the root.
        let name = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACE_RETRIES_MAX {
            match rustix::fs::openat2(&self.fd, name, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result.call(|| format!("openat2(<root>, {name:?}, {flags:?})")),
            }
        }
        Err(Error::new(
            format!("openat2(<root>, {name:?}, {flags:?})"),
            Errno::AGAIN,
        ))
    }

    /// Resolves `path` to an `O_PATH` descriptor, following a final symlink.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH, Mode::empty())
    }

    /// Resolves `path` to an `O_PATH` descriptor of the last component itself, be it a symlink.
    pub fn resolve_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Resolves the directory that holds `path`, and returns it with the last component's name. The name is never
    /// `.`, `..` or empty: such paths, and the root itself, are `EINVAL`.
    pub fn parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let invalid = || Error::new(format!("parent(<root>, {path:?})"), Errno::INVAL);
        let name = last_name(path).ok_or_else(invalid)?;
        let parent = path.parent().ok_or_else(invalid)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_at(parent, flags, Mode::empty())?, name.to_owned()))
    }

    /// Makes `path` and its missing parents as directories with `mode`, and returns an `O_PATH` descriptor of it.
    /// A dangling symlink on the way makes its target, inside the root.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        self.create_dirs(path, mode, 0)
    }

    fn create_dirs(&self, path: &Path, mode: Mode, links: u32) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_at(path, flags, Mode::empty()) {
            Err(error) if error.errno == Errno::NOENT => {}
            result => return result,
        }
        let call = || format!("mkdirat(<root>, {path:?}, {:#o})", mode.bits());
        let (Some(parent), Some(name)) = (path.parent(), last_name(path)) else {
            return Err(Error::new(call(), Errno::INVAL));
        };
        let parent_fd = self.create_dirs(parent, mode, links)?;
        match rustix::fs::mkdirat(&parent_fd, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::new(call(), errno)),
        }
        match self.open_at(path, flags, Mode::empty()) {
            Err(error) if error.errno == Errno::NOENT => {}
            result => return result,
        }
        if links == SYMLINKS_MAX {
            return Err(Error::new(call(), Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(&parent_fd, name, Vec::new()).call(call)?;
        let target = parent.join(OsStr::from_bytes(target.as_bytes()));
        self.create_dirs(&target, mode, links + 1)
    }

    /// Makes an empty regular file at `path` (and its parents as directories with 0755) unless something is there;
    /// returns an `O_PATH` descriptor of what `path` then resolves to. A dangling symlink makes its target, inside the
    /// root.
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        self.create_files(path, mode, 0)
    }

    fn create_files(&self, path: &Path, mode: Mode, links: u32) -> Result<OwnedFd> {
        match self.resolve(path) {
            Err(error) if error.errno == Errno::NOENT => {}
            result => return result,
        }
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent, Mode::from_raw_mode(0o755))?;
        }
        match self.open_at(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY, mode) {
            Err(error) if error.errno == Errno::EXIST => {}
            Ok(_) => return self.resolve(path),
            Err(error) => return Err(error),
        }
        let call = || format!("readlinkat(<root>, {path:?})");
        if links == SYMLINKS_MAX {
            return Err(Error::new(call(), Errno::LOOP));
        }
        let (parent_fd, name) = self.parent(path)?;
        match rustix::fs::readlinkat(&parent_fd, &name, Vec::new()) {
            Ok(target) => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                let target = parent.join(OsStr::from_bytes(target.as_bytes()));
                self.create_files(&target, mode, links + 1)
            }
            // Somebody made something else there meanwhile.
            Err(Errno::INVAL) => self.resolve(path),
            Err(errno) => Err(Error::new(call(), errno)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The last component where it is a plain name.
fn last_name(path: &Path) -> Option<&OsStr> {
    match path.components().next_back()? {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

/// The path to a descriptor, for the calls that only take paths. Valid in this process while the descriptor is open.
pub fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        let root = Root::open(&outer.path().join("root")).unwrap();
        (outer, root)
    }

    #[test]
    fn a_symlink_cannot_leave_the_root() {
        let (outer, root) = tree();
        symlink("../../../secret", outer.path().join("root/up")).unwrap();
        symlink(
            outer.path().join("secret"),
            outer.path().join("root/absolute"),
        )
        .unwrap();
        for name in ["up", "absolute", "../secret", "/../secret"] {
            let error = root.resolve(Path::new(name)).unwrap_err();
            assert_eq!(error.errno, Errno::NOENT, "{name}");
        }
    }

    #[test]
    fn directories_behind_a_dangling_symlink_are_made_inside() {
        let (outer, root) = tree();
        symlink("/../../escape", outer.path().join("root/link")).unwrap();
        root.create_dir_all(Path::new("link/below"), Mode::from_raw_mode(0o755))
            .unwrap();
        assert!(outer.path().join("root/escape/below").is_dir());
        assert!(!outer.path().join("escape").exists());
    }

    #[test]
    fn a_symlink_loop_ends() {
        let (outer, root) = tree();
        symlink("b", outer.path().join("root/a")).unwrap();
        symlink("a", outer.path().join("root/b")).unwrap();
        let error = root
            .create_dir_all(Path::new("a/x"), Mode::from_raw_mode(0o755))
            .unwrap_err();
        assert_eq!(error.errno, Errno::LOOP);
    }

    #[test]
    fn a_file_is_made_with_its_parents_and_kept_when_there() {
        let (outer, root) = tree();
        root.create_file(Path::new("/a/b/c"), Mode::from_raw_mode(0o644))
            .unwrap();
        fs::write(outer.path().join("root/a/b/c"), "kept").unwrap();
        root.create_file(Path::new("/a/b/c"), Mode::from_raw_mode(0o644))
            .unwrap();
        assert_eq!(
            fs::read_to_string(outer.path().join("root/a/b/c")).unwrap(),
            "kept"
        );
    }

    #[test]
    fn a_file_behind_dangling_symlinks_is_made_inside() {
        let (outer, root) = tree();
        fs::create_dir(outer.path().join("root/etc")).unwrap();
        symlink("../run/name/file", outer.path().join("root/etc/link")).unwrap();
        symlink("/../../etc/link", outer.path().join("root/chain")).unwrap();
        root.create_file(Path::new("chain"), Mode::from_raw_mode(0o644))
            .unwrap();
        assert!(outer.path().join("root/run/name/file").is_file());
        symlink("loop", outer.path().join("root/loop")).unwrap();
        assert!(
            root.create_file(Path::new("loop"), Mode::from_raw_mode(0o644))
                .is_err()
        );
    }

    #[test]
    fn the_root_has_no_parent() {
        let (_outer, root) = tree();
        for path in ["/", "", ".", "..", "a/.."] {
            assert_eq!(
                root.parent(Path::new(path)).unwrap_err().errno,
                Errno::INVAL,
                "{path}"
            );
        }
    }
}
