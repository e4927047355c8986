//! Layers of what a build has written: a snapshot's upper directory itself becomes the layer's files.
//!
//! Nothing is copied. One walk writes the tar, of which only the digest stays and the recipe to make it again, and leaves of the
//! files what the tar has of them: so the layer is the one that unpacking the tar would have made.

use crate::arrivals::Arrivals;
use crate::compression::Compression;
use crate::copy::Rest;
use crate::diff::open_upper;
use crate::recipe::{DIFF, RECIPE, RecipeWriter};
use crate::store::{Ingest, NewLayer};
use crate::tar::{Tap as _, Writer};
use crate::tree::{Options, TreeWriter};
use crate::unpacker::{Feed, Unpacker};
use crate::{Error, Hold, Images, Result, Snapshot, Stop};
use oci::Digest;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use sys::Context as _;
use sys::root::Root;

impl Images {
    /// Makes a layer of what a snapshot changed, and takes the files from the snapshot, which nobody uses any more and which is
    /// to be removed then; `None` where nothing was changed. Files younger than `mtime_max` (seconds since 1970) get that time.
    /// The layer is held by the value, belongs to no image yet, and is durable after [`Images::settle`] or with the first image
    /// that is made.
    pub fn make_layer(
        &self,
        snapshot: &Snapshot,
        rest: Rest<'_>,
        mtime_max: Option<i64>,
        stop: Stop<'_>,
    ) -> Result<Option<(Digest, Hold<'_>)>> {
        let mut ingest = self.ingest()?;
        let arrivals = Arrivals::new(rest, mtime_max);
        let Some(layer) = take(&mut ingest, snapshot, &arrivals, mtime_max, stop)? else {
            return Ok(None);
        };
        let diff_id = layer.diff_id;
        ingest.publish_late(&layer)?;
        let hold = self.hold(&[diff_id])?;
        self.release_with_last_pin(diff_id)?;
        Ok(Some((diff_id, hold)))
    }
}

fn take(
    ingest: &mut Ingest<'_>,
    snapshot: &Snapshot,
    arrivals: &Arrivals<'_>,
    mtime_max: Option<i64>,
    stop: Stop<'_>,
) -> Result<Option<NewLayer>> {
    let path = ingest.path();
    std::fs::create_dir(&path).call(|| format!("mkdir({path:?})"))?;
    let file = path.join(RECIPE);
    let call = || format!("write({file:?})");
    let recipe = File::create_new(&file).and_then(RecipeWriter::new);
    let mut tar = Writer::new(Recorder {
        feed: Feed::new(Unpacker::start(None, Compression::None)?),
        recipe: recipe.call(call)?,
        content: 0,
        stop,
    });
    let options = Options {
        mtime_max,
        whiteouts: true,
        sparse: true,
        settle: true,
        ..Options::default()
    };
    let upper = open_upper(snapshot)?;
    let to = Root::open(&snapshot.upper)?;
    let tree = TreeWriter::new(&mut tar, options).telling(Recorder::content);
    let mut tree = tree.awaiting(arrivals);
    let entries = arrivals.during(&to, stop, || tree.layer(&upper));
    let entries = entries.map_err(|error| if stop() { Error::Stopped } else { error })?;
    let size = tree.bytes;
    if entries == 0 {
        return Ok(None);
    }
    let Recorder { feed, recipe, .. } = tar.finish()?;
    recipe.finish().call(call)?;
    let digested = feed.finish()?;
    let to = path.join(DIFF);
    let from = &snapshot.upper;
    std::fs::rename(from, &to).call(|| format!("rename({from:?}, {to:?})"))?;
    Ok(Some(NewLayer {
        diff_id: digested.diff_id,
        size,
        tar_size: digested.tar_size,
        path,
    }))
}

/// A tar on its way to its digest and its recipe.
struct Recorder<'s> {
    feed: Feed,
    recipe: RecipeWriter,
    /// Bytes to come that are in a file, of which the recipe already says so.
    content: u64,
    stop: Stop<'s>,
}

impl Recorder<'_> {
    fn content(&mut self, path: &Path, offset: u64, length: u64) -> io::Result<()> {
        self.content = length;
        let path = path.strip_prefix("/").unwrap_or(path);
        self.recipe.content(path, offset, length)
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.stop)() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let content = usize::try_from(self.content).unwrap_or(usize::MAX);
        let count = match content {
            0 => bytes.len(),
            content => content.min(bytes.len()),
        };
        match content {
            0 => self.recipe.literal(&bytes[..count])?,
            _ => self.content -= count as u64,
        }
        self.feed.write_all(&bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::copy::{Copy, Rest, Want};
    use crate::recipe::reassemble;
    use crate::records::Records as _;
    use crate::tar::{Entry, Kind};
    use crate::testing::Store;
    use crate::{Error, Snapshot};
    use oci::Digest;
    use rustix::fs::{CWD, FileType, Mode, XattrFlags};
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;
    use sys::root::Root;

    /// Everything that a layer can have, with what overlayfs notes.
    fn write(upper: &Path) {
        for directory in ["d/e", "opaque"] {
            fs::create_dir_all(upper.join(directory)).unwrap();
        }
        fs::write(upper.join("d/a"), vec![7; 700_000]).unwrap();
        fs::write(upper.join("d/empty"), "").unwrap();
        fs::hard_link(upper.join("d/a"), upper.join("d/e/link")).unwrap();
        symlink("/etc/passwd", upper.join("d/symlink")).unwrap();
        fs::set_permissions(upper.join("d/a"), fs::Permissions::from_mode(0o4711)).unwrap();
        let sparse = fs::File::create(upper.join("sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 5 << 20).unwrap();
        sparse.set_len(9 << 20).unwrap();
        drop(std::os::unix::net::UnixListener::bind(upper.join("d/socket")).unwrap());
        let whiteout = upper.join("gone");
        rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let set = |path: &str, name: &str, value: &[u8]| {
            rustix::fs::setxattr(upper.join(path), name, value, XattrFlags::empty()).unwrap();
        };
        set("opaque", crate::layer::OPAQUE_XATTR, b"y");
        set("d", "trusted.overlay.impure", b"y");
        set("d/a", "trusted.overlay.origin", b"origin");
        set("d/a", "user.kept", b"value");
    }

    /// Of each path what a container can see, and the attributes that are overlayfs's.
    fn told(root: &Path, path: &Path, all: &mut Vec<String>) {
        let metadata = fs::symlink_metadata(root.join(path)).unwrap();
        if metadata.file_type().is_char_device() {
            // Nobody sees what attributes a whiteout has.
            return all.push(format!("{path:?} is {}", metadata.rdev()));
        }
        let mut xattrs = vec![0; 4096];
        let count = rustix::fs::llistxattr(root.join(path), &mut xattrs).unwrap();
        xattrs.truncate(count);
        all.push(format!(
            "{path:?} {:o} {} {}.{} {} {:?}",
            metadata.mode(),
            if metadata.is_dir() {
                0
            } else {
                metadata.size()
            },
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.nlink(),
            String::from_utf8(xattrs).unwrap(),
        ));
        if metadata.is_dir() {
            let mut names: Vec<_> = { fs::read_dir(root.join(path)).unwrap() }
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
                .iter()
                .for_each(|name| told(root, &path.join(name), all));
        }
    }

    #[test]
    fn a_layer_that_is_taken_is_what_its_tar_unpacks_to() {
        let store = Store::new();
        let snapshot = store.images.prepare_on("a", &[]).unwrap();
        write(&snapshot.upper);
        let (layer, _hold) = store.take(&snapshot, None).unwrap();
        assert!(!snapshot.upper.exists());
        let files = store.layer(&layer);
        let mut tar = Vec::new();
        reassemble(files.parent().unwrap(), &mut tar).unwrap();
        assert_eq!(Digest::sha256(&tar), layer);
        let unpacked = store.directory.path().join("unpacked");
        let size = crate::layer::unpack(&tar[..], &unpacked).unwrap();
        let known = store.images.records.layers().unwrap();
        assert_eq!((known[0].size, known[0].tar_size), (size, tar.len() as u64));
        let (mut one, mut other) = (Vec::new(), Vec::new());
        told(&files, Path::new(""), &mut one);
        told(&unpacked.join("diff"), Path::new(""), &mut other);
        assert_eq!(one, other);
        assert!(
            one.iter()
                .any(|line| line.contains("d/e/link") && line.contains("user.kept"))
        );
    }

    /// A tree with files of all sizes that are brought differently, and more of them than are brought ahead.
    fn sources() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b/c", "few", "wide", "z"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for (at, size) in [0, 1, 16 << 10, (16 << 10) + 1, 64 << 10, 9 << 20]
            .into_iter()
            .enumerate()
        {
            for directory in ["", "a", "a/b/c", "few"] {
                let path = dir.path().join(directory).join(format!("size{at}"));
                fs::write(path, vec![u8::try_from(at).unwrap(); size]).unwrap();
            }
        }
        for number in 0..5000 {
            fs::write(
                dir.path().join(format!("wide/{number}")),
                number.to_string(),
            )
            .unwrap();
        }
        symlink("../few", dir.path().join("a/link")).unwrap();
        fs::set_permissions(dir.path().join("z"), fs::Permissions::from_mode(0o2751)).unwrap();
        let attribute = dir.path().join("few/size1");
        rustix::fs::setxattr(attribute, "user.kept", b"value", XattrFlags::empty()).unwrap();
        dir
    }

    #[test]
    fn files_that_come_meanwhile_make_the_same_layer() {
        let store = Store::new();
        let from = sources();
        let from = Root::open(from.path()).unwrap();
        let found = crate::copy::find(&from, Path::new("/"), false, &|_| Want::Take).unwrap();
        let below = store.images.prepare_on("below", &[]).unwrap();
        fs::create_dir(below.upper.join("there")).unwrap();
        let make = |snapshot: &Snapshot, rest| {
            let made = store
                .images
                .make_layer(snapshot, rest, Some(1000), &|| false);
            made.unwrap().unwrap()
        };
        let (base, _hold) = make(&below, Rest::default());
        let mut told_of = Vec::new();
        for is_late in [false, true] {
            let snapshot = store
                .images
                .prepare_on(&format!("late-{is_late}"), &[base])
                .unwrap();
            let root = Root::from_fd(store.images.mount_detached(&snapshot).unwrap());
            let mut copy = Copy::new(&root);
            // To what is there, and to what is not.
            for target in ["there", "new"] {
                for found in found.iter().filter(|it| !it.path.as_os_str().is_empty()) {
                    let mut entry = found.entry.clone();
                    (entry.uid, entry.mtime.seconds) = (7, 77);
                    let target = Path::new("/").join(target).join(&found.path);
                    match is_late && entry.kind == Kind::File {
                        true => copy.bring(&from, &found.path, &target, &entry).unwrap(),
                        false => copy.put(&from, &found.path, &target, &entry).unwrap(),
                    }
                }
            }
            let mut rest = copy.rest();
            if !is_late {
                std::mem::take(&mut rest).finish(&root, &|| false).unwrap();
            }
            drop(root);
            let (layer, _hold) = make(&snapshot, rest);
            let mut lines = Vec::new();
            told(&store.layer(&layer), Path::new(""), &mut lines);
            told_of.push((layer, lines));
        }
        assert_eq!(told_of[0].1, told_of[1].1);
        assert_eq!(told_of[0].0, told_of[1].0);
        assert_eq!(told_of[0].1.len(), 1 + 2 * found.len());
    }

    #[test]
    fn a_file_that_cannot_be_brought_ends_the_layer() {
        let store = Store::new();
        let from = sources();
        let tree = Root::open(from.path()).unwrap();
        for is_stopped in [false, true] {
            let snapshot = store
                .images
                .prepare_on(&format!("{is_stopped}"), &[])
                .unwrap();
            let root = Root::from_fd(store.images.mount_detached(&snapshot).unwrap());
            let mut copy = Copy::new(&root);
            let entry = Entry::new("", Kind::File, 0o644);
            for number in 0..5000 {
                let path = format!("wide/{number}");
                { copy.bring(&tree, Path::new(&path), Path::new(&path), &entry) }.unwrap();
            }
            let rest = copy.rest();
            drop(root);
            if !is_stopped {
                fs::remove_file(from.path().join("wide/4000")).unwrap();
            }
            let made = store
                .images
                .make_layer(&snapshot, rest, None, &|| is_stopped);
            match made.map(drop).unwrap_err() {
                Error::Stopped => assert!(is_stopped),
                error => assert_eq!(error.kind(), crate::ErrorKind::NotFound, "{error}"),
            }
        }
        assert_eq!(store.records.layers().unwrap(), []);
    }

    #[test]
    fn no_time_is_after_the_limit() {
        let store = Store::new();
        let snapshot = store.images.prepare_on("a", &[]).unwrap();
        write(&snapshot.upper);
        let (layer, _hold) = store.take(&snapshot, Some(1000)).unwrap();
        let mut lines = Vec::new();
        told(&store.layer(&layer), Path::new(""), &mut lines);
        let late: Vec<_> = { lines.iter() }
            .filter(|line| !line.contains(" 1000.0 ") && !line.contains("gone"))
            .collect();
        assert!(late.is_empty(), "{late:?}");
    }

    #[test]
    fn a_snapshot_without_changes_is_left_as_it_is() {
        let store = Store::new();
        let snapshot = store.images.prepare_on("a", &[]).unwrap();
        assert!(store.take(&snapshot, None).is_none());
        assert!(snapshot.upper.is_dir());
    }
}
