//! Writable layers of containers on top of an image or a directory.

use std::path::PathBuf;

/// The directories of a container's overlay mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The name under which it was prepared: the container's ID.
    pub id: String,
    /// The read-only directories, the topmost first. There are up to 127 of about 100 bytes each: together they are longer
    /// than one page, which is all that `lowerdir=` takes. Give each to `fsconfig` as `lowerdir+` (Linux 6.7), or mount
    /// with paths to descriptors (`/proc/self/fd/<n>`).
    pub lowers: Vec<PathBuf>,
    /// The directory that takes the changes.
    pub upper: PathBuf,
    /// The directory that overlayfs works in; on the same file system.
    pub work: PathBuf,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was there and is another (Docker: `C`, 0).
    Modified,
    /// It was not there (Docker: `A`, 1).
    Added,
    /// It is no longer there (Docker: `D`, 2).
    Deleted,
}

/// A path that differs between a snapshot and what it is based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, absolute in the container.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}
