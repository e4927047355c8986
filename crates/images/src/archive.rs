//! Files in and out of a container as tar: what `docker cp` and `docker export` need.

use crate::Result;
use rustix::fs::Timespec;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use sys::root::Root;

/// What `HEAD /containers/{id}/archive` tells of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The last component.
    pub name: PathBuf,
    /// Bytes.
    pub size: u64,
    /// `st_mode`: type and permissions, as stat(2) has them (not yet as Go has them).
    pub mode: u32,
    /// Last modification.
    pub modified: Timespec,
    /// Where a symlink leads, as an absolute path in the container; empty for anything else.
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
    let _ = (root, path);
    todo!()
}

/// Writes `path` as tar: a directory with all below, named by the path's last component (`.` for paths ending in `/.`).
pub fn read(root: &Root, path: &Path, out: impl Write) -> Result<()> {
    let _ = (root, path, out);
    todo!()
}

/// Extracts a tar (plain, gzip or zstd) into the directory `dir`.
pub fn extract(root: &Root, dir: &Path, tar: impl Read, options: &ExtractOptions) -> Result<()> {
    let _ = (root, dir, tar, options);
    todo!()
}

/// Writes the whole tree as tar, without what is mounted in it: `docker export`.
pub fn export(root: &Root, out: impl Write) -> Result<()> {
    let _ = (root, out);
    todo!()
}
