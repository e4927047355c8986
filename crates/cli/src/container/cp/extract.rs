//! Writes a tar stream of a container below a directory of this machine.
//!
//! The archive is not to be trusted: a container may have made every name and link in it. Invariant: nothing is written
//! outside the directory, because the kernel resolves every name below it (`RESOLVE_BENEATH`, openat2(2)), whatever links
//! the archive has made before or somebody makes meanwhile; and without `--archive` no file becomes set-user-ID for
//! whoever runs this.

use crate::error::{Error, IoContext, Result};
use client::BodyReader;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Archive, Entry, EntryType, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// How deep a name may lie: the kernel takes no longer paths than this allows.
const DEPTH_MAX: usize = 2048;
/// Bytes copied at once.
const BUFFER_BYTES: usize = 64 << 10;

/// How names in the archive become names here.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The first component of every name is the source's own.
    pub(crate) strip_first: bool,
    /// What everything is put under; without it, names stand directly below the directory.
    pub(crate) name: Option<String>,
    /// Owners and set-user-ID bits are the archive's.
    pub(crate) keep_owners: bool,
}

/// Extracts the archive that `reader` carries, in a thread; returns its size in bytes.
pub(crate) async fn receive(
    mut reader: BodyReader,
    directory: &Path,
    options: Options,
) -> Result<u64> {
    let extractor = Extractor::open(directory, options)?;
    let (input, sink) = io::pipe().during(|| "pipe2()")?;
    let mut sink = pipe::Sender::from_owned_fd(OwnedFd::from(sink)).during(|| "register a pipe")?;
    // The thread's end: a pipe that blocks.
    let thread = std::thread::Builder::new()
        .name("untar".to_owned())
        .spawn(move || extractor.run(input))
        .during(|| "clone3()")?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    let sent = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => {
                bytes += u64::try_from(count).unwrap_or(0);
                if sink.write_all(&buffer[..count]).await.is_err() {
                    // The thread has stopped reading and says why.
                    break Ok(());
                }
            }
            Err(error) => break Err(error).during(|| "read the engine's archive"),
        }
    };
    drop(sink);
    let extracted = thread
        .join()
        .map_err(|_| Error::msg("extracting the archive panicked"))?;
    sent?;
    extracted?;
    Ok(bytes)
}

/// Extracts an archive that comes from a thread's own source.
pub(crate) fn extract(input: impl Read, directory: &Path, options: Options) -> Result<()> {
    Extractor::open(directory, options)?.run(input)
}

#[derive(Debug)]
struct Extractor {
    directory: OwnedFd,
    options: Options,
    /// Directories get their times and modes last, when nothing is written into them any more.
    directories: Vec<(PathBuf, Attributes)>,
}

#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: Mode,
    mtime: i64,
    owner: Option<(Uid, Gid)>,
}

impl Extractor {
    fn open(directory: &Path, options: Options) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, directory, flags, Mode::empty());
        let fd = fd.during(|| format!("open {}", directory.display()))?;
        Ok(Self {
            directory: fd,
            options,
            directories: Vec::new(),
        })
    }

    fn run(mut self, input: impl Read) -> Result<()> {
        let mut archive = Archive::new(input);
        for entry in archive.entries().during(|| "read the archive")? {
            self.entry(entry.during(|| "read the archive")?)?;
        }
        // What follows the archive's end is still to be read, or the engine could not send it.
        io::copy(&mut archive.into_inner(), &mut io::sink()).during(|| "read the archive")?;
        for (path, attributes) in self.directories.iter().rev() {
            let fd = self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            apply(&fd, attributes)
                .during(|| format!("set the attributes of {}", path.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<()> {
        let Some(path) = self.rename(&entry.path_bytes())? else {
            return Ok(());
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let parent = self.make_directories(parent)?;
        let attributes = self
            .attributes(entry.header())
            .during(|| format!("header of {}", path.display()))?;
        let kind = entry.header().entry_type();
        let call = || format!("write {}", path.display());
        if kind != EntryType::Directory {
            clear(&parent, name, &path)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write_file(&parent, name, &mut entry, &attributes).during(call)
            }
            EntryType::Directory => {
                make_directory(&parent, name, &path)?;
                self.directories.push((path, attributes));
                Ok(())
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name).during(call)?;
                apply_link(&parent, name, &attributes).during(call)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                self.hard_link(&target, &parent, name, &path)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                make_node(&parent, name, entry.header(), &attributes).during(call)
            }
            EntryType::XGlobalHeader => Ok(()),
            other => Err(Error::msg(format!(
                "{}: entries of type {other:?} are not supported",
                path.display()
            ))),
        }
    }

    /// A name in the archive as a path below the directory; none for the directory itself.
    fn rename(&self, name: &[u8]) -> Result<Option<PathBuf>> {
        let parts = name
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<&[u8]> = parts.skip(usize::from(self.options.strip_first)).collect();
        let shown = || String::from_utf8_lossy(name).into_owned();
        if parts.contains(&&b".."[..]) {
            return Err(Error::msg(format!(
                "the archive has the name {:?}, which leads outside",
                shown()
            )));
        }
        if parts.len() > DEPTH_MAX {
            return Err(Error::msg(format!(
                "{:?}: more than {DEPTH_MAX} directories deep",
                shown()
            )));
        }
        let mut path: PathBuf = self.options.name.iter().collect();
        path.extend(parts.into_iter().map(OsStr::from_bytes));
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    fn attributes(&self, header: &Header) -> io::Result<Attributes> {
        const PLAIN: u32 = 0o777;
        const WITH_SPECIAL: u32 = 0o7777;
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("an owner above 2^32"));
        let mask = if self.options.keep_owners {
            WITH_SPECIAL
        } else {
            PLAIN
        };
        let owner = match self.options.keep_owners {
            true => Some((
                Uid::from_raw(id(header.uid()?)?),
                Gid::from_raw(id(header.gid()?)?),
            )),
            false => None,
        };
        let mtime = i64::try_from(header.mtime()?).map_err(io::Error::other)?;
        Ok(Attributes {
            mode: Mode::from_raw_mode(header.mode()? & mask),
            mtime,
            owner,
        })
    }

    /// Opens a path below the directory. Links on the way are followed as long as they stay below it.
    fn open_below(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(
            &self.directory,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .during(|| format!("open {} below the destination", path.display()))
    }

    /// Opens a directory, making it and those above it where they are missing.
    fn make_directories(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_below(path, flags) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut made = PathBuf::new();
        let mut directory = self.open_below(&made, flags)?;
        for part in path {
            match rustix::fs::mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).during(|| format!("mkdir {}", path.display())),
            }
            made.push(part);
            directory = self.open_below(&made, flags)?;
        }
        Ok(directory)
    }

    fn hard_link(&self, target: &[u8], parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
        let outside = || Error::msg(format!("{}: a hard link to nothing", path.display()));
        let target = self.rename(target)?.ok_or_else(outside)?;
        let (directory, file) = (
            target.parent().ok_or_else(outside)?,
            target.file_name().ok_or_else(outside)?,
        );
        let directory = self.open_below(directory, OFlags::PATH | OFlags::DIRECTORY)?;
        // Without AT_SYMLINK_FOLLOW a link to a symlink is one to the symlink itself.
        rustix::fs::linkat(&directory, file, parent, name, AtFlags::empty())
            .during(|| format!("link {} to {}", path.display(), target.display()))
    }
}

/// Removes what is in the way of anything but a directory. A directory is not removed.
fn clear(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(Error::msg(format!(
            "cannot overwrite directory {} with non-directory",
            path.display()
        ))),
        Err(errno) => Err(errno).during(|| format!("unlink {}", path.display())),
    }
}

fn make_directory(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).during(|| format!("mkdir {}", path.display())),
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.during(|| format!("lstat {}", path.display()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory | FileType::Symlink => Ok(()),
        _ => Err(Error::msg(format!(
            "cannot overwrite non-directory {} with directory",
            path.display()
        ))),
    }
}

fn write_file(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &mut impl Read,
    attributes: &Attributes,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(fd);
    io::copy(entry, &mut file)?;
    apply(&file, attributes)
}

fn make_node(
    parent: &OwnedFd,
    name: &OsStr,
    header: &Header,
    attributes: &Attributes,
) -> io::Result<()> {
    let kind = match header.entry_type() {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = match kind {
        FileType::Fifo => 0,
        _ => {
            let (major, minor) = (header.device_major()?, header.device_minor()?);
            rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0))
        }
    };
    rustix::fs::mknodat(parent, name, kind, attributes.mode, device)?;
    apply_link(parent, name, attributes)
}

/// Owner first: changing it takes away the bits that the mode then gives.
fn apply(fd: &impl AsFd, attributes: &Attributes) -> io::Result<()> {
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(fd, attributes.mode)?;
    Ok(rustix::fs::futimens(fd, &times(attributes))?)
}

/// As [`apply`] for what cannot be opened; a link has no mode.
fn apply_link(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(rustix::fs::utimensat(
        parent,
        name,
        &times(attributes),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec {
        tv_sec: attributes.mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn header(kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Writes a name as it is; the builder would refuse the hostile ones.
    fn append(archive: &mut Vec<u8>, kind: EntryType, name: &str, link: &str, content: &[u8]) {
        let mut header = header(kind, 0o4755, u64::try_from(content.len()).unwrap());
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }

    fn extract(directory: &Path, archive: &[u8], name: Option<&str>) -> Result<()> {
        let options = Options {
            strip_first: true,
            name: name.map(str::to_owned),
            keep_owners: false,
        };
        Extractor::open(directory, options)?.run(archive)
    }

    #[test]
    fn a_tree_is_written_under_its_new_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        append(&mut archive, EntryType::Directory, "src/", "", b"");
        append(&mut archive, EntryType::Regular, "src/a/file", "", b"hello");
        append(&mut archive, EntryType::Symlink, "src/link", "a/file", b"");
        append(&mut archive, EntryType::Link, "src/hard", "src/a/file", b"");
        append(&mut archive, EntryType::Fifo, "src/fifo", "", b"");
        archive.extend([0; 1024]);
        extract(directory.path(), &archive, Some("new")).unwrap();
        let new = directory.path().join("new");
        assert_eq!(std::fs::read(new.join("link")).unwrap(), b"hello");
        let metadata = std::fs::metadata(new.join("a/file")).unwrap();
        assert_eq!((metadata.nlink(), metadata.mtime()), (2, 1_000_000));
        assert_eq!(
            metadata.permissions().mode() & 0o7777,
            0o755,
            "set-user-ID must not survive"
        );
        assert_eq!(std::fs::metadata(&new).unwrap().mtime(), 1_000_000);
    }

    #[test]
    fn nothing_is_written_outside() {
        for (first, second) in [
            ((EntryType::Symlink, "s/out", "/"), "s/out/evil"),
            ((EntryType::Symlink, "s/out", "../.."), "s/out/evil"),
            ((EntryType::Directory, "s/x", ""), "s/../../evil"),
            ((EntryType::Symlink, "s/out", "../../evil"), "s/out"),
        ] {
            let outer = tempfile::tempdir().unwrap();
            let directory = outer.path().join("a/b");
            std::fs::create_dir_all(&directory).unwrap();
            let mut archive = Vec::new();
            append(&mut archive, first.0, first.1, first.2, b"");
            append(&mut archive, EntryType::Regular, second, "", b"evil");
            let result = extract(&directory, &archive, Some("n"));
            for path in [
                Path::new("/evil"),
                &outer.path().join("evil"),
                &outer.path().join("a/evil"),
            ] {
                assert!(!path.exists(), "{second}: {}", path.display());
            }
            // A file that replaces the link itself is fine.
            assert_eq!(result.is_ok(), second == "s/out", "{second}");
        }
    }

    #[test]
    fn a_hard_link_cannot_take_a_file_from_outside() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        let directory = outer.path().join("d");
        std::fs::create_dir(&directory).unwrap();
        symlink("..", directory.join("up")).unwrap();
        for target in ["s/../secret", "s/up/secret", "s/n/../../secret"] {
            let mut archive = Vec::new();
            append(&mut archive, EntryType::Link, "s/taken", target, b"");
            assert!(extract(&directory, &archive, None).is_err(), "{target}");
            assert!(!directory.join("taken").exists());
        }
    }

    #[test]
    fn directories_and_files_do_not_replace_each_other() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("f"), "old").unwrap();
        let mut archive = Vec::new();
        append(&mut archive, EntryType::Regular, "s/d", "", b"x");
        assert!(extract(directory.path(), &archive, None).is_err());
        let mut archive = Vec::new();
        append(&mut archive, EntryType::Directory, "s/f", "", b"");
        assert!(extract(directory.path(), &archive, None).is_err());
        let mut archive = Vec::new();
        append(&mut archive, EntryType::Regular, "s/f", "", b"new");
        extract(directory.path(), &archive, None).unwrap();
        assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), b"new");
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        append(&mut archive, EntryType::Regular, "s/f", "", &[7; 2000]);
        archive.truncate(1000);
        assert!(extract(directory.path(), &archive, None).is_err());
        assert!(extract(directory.path(), &[0xff; 700], None).is_err());
    }
}
