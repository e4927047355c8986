//! Writing a tree as tar: for commit, export and copies out of a container.

use crate::arrivals::Arrivals;
use crate::layer::{WHITEOUT, WHITEOUT_OPAQUE};
use crate::share::Brought;
use crate::tar::{BLOCK_BYTES, Entry, Kind, Sparse, TarError, Time, Writer};
use crate::walk::{self, Node};
use crate::{Error, Result, place};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use sys::Context as _;

/// Bytes of content copied at once.
const COPY_BYTES: usize = 256 << 10;
/// Holes worth their map: writing zeros is simpler for every reader.
const HOLES_BYTES_MIN: u64 = 1 << 20;

/// The mode of directories under mounts, which cannot be seen.
const MOUNT_MODE: u32 = 0o755;

/// How a tree is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// What is mounted in the tree is part of it, except for what the kernel makes up (`/proc`, `/sys`).
    pub(crate) cross_mounts: bool,
    /// The tree is an upper directory: what overlayfs reads as deletion becomes a whiteout.
    pub(crate) whiteouts: bool,
    /// Holes stay holes, in GNU's PAX format.
    pub(crate) sparse: bool,
    /// A directory, by its path in the tree, that is left out with all below.
    pub(crate) exclude: Option<PathBuf>,
    /// What is younger gets this time, in seconds since 1970.
    pub(crate) mtime_max: Option<i64>,
    /// The files become a layer as they are: they get the times of their entries, and lose what overlayfs has noted of them, and
    /// what has no entry.
    pub(crate) settle: bool,
}

impl Options {
    /// The time that a file gets, in seconds since 1970.
    pub(crate) fn time(&self, seconds: i64) -> i64 {
        self.mtime_max.map_or(seconds, |max| max.min(seconds))
    }
}

/// Tells what a tar goes to that the next bytes are content: so many of the file at a path of the tree, from an offset.
pub(crate) type Told<W> = fn(&mut W, &Path, u64, u64) -> std::io::Result<()>;

/// Writes one tree.
pub(crate) struct TreeWriter<'a, W> {
    tar: &'a mut Writer<W>,
    options: Options,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    told: Told<W>,
    /// Files that still come to the tree.
    arrivals: Option<&'a Arrivals<'a>>,
    /// Entries written.
    pub(crate) entries: u64,
    /// Bytes in files.
    pub(crate) bytes: u64,
}

impl<'a, W: Write> TreeWriter<'a, W> {
    /// Writes to an archive.
    pub(crate) fn new(tar: &'a mut Writer<W>, options: Options) -> Self {
        Self {
            tar,
            options,
            links: HashMap::new(),
            buffer: vec![0; COPY_BYTES],
            told: |_, _, _, _| Ok(()),
            arrivals: None,
            entries: 0,
            bytes: 0,
        }
    }

    /// Tells what the archive goes to which of its bytes are content.
    pub(crate) fn telling(self, told: Told<W>) -> Self {
        Self { told, ..self }
    }

    /// Awaits files that come to the tree meanwhile.
    pub(crate) fn awaiting(self, arrivals: &'a Arrivals<'a>) -> Self {
        let arrivals = Some(arrivals);
        Self { arrivals, ..self }
    }

    /// Writes the root of a layer with its attributes, and all below; returns how many entries are below.
    pub(crate) fn layer(&mut self, top: &Node) -> Result<u64> {
        let path = Path::new("/");
        let mut root = entry(top, b"./", Kind::Directory)?;
        let private;
        (root.xattrs, private) = top.split_xattrs(path)?;
        self.adjust(&mut root, path);
        self.tar.entry(&root)?;
        self.children(top, b"", path)?;
        self.settle(top, &root, &private, path)?;
        Ok(self.entries)
    }

    /// Writes what is in a directory. `name` is the directory's in the archive, with a slash at its end where it is not
    /// empty; `path` its path in the tree.
    pub(crate) fn children(&mut self, directory: &Node, name: &[u8], path: &Path) -> Result<()> {
        walk::check_depth(path)?;
        let coming = self.arrivals.map(|arrivals| arrivals.names(path));
        let coming = coming.unwrap_or_default();
        let mut names = walk::names(directory.fd.as_fd(), path)?;
        if !coming.is_empty() {
            // Some have come, and some have not.
            names.extend(coming.keys().cloned());
            names.sort();
            names.dedup();
        }
        for child in names {
            let path = path.join(&child);
            if self.options.exclude.as_ref() == Some(&path) {
                continue;
            }
            let awaited = coming.get(&child).zip(self.arrivals);
            if let Some((number, arrivals)) = awaited
                && self.brought(arrivals.wait(*number)?, (name, &child), &path)?
            {
                continue;
            }
            let Some(node) = self.child(directory, &child, name, &path)? else {
                continue;
            };
            if self.options.settle && node.file_type() == FileType::Socket {
                rustix::fs::unlinkat(&directory.fd, &child, AtFlags::empty())
                    .call(|| format!("unlinkat(<tree>{path:?})"))?;
                continue;
            }
            if self.options.whiteouts {
                check_name(&child, &path)?;
                if node.is_whiteout() {
                    let whiteout = [name, WHITEOUT, child.as_bytes()].concat();
                    self.put(&Entry::new(whiteout, Kind::File, 0))?;
                    continue;
                }
            }
            self.node(&node, &[name, child.as_bytes()].concat(), &path)?;
        }
        Ok(())
    }

    /// Writes a file, or a directory with all below.
    pub(crate) fn node(&mut self, node: &Node, name: &[u8], path: &Path) -> Result<()> {
        let file_type = node.file_type();
        if file_type == FileType::Socket {
            // It is of the process that listens; there is no entry for it in tar.
            return Ok(());
        }
        let key = (node.stat.st_dev, node.stat.st_ino);
        if file_type != FileType::Directory && node.stat.st_nlink > 1 {
            if let Some(target) = self.links.get(&key) {
                let kind = Kind::HardLink {
                    target: target.clone(),
                };
                return self.put(&Entry {
                    xattrs: Vec::new(),
                    ..entry(node, name, kind)?
                });
            }
            self.links.insert(key, name.to_vec());
        }
        let kind = kind(node, path)?;
        let is_directory = kind == Kind::Directory;
        let slash: &[u8] = if is_directory && !name.ends_with(b"/") {
            b"/"
        } else {
            b""
        };
        let name = [name, slash].concat();
        let mut entry = entry(node, &name, kind)?;
        let private;
        (entry.xattrs, private) = node.split_xattrs(path)?;
        self.adjust(&mut entry, path);
        match entry.kind {
            Kind::File => self.file(node, &mut entry, path)?,
            Kind::Directory => {
                self.put(&entry)?;
                if self.options.whiteouts && node.is_opaque(path)? {
                    let opaque = [&name, WHITEOUT_OPAQUE].concat();
                    self.put(&Entry::new(opaque, Kind::File, 0))?;
                }
                self.children(node, &name, path)?;
            }
            _ => self.put(&entry)?,
        }
        self.settle(node, &entry, &private, path)
    }

    /// Gives an entry the time that it may have at most, and a directory what it will be.
    fn adjust(&self, entry: &mut Entry, path: &Path) {
        if let Some(arrivals) = self.arrivals {
            arrivals.adjust(path, entry);
        }
        let seconds = self.options.time(entry.mtime.seconds);
        if seconds != entry.mtime.seconds {
            entry.mtime = Time {
                seconds,
                nanoseconds: 0,
            };
        }
    }

    /// Leaves of a file's attributes what its entry has. Of a directory that is done when nothing is brought to it, and removed from it,
    /// any more.
    fn settle(&self, node: &Node, entry: &Entry, private: &[Vec<u8>], path: &Path) -> Result<()> {
        if !self.options.settle {
            return Ok(());
        }
        node.forget(private, path)?;
        let fd = node.fd.as_fd();
        if let Some(arrivals) = self.arrivals
            && entry.kind == Kind::Directory
            && arrivals.finish(fd, entry, path)?
        {
            return Ok(());
        }
        let mtime = entry.mtime.seconds;
        if (mtime, 0) != (node.stat.st_mtime, node.stat.st_mtime_nsec) {
            place::set_times(fd, mtime, path)?;
        }
        Ok(())
    }

    /// Writes a file that was brought, if what is in it is at hand.
    fn brought(
        &mut self,
        (entry, content): (&Entry, Brought),
        (name, child): (&[u8], &OsStr),
        path: &Path,
    ) -> Result<bool> {
        // What the file system has made of its attributes it says itself.
        let Some(content) = content.filter(|_| entry.xattrs.is_empty()) else {
            return Ok(false);
        };
        check_name(child, path)?;
        let size = content.len() as u64;
        self.put(&Entry {
            path: [name, child.as_bytes()].concat(),
            size,
            ..entry.clone()
        })?;
        if size > 0 {
            (self.told)(self.tar.out(), path, 0, size).call(|| "write(<tar>)")?;
            self.tar.content(&content)?;
        }
        self.bytes += size;
        Ok(true)
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        let seconds = self.options.time(entry.mtime.seconds);
        if seconds == entry.mtime.seconds {
            return Ok(self.tar.entry(entry)?);
        }
        let mtime = Time {
            seconds,
            nanoseconds: 0,
        };
        Ok(self.tar.entry(&Entry {
            mtime,
            ..entry.clone()
        })?)
    }

    /// Opens a name in a directory; `None` where it is gone, or where a mount begins that is no part of the tree. Then the
    /// empty directory or file below the mount is written.
    fn child(
        &mut self,
        directory: &Node,
        child: &OsStr,
        name: &[u8],
        path: &Path,
    ) -> Result<Option<Node>> {
        let parent = directory.fd.as_fd();
        let node = match self.options.settle {
            // Nobody else has the tree any more.
            true => Node::open_still(parent, child, path)?,
            false => Node::open(parent, child, path, false)?,
        };
        if let Some(node) = node {
            return Ok(Some(node));
        }
        let Some(node) = Node::open(parent, child, path, true)? else {
            return Ok(None);
        };
        if self.options.cross_mounts && !node.is_of_kernel(path)? {
            return Ok(Some(node));
        }
        let name = [name, child.as_bytes()].concat();
        match node.file_type() {
            FileType::Directory => {
                self.put(&Entry::new(
                    [&name, &b"/"[..]].concat(),
                    Kind::Directory,
                    MOUNT_MODE,
                ))?;
            }
            FileType::RegularFile => self.put(&Entry::new(name, Kind::File, 0o644))?,
            _ => {}
        }
        Ok(None)
    }

    /// Writes a file with its content: as many bytes as it had when it was opened.
    fn file(&mut self, node: &Node, entry: &mut Entry, path: &Path) -> Result<()> {
        let size = u64::try_from(node.stat.st_size).unwrap_or(0);
        entry.size = size;
        let stored = u64::try_from(node.stat.st_blocks).unwrap_or(0) * 512;
        if self.options.sparse && size.saturating_sub(stored) >= HOLES_BYTES_MIN {
            let regions = regions(node.fd.as_fd(), size, path)?;
            entry.size = regions.iter().map(|(_, length)| length).sum();
            entry.sparse = Some(Sparse { size, regions });
        }
        self.put(entry)?;
        let whole = [(0, size)];
        let regions = entry
            .sparse
            .as_ref()
            .map_or(&whole[..], |sparse| &sparse.regions);
        self.bytes += size;
        for (offset, length) in regions.iter().filter(|(_, length)| *length > 0) {
            let mut done = 0;
            (self.told)(self.tar.out(), path, *offset, *length).call(|| "write(<tar>)")?;
            while done < *length {
                let count = usize::try_from(length - done)
                    .unwrap_or(usize::MAX)
                    .min(COPY_BYTES);
                let read = rustix::io::pread(&node.fd, &mut self.buffer[..count], offset + done)
                    .call(|| format!("pread(<tree>{path:?})"))?;
                if read == 0 {
                    let reason = "it became shorter while it was read";
                    return Err(Error::Path {
                        path: path.to_owned(),
                        reason,
                    });
                }
                self.tar.content(&self.buffer[..read])?;
                done += read as u64;
            }
        }
        Ok(())
    }
}

/// Refuses a file of a layer that unpacking the layer would take for something else.
fn check_name(name: &OsStr, path: &Path) -> Result<()> {
    match name.as_bytes().starts_with(WHITEOUT) {
        false => Ok(()),
        true => Err(Error::Path {
            path: path.to_owned(),
            reason: "its name would be read as a deletion",
        }),
    }
}

/// The regions of a file that hold data, by lseek(2).
fn regions(fd: BorrowedFd<'_>, size: u64, path: &Path) -> Result<Vec<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let mut regions = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            // No more data.
            Err(Errno::NXIO) => break,
            start => start
                .call(|| format!("lseek(<tree>{path:?}, {at}, SEEK_DATA)"))?
                .min(size),
        };
        let end = rustix::fs::seek(fd, SeekFrom::Hole(start));
        let end = end
            .call(|| format!("lseek(<tree>{path:?}, {start}, SEEK_HOLE)"))?
            .min(size);
        // Tar knows whole blocks only, whatever the file system's are.
        let from = (start - start % BLOCK_BYTES).max(at);
        let to = end.next_multiple_of(BLOCK_BYTES).min(size);
        if to > from {
            regions.push((from, to - from));
        }
        at = to.max(start + 1);
    }
    Ok(regions)
}

/// An entry with a file's attributes. Times are whole seconds, as Docker writes them.
pub(crate) fn entry(node: &Node, name: &[u8], kind: Kind) -> Result<Entry, TarError> {
    let stat = &node.stat;
    Ok(Entry {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            seconds: stat.st_mtime,
            nanoseconds: 0,
        },
        ..Entry::new(name, kind, stat.st_mode & 0o7777)
    })
}

/// What a file is in an archive. Further names of one are for the caller to know.
pub(crate) fn kind(node: &Node, path: &Path) -> Result<Kind> {
    let (major, minor) = (
        rustix::fs::major(node.stat.st_rdev),
        rustix::fs::minor(node.stat.st_rdev),
    );
    Ok(match node.file_type() {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&node.fd, "", Vec::new())
                .call(|| format!("readlinkat(<tree>{path:?})"))?;
            Kind::Symlink {
                target: target.into_bytes(),
            }
        }
        _ => {
            let reason = "it is of a kind that cannot be archived";
            return Err(Error::Path {
                path: path.to_owned(),
                reason,
            });
        }
    })
}
