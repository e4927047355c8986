//! The files that a client sends: unpacked to a private directory, without those that `.dockerignore` leaves out. Some are kept for
//! the next build ([`crate::kept`]).

use crate::error::{Doing, Error, Result};
use crate::kept::{FILES, Kept};
use images::archive::{self, ExtractOptions};
use images::copy::{self, Want};
use images::tar::Kind;
use images::{Images, Scratch, Stop};
use oci::Digest;
use patterns::{IGNORE_BYTES_MAX, Ignore};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sys::root::Root;

/// A tree of files that builds take from. It goes with the last value of it.
#[derive(Debug, Clone)]
pub struct Context {
    root: Arc<Root>,
    path: PathBuf,
    /// It is kept with the last of these, before the directory would go.
    kept: Option<Arc<Kept>>,
    scratch: Arc<Scratch>,
}

impl Context {
    /// A context without files.
    ///
    /// # Errors
    /// No room for its directory.
    pub fn empty(images: &Images) -> Result<Self> {
        let scratch = images
            .scratch()
            .doing(|| "make room for the context".to_owned())?;
        let path = scratch.path().join(FILES);
        std::fs::create_dir(&path).doing(|| "make the context's directory".to_owned())?;
        Self::of(scratch)
    }

    /// What is in a private directory.
    pub(crate) fn of(scratch: Scratch) -> Result<Self> {
        let path = scratch.path().join(FILES);
        Ok(Self {
            root: Arc::new(Root::open(&path).doing(|| "open the context".to_owned())?),
            path,
            kept: None,
            scratch: Arc::new(scratch),
        })
    }

    /// The same, to be kept.
    pub(crate) fn keep(self, kept: Arc<Kept>) -> Self {
        Self {
            kept: Some(kept),
            ..self
        }
    }

    /// Takes the place of an empty one with the whole of another, which is over.
    pub(crate) fn adopt(&mut self, other: &Self) -> Result<()> {
        let doing = || "take the context".to_owned();
        std::fs::rename(&other.path, &self.path).doing(doing)?;
        self.root = Arc::new(Root::open(&self.path).doing(doing)?);
        Ok(())
    }

    /// Its private directory, which has more than its files.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn shared_root(&self) -> Arc<Root> {
        Arc::clone(&self.root)
    }

    /// Whether a layer can have a regular file itself, and not a copy of it: nobody else needs it after the build.
    pub(crate) fn gives(&self, path: &Path) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.gives(path))
    }

    /// The digests of regular files' contents, in the order of their paths.
    pub(crate) fn digests(&self, paths: &[PathBuf], stop: Stop<'_>) -> images::Result<Vec<Digest>> {
        match &self.kept {
            Some(kept) => kept.digests(&self.root, paths, stop),
            None => copy::digests(&self.root, paths, stop),
        }
    }

    /// Unpacks a tar (plain, or compressed by gzip, zstd, bzip2 or xz).
    ///
    /// # Errors
    /// No archive, one that leads out of itself, no room.
    pub fn unpack(images: &Images, tar: impl Read + Send) -> Result<Self> {
        let context = Self::empty(images)?;
        archive::extract(
            &context.root,
            Path::new("/"),
            tar,
            &ExtractOptions::default(),
        )
        .doing(|| "unpack the context".to_owned())?;
        Ok(context)
    }

    /// Takes a tree of several contexts apart: the directory of the context itself, which is empty where there is none, and
    /// those below the directory of named ones.
    ///
    /// # Errors
    /// What is there is no directory.
    pub fn split(&self, own: &str, named: &str) -> Result<(Self, BTreeMap<String, Self>)> {
        let own = Path::new("/").join(own);
        { self.root.create_dir_all(&own, Mode::from_raw_mode(0o755)) }
            .doing(|| "make the context's directory".to_owned())?;
        let above = Path::new("/").join(named);
        let mut contexts = BTreeMap::new();
        let one_level = |path: &Path| match path.components().count() {
            0 | 1 => Want::Take,
            _ => Want::Leave,
        };
        if self.root.resolve_nofollow(&above).is_ok() {
            let found = copy::find(&self.root, &above, false, &one_level)
                .doing(|| "list the named contexts".to_owned())?;
            for found in found
                .iter()
                .filter(|found| found.entry.kind == Kind::Directory)
            {
                if let Some(name) = found.path.to_str().filter(|name| !name.is_empty()) {
                    contexts.insert(name.to_owned(), self.part(&above.join(name))?);
                }
            }
        }
        Ok((self.part(&own)?, contexts))
    }

    /// One of its directories, which keeps the whole.
    pub(crate) fn part(&self, path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = self
            .root
            .open_at(path, flags, Mode::empty())
            .doing(|| format!("open {path:?} in the context"))?;
        // Where it really is: on the way there may be links, which mean the context's own files.
        let real = std::fs::read_link(sys::root::fd_path(fd.as_fd()))
            .doing(|| format!("find {path:?} of the context"))?;
        Ok(Self {
            root: Arc::new(Root::from_fd(fd)),
            path: real,
            kept: None,
            scratch: Arc::clone(&self.scratch),
        })
    }

    /// Its files.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where it is, for bind mounts of what was found in it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file's content; `None` where there is none.
    ///
    /// # Errors
    /// More than `bytes_max`, or no regular file.
    pub fn read(&self, path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        read(&self.root, path, bytes_max)
    }

    /// Removes what a `.dockerignore` leaves out, and tells what that is: the one of the Dockerfile, or else the context's own.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn apply_ignore(&self, dockerfile: &str) -> Result<Ignore> {
        let own = format!("{dockerfile}.dockerignore");
        for name in [own.as_str(), ".dockerignore"] {
            if let Some(ignore) = self.ignore(name)? {
                self.remove_ignored(&ignore)?;
                return Ok(ignore);
            }
        }
        Ok(Ignore::default())
    }

    /// What one of its files says is left out; `None` where there is no such file.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn ignore(&self, name: &str) -> Result<Option<Ignore>> {
        let Some(bytes) = self.read(Path::new(name), IGNORE_BYTES_MAX)? else {
            return Ok(None);
        };
        let wrong = |error: String| Error::Invalid(format!("{name}: {error}"));
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        let ignore = Ignore::parse(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(ignore))
    }

    fn remove_ignored(&self, ignore: &Ignore) -> Result<()> {
        if ignore.is_empty() {
            return Ok(());
        }
        let all = copy::find(&self.root, Path::new("/"), false, &|_| Want::Take)
            .doing(|| "list the context".to_owned())?;
        // What is in a directory goes before it.
        for found in all.iter().rev() {
            let excluded = found
                .path
                .to_str()
                .is_some_and(|path| ignore.excludes(path));
            if !excluded || found.path.as_os_str().is_empty() {
                continue;
            }
            let (parent, name) = self
                .root
                .parent(&found.path)
                .doing(|| "open the context".to_owned())?;
            let flags = match found.entry.kind {
                Kind::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            match rustix::fs::unlinkat(&parent, &name, flags) {
                // Something in it is kept.
                Ok(()) | Err(Errno::NOTEMPTY) => {}
                Err(errno) => {
                    return Err(std::io::Error::from(errno))
                        .doing(|| format!("leave {:?} out of the context", found.path));
                }
            }
        }
        Ok(())
    }
}

/// A file's content in a tree; `None` where there is none.
pub(crate) fn read(root: &Root, path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match root.open_at(path, flags, Mode::empty()) {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        result => result.doing(|| format!("open {path:?}"))?,
    };
    let file = std::fs::File::from(fd);
    let metadata = file.metadata().doing(|| format!("stat {path:?}"))?;
    if !metadata.is_file() {
        return Err(Error::Invalid(format!(
            "{} is no regular file",
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    let read = file.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.doing(|| format!("read {path:?}"))?;
    if bytes.len() > bytes_max {
        let text = format!("{} has more than {bytes_max} bytes", path.display());
        return Err(Error::Invalid(text));
    }
    Ok(Some(bytes))
}
