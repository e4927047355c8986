//! What is used on the disk: blocks that files have, as du(1) counts them.
//!
//! Sizes of images elsewhere are those of their files' content. Here is what deleting something gives back: directories,
//! recipes and documents count, a sparse file counts what it has, a file with several names counts once.

use crate::records::{ImageId, ImageRecord};
use crate::{Error, Images, Result};
use oci::Digest;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use sys::Context as _;

/// Bytes of what `st_blocks` counts: stat(2).
const BLOCK_BYTES: u64 = 512;

/// What one image has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes of its layers, each counted once, and of its documents.
    pub all: u64,
    /// Bytes of those of its layers that other images have, too.
    pub shared: u64,
}

/// What all images have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all layers and documents: of each image what it does not share, and once what they share.
    pub bytes: u64,
    /// Of each image.
    pub images: HashMap<ImageId, Share>,
}

impl Images {
    /// Measures what images use on the disk; reads the status of every file of them.
    pub fn disk_usage(&self) -> Result<Usage> {
        let mut layers = HashMap::new();
        for layer in self.records.layers().map_err(Error::Records)? {
            let bytes = disk_usage(&self.layer_path(&layer.diff_id))?;
            layers.insert(layer.diff_id, bytes);
        }
        let records = self.records.images().map_err(Error::Records)?;
        // What only results of builds have is told of with them.
        for result in self.records.caches().map_err(Error::Records)? {
            for layer in result.layers {
                if records.iter().all(|image| !image.layers.contains(&layer)) {
                    layers.remove(&layer);
                }
            }
        }
        let mut usage = Usage {
            bytes: layers.values().sum(),
            images: shares(&records, &layers),
        };
        for record in &records {
            let bytes = self.documents_bytes(record)?;
            usage.bytes += bytes;
            usage.images.entry(record.id).or_default().all += bytes;
        }
        Ok(usage)
    }

    /// What each image has of the bytes in layers' files.
    pub fn shares(&self) -> Result<HashMap<ImageId, Share>> {
        let records = self.records.images().map_err(Error::Records)?;
        Ok(shares(&records, &self.layer_sizes()?))
    }

    /// Bytes on the disk of a snapshot with all that belongs to it; none where none is.
    pub fn snapshot_disk_usage(&self, id: &str) -> Result<u64> {
        disk_usage(&self.snapshots_path().join(id))
    }

    /// Bytes on the disk of layers and images, by their digests.
    pub(crate) fn disk_sizes<'a>(
        &self,
        images: impl IntoIterator<Item = &'a ImageRecord>,
    ) -> Result<HashMap<Digest, u64>> {
        let mut sizes = HashMap::new();
        for image in images {
            sizes.insert(image.id, self.documents_bytes(image)?);
            for layer in &image.layers {
                if !sizes.contains_key(layer) {
                    sizes.insert(*layer, disk_usage(&self.layer_path(layer))?);
                }
            }
        }
        Ok(sizes)
    }

    fn documents_bytes(&self, image: &ImageRecord) -> Result<u64> {
        let paths = [&image.id, &image.manifest].map(|digest| self.blob_path(digest));
        Ok(disk_usage(&paths[0])? + disk_usage(&paths[1])?)
    }
}

fn shares(images: &[ImageRecord], layers: &HashMap<Digest, u64>) -> HashMap<ImageId, Share> {
    let distinct = |image: &ImageRecord| image.layers.iter().copied().collect::<HashSet<_>>();
    let mut users: HashMap<Digest, usize> = HashMap::new();
    for layer in images.iter().flat_map(distinct) {
        *users.entry(layer).or_default() += 1;
    }
    let share = |image: &ImageRecord| {
        let mut share = Share::default();
        for layer in distinct(image) {
            let bytes = layers.get(&layer).copied().unwrap_or(0);
            share.all += bytes;
            if users[&layer] > 1 {
                share.shared += bytes;
            }
        }
        (image.id, share)
    };
    images.iter().map(share).collect()
}

/// Bytes on the disk of a file, or of a directory with everything below it on its file system; none where nothing is. No
/// symlink is followed, whoever changes the tree meanwhile.
pub fn disk_usage(path: &Path) -> Result<u64> {
    let call = || format!("stat({path:?})");
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(0),
        stat => stat.call(call)?,
    };
    let mut measure = Measure {
        device: stat.st_dev,
        linked: HashSet::new(),
        bytes: 0,
    };
    if !is_directory(&stat) {
        measure.add(&stat);
    } else if let Some(directory) = open_below(CWD, path.as_os_str()).call(call)? {
        measure.tree(directory).call(|| format!("du({path:?})"))?;
    }
    Ok(measure.bytes)
}

struct Measure {
    device: u64,
    /// Files with several names that were counted.
    linked: HashSet<u64>,
    bytes: u64,
}

/// A directory on the way to the one that is looked at.
struct Level {
    inode: u64,
    /// Directories in it that are still to be looked at.
    pending: Vec<OsString>,
}

impl Measure {
    fn add(&mut self, stat: &Stat) {
        if stat.st_nlink == 1 || is_directory(stat) || self.linked.insert(stat.st_ino) {
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
        }
    }

    /// Adds a tree of any depth with one descriptor at a time: a container may have made it. A directory that is moved
    /// meanwhile ends the walk, since the way back from it is another.
    fn tree(&mut self, mut directory: OwnedFd) -> rustix::io::Result<()> {
        let mut levels = Vec::new();
        levels.extend(self.enter(&directory)?);
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.pending.pop() {
                if let Some(below) = open_below(&directory, &name)?
                    && let Some(level) = self.enter(&below)?
                {
                    levels.push(level);
                    directory = below;
                }
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { break };
            match open_below(&directory, OsStr::new(".."))? {
                Some(parent) if rustix::fs::fstat(&parent)?.st_ino == above.inode => {
                    directory = parent;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Adds a directory and the files in it; nothing where something else is mounted.
    fn enter(&mut self, directory: &OwnedFd) -> rustix::io::Result<Option<Level>> {
        let stat = rustix::fs::fstat(directory)?;
        if stat.st_dev != self.device {
            return Ok(None);
        }
        self.add(&stat);
        let mut pending = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_directory(&stat) => {
                    pending.push(OsStr::from_bytes(name.to_bytes()).to_owned());
                }
                Ok(stat) => self.add(&stat),
                // It has gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Some(Level {
            inode: stat.st_ino,
            pending,
        }))
    }
}

/// Opens a directory; `None` where it is none any more.
fn open_below(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.map(Some),
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(RawMode::from(stat.st_mode)) == FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Store, small_layer};
    use std::os::unix::fs::MetadataExt as _;

    /// What du(1) says.
    fn du(path: &Path) -> u64 {
        let output = std::process::Command::new("du")
            .args(["-s", "-x", "--block-size=1"])
            .arg(path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_tree_uses_what_du_says() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(root.join("a/file"), root.join("a/b/same")).unwrap();
        std::fs::File::create(root.join("sparse"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        std::os::unix::fs::symlink("/usr", root.join("a/elsewhere")).unwrap();
        std::fs::create_dir(root.join(OsStr::from_bytes(b"\xff"))).unwrap();
        assert_eq!(disk_usage(root).unwrap(), du(root));
        assert!(disk_usage(root).unwrap() < 1 << 20);
        let file = root.join("a/file");
        let blocks = std::fs::metadata(&file).unwrap().blocks();
        assert_eq!(disk_usage(&file).unwrap(), blocks * BLOCK_BYTES);
        assert_eq!(disk_usage(&root.join("nothing")).unwrap(), 0);
    }

    #[test]
    fn a_tree_of_any_depth_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let mut at = open_below(CWD, directory.path().as_os_str())
            .unwrap()
            .unwrap();
        let own = std::fs::metadata(directory.path()).unwrap().blocks();
        // Deeper than a path can tell, and than descriptors would do.
        let depth = 3000;
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "directory", Mode::RWXU).unwrap();
            at = open_below(&at, OsStr::new("directory")).unwrap().unwrap();
        }
        let each = u64::try_from(rustix::fs::fstat(&at).unwrap().st_blocks).unwrap();
        let bytes = (own + each * depth) * BLOCK_BYTES;
        assert_eq!(disk_usage(directory.path()).unwrap(), bytes);
    }

    #[test]
    fn images_use_what_their_directories_do() {
        let store = Store::new();
        store.import("one", "content");
        let two = store.import("two", &"other".repeat(10_000));
        // The same layer under another configuration.
        let tar = small_layer("file", b"content");
        let options = crate::ImportOptions {
            message: "again".to_owned(),
            ..Default::default()
        };
        let three = store.images.import(tar.as_slice(), &options).unwrap();
        let usage = store.images.disk_usage().unwrap();
        let directories = [store.images.layers_path(), store.images.blobs_path()];
        let own = |path: &Path| std::fs::metadata(path).unwrap().blocks() * BLOCK_BYTES;
        let expected: u64 = directories.iter().map(|path| du(path) - own(path)).sum();
        assert_eq!(usage.bytes, expected);
        assert_eq!(usage.images[&two].shared, 0);
        let share = usage.images[&three];
        assert!(share.shared > 0 && share.shared < share.all);
        let unique: u64 = usage
            .images
            .values()
            .map(|share| share.all - share.shared)
            .sum();
        assert_eq!(unique + share.shared, usage.bytes);
    }
}
