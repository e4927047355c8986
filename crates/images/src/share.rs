//! Files that a tree gets when everything else has arrived: of a tree that goes, not by a copy, but by another name, which is the
//! only one in the end; and by copies that need not go through an overlay. Several are made at the same time ([`crate::arrivals`]).
//!
//! Invariant: a file is shared with one place at the most. One that has other names already, or is on another file system, is copied.

use crate::copy::Copy;
use crate::place::{self, DIRECTORY, Place};
use crate::tar::{Entry, Time};
use crate::{Error, Result, Stop, Writeback, walk};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// Bytes read at once. Files that are larger the kernel copies, which may share their blocks.
const READ_BYTES: usize = 64 << 10;
/// Bytes that the kernel copies at once.
const COPY_BYTES: u64 = 8 << 20;
/// Bytes of a file that is small enough to be kept until it is written elsewhere, too.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// What is left to be done when everything else has arrived.
#[derive(Debug, Default)]
#[must_use = "files and modes of directories are missing without it"]
pub struct Rest<'f> {
    pub(crate) coming: ComingFiles<'f>,
    /// Directories whose mode and time are set in the end.
    pub(crate) directories: Vec<(PathBuf, u32, Time)>,
}

/// Files to come, by the places that they get. They mostly come in the order of those.
#[derive(Debug, Default)]
pub(crate) struct ComingFiles<'f> {
    files: Vec<Option<(PathBuf, Coming<'f>)>>,
    /// Where each is in the list.
    numbers: HashMap<PathBuf, usize>,
}

impl<'f> ComingFiles<'f> {
    /// Adds one, where there is none.
    pub(crate) fn insert(&mut self, place: PathBuf, coming: Coming<'f>) {
        self.numbers.insert(place.clone(), self.files.len());
        self.files.push(Some((place, coming)));
    }

    /// Removes one from a directory, if there is one of that name.
    pub(crate) fn remove(&mut self, directory: &Path, name: &OsStr) -> bool {
        if self.numbers.is_empty() {
            return false;
        }
        match self.numbers.remove(&directory.join(name)) {
            Some(number) => self.files[number].take().is_some(),
            None => false,
        }
    }

    /// All of them, in the order of their places.
    pub(crate) fn into_sorted(self) -> Vec<(PathBuf, Coming<'f>)> {
        let mut files: Vec<_> = self.files.into_iter().flatten().collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        files
    }
}

/// A file to come.
#[derive(Debug)]
pub(crate) struct Coming<'f> {
    pub(crate) from: &'f Root,
    pub(crate) source: PathBuf,
    pub(crate) entry: Entry,
    pub(crate) how: How,
}

/// How a file comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// By another name, if it has no further ones.
    Share,
    Copy,
}

impl Rest<'_> {
    /// Does it.
    ///
    /// # Errors
    /// A file cannot be copied, or nobody waits for it any more.
    pub fn finish(self, to: &Root, stop: Stop<'_>) -> Result<()> {
        let mut places = Places::new(to, stop);
        for (target, coming) in self.coming.into_sorted() {
            places.put(&target, &coming)?;
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

/// What is in a file that was brought, where that is little.
pub(crate) type Brought = Option<Vec<u8>>;

/// Where files come to. It keeps the last directories open: the next files are mostly of the same.
pub(crate) struct Places<'t, 'f> {
    to: &'t Root,
    from: Option<(&'f Root, PathBuf, OwnedFd)>,
    above: Option<(PathBuf, OwnedFd)>,
    buffer: Vec<u8>,
    stop: Stop<'t>,
}

impl<'t, 'f> Places<'t, 'f> {
    pub(crate) fn new(to: &'t Root, stop: Stop<'t>) -> Self {
        Self {
            to,
            from: None,
            above: None,
            buffer: vec![0; READ_BYTES],
            stop,
        }
    }

    pub(crate) fn put(&mut self, target: &Path, coming: &Coming<'f>) -> Result<Brought> {
        self.enter(coming.from, &coming.source, target)?;
        let names = (coming.source.file_name(), target.file_name());
        let ((Some(old), Some(new)), Some((_, _, from)), Some((_, above))) =
            (names, &self.from, &self.above)
        else {
            let reason = "the root of a tree is no file";
            return Err(refused(target, reason));
        };
        let place = Place {
            parent: above.as_fd(),
            name: new,
            path: target,
        };
        if coming.how == How::Share && share(from, old, &coming.source, &place)? {
            return Ok(None);
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let call = || format!("openat(<tree>, {:?})", coming.source);
        let content = rustix::fs::openat(from, old, OFlags::RDONLY | flags, Mode::empty());
        let mut content = File::from(content.call(call)?);
        let stat = rustix::fs::fstat(&content).call(call)?;
        if walk::file_type(&stat) != FileType::RegularFile {
            return Err(refused(&coming.source, "it is no longer a regular file"));
        }
        let mut file = match place.create_file() {
            Err(error) if error.errno == Errno::EXIST => {
                make_room(&place)?;
                place.create_file()?
            }
            made => made?,
        };
        let call = || format!("copy(<tree>{:?}, <root>{target:?})", coming.source);
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size >= self.buffer.len() {
            self.copy(&content, &file, &call)?;
            Copy::finish_file(&file, target, &coming.entry)?;
            return Ok(None);
        }
        let mut brought = (size <= KEPT_BYTES_MAX).then(|| Vec::with_capacity(size));
        loop {
            let count = content.read(&mut self.buffer).call(call)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.buffer[..count]).call(call)?;
            if let Some(brought) = &mut brought {
                brought.extend_from_slice(&self.buffer[..count]);
            }
        }
        Copy::finish_file(&file, target, &coming.entry)?;
        Ok(brought)
    }

    /// Copies a large file.
    fn copy(&self, content: &File, mut file: &File, call: &dyn Fn() -> String) -> Result<()> {
        let (mut done, mut writeback) = (0, Writeback::default());
        loop {
            if (self.stop)() {
                return Err(Error::Stopped);
            }
            let copied = std::io::copy(&mut content.take(COPY_BYTES), &mut file).call(call)?;
            if copied == 0 {
                return Ok(writeback.finish(file.as_fd())?);
            }
            done += copied;
            writeback.written(file.as_fd(), done)?;
        }
    }

    fn enter(&mut self, from: &'f Root, source: &Path, target: &Path) -> Result<()> {
        let above = |path: &Path| Path::new("/").join(path.parent().unwrap_or(Path::new("")));
        let is_last = |(root, path, _): &(&Root, PathBuf, _)| {
            std::ptr::eq(*root, from) && is_in(source, path)
        };
        if !self.from.as_ref().is_some_and(is_last) {
            let source = above(source);
            let fd = from.open_at(&source, DIRECTORY, Mode::empty())?;
            self.from = Some((from, source, fd));
        }
        if !{ self.above.as_ref() }.is_some_and(|(path, _)| is_in(target, path)) {
            let target = above(target);
            let fd = self.to.open_at(&target, DIRECTORY, Mode::empty())?;
            self.above = Some((target, fd));
        }
        Ok(())
    }
}

/// Whether a path, absolute or not, is of something in a directory by its absolute path.
fn is_in(path: &Path, directory: &Path) -> bool {
    let relative = |path| Path::strip_prefix(path, "/").unwrap_or(path);
    path.parent().map(relative) == Some(relative(directory))
}

/// Gives a file a second name; returns whether that is possible, and the only one.
fn share(from: &OwnedFd, old: &OsStr, source: &Path, place: &Place<'_>) -> Result<bool> {
    let link = || rustix::fs::linkat(from, old, place.parent, place.name, AtFlags::empty());
    let linked = match link() {
        Err(Errno::EXIST) => {
            // What overlayfs has put there, to hide what is below; or what came before.
            make_room(place)?;
            link()
        }
        result => result,
    };
    match linked {
        Err(Errno::XDEV | Errno::MLINK) => return Ok(false),
        result => result.call(|| format!("linkat(<tree>{source:?}, <root>, {:?})", place.path))?,
    }
    let is_alone =
        |stat: Stat| stat.st_nlink == 2 && walk::file_type(&stat) == FileType::RegularFile;
    if place.stat()?.is_some_and(is_alone) {
        return Ok(true);
    }
    place.unlink()?;
    Ok(false)
}

/// Removes what is in the way of a file.
fn make_room(place: &Place<'_>) -> Result<()> {
    let is_directory = |stat: Stat| walk::file_type(&stat) == FileType::Directory;
    match place.stat()?.is_some_and(is_directory) {
        true => Err(refused(
            place.path,
            "cannot overwrite directory with non-directory",
        )),
        false => Ok(place.unlink()?),
    }
}

fn refused(path: &Path, reason: &'static str) -> Error {
    Error::Path {
        path: path.to_owned(),
        reason,
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
        let (layer, _hold) = store.take(&below, None).unwrap();
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
        let upper = Root::open(&snapshot.upper).unwrap();
        rest.finish(&upper, &|| false).unwrap();
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
