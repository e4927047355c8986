//! Files in and out of a container as tar: what `docker cp` and `docker export` need.
//!
//! Invariant: whatever a running container does to its tree meanwhile, nothing outside of it is read or written: every
//! path is resolved by `sys::root::Root` to a descriptor, and used through that (CVE-2018-15664, CVE-2019-14271). Archives
//! are decompressed in this process, never by a program of the container.

use crate::compression::Decoder;
use crate::limits::DEPTH_MAX;
use crate::load::detect;
use crate::place::{self, DIRECTORY, Place};
use crate::tar::{self, Entry, Kind, Time};
use crate::tree::{Options, TreeWriter};
use crate::walk::{self, Node};
use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// Directories that an archive needs and does not have are made with this mode.
const IMPLIED_MODE: u32 = 0o755;
/// Symlinks on the way to what a symlink means, as in the kernel.
const SYMLINKS_MAX: u32 = 40;

/// What `HEAD /containers/{id}/archive` tells of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The last component; `/` of the root.
    pub name: PathBuf,
    /// Bytes.
    pub size: u64,
    /// `st_mode`: type and permissions, as stat(2) has them (not yet as Go has them).
    pub mode: u32,
    /// Last modification.
    pub modified: Timespec,
    /// Where a symlink leads in the end, as an absolute path in the container, whether or not it is there; empty for
    /// anything else.
    pub link_target: PathBuf,
}

/// How an archive is extracted into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// Refuse to replace a directory by something else, and something else by a directory.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to this user and group instead of the archive's.
    pub owner: Option<(u32, u32)>,
}

/// Describes `path`; a last symlink is not followed unless the path ends with a slash or `/.`.
pub fn stat(root: &Root, path: &Path) -> Result<Stat> {
    let (node, name) = open(root, path)?;
    let link_target = match node.file_type() {
        FileType::Symlink => evaluate(root, path)?,
        _ => PathBuf::new(),
    };
    Ok(Stat {
        name: PathBuf::from(OsStr::from_bytes(&name)),
        size: u64::try_from(node.stat.st_size).unwrap_or(0),
        mode: node.stat.st_mode,
        modified: Timespec {
            tv_sec: node.stat.st_mtime,
            tv_nsec: i64::try_from(node.stat.st_mtime_nsec).unwrap_or(0),
        },
        link_target,
    })
}

/// Writes `path` as tar: a directory with all below, named by the path's last component (`.` for paths ending in `/.`).
pub fn read(root: &Root, path: &Path, out: impl Write) -> Result<()> {
    let (node, name) = open(root, path)?;
    let mut tar = tar::Writer::new(out);
    let options = Options {
        cross_mounts: true,
        ..Options::default()
    };
    TreeWriter::new(&mut tar, options).node(&node, &name, path)?;
    tar.finish()?;
    Ok(())
}

/// Writes the whole tree as tar, without what is mounted in it: `docker export`.
pub fn export(root: &Root, out: impl Write) -> Result<()> {
    let (node, _) = open(root, Path::new("/"))?;
    let mut tar = tar::Writer::new(out);
    TreeWriter::new(&mut tar, Options::default()).children(&node, b"", Path::new("/"))?;
    tar.finish()?;
    Ok(())
}

/// Writes whole trees as one tar, each as [`export`] does, below a directory of its name.
pub fn export_below(trees: &[(String, &Root)], out: impl Write) -> Result<()> {
    let mut tar = tar::Writer::new(out);
    for (name, root) in trees {
        let (node, _) = open(root, Path::new("/"))?;
        let name = format!("{name}/");
        tar.entry(&Entry::new(name.as_str(), Kind::Directory, IMPLIED_MODE))?;
        // Files with several names are known by numbers that other trees may have, too.
        let mut writer = TreeWriter::new(&mut tar, Options::default());
        writer.children(&node, name.as_bytes(), Path::new("/"))?;
    }
    tar.finish()?;
    Ok(())
}

/// Extracts a tar (plain, or compressed by gzip, zstd, bzip2 or xz) into the directory `dir`.
pub fn extract(
    root: &Root,
    dir: &Path,
    tar: impl Read + Send,
    options: &ExtractOptions,
) -> Result<()> {
    // Fails early where there is no directory.
    root.open_at(dir, DIRECTORY, Mode::empty())?;
    let (compression, source) = detect(tar)?;
    let source = BufReader::new(Decoder::new(source, compression).map_err(Error::Decompress)?);
    let mut extraction = Extraction {
        root,
        dir,
        options,
        parent: None,
        directories: Vec::new(),
    };
    let mut reader = tar::Reader::new(source);
    while let Some(mut entry) = reader.next_entry()? {
        if let Some((uid, gid)) = options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        extraction.put(&mut reader, &entry)?;
    }
    extraction.finish()
}

/// Whether a stream is a tar, plain or compressed.
pub fn is_archive(stream: impl Read + Send) -> Result<bool> {
    let (compression, source) = detect(stream)?;
    let mut start = Vec::new();
    let decoder = Decoder::new(source, compression).map_err(Error::Decompress)?;
    let read = decoder.take(tar::BLOCK_BYTES).read_to_end(&mut start);
    // What only looks compressed is a file as any other.
    Ok(read.is_ok() && tar::looks_like_archive(&start))
}

/// Opens what a path means to `docker cp`, and gives its name in an archive.
fn open(root: &Root, path: &Path) -> Result<(Node, Vec<u8>)> {
    let bytes = path.as_os_str().as_bytes();
    let follow = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let name = match (bytes.ends_with(b"/."), path.file_name()) {
        (true, _) => b".".to_vec(),
        (false, Some(name)) => name.as_bytes().to_vec(),
        (false, None) => b"/".to_vec(),
    };
    let fd = if follow {
        // A slash after the name demands a directory.
        root.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
    } else {
        root.resolve_nofollow(path)?
    };
    Ok((Node::reopen(fd, path)?, name))
}

/// Where a path leads when all symlinks are followed, absolute in the container. What is not there is taken as written.
fn evaluate(root: &Root, path: &Path) -> Result<PathBuf> {
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    let mut names: Vec<std::ffi::OsString> = Vec::new();
    let push = |left: &mut Vec<PathBuf>, path: &Path| {
        left.extend(
            path.components()
                .rev()
                .map(|c| PathBuf::from(c.as_os_str())),
        );
    };
    let first = left.pop().unwrap_or_default();
    push(&mut left, &first);
    let mut links = 0;
    while let Some(component) = left.pop() {
        match component.components().next() {
            Some(Component::ParentDir) => drop(names.pop()),
            Some(Component::RootDir) => names.clear(),
            Some(Component::Normal(name)) => {
                let here: PathBuf = Path::new("/")
                    .join(names.iter().collect::<PathBuf>())
                    .join(name);
                match readlink(root, &here)? {
                    None => names.push(name.to_owned()),
                    Some(_) if links == SYMLINKS_MAX => {
                        return Err(sys::Error::new(
                            format!("readlink(<root>{here:?})"),
                            Errno::LOOP,
                        )
                        .into());
                    }
                    Some(target) => {
                        links += 1;
                        push(&mut left, &target);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Path::new("/").join(names.iter().collect::<PathBuf>()))
}

fn readlink(root: &Root, path: &Path) -> Result<Option<PathBuf>> {
    let fd = match root.resolve_nofollow(path) {
        Ok(fd) => fd,
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::readlinkat(&fd, "", Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))),
        // What is no symlink has no target.
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(sys::Error::new(format!("readlinkat(<root>{path:?})"), errno).into()),
    }
}

/// An archive on its way into a container.
struct Extraction<'a> {
    root: &'a Root,
    dir: &'a Path,
    options: &'a ExtractOptions,
    /// The directory of the last entry.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories whose time is set in the end.
    directories: Vec<(PathBuf, u32, Time)>,
}

impl Extraction<'_> {
    fn put<R: BufRead>(&mut self, reader: &mut tar::Reader<R>, entry: &Entry) -> Result<()> {
        let below = place::clean(&entry.path)?;
        let Some(name) = below.file_name() else {
            // The directory itself is there, and stays what it is.
            return Ok(());
        };
        let path = self.dir.join(&below);
        let parent = path.parent().unwrap_or(self.dir).to_owned();
        let parent = self.enter(&parent)?;
        let place = Place {
            parent: parent.as_fd(),
            name,
            path: &path,
        };
        let kept = self.make_room(&place, entry)?;
        match &entry.kind {
            Kind::Directory => {
                if !kept {
                    place.create_directory()?;
                }
                let directory = place.open_directory()?;
                place::set_owner(directory.as_fd(), entry, &path)?;
                place::set_mode(directory.as_fd(), entry.mode, None, &path)?;
                self.directories
                    .push((path.clone(), entry.mode, entry.mtime));
            }
            Kind::File => {
                let file = place.create_file()?;
                place::write_content(reader, &file, entry, &path)?;
                place::set_owner(file.as_fd(), entry, &path)?;
                place::set_mode(file.as_fd(), entry.mode, Some(entry.mtime), &path)?;
            }
            Kind::HardLink { target } => self.link(&place, target)?,
            special => {
                place.create_special(special)?;
                place.finish_special(entry)?;
            }
        }
        self.parent = Some((path.parent().unwrap_or(self.dir).to_owned(), parent));
        Ok(())
    }

    /// The directory that an entry goes to; it is made when it is missing.
    fn enter(&mut self, path: &Path) -> Result<OwnedFd> {
        match self.parent.take() {
            Some((last, fd)) if last == path => Ok(fd),
            _ => match self.root.open_at(path, DIRECTORY, Mode::empty()) {
                Err(error) if error.errno == Errno::NOENT => {
                    self.root
                        .create_dir_all(path, Mode::from_raw_mode(IMPLIED_MODE))?;
                    Ok(self.root.open_at(path, DIRECTORY, Mode::empty())?)
                }
                result => Ok(result?),
            },
        }
    }

    /// Removes what has the name of an entry, unless both are directories; then returns true.
    fn make_room(&self, place: &Place<'_>, entry: &Entry) -> Result<bool> {
        let Some(stat) = place.stat()? else {
            return Ok(false);
        };
        let was = walk::file_type(&stat) == FileType::Directory;
        let is = entry.kind == Kind::Directory;
        if was && is {
            return Ok(true);
        }
        if self.options.no_overwrite_dir_non_dir && was != is {
            let path = place.path.to_owned();
            let reason = match was {
                true => "cannot overwrite directory with non-directory",
                false => "cannot overwrite non-directory with directory",
            };
            return Err(Error::Path { path, reason });
        }
        remove(place.parent, place.name, place.path, 0)?;
        Ok(false)
    }

    fn link(&self, place: &Place<'_>, target: &[u8]) -> Result<()> {
        let target = self.dir.join(place::clean(target)?);
        let (parent, name) = self.root.parent(&target)?;
        rustix::fs::linkat(&parent, &name, place.parent, place.name, AtFlags::empty())
            .call(|| format!("linkat(<root>, {target:?}, <root>, {:?})", place.path))?;
        Ok(())
    }

    /// Sets the times of directories, in which nothing is made any more.
    fn finish(self) -> Result<()> {
        for (path, mode, mtime) in &self.directories {
            match self
                .root
                .open_at(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            {
                Ok(fd) => place::set_mode(fd.as_fd(), *mode, Some(*mtime), path)?,
                // A later entry, or the container, has put something else there.
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Removes a name with all below, leaving no directory for another mount or through a symlink.
fn remove(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, depth: usize) -> Result<()> {
    let call = || format!("unlinkat(<root>, {path:?})");
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(sys::Error::new(call(), errno).into()),
    }
    if depth == DEPTH_MAX {
        return Err(Error::Path {
            path: path.to_owned(),
            reason: "it is too deep to be removed",
        });
    }
    let Some(node) = Node::open(parent, name, path, false)? else {
        return Err(Error::Path {
            path: path.to_owned(),
            reason: "something is mounted there",
        });
    };
    if node.file_type() == FileType::Directory {
        for child in walk::names(node.fd.as_fd(), path)? {
            remove(node.fd.as_fd(), &child, &path.join(&child), depth + 1)?;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(sys::Error::new(call(), errno).into()),
    }
}

#[cfg(test)]
mod tests;
