//! Layers of what a build has written: a snapshot's upper directory itself becomes the layer's files.
//!
//! Nothing is copied. One walk writes the tar, of which only the digest stays and the recipe to make it again, and leaves of the
//! files what the tar has of them: so the layer is the one that unpacking the tar would have made.

use crate::compression::Compression;
use crate::diff::open_upper;
use crate::recipe::{DIFF, RECIPE, RecipeWriter};
use crate::store::{Ingest, NewLayer};
use crate::tar::{Tap as _, Writer};
use crate::tree::{Options, TreeWriter};
use crate::unpacker::{Feed, Unpacker};
use crate::{Hold, Images, Result, Snapshot};
use oci::Digest;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use sys::Context as _;

impl Images {
    /// Makes a layer of what a snapshot changed, and takes the files from the snapshot, which nobody uses any more and which is
    /// to be removed then; `None` where nothing was changed. Files younger than `mtime_max` (seconds since 1970) get that time.
    /// The layer is held by the value, belongs to no image yet, and is durable after [`Images::settle`] or with the first image
    /// that is made.
    pub fn make_layer(
        &self,
        snapshot: &Snapshot,
        mtime_max: Option<i64>,
    ) -> Result<Option<(Digest, Hold<'_>)>> {
        let mut ingest = self.ingest()?;
        let Some(layer) = take(&mut ingest, snapshot, mtime_max)? else {
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
    mtime_max: Option<i64>,
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
    });
    let options = Options {
        mtime_max,
        whiteouts: true,
        sparse: true,
        settle: true,
        ..Options::default()
    };
    let upper = open_upper(snapshot)?;
    let mut tree = TreeWriter::new(&mut tar, options).telling(Recorder::content);
    let (entries, size) = (tree.layer(&upper)?, tree.bytes);
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
struct Recorder {
    feed: Feed,
    recipe: RecipeWriter,
    /// Bytes to come that are in a file, of which the recipe already says so.
    content: u64,
}

impl Recorder {
    fn content(&mut self, path: &Path, offset: u64, length: u64) -> io::Result<()> {
        self.content = length;
        let path = path.strip_prefix("/").unwrap_or(path);
        self.recipe.content(path, offset, length)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
    use crate::recipe::reassemble;
    use crate::testing::Store;
    use oci::Digest;
    use rustix::fs::{CWD, FileType, Mode, XattrFlags};
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

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
        let (layer, _hold) = store.images.make_layer(&snapshot, None).unwrap().unwrap();
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

    #[test]
    fn no_time_is_after_the_limit() {
        let store = Store::new();
        let snapshot = store.images.prepare_on("a", &[]).unwrap();
        write(&snapshot.upper);
        let (layer, _hold) = store
            .images
            .make_layer(&snapshot, Some(1000))
            .unwrap()
            .unwrap();
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
        assert!(store.images.make_layer(&snapshot, None).unwrap().is_none());
        assert!(snapshot.upper.is_dir());
    }
}
