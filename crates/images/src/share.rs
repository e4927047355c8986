//! Files that a tree gets from one that goes: not by a copy, but by another name, which is the only one in the end.
//!
//! Invariant: a file is shared with one place at the most. One that has other names already, or is on another file system, is copied.

use crate::copy::Copy;
use crate::place::{self, DIRECTORY, Place};
use crate::tar::{Entry, Time};
use crate::{Result, walk};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// What is left to be done when everything else has arrived.
#[derive(Debug, Default)]
#[must_use = "files and modes of directories are missing without it"]
pub struct Rest<'f> {
    /// Files to share, by the places that they get.
    pub(crate) shared: BTreeMap<PathBuf, Shared<'f>>,
    /// Directories whose mode and time are set in the end.
    pub(crate) directories: Vec<(PathBuf, u32, Time)>,
}

#[derive(Debug)]
pub(crate) struct Shared<'f> {
    pub(crate) from: &'f Root,
    pub(crate) source: PathBuf,
    pub(crate) entry: Entry,
}

impl Rest<'_> {
    /// Does it.
    pub fn finish(self, to: &Root) -> Result<()> {
        let mut parents = Parents::default();
        let mut copies = Copy::new(to);
        for (target, shared) in &self.shared {
            let Shared {
                from,
                source,
                entry,
            } = shared;
            if !parents.link(from, source, to, target)? {
                copies.put(from, source, target, entry)?;
            }
        }
        for (path, mode, mtime) in self.directories.iter().rev() {
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            match to.open_at(path, flags, Mode::empty()) {
                Ok(fd) => place::set_mode(fd.as_fd(), *mode, Some(*mtime), path)?,
                // A later file has taken its place.
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The last directories that files were shared from and to: the next ones are mostly in the same.
#[derive(Debug, Default)]
struct Parents<'f> {
    from: Option<(&'f Root, PathBuf, OwnedFd)>,
    to: Option<(PathBuf, OwnedFd)>,
}

impl<'f> Parents<'f> {
    /// Gives a file a second name; returns whether that is possible, and the only one.
    fn link(&mut self, from: &'f Root, source: &Path, to: &Root, target: &Path) -> Result<bool> {
        let (Some(old), Some(new)) = (source.file_name(), target.file_name()) else {
            return Ok(false);
        };
        self.enter(from, source, to, target)?;
        let (Some((_, _, from)), Some((_, to))) = (&self.from, &self.to) else {
            return Ok(false);
        };
        let link = || rustix::fs::linkat(from, old, to, new, AtFlags::empty());
        let place = Place {
            parent: to.as_fd(),
            name: new,
            path: target,
        };
        let linked = match link() {
            Err(Errno::EXIST) => {
                // What overlayfs has put there: it hides what is below.
                place.unlink()?;
                link()
            }
            result => result,
        };
        match linked {
            Err(Errno::XDEV | Errno::MLINK) => return Ok(false),
            result => result.call(|| format!("linkat(<tree>{source:?}, <root>, {target:?})"))?,
        }
        let stat = place.stat()?;
        let is_alone =
            |stat: &Stat| stat.st_nlink == 2 && walk::file_type(stat) == FileType::RegularFile;
        if stat.as_ref().is_some_and(is_alone) {
            return Ok(true);
        }
        place.unlink()?;
        Ok(false)
    }

    fn enter(&mut self, from: &'f Root, source: &Path, to: &Root, target: &Path) -> Result<()> {
        let above = |path: &Path| Path::new("/").join(path.parent().unwrap_or(Path::new("")));
        let (source, target) = (above(source), above(target));
        if { self.from.as_ref() }
            .is_none_or(|(root, path, _)| !std::ptr::eq(*root, from) || *path != source)
        {
            let fd = from.open_at(&source, DIRECTORY, Mode::empty())?;
            self.from = Some((from, source, fd));
        }
        if { self.to.as_ref() }.is_none_or(|(path, _)| *path != target) {
            let fd = to.open_at(&target, DIRECTORY, Mode::empty())?;
            self.to = Some((target, fd));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::copy::{Want, find};
    use crate::tar::Kind;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn trees() -> (tempfile::TempDir, Root, Root) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from/d", "to"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("from/d/a"), "a").unwrap();
        let from = Root::open(&dir.path().join("from")).unwrap();
        let to = Root::open(&dir.path().join("to")).unwrap();
        (dir, from, to)
    }

    fn inode(path: &Path) -> (u64, u64) {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::symlink_metadata(path).unwrap();
        (metadata.ino(), metadata.nlink())
    }

    fn entry_of(root: &Root, path: &str) -> Entry {
        let found = find(root, Path::new(path), false, &|_| Want::Take).unwrap();
        found.into_iter().next().unwrap().entry
    }

    #[test]
    fn a_shared_file_is_the_same_once() {
        let (dir, from, to) = trees();
        let entry = entry_of(&from, "d/a");
        let mut copy = Copy::new(&to);
        for target in ["/x/one", "/x/two", "/x/three"] {
            { copy.share(&from, Path::new("d/a"), Path::new(target), &entry) }.unwrap();
        }
        copy.put_bytes(b"later", Path::new("/x/two"), &entry)
            .unwrap();
        let error = copy.put_bytes(b"", Path::new("/x/one"), &entry_of(&from, "d"));
        assert!(matches!(error, Err(Error::Path { .. })));
        { copy.share(&from, Path::new("d/a"), Path::new("/x/one"), &entry) }.unwrap();
        copy.finish().unwrap();
        let source = inode(&dir.path().join("from/d/a"));
        let [one, two, three] =
            ["one", "two", "three"].map(|name| dir.path().join("to/x").join(name));
        assert_eq!((source.1, inode(&one)), (2, source));
        assert_eq!(std::fs::read(&two).unwrap(), b"later");
        assert_eq!(
            (std::fs::read(&three).unwrap(), inode(&three).1),
            (b"a".to_vec(), 1)
        );
    }

    #[test]
    fn a_file_is_shared_below_an_overlay_as_it_would_be_copied_to_it() {
        use crate::testing::Store;
        let (dir, from, _) = trees();
        let store = Store::new();
        let below = store.images.prepare_on("below", &[]).unwrap();
        std::fs::create_dir_all(below.upper.join("usr/bin")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o750);
        std::fs::set_permissions(below.upper.join("usr/bin"), mode).unwrap();
        std::fs::write(below.upper.join("usr/bin/old"), "old").unwrap();
        symlink("usr/bin", below.upper.join("bin")).unwrap();
        let (layer, _hold) = store.images.make_layer(&below, None).unwrap().unwrap();
        let snapshot = store.images.prepare_on("above", &[layer]).unwrap();
        let root = Root::from_fd(store.images.mount_detached(&snapshot).unwrap());
        let entry = entry_of(&from, "d/a");
        let mut copy = Copy::new(&root);
        copy.share(&from, Path::new("d/a"), Path::new("/bin/old"), &entry)
            .unwrap();
        let directory = Entry::new("", Kind::Directory, 0o711);
        copy.put_bytes(&[], Path::new("/bin/new"), &directory)
            .unwrap();
        let rest = copy.rest();
        drop(root);
        rest.finish(&Root::open(&snapshot.upper).unwrap()).unwrap();
        // The trees of a test need not be on one file system.
        let shared = snapshot.upper.join("usr/bin/old");
        assert_eq!(std::fs::read(&shared).unwrap(), b"a");
        assert!(inode(&shared) == inode(&dir.path().join("from/d/a")) || inode(&shared).1 == 1);
        let mode = |path: &str| {
            let metadata = std::fs::symlink_metadata(snapshot.upper.join(path)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!((mode("usr/bin"), mode("usr/bin/new")), (0o750, 0o711));
        assert!(!snapshot.upper.join("bin").exists());
    }
}
