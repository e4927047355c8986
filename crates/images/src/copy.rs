//! Files from one tree into another, as COPY brings them.
//!
//! Invariant: both trees are strangers'. Every path is resolved by `sys::root::Root` in its own tree, a last component is never
//! followed, and what was made is changed through its descriptor.
//!
//! A tree that is only there to be copied from, and goes then, can share its files instead ([`Copy::share`]): nothing is written
//! twice, and a file has one name in the end. What an overlay is to get is better brought to its upper directory ([`Copy::bring`]).

use crate::place::{self, DIRECTORY, Place};
use crate::share::{Coming, How};
use crate::tar::{Entry, Kind, Time};
use crate::walk::{self, Node};
use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// The mode of directories that a target needs and does not have.
const IMPLIED_MODE: u32 = 0o755;
/// Why a directory cannot be where a file is.
const NO_DIRECTORY: &str = "cannot copy to non-directory";

/// Sets the time of a directory.
pub fn set_time(root: &Root, path: &Path, time: Time) -> Result<()> {
    let fd = root.open_at(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(place::set_times(fd.as_fd(), time.seconds, path)?)
}

/// Opens a regular file, not following a symlink, nor waiting for whoever would write to a pipe.
pub fn open_file(root: &Root, path: &Path) -> Result<File> {
    Ok(File::from(open_node(root, path)?.fd))
}

fn open_node(root: &Root, path: &Path) -> Result<Node> {
    let node = Node::reopen(root.resolve_nofollow(path)?, path)?;
    match node.file_type() {
        FileType::RegularFile => Ok(node),
        _ => Err(no_file(path)),
    }
}

fn no_file(path: &Path) -> Error {
    Error::Path {
        path: path.to_owned(),
        reason: "it is no longer a regular file",
    }
}

pub use crate::digests::{digest, digests};
pub use crate::find::{Found, Stack, Want, Wanted, find, real_path};
pub use crate::share::Rest;

/// Files on their way into a tree.
#[derive(Debug)]
pub struct Copy<'t, 'f> {
    to: &'t Root,
    /// The directory of the last file.
    parent: Option<Parent>,
    /// Directories that were made.
    new: HashSet<PathBuf>,
    rest: Rest<'f>,
}

/// An open directory of the tree that is filled.
#[derive(Debug)]
struct Parent {
    /// As it was named.
    path: PathBuf,
    /// Below the tree's root, without symlinks.
    real: PathBuf,
    fd: OwnedFd,
    /// An overlay has it in its upper directory.
    is_upper: bool,
    /// It was made here: nothing is below.
    is_new: bool,
}

impl<'t, 'f> Copy<'t, 'f> {
    /// Begins to fill a tree.
    pub fn new(to: &'t Root) -> Self {
        Self {
            to,
            parent: None,
            new: HashSet::new(),
            rest: Rest::default(),
        }
    }

    /// As [`Self::put`] with a regular file that has just the attributes that `entry` has, in a tree that goes when all is done and
    /// of which nothing is changed until then: the file itself gets the place, where it has no other name besides. That happens in
    /// [`Rest::finish`], in the directory that takes the changes of the tree, which must not be mounted any more then.
    pub fn share(
        &mut self,
        from: &'f Root,
        source: &Path,
        target: &Path,
        entry: &Entry,
    ) -> Result<()> {
        self.later(from, source, target, entry, How::Share)
    }

    /// As [`Self::put`] with a regular file, when that is done which [`Self::share`] does: not through an overlay, and with others
    /// at the same time.
    pub fn bring(
        &mut self,
        from: &'f Root,
        source: &Path,
        target: &Path,
        entry: &Entry,
    ) -> Result<()> {
        self.later(from, source, target, entry, How::Copy)
    }

    fn later(
        &mut self,
        from: &'f Root,
        source: &Path,
        target: &Path,
        entry: &Entry,
        how: How,
    ) -> Result<()> {
        let room = Room::Later;
        let name = self.at(target, entry, room, |place, _| Ok(place.name.to_owned()))?;
        let (Some(name), Some(parent)) = (name, &mut self.parent) else {
            return Ok(());
        };
        if !parent.is_upper {
            // An overlay copies the directory up for that.
            rustix::fs::fchown(&parent.fd, None, None)
                .call(|| format!("fchown(<root>, {:?}, -1, -1)", parent.path))?;
            parent.is_upper = true;
        }
        let coming = Coming {
            from,
            source: source.to_owned(),
            entry: entry.clone(),
            how,
        };
        self.rest.coming.insert(parent.real.join(name), coming);
        Ok(())
    }

    /// Puts a file at `target`, with the attributes that `entry` has, and the content of `source` where it is a regular one.
    /// Directories on the way are made; a directory that is there stays, and anything else is replaced.
    pub fn put(&mut self, from: &Root, source: &Path, target: &Path, entry: &Entry) -> Result<()> {
        self.put_with(target, entry, |file| {
            let mut content = open_file(from, source)?;
            std::io::copy(&mut content, file).call(|| format!("copy(<tree>{source:?})"))?;
            Ok(())
        })
    }

    /// Puts a regular file with content that is at hand.
    pub fn put_bytes(&mut self, bytes: &[u8], target: &Path, entry: &Entry) -> Result<()> {
        self.put_with(target, entry, |file| {
            std::io::Write::write_all(file, bytes).call(|| format!("write(<root>{target:?})"))?;
            Ok(())
        })
    }

    /// Makes a regular file, to be written to by and by and then given to [`Copy::finish_file`].
    pub fn create_file(&mut self, target: &Path) -> Result<File> {
        let entry = Entry::new("", Kind::File, 0);
        let made = self.at(target, &entry, Room::Now, |place, _| {
            Ok(place.create_file()?)
        })?;
        made.ok_or_else(|| Error::Path {
            path: target.to_owned(),
            reason: "the root of a tree is no file",
        })
    }

    /// Gives a file that has all its content what `entry` says of it.
    pub fn finish_file(file: &File, target: &Path, entry: &Entry) -> Result<()> {
        place::set_owner(file.as_fd(), entry, target)?;
        place::set_mode(file.as_fd(), entry.mode, Some(entry.mtime), target)?;
        Ok(())
    }

    /// Gives a file of the tree another name.
    pub fn link(&mut self, existing: &Path, target: &Path) -> Result<()> {
        let existing = place::clean(existing.as_os_str().as_bytes())?;
        let (parent, name) = self.to.parent(&existing)?;
        let entry = Entry::new("", Kind::File, 0);
        self.at(target, &entry, Room::Now, |place, _| {
            rustix::fs::linkat(&parent, &name, place.parent, place.name, AtFlags::empty())
                .call(|| format!("linkat(<root>, {existing:?}, <root>, {:?})", place.path))?;
            Ok(())
        })?;
        Ok(())
    }

    fn put_with(
        &mut self,
        target: &Path,
        entry: &Entry,
        content: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        let directory = self.at(target, entry, Room::Now, |place, kept| {
            match &entry.kind {
                Kind::Directory => {
                    if !kept {
                        place.create_directory()?;
                    }
                    let made = place.open_directory()?;
                    place::set_owner(made.as_fd(), entry, place.path)?;
                    return Ok(Some((place.name.to_owned(), kept)));
                }
                Kind::File | Kind::HardLink { .. } => {
                    let mut file = place.create_file()?;
                    content(&mut file)?;
                    Self::finish_file(&file, place.path, entry)?;
                }
                special => {
                    place.create_special(special)?;
                    place.finish_special(entry)?;
                }
            }
            Ok(None)
        })?;
        if let (Some((name, kept)), Some(parent)) = (directory.flatten(), &self.parent) {
            let path = parent.real.join(name);
            if !kept {
                self.new.insert(path.clone());
            }
            self.rest.directories.push((path, entry.mode, entry.mtime));
        }
        Ok(())
    }

    /// Makes something at a place that it makes room at; there may be a directory, where the entry is one. `None`: it is the
    /// root, which is there, and stays what it is.
    fn at<T>(
        &mut self,
        target: &Path,
        entry: &Entry,
        room: Room,
        make: impl FnOnce(&Place<'_>, bool) -> Result<T>,
    ) -> Result<Option<T>> {
        let clean = place::clean(target.as_os_str().as_bytes())?;
        let Some(name) = clean.file_name() else {
            return Ok(None);
        };
        let directory = clean.parent().unwrap_or(Path::new(""));
        let parent = self.enter(directory)?;
        let place = Place {
            parent: parent.fd.as_fd(),
            name,
            path: &clean,
        };
        let kept = match room == Room::Later && parent.is_new {
            true => false,
            false => make_room(&place, entry)?,
        };
        if self.rest.coming.remove(&parent.real, name) && entry.kind == Kind::Directory {
            return Err(refused(&place, NO_DIRECTORY));
        }
        let made = make(&place, kept)?;
        self.parent = Some(parent);
        Ok(Some(made))
    }

    fn enter(&mut self, path: &Path) -> Result<Parent> {
        match self.parent.take() {
            Some(last) if last.path == path => Ok(last),
            _ => {
                let below = Path::new("/").join(path);
                self.to
                    .create_dir_all(&below, Mode::from_raw_mode(IMPLIED_MODE))?;
                let fd = self.to.open_at(&below, DIRECTORY, Mode::empty())?;
                let real = walk::real_path(self.to, fd.as_fd())?;
                Ok(Parent {
                    path: path.to_owned(),
                    is_new: self.new.contains(&real),
                    real,
                    fd,
                    is_upper: false,
                })
            }
        }
    }

    /// Sets modes and times of directories, in which nothing is made any more.
    pub fn finish(self) -> Result<()> {
        let to = self.to;
        self.rest().finish(to, &|| false)
    }

    /// What [`Self::finish`] would do: for another view of the same tree, which has every directory that something was put into.
    pub fn rest(self) -> Rest<'f> {
        self.rest
    }
}

/// When room is made for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Now,
    /// When it is brought; but what a lower layer has is known only now.
    Later,
}

/// Removes a file that is in the way; a directory for a directory stays, and true is returned.
fn make_room(place: &Place<'_>, entry: &Entry) -> Result<bool> {
    let Some(stat) = place.stat()? else {
        return Ok(false);
    };
    let was = walk::file_type(&stat) == FileType::Directory;
    match (was, entry.kind == Kind::Directory) {
        (true, true) => return Ok(true),
        (true, false) => {
            let reason = "cannot overwrite directory with non-directory";
            return Err(refused(place, reason));
        }
        (false, true) => return Err(refused(place, NO_DIRECTORY)),
        (false, false) => place.unlink()?,
    }
    Ok(false)
}

fn refused(place: &Place<'_>, reason: &'static str) -> Error {
    Error::Path {
        path: place.path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn trees() -> (tempfile::TempDir, Root, Root) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from/d/e", "to"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("from/d/a"), "a").unwrap();
        std::fs::write(dir.path().join("from/d/e/b.o"), "b").unwrap();
        symlink("/etc/passwd", dir.path().join("from/d/link")).unwrap();
        let from = Root::open(&dir.path().join("from")).unwrap();
        let to = Root::open(&dir.path().join("to")).unwrap();
        (dir, from, to)
    }

    fn paths(found: &[Found]) -> Vec<&str> {
        found
            .iter()
            .map(|found| found.path.to_str().unwrap())
            .collect()
    }

    #[test]
    fn a_search_takes_what_is_wanted() {
        let (_dir, from, _) = trees();
        let all = find(&from, Path::new("d"), true, &|_| Want::Take).unwrap();
        assert_eq!(paths(&all), ["", "a", "e", "e/b.o", "link"]);
        let want = |path: &Path| match path.to_str() {
            Some("" | "e") => Want::Look,
            Some(name) if name.ends_with(".o") => Want::Take,
            _ => Want::Leave,
        };
        assert_eq!(
            paths(&find(&from, Path::new("d"), true, &want).unwrap()),
            ["", "e", "e/b.o"]
        );
        let none = find(
            &from,
            Path::new("d"),
            true,
            &|path| match path.ends_with("b.o") {
                true => Want::Leave,
                false => Want::Look,
            },
        );
        assert_eq!(none.unwrap(), []);
    }

    #[test]
    fn files_arrive_with_the_attributes_they_are_given() {
        let (dir, from, to) = trees();
        let mut copy = Copy::new(&to);
        for Found {
            path, mut entry, ..
        } in find(&from, Path::new("d"), true, &|_| Want::Take).unwrap()
        {
            entry.mode |= 0o4000 * u32::from(entry.kind == Kind::File);
            entry.mtime.seconds = 77;
            (entry.uid, entry.gid) = (3, 4);
            copy.put(
                &from,
                &Path::new("d").join(&path),
                &Path::new("/x/y").join(&path),
                &entry,
            )
            .unwrap();
        }
        copy.finish().unwrap();
        let target = dir.path().join("to/x/y");
        assert_eq!(std::fs::read_to_string(target.join("e/b.o")).unwrap(), "b");
        assert_eq!(
            std::fs::read_link(target.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        use std::os::unix::fs::MetadataExt as _;
        for name in ["a", "e", ""] {
            let metadata = std::fs::symlink_metadata(target.join(name)).unwrap();
            assert_eq!(
                (metadata.mtime(), metadata.uid(), metadata.gid()),
                (77, 3, 4),
                "{name}"
            );
        }
        assert_eq!(
            std::fs::metadata(target.join("a"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7000,
            0o4000
        );
    }

    /// CVE-2024-1753, CVE-2026-44517: links of either tree lead nowhere outside of it.
    #[test]
    fn links_stay_in_their_tree() {
        let (dir, from, to) = trees();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("../../secret", dir.path().join("from/up")).unwrap();
        symlink("../..", dir.path().join("to/out")).unwrap();
        assert!(find(&from, Path::new("up"), true, &|_| Want::Take).is_err());
        assert!(digest(&from, Path::new("up"), &|| false).is_err());
        assert!(digests(&from, &["d/a".into(), "up".into()], &|| false).is_err());
        let mut copy = Copy::new(&to);
        let entry = Entry::new("", Kind::File, 0o644);
        copy.put(&from, Path::new("d/a"), Path::new("/out/secret"), &entry)
            .unwrap();
        copy.finish().unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("secret")).unwrap(),
            "outside"
        );
        assert_eq!(
            std::fs::read_to_string(dir.path().join("to/secret")).unwrap(),
            "a"
        );
        assert!(
            Copy::new(&to)
                .put(&from, Path::new("d/a"), Path::new("../x"), &entry)
                .is_err()
        );
    }

    #[test]
    fn directories_and_files_do_not_replace_each_other() {
        let (dir, from, to) = trees();
        std::fs::create_dir(dir.path().join("to/a")).unwrap();
        std::fs::write(dir.path().join("to/e"), "").unwrap();
        let mut copy = Copy::new(&to);
        let file = Entry::new("", Kind::File, 0o644);
        assert!(
            copy.put(&from, Path::new("d/a"), Path::new("/a"), &file)
                .is_err()
        );
        let directory = Entry::new("", Kind::Directory, 0o755);
        assert!(
            copy.put(&from, Path::new("d/e"), Path::new("/e"), &directory)
                .is_err()
        );
        copy.put_bytes(b"new", Path::new("/e"), &file).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("to/e")).unwrap(),
            "new"
        );
    }
}
