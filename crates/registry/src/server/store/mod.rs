//! What the registry keeps on disk: `docs/formats/registry.md` is the format's page.
//!
//! ```text
//! version                                        "1"
//! lock                                           flock(2): see below
//! blobs/<alg>/<first two>/<hex>                  content, once for all repositories
//! repositories/<name>/_blobs/<alg>/<hex>         this repository has that blob; empty
//!                     _manifests/<alg>/<hex>     … that manifest; its media type
//!                     _tags/<tag>                a digest
//!                     _referrers/<alg>/<hex of the subject>/<alg>-<hex>   a descriptor
//! uploads/<uuid>/about, data                     an upload under way
//! tmp/<uuid>                                     what is being written
//! ```
//!
//! Invariants: a file is whole from the moment it has its name: it is written in `tmp` or `uploads`, synced, renamed, its
//! directory synced. Content is there before what names it. Whoever adds a name of content holds `lock` shared, and renews the
//! content's time; whoever deletes holds it exclusively, and spares what is newer than when it began to look. So several
//! processes may use one storage, and each may be killed at any moment.

pub(crate) mod links;
pub(crate) mod page;
pub(crate) mod sweep;
pub(crate) mod uploads;
mod usage;

use super::route::UploadId;
use crate::error::{Error, Result};
use oci::Digest;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The format's version.
const VERSION: &str = "1\n";

/// The storage of a registry.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A hold on the storage's lock; it ends with the value.
#[derive(Debug)]
pub(crate) struct Hold(#[expect(dead_code, reason = "it is held, not looked at")] File);

/// Names the call of a failure.
pub(crate) trait Call<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Call<T> for io::Result<T> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Storage {
            call: call(),
            source,
        })
    }
}

/// Makes what is not there a result of its own.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Store {
    /// Opens a storage, or makes one where there is none.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).call(|| format!("getcwd() for {root:?}"))?;
        let store = Self { root: root.clone() };
        for directory in ["blobs", "repositories", "uploads", "tmp"] {
            make_directory(&root.join(directory))?;
        }
        let path = root.join("version");
        match found(fs::read_to_string(&path)).call(|| format!("read({path:?})"))? {
            None => store.write(&path, VERSION.as_bytes())?,
            Some(version) if version == VERSION => {}
            Some(other) => {
                let reason = format!(
                    "it is of version {:?}, and this is for {:?}",
                    other.trim(),
                    VERSION.trim()
                );
                return Err(Error::Settings { path, reason });
            }
        }
        let lock = root.join("lock");
        // A storage on a read-only filesystem can be served, too.
        if !lock.exists() {
            File::create(&lock).call(|| format!("open({lock:?}, O_CREAT)"))?;
        }
        Ok(store)
    }

    /// Waits until nobody deletes.
    pub(crate) fn share(&self) -> Result<Hold> {
        self.hold(File::lock_shared)
    }

    /// Waits until nobody adds or deletes.
    pub(crate) fn exclude(&self) -> Result<Hold> {
        self.hold(File::lock)
    }

    fn hold(&self, how: impl FnOnce(&File) -> io::Result<()>) -> Result<Hold> {
        let path = self.root.join("lock");
        let file = File::open(&path).call(|| format!("open({path:?})"))?;
        how(&file).call(|| format!("flock({path:?})"))?;
        Ok(Hold(file))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let mut path = self.root.join("blobs");
        path.extend([digest.algorithm().name(), &hex[..2], &hex]);
        path
    }

    /// Opens some content, whoever has it, and tells its size.
    pub(crate) fn open_content(&self, digest: &Digest) -> Result<Option<(File, u64)>> {
        let path = self.blob_path(digest);
        let opened = found(File::open(&path)).call(|| format!("open({path:?})"))?;
        let Some(file) = opened else { return Ok(None) };
        let size = file.metadata().call(|| format!("fstat({path:?})"))?.len();
        Ok(Some((file, size)))
    }

    /// Gives content its place. The file is on the same filesystem, whole, checked and synced; `_hold` is shared.
    pub(crate) fn place(&self, _hold: &Hold, from: &Path, digest: &Digest) -> Result<()> {
        let to = self.blob_path(digest);
        make_directory(parent(&to))?;
        rename(from, &to)
    }

    /// A place for something to be written at.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        Ok(self.root.join("tmp").join(random_id()?.as_str()))
    }

    /// Writes a file: all of it is there, for good, or nothing of it is. Its directory exists.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let scratch = self.scratch()?;
        let written = write_synced(&scratch, bytes).and_then(|()| rename(&scratch, path));
        if written.is_err() {
            // What is left is swept away later.
            let _ = fs::remove_file(&scratch);
        }
        written
    }
}

/// A name that nobody has.
pub(crate) fn random_id() -> Result<UploadId> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    filled
        .map_err(io::Error::from)
        .call(|| "getrandom(16)".to_owned())?;
    Ok(UploadId::from_random(bytes))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).call(|| format!("open({path:?}, O_CREAT|O_EXCL)"))?;
    file.write_all(bytes).call(|| format!("write({path:?})"))?;
    file.sync_data().call(|| format!("fdatasync({path:?})"))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).call(|| format!("rename({from:?}, {to:?})"))?;
    sync_directory(parent(to))
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .expect("paths of the storage are below its root")
}

fn sync_directory(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.call(|| format!("fsync({path:?})"))
}

/// Makes a directory and those above it, each of them there for good before what is in it.
fn make_directory(path: &Path) -> Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    let made = match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(parent(path))?;
            make()
        }
        other => other,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error).call(|| format!("mkdir({path:?})")),
        Ok(()) => sync_directory(parent(path)),
    }
}

/// Renews a file's time: it is in use. `false` when it is not there.
fn touch(path: &Path) -> Result<bool> {
    let opened = found(File::open(path)).call(|| format!("open({path:?})"))?;
    let Some(file) = opened else { return Ok(false) };
    file.set_modified(SystemTime::now())
        .call(|| format!("utimensat({path:?})"))?;
    Ok(true)
}

/// Deletes a file; `false` when it is not there.
fn remove(path: &Path) -> Result<bool> {
    let removed = found(fs::remove_file(path)).call(|| format!("unlink({path:?})"))?;
    Ok(removed.is_some())
}

/// The names in a directory, none where it is not there. What is no UTF-8 is nobody's here and left out.
fn names(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let listing = found(fs::read_dir(path)).call(|| format!("opendir({path:?})"))?;
    let path = path.to_owned();
    Ok(listing.into_iter().flatten().filter_map(move |entry| {
        let entry = entry.call(|| format!("readdir({path:?})"));
        entry
            .map(|entry| entry.file_name().into_string().ok())
            .transpose()
    }))
}
