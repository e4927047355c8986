//! Tar archives as streams: a [`Reader`] and a [`Writer`] that know ustar, PAX and GNU's extensions. They move bytes and
//! touch no file system.
//!
//! Invariant: an entry has one size, and the reader refuses every header on whose size readers disagree: content behind a
//! link or directory, two extended headers for one entry, global headers that set sizes or names. So no archive holds
//! entries here that another reader does not see, or the other way round (CVE-2025-62518). Sources: POSIX.1-2024 pax,
//! "Interchange Format"; GNU tar manual, "Tar Internals"; tar(5).

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Reader, Tap};
pub use writer::Writer;

/// Bytes of the unit that tar archives are made of.
pub(crate) const BLOCK: usize = 512;
/// The same, for sizes.
pub(crate) const BLOCK_BYTES: u64 = 512;

/// One member of an archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it: bytes without NUL, possibly with `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Time,
    /// Extended attributes in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content that follow in the archive.
    pub size: u64,
    /// Where that content belongs in a file with holes.
    pub sparse: Option<Sparse>,
}

impl Entry {
    /// An entry of root's, without content.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            size: 0,
            sparse: None,
        }
    }
}

/// Kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink {
        /// That entry's path.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it holds.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds in the second.
    pub nanoseconds: u32,
}

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// The file's size in bytes, holes included.
    pub size: u64,
    /// Offset and length of the regions with data, ascending, not overlapping, within `size`. All but the last are whole
    /// blocks of 512 bytes. Their lengths add up to the entry's `size`.
    pub regions: Vec<(u64, u64)>,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source of the archive's bytes failed.
    #[error("reading the archive failed")]
    Read(#[source] std::io::Error),
    /// Its sink failed.
    #[error("writing the archive failed")]
    Write(#[source] std::io::Error),
    /// The bytes end inside an entry.
    #[error("the archive is truncated {0}")]
    Truncated(String),
    /// A block is no header.
    #[error("at byte {offset}: {reason}")]
    Header {
        /// Of the header in the archive.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry cannot be told in the tar format.
    #[error("{path:?} cannot be archived: {reason}")]
    Unrepresentable {
        /// The entry.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

/// The number of bytes after `size` up to a whole block.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES
}

/// Whether bytes look like the start of an archive: a header, or the zeros that are an empty one.
pub(crate) fn looks_like_archive(start: &[u8]) -> bool {
    match start.first_chunk::<BLOCK>() {
        Some(block) => header::is_header(block) || block.iter().all(|b| *b == 0),
        None => false,
    }
}

#[cfg(test)]
mod tests;
