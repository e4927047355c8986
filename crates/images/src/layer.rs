//! Unpacking one layer's tar into a directory of its own.
//!
//! Invariant: the directory is independent of the layers below it, so that layers unpack at the same time and are shared
//! one by one. What a layer says of lower ones becomes what overlayfs understands: a whiteout is a character device 0:0, an
//! opaque directory has the attribute `trusted.overlay.opaque`. Sources: image-spec, layer.md; the kernel's
//! Documentation/filesystems/overlayfs.rst.
//!
//! Directories get their modes and times last, when nothing is made in them any more.

use crate::place::{self, DIRECTORY, Place};
use crate::recipe::{DIFF, DISPLACED, RECIPE, RecipeWriter};
use crate::tar::{Entry, Kind, Reader, Time};
use crate::{Error, Result, walk};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// The prefix of names that delete what a lower layer has.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The prefix of names that mean something for the whole directory; aufs left some that mean nothing to others.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// The name that hides all a lower layer has in the directory.
pub(crate) const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs marks a directory that hides what is below it.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Directories that archives do not mention get this mode.
const IMPLIED_MODE: u32 = 0o755;

/// Unpacks the tar in `source` into `directory`, which is made: the files, and the recipe to make the tar again. Returns
/// the number of bytes in the files.
pub(crate) fn unpack(source: impl BufRead, directory: &Path) -> Result<u64> {
    for path in [directory.to_owned(), directory.join(DIFF)] {
        std::fs::create_dir(&path).call(|| format!("mkdir({path:?})"))?;
    }
    let path = directory.join(RECIPE);
    let recipe = File::create_new(&path).call(|| format!("open({path:?}, O_CREAT|O_EXCL)"))?;
    let recipe = RecipeWriter::new(recipe).call(|| format!("write({path:?})"))?;
    let mut tree = Tree::new(directory)?;
    let mut reader = Reader::with_tap(source, recipe);
    while let Some(entry) = reader.next_entry()? {
        tree.put(&mut reader, &entry)?;
    }
    tree.finish()?;
    reader
        .finish()?
        .finish()
        .call(|| format!("write({path:?})"))?;
    Ok(tree.bytes)
}

/// The tree that a layer becomes.
struct Tree {
    /// The layer's directory.
    layer: OwnedFd,
    root: Root,
    /// The open directories from the root to where the last entry went.
    frames: Vec<Frame>,
    /// What directories get in the end, by their real path.
    directories: HashMap<PathBuf, (u32, Option<Time>)>,
    /// Bytes in files.
    bytes: u64,
    /// How many entries were replaced by later ones.
    displaced: u32,
    /// Whether a directory was moved away, which may be one of the frames, reached through a symlink.
    stale: bool,
}

/// An open directory on the way to an entry.
struct Frame {
    /// The component that led here; empty for the root.
    name: OsString,
    /// The directory's path without symlinks.
    path: PathBuf,
    fd: OwnedFd,
}

type LayerReader<R> = Reader<R, RecipeWriter>;

impl Tree {
    fn new(directory: &Path) -> Result<Self> {
        let open = |path: &Path| {
            rustix::fs::open(path, DIRECTORY, Mode::empty())
                .call(|| format!("open({path:?}, O_DIRECTORY)"))
        };
        let diff = directory.join(DIFF);
        let frame = Frame {
            name: OsString::new(),
            path: PathBuf::new(),
            fd: open(&diff)?,
        };
        Ok(Self {
            layer: open(directory)?,
            root: Root::open(&diff)?,
            frames: vec![frame],
            directories: HashMap::from([(PathBuf::new(), (IMPLIED_MODE, None))]),
            bytes: 0,
            displaced: 0,
            stale: false,
        })
    }

    /// Puts one entry into the tree.
    fn put<R: BufRead>(&mut self, reader: &mut LayerReader<R>, entry: &Entry) -> Result<()> {
        let path = place::clean(&entry.path)?;
        let Some(name) = path.file_name() else {
            return self.put_root(entry);
        };
        let bytes = name.as_bytes();
        let meta = path
            .components()
            .any(|c| c.as_os_str().as_bytes().starts_with(WHITEOUT_META));
        if meta && bytes != WHITEOUT_OPAQUE {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.enter(reader, parent)?;
        if bytes == WHITEOUT_OPAQUE {
            return set_opaque(self.parent().fd.as_fd(), parent);
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            return self.put_whiteout(OsStr::from_bytes(hidden), &path);
        }
        match &entry.kind {
            Kind::Directory => self.put_directory(reader, entry, name, &path),
            Kind::File => self.put_file(reader, entry, name, &path),
            Kind::HardLink { target } => self.put_link(reader, target, name, &path),
            special => {
                let make = |place: Place<'_>| place.create_special(special);
                self.make(reader, name, &path, make)?;
                let place = self.place(name, &path);
                Ok(place.finish_special(entry)?)
            }
        }
    }

    /// The root's own entry.
    fn put_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(Error::Entry {
                path,
                reason: "it is the root and no directory".to_owned(),
            });
        }
        place::set_owner(self.frames[0].fd.as_fd(), entry, Path::new("/"))?;
        self.directories
            .insert(PathBuf::new(), (entry.mode, Some(entry.mtime)));
        Ok(())
    }

    fn put_directory<R: BufRead>(
        &mut self,
        reader: &mut LayerReader<R>,
        entry: &Entry,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let place = self.place(name, path);
        match place.create_directory() {
            Ok(()) => {}
            Err(error) if error.errno == Errno::EXIST => {
                let stat = place.stat()?;
                let is_directory =
                    stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
                if !is_directory {
                    let was_whiteout = self.clear(reader, name, path)?;
                    let place = self.place(name, path);
                    place.create_directory()?;
                    if was_whiteout {
                        set_opaque(place.open_directory()?.as_fd(), path)?;
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        let directory = self.place(name, path).open_directory()?;
        place::set_owner(directory.as_fd(), entry, path)?;
        let real = self.parent().path.join(name);
        self.directories
            .insert(real, (entry.mode, Some(entry.mtime)));
        Ok(())
    }

    fn put_file<R: BufRead>(
        &mut self,
        reader: &mut LayerReader<R>,
        entry: &Entry,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let file = self.make(reader, name, path, |place| place.create_file())?;
        place::write_content(reader, &file, entry, path)?;
        // A new file is root's already, because no directory here has setgid before the end.
        if (entry.uid, entry.gid) == (0, 0) {
            place::set_xattrs(file.as_fd(), entry, path)?;
        } else {
            place::set_owner(file.as_fd(), entry, path)?;
        }
        place::set_mode(file.as_fd(), entry.mode, Some(entry.mtime), path)?;
        self.bytes += entry
            .sparse
            .as_ref()
            .map_or(entry.size, |sparse| sparse.size);
        let real = self.parent().path.join(name);
        let whole = [(0, entry.size)];
        let regions = entry
            .sparse
            .as_ref()
            .map_or(&whole[..], |sparse| &sparse.regions);
        for (offset, length) in regions.iter().filter(|(_, length)| *length > 0) {
            reader
                .tap()
                .content(&real, *offset, *length)
                .call(|| "write(<recipe>)")?;
        }
        Ok(())
    }

    fn put_link<R: BufRead>(
        &mut self,
        reader: &mut LayerReader<R>,
        target: &[u8],
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let target = place::clean(target)?;
        let missing = || Error::Entry {
            path: path.display().to_string(),
            reason: format!(
                "it is a hard link to {}, which is no earlier file of this layer",
                target.display()
            ),
        };
        let (target_parent, target_name) = match self.root.parent(&target) {
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => {
                return Err(missing());
            }
            result => result?,
        };
        let stat = rustix::fs::statat(&target_parent, &target_name, AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => return Err(missing()),
            Err(Errno::NOENT) => return Err(missing()),
            result => result.call(|| format!("statat(<root>, {target:?})"))?,
        };
        let real = (
            self.parent().path.join(name),
            walk::real_path(&self.root, target_parent.as_fd())?.join(&target_name),
        );
        if real.0 == real.1 {
            return Ok(());
        }
        self.make(reader, name, path, |place| {
            rustix::fs::linkat(
                &target_parent,
                &target_name,
                place.parent,
                place.name,
                AtFlags::empty(),
            )
            .call(|| format!("linkat(<root>, {target:?}, <root>, {path:?})"))
        })
    }

    /// Hides what lower layers have under a name. What this layer itself has there stays: whiteouts speak of lower layers
    /// only, wherever they stand in the archive.
    fn put_whiteout(&mut self, hidden: &OsStr, path: &Path) -> Result<()> {
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            let path = path.display().to_string();
            return Err(Error::Entry {
                path,
                reason: "it is a whiteout of nothing".to_owned(),
            });
        }
        let place = self.place(hidden, path);
        match place.stat()? {
            None => Ok(place.create_special(&Kind::CharDevice { major: 0, minor: 0 })?),
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                set_opaque(place.open_directory()?.as_fd(), path)
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes something under a name, in place of what an earlier entry put there.
    fn make<R: BufRead, V>(
        &mut self,
        reader: &mut LayerReader<R>,
        name: &OsStr,
        path: &Path,
        make: impl Fn(Place<'_>) -> sys::Result<V>,
    ) -> Result<V> {
        match make(self.place(name, path)) {
            Err(error) if error.errno == Errno::EXIST => {
                self.clear(reader, name, path)?;
                Ok(make(self.place(name, path))?)
            }
            result => Ok(result?),
        }
    }

    /// Moves away what an earlier entry put under a name; returns whether that was a whiteout. Content that the recipe
    /// needs is kept.
    fn clear<R: BufRead>(
        &mut self,
        reader: &mut LayerReader<R>,
        name: &OsStr,
        path: &Path,
    ) -> Result<bool> {
        let place = self.place(name, path);
        let Some(stat) = place.stat()? else {
            return Ok(false);
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if !file_type.is_dir() && !file_type.is_file() {
            place.unlink()?;
            return Ok(file_type.is_char_device() && stat.st_rdev == 0);
        }
        let real = self.parent().path.join(name);
        if self.displaced == 0 {
            rustix::fs::mkdirat(&self.layer, DISPLACED, Mode::RWXU)
                .call(|| "mkdirat(<layer>, displaced)")?;
        }
        let to = format!("{DISPLACED}/{}", self.displaced);
        rustix::fs::renameat(self.parent().fd.as_fd(), name, &self.layer, &to)
            .call(|| format!("renameat(<root>, {path:?}, <layer>, {to:?})"))?;
        reader
            .tap()
            .moved(&real, self.displaced)
            .call(|| "write(<recipe>)")?;
        self.displaced += 1;
        self.stale = true;
        self.directories
            .retain(|directory, _| !directory.starts_with(&real));
        Ok(false)
    }

    /// Opens the directory that entries go to next, making what is missing of it.
    fn enter<R: BufRead>(&mut self, reader: &mut LayerReader<R>, directory: &Path) -> Result<()> {
        if std::mem::take(&mut self.stale) {
            self.frames.truncate(1);
        }
        let names: Vec<&OsStr> = directory.iter().collect();
        let open = self.frames[1..]
            .iter()
            .zip(&names)
            .take_while(|(frame, name)| frame.name == **name);
        let open = open.count();
        self.frames.truncate(open + 1);
        for (depth, name) in names.iter().enumerate().skip(open) {
            let path: PathBuf = names[..=depth].iter().collect();
            let (fd, path) = self.descend(reader, name, &path)?;
            self.frames.push(Frame {
                name: (*name).to_owned(),
                path,
                fd,
            });
        }
        Ok(())
    }

    /// Opens one directory in the last one; returns its real path too.
    fn descend<R: BufRead>(
        &mut self,
        reader: &mut LayerReader<R>,
        name: &OsStr,
        path: &Path,
    ) -> Result<(OwnedFd, PathBuf)> {
        let real = self.parent().path.join(name);
        let place = self.place(name, path);
        let stat = match place.open_directory() {
            Ok(fd) => return Ok((fd, real)),
            Err(error) if error.errno == Errno::NOENT => None,
            Err(error) if matches!(error.errno, Errno::LOOP | Errno::NOTDIR) => place.stat()?,
            Err(error) => return Err(error.into()),
        };
        let file_type = stat.map(|stat| (FileType::from_raw_mode(stat.st_mode), stat.st_rdev));
        match file_type {
            None => place.create_directory()?,
            Some((FileType::Symlink, _)) => return self.follow(&real),
            Some((FileType::CharacterDevice, 0)) => {
                self.clear(reader, name, path)?;
                let place = self.place(name, path);
                place.create_directory()?;
                set_opaque(place.open_directory()?.as_fd(), path)?;
            }
            Some(_) => {
                let path = path.display().to_string();
                let reason =
                    "something else in this layer is below it and it is no directory".to_owned();
                return Err(Error::Entry { path, reason });
            }
        }
        self.directories.insert(real.clone(), (IMPLIED_MODE, None));
        Ok((self.place(name, path).open_directory()?, real))
    }

    /// Opens the directory that a symlink in the last one leads to, inside the layer; makes it when it is missing.
    fn follow(&self, link: &Path) -> Result<(OwnedFd, PathBuf)> {
        let fd = match self.root.open_at(link, DIRECTORY, Mode::empty()) {
            Err(error) if error.errno == Errno::NOENT => {
                self.root
                    .create_dir_all(link, Mode::from_raw_mode(IMPLIED_MODE))?;
                self.root.open_at(link, DIRECTORY, Mode::empty())?
            }
            result => result?,
        };
        let path = walk::real_path(&self.root, fd.as_fd())?;
        Ok((fd, path))
    }

    fn parent(&self) -> &Frame {
        self.frames
            .last()
            .expect("the root's frame is never removed")
    }

    fn place<'a>(&'a self, name: &'a OsStr, path: &'a Path) -> Place<'a> {
        Place {
            parent: self.parent().fd.as_fd(),
            name,
            path,
        }
    }

    /// Gives directories their modes and times.
    fn finish(&self) -> Result<()> {
        for (path, (mode, mtime)) in &self.directories {
            let fd = self
                .root
                .open_at(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            place::set_mode(fd.as_fd(), *mode, *mtime, path)?;
        }
        Ok(())
    }
}

fn set_opaque(directory: BorrowedFd<'_>, path: &Path) -> Result<()> {
    rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .call(|| format!("fsetxattr(<root>, {path:?}, {OPAQUE_XATTR:?})"))
        .map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::reassemble;
    use crate::tar::Sparse;
    use crate::testing::{directory, file, hard_link, symlink, tar};
    use std::os::unix::fs::MetadataExt as _;

    struct Layer {
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Layer {
        fn diff(&self, path: &str) -> PathBuf {
            self.path.join(DIFF).join(path)
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.diff(path)).unwrap()
        }

        fn is_opaque(&self, path: &str) -> bool {
            let mut value = [0; 8];
            rustix::fs::lgetxattr(self.diff(path), OPAQUE_XATTR, &mut value[..])
                .is_ok_and(|count| value[..count] == *b"y")
        }

        fn is_whiteout(&self, path: &str) -> bool {
            let stat = rustix::fs::lstat(self.diff(path)).unwrap();
            FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == 0
        }
    }

    /// Unpacks a tar, and checks that its recipe gives the same tar again.
    fn unpacked(entries: &[(Entry, &[u8])]) -> Result<Layer> {
        let archive = tar(entries);
        unpacked_bytes(&archive)
    }

    fn unpacked_bytes(archive: &[u8]) -> Result<Layer> {
        let directory = tempfile::tempdir().unwrap();
        let layer = Layer {
            path: directory.path().join("layer"),
            _directory: directory,
        };
        unpack(archive, &layer.path)?;
        let mut again = Vec::new();
        reassemble(&layer.path, &mut again).unwrap();
        assert!(again == archive, "the recipe does not give the tar again");
        Ok(layer)
    }

    #[test]
    fn files_get_all_that_their_entries_say() {
        let mut setuid = file("d/setuid");
        (setuid.mode, setuid.uid, setuid.gid) = (0o4755, 1000, 1001);
        setuid.xattrs = vec![
            (b"user.note".to_vec(), b"v".to_vec()),
            (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
            (b"user.overlay.redirect".to_vec(), b"/etc".to_vec()),
        ];
        let mut sticky = directory("d/");
        (sticky.mode, sticky.uid) = (0o1777, 7);
        let device = Entry::new("d/dev", Kind::CharDevice { major: 1, minor: 3 }, 0o666);
        let pipe = Entry::new("d/pipe", Kind::Fifo, 0o600);
        let layer = unpacked(&[
            (directory("./"), b""),
            (sticky, b""),
            (setuid, b"content"),
            (symlink("d/link", "../../../etc/passwd"), b""),
            (hard_link("d/hard", "d/setuid"), b""),
            (device, b""),
            (pipe, b""),
        ]);
        let layer = layer.unwrap();
        let stat = std::fs::metadata(layer.diff("d/setuid")).unwrap();
        assert_eq!(
            (stat.mode() & 0o7777, stat.uid(), stat.gid()),
            (0o4755, 1000, 1001)
        );
        assert_eq!((stat.mtime(), stat.nlink()), (1_700_000_000, 2));
        let names = {
            let mut names = vec![0; 1024];
            let count = rustix::fs::listxattr(layer.diff("d/setuid"), &mut names[..]).unwrap();
            String::from_utf8(names[..count].to_vec()).unwrap()
        };
        assert!(
            names.contains("user.note") && !names.contains("overlay"),
            "{names:?}"
        );
        let stat = std::fs::metadata(layer.diff("d")).unwrap();
        assert_eq!(
            (stat.mode() & 0o7777, stat.uid(), stat.mtime()),
            (0o1777, 7, 1_600_000_000)
        );
        let stat = std::fs::metadata(layer.diff("d/dev")).unwrap();
        assert_eq!(
            (stat.mode() & 0o7777, stat.rdev()),
            (0o666, rustix::fs::makedev(1, 3))
        );
        assert_eq!(
            std::fs::metadata(layer.diff("")).unwrap().mtime(),
            1_600_000_000
        );
    }

    #[test]
    fn whiteouts_become_what_overlayfs_reads() {
        let layer = unpacked(&[
            (file("a/.wh.gone"), b""),
            (file("a/.wh..wh..opq"), b""),
            (file(".wh..wh.plnk/x"), b"of aufs"),
        ]);
        let layer = layer.unwrap();
        assert!(layer.is_whiteout("a/gone") && layer.is_opaque("a"));
        assert_eq!(std::fs::read_dir(layer.diff("")).unwrap().count(), 1);
    }

    #[test]
    fn a_whiteout_hides_lower_layers_only_wherever_it_stands() {
        for first in [true, false] {
            let mut entries: Vec<(Entry, &[u8])> = vec![
                (directory("d/"), b""),
                (file("d/new"), b"new"),
                (file("f"), b"f"),
            ];
            let whiteouts = [(file(".wh.d"), &b""[..]), (file(".wh.f"), b"")];
            let at = if first { 0 } else { entries.len() };
            entries.splice(at..at, whiteouts);
            let layer = unpacked(&entries).unwrap();
            assert_eq!(layer.read("d/new"), "new");
            assert_eq!(layer.read("f"), "f");
            assert!(layer.is_opaque("d"), "whiteout first: {first}");
        }
        // Without an entry for the directory itself.
        let layer = unpacked(&[(file(".wh.d"), b""), (file("d/new"), b"new")]).unwrap();
        assert!(layer.is_opaque("d"));
    }

    #[test]
    fn a_whiteout_of_nothing_or_of_the_parent_is_refused() {
        for path in [".wh.", ".wh..", ".wh...", "a/.wh."] {
            let error = unpacked(&[(file(path), b"")]).err().unwrap();
            assert!(matches!(error, Error::Entry { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn attack_24_nothing_leaves_the_layer() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        std::fs::write(&target, "untouched").unwrap();
        let target = target.to_str().unwrap();
        let up = format!("{}{target}", "../".repeat(12));
        for path in ["../x", "a/../../x", &up] {
            let error = unpacked(&[(file(path), b"evil")]).err().unwrap();
            assert!(matches!(error, Error::Entry { .. }), "{path}: {error}");
        }
        // A symlink is followed inside the layer, and one that is the last component is replaced.
        let layer = unpacked(&[
            (symlink("out", outside.path().to_str().unwrap()), b""),
            (file("out/target"), b"inside"),
            (symlink("last", target), b""),
            (file("last"), b"file"),
        ]);
        let layer = layer.unwrap();
        let inside = outside.path().strip_prefix("/").unwrap().join("target");
        assert_eq!(
            std::fs::read_to_string(layer.path.join(DIFF).join(inside)).unwrap(),
            "inside"
        );
        assert_eq!(layer.read("last"), "file");
        // A hard link to a symlink is one to the link itself.
        let layer = unpacked(&[(symlink("s", target), b""), (hard_link("h", "s"), b"")]).unwrap();
        assert!(layer.diff("h").is_symlink());
        for link in [target, "missing", "/", "d", &up] {
            let result = unpacked(&[(directory("d/"), b""), (hard_link("h", link), b"")]);
            assert!(matches!(result, Err(Error::Entry { .. })), "{link}");
        }
        assert_eq!(std::fs::read_to_string(target).unwrap(), "untouched");
        let mode = std::fs::metadata(target).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o644, "no chmod through a symlink");
    }

    #[test]
    fn later_entries_replace_earlier_ones_and_the_recipe_still_holds() {
        let layer = unpacked(&[
            (file("f"), b"first"),
            (file("f"), b"second"),
            (file("d/deep/x"), b"in the directory"),
            (hard_link("kept", "d/deep/x"), b""),
            (file("d"), b"a file"),
            (file("d"), b"another file"),
            (directory("f/"), b""),
            (file("f/below"), b"below"),
            (symlink("f/below", "x"), b""),
            (hard_link("f/self", "f/below"), b""),
            (hard_link("f/self", "f/self"), b""),
            (directory("f/"), b""),
        ]);
        let layer = layer.unwrap();
        assert_eq!(layer.read("kept"), "in the directory");
        assert_eq!(layer.read("d"), "another file");
        assert!(layer.diff("f/below").is_symlink());
    }

    #[test]
    fn a_directory_that_is_moved_away_is_not_written_to() {
        let layer = unpacked(&[
            (symlink("a/up", ".."), b""),
            (file("a/old"), b"old"),
            // Through the link, this replaces the very directory it goes through.
            (file("a/up/a"), b"file"),
        ]);
        let layer = layer.unwrap();
        assert_eq!(layer.read("a"), "file");
        let error = unpacked(&[
            (symlink("a/up", ".."), b""),
            (file("a/up/a"), b"file"),
            (file("a/lost"), b"below a file"),
        ]);
        assert!(matches!(error, Err(Error::Entry { .. })));
    }

    #[test]
    fn holes_stay_holes() {
        let sparse = Sparse {
            size: 1 << 24,
            regions: vec![(4096, 512), (1 << 23, 2)],
        };
        let mut writer = crate::tar::Writer::new(Vec::new());
        writer
            .entry(&Entry {
                size: 514,
                sparse: Some(sparse),
                ..file("sparse")
            })
            .unwrap();
        writer.content(&[b'a'; 512]).unwrap();
        writer.content(b"de").unwrap();
        let layer = unpacked_bytes(&writer.finish().unwrap()).unwrap();
        let stat = std::fs::metadata(layer.diff("sparse")).unwrap();
        assert_eq!(stat.size(), 1 << 24);
        assert!(stat.blocks() * 512 < 1 << 20);
        let content = std::fs::read(layer.diff("sparse")).unwrap();
        assert_eq!(
            (&content[4096..4099], &content[1 << 23..(1 << 23) + 2]),
            (&b"aaa"[..], &b"de"[..])
        );
    }

    #[test]
    fn content_after_the_end_is_kept_in_the_recipe() {
        let mut archive = tar(&[(file("f"), b"content")]);
        archive.extend_from_slice(&[0; 9000]);
        archive.extend_from_slice(b"trailing");
        unpacked_bytes(&archive).unwrap();
        unpacked_bytes(b"").unwrap();
    }
}
