//! Contexts that are kept from build to build, so that a client sends only what has changed.
//!
//! ```text
//! build-contexts/<id>/   files/, the tree; index: what is known of it; <id> is the digest of whose it is and what that calls it
//! ```
//!
//! A build takes the whole away ([`Shelf::take`]), brings it up to date ([`Filling`]), uses it, and puts it back when the last who
//! uses it is done ([`Kept`]). So a second build of the same directory at the same time finds none, and gets everything; what a killed
//! engine has taken is removed with the store's other rests.
//!
//! Invariants:
//! - What is known of a path is of the file that is there: nobody else writes to the tree, and no path of it leads through a symlink.
//!   A digest is only ever computed here. A client can tell untruths of its own context alone, which its user owns.
//! - A file that is kept has one name: programs in containers look at that (cron reads no table with several). Small files are copied
//!   into layers; of a large one a layer gets the file itself, which the client sends again when it is needed again.

mod filling;
mod index;

pub use filling::{Base, Changes, Filling};
pub use index::ContextName;

use crate::error::{Doing, Result};
use engine::Engine;
use images::{Images, Scratch, Stop};
use index::{Header, Index, Known};
use oci::Digest;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use sys::root::Root;

/// The directory of kept contexts in the engine's data.
pub(crate) const CONTEXTS: &str = "build-contexts";
/// The tree in a context's directory.
pub(crate) const FILES: &str = "files";
/// What is known of it.
const INDEX: &str = "index";
/// Contexts that are kept: after that, the one that was used longest ago goes.
const CONTEXTS_MAX: usize = 64;
/// Bytes in the files of all of them.
const BYTES_MAX: u64 = 32 << 30;
/// Bytes of a file that is not worth to be written twice.
const GIVEN_BYTES_MIN: u64 = 256 << 10;
/// Bytes of what a client says of one file.
const MARK_BYTES_MAX: usize = 8192;
/// The kernel's name for the time since the machine was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where contexts are kept.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    root: PathBuf,
    boot: String,
}

/// A context that was taken.
struct Taken {
    scratch: Scratch,
    index: Index,
    generation: String,
}

/// A context that is kept, as it is told of.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) name: ContextName,
    /// When it was last used.
    pub(crate) used: std::time::SystemTime,
    bytes: u64,
}

impl Shelf {
    pub(crate) fn of(engine: &Engine) -> Result<Self> {
        let doing = || "find the kept contexts".to_owned();
        let boot = fs::read_to_string(BOOT_ID).doing(doing)?;
        Ok(Self {
            root: engine.config().data_root.join(CONTEXTS),
            boot: boot.trim().to_owned(),
        })
    }

    fn place(&self, name: &ContextName) -> PathBuf {
        let text = format!("{}\0{}", name.owner, name.name);
        self.root.join(Digest::sha256(text.as_bytes()).hex())
    }

    /// Takes a context away, if it is there, and can be used.
    fn take(&self, images: &Images, name: &ContextName) -> Result<Option<Taken>> {
        let doing = || "take the kept context".to_owned();
        let scratch = images.scratch().doing(doing)?;
        match fs::rename(self.place(name), scratch.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            renamed => renamed.doing(doing)?,
        }
        let read = || {
            let mut file = BufReader::new(File::open(scratch.path().join(INDEX))?);
            let header = index::read_header(&self.boot, &mut file)?;
            Ok((header, index::read(&mut file)?))
        };
        match read() {
            Ok((header, index)) => Ok(Some(Taken {
                scratch,
                index,
                generation: header.generation,
            })),
            Err(error) if is_useless(&error) => Ok(None),
            Err(error) => Err(error).doing(doing),
        }
    }

    /// What a kept context is called, and the mark of each of its files: for the client to compare.
    fn marks(&self, name: &ContextName) -> io::Result<Option<(String, Index)>> {
        let read = || {
            let mut file = BufReader::new(File::open(self.place(name).join(INDEX))?);
            let header = index::read_header(&self.boot, &mut file)?;
            Ok((header.generation, index::read(&mut file)?))
        };
        match read() {
            Err(error) if is_useless(&error) || error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Puts a directory with a context back, in the place of one that was put there meanwhile.
    fn put(
        &self,
        images: &Images,
        directory: &Path,
        name: &ContextName,
        index: &Index,
    ) -> Result<()> {
        let doing = || "keep the context".to_owned();
        let header = Header {
            name: name.clone(),
            generation: engine::random_id().doing(doing)?,
            bytes: index.values().map(|known| known.bytes).sum(),
        };
        if header.bytes > BYTES_MAX {
            return Ok(());
        }
        let file = File::create(directory.join(INDEX)).doing(doing)?;
        index::write(&header, &self.boot, index, file).doing(doing)?;
        make_private(&self.root).doing(doing)?;
        let place = self.place(name);
        self.remove_at(images, &place)?;
        match fs::rename(directory, &place) {
            // Another build of the same was as fast.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
            renamed => renamed.doing(doing)?,
        }
        self.limit(images)
    }

    /// All that is kept, the last used first. What cannot be used is not told of.
    pub(crate) fn list(&self) -> io::Result<Vec<Stored>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let read = || {
                let file = File::open(path.join(INDEX))?;
                let used = file.metadata()?.modified()?;
                Ok((
                    index::read_header(&self.boot, &mut BufReader::new(file))?,
                    used,
                ))
            };
            match read() {
                Ok((header, used)) => all.push(Stored {
                    id: id.to_owned(),
                    name: header.name,
                    used,
                    bytes: header.bytes,
                    path,
                }),
                // A build may have taken it just now.
                Err(error) if is_useless(&error) || error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// Removes what is too much.
    fn limit(&self, images: &Images) -> Result<()> {
        let mut bytes = 0;
        let stored = self.list().doing(|| "list the kept contexts".to_owned())?;
        for (at, stored) in stored.iter().enumerate() {
            bytes += stored.bytes;
            if at >= CONTEXTS_MAX || bytes > BYTES_MAX {
                self.remove_at(images, &stored.path)?;
            }
        }
        Ok(())
    }

    /// Removes a context; false: it is not there, or a build has it.
    pub(crate) fn remove(&self, images: &Images, id: &str) -> Result<bool> {
        self.remove_at(images, &self.root.join(id))
    }

    fn remove_at(&self, images: &Images, path: &Path) -> Result<bool> {
        let doing = || "remove a kept context".to_owned();
        let scratch = images.scratch().doing(doing)?;
        // It is gone at once, and its files with the value.
        match fs::rename(path, scratch.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            renamed => renamed.doing(doing).map(|()| true),
        }
    }

    /// Removes what cannot be used any more: of before the machine was started, or half of one.
    pub(crate) fn sweep(&self, images: &Images) -> Result<()> {
        let doing = || "list the kept contexts".to_owned();
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.doing(doing)?,
        };
        let good: Vec<PathBuf> = { self.list().doing(doing)?.into_iter() }
            .map(|stored| stored.path)
            .collect();
        for entry in entries {
            let path = entry.doing(doing)?.path();
            if !good.contains(&path) {
                self.remove_at(images, &path)?;
            }
        }
        Ok(())
    }
}

/// Whether an index is one that nobody can use, as after a power failure.
fn is_useless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// What a build knows of the kept context that it uses. With the last value of it, the context is put back.
#[derive(Debug)]
pub(crate) struct Kept {
    engine: Engine,
    shelf: Shelf,
    name: ContextName,
    /// The directory of the tree and the index.
    directory: PathBuf,
    index: Mutex<Index>,
}

impl Kept {
    fn index(&self) -> MutexGuard<'_, Index> {
        // It is whole after every statement.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a layer can have a file itself; it is not kept then.
    pub(crate) fn gives(&self, path: &Path) -> bool {
        let mut index = self.index();
        let known = index.get_mut(relative(path));
        let Some(known) = known.filter(|known| known.bytes >= GIVEN_BYTES_MIN) else {
            return false;
        };
        known.is_given = true;
        true
    }

    /// The digests of regular files' contents, in the order of their paths; computed where they are not known.
    pub(crate) fn digests(
        &self,
        root: &Root,
        paths: &[PathBuf],
        stop: Stop<'_>,
    ) -> images::Result<Vec<Digest>> {
        let known = |index: &Index, path: &Path| index.get(relative(path))?.digest;
        let mut digests: Vec<Option<Digest>> = {
            let index = self.index();
            paths.iter().map(|path| known(&index, path)).collect()
        };
        let unknown = { paths.iter().zip(&digests) }.filter(|(_, digest)| digest.is_none());
        let unknown: Vec<PathBuf> = unknown.map(|(path, _)| path.clone()).collect();
        let computed = images::copy::digests(root, &unknown, stop)?;
        let mut index = self.index();
        for (path, digest) in unknown.iter().zip(&computed) {
            if let Some(known) = index.get_mut(relative(path)) {
                known.digest = Some(*digest);
            }
        }
        drop(index);
        let mut computed = computed.into_iter();
        let filled = { digests.iter_mut() }.map(|digest| digest.take().or_else(|| computed.next()));
        Ok(filled
            .map(|digest| digest.expect("what was not known was computed"))
            .collect())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut index = std::mem::take(&mut *self.index());
        let kept = take_given(&self.directory, &mut index).and_then(|()| {
            self.shelf
                .put(self.engine.images(), &self.directory, &self.name, &index)
        });
        if let Err(error) = kept {
            tracing::warn!(error = error.chain(), "a context is not kept");
        }
    }
}

/// Removes what layers have got.
fn take_given(directory: &Path, index: &mut Index) -> Result<()> {
    let given = index.iter().filter(|(_, known)| known.is_given);
    let given: Vec<PathBuf> = given.map(|(path, _)| path.clone()).collect();
    let doing = || "give away the large files of the context".to_owned();
    let root = Root::open(&directory.join(FILES)).doing(doing)?;
    for path in given {
        index.remove(&path);
        let (parent, name) = root.parent(&path).doing(doing)?;
        let removed = rustix::fs::unlinkat(&parent, &name, rustix::fs::AtFlags::empty());
        removed.map_err(io::Error::from).doing(doing)?;
    }
    Ok(())
}

/// A path of the tree as the index has it.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// What is kept of a context, for a client that sends only what has changed since.
#[derive(Debug)]
pub struct KeptMarks {
    /// Another one each time that it is kept.
    pub generation: String,
    /// The mark of each of its paths.
    pub marks: Vec<(PathBuf, Vec<u8>)>,
}

/// What is kept of a context; `None`: nothing.
///
/// # Errors
/// It cannot be read.
pub fn kept_marks(engine: &Engine, name: &ContextName) -> Result<Option<KeptMarks>> {
    let read = Shelf::of(engine)?.marks(name);
    let read = read.doing(|| "read the kept context".to_owned())?;
    let told = |(path, Known { mark, .. })| (path, mark);
    Ok(read.map(|(generation, index)| KeptMarks {
        generation,
        marks: index.into_iter().map(told).collect(),
    }))
}
