//! The host's side of mounts: what is bound is opened with the caller's rights, before the container exists.
//!
//! A detached copy of the source tree is made at once, so that the container's init needs no right to reach it, and nothing
//! that happens to the path afterwards matters. Its ids are mapped here too, which needs rights over its filesystem.

use super::filesystem::clone_tree;
use super::options::{Options, Recursion};
use crate::error::{Doing, Error, Result};
use crate::namespaces::user_namespace;
use crate::procfs::Procfs;
use oci::runtime::{Mount, Spec};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::Context;

/// As many mounts as one configuration may have.
const MOUNTS_MAX: usize = 4096;

/// A mount of the configuration, read, with its source open.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) options: Options,
    /// Of bind mounts.
    pub(crate) source: Option<Source>,
}

/// What is bound.
#[derive(Debug)]
pub(crate) struct Source {
    /// A detached mount.
    pub(crate) tree: OwnedFd,
    /// Whether it is a directory.
    pub(crate) directory: bool,
    /// Whether its ids wait for the container's user namespace.
    unmapped: bool,
}

/// Reads the mounts of a configuration and opens what they bind.
pub(crate) fn prepare<'a>(
    spec: &'a Spec,
    bundle: &Path,
    procfs: &Procfs,
) -> Result<Vec<Prepared<'a>>> {
    if spec.mounts.len() > MOUNTS_MAX {
        return Err(Error::invalid(format!("more than {MOUNTS_MAX} mounts")));
    }
    spec.mounts
        .iter()
        .map(|mount| prepare_one(mount, bundle, procfs))
        .collect()
}

fn prepare_one<'a>(mount: &'a Mount, bundle: &Path, procfs: &Procfs) -> Result<Prepared<'a>> {
    let options = Options::parse(&mount.options, mount.kind.as_deref())?;
    let mapped = options.idmap.is_some() || !mount.uid_mappings.is_empty();
    let Some(recursion) = options.bind.filter(|_| !options.remount) else {
        if mapped {
            let place = mount.destination.display();
            return Err(Error::unsupported(format!(
                "an idmapped mount at {place} that is no bind mount"
            )));
        }
        return Ok(Prepared {
            mount,
            options,
            source: None,
        });
    };
    let path = mount
        .source
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    let path = path.ok_or_else(|| {
        Error::invalid(format!(
            "the bind mount at {} has no source",
            mount.destination.display()
        ))
    })?;
    let path = bundle.join(path);
    let doing = || {
        format!(
            "opening the source of the mount at {}",
            mount.destination.display()
        )
    };
    let tree = clone_tree(CWD, &path, recursion == Recursion::Below).doing_with(doing)?;
    let stat = rustix::fs::fstat(&tree)
        .call(|| format!("fstat({path:?})"))
        .doing_with(doing)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let mut source = Source {
        tree,
        directory,
        unmapped: mapped,
    };
    if mapped && !mount.uid_mappings.is_empty() {
        let users = user_namespace(procfs, &mount.uid_mappings, &mount.gid_mappings)?;
        source.map_ids(&options, users.as_fd(), &path)?;
    }
    Ok(Prepared {
        mount,
        options,
        source: Some(source),
    })
}

impl Prepared<'_> {
    /// Maps ids as the container's user namespace does, where the configuration wants that.
    pub(crate) fn map_ids(&mut self, users: Option<BorrowedFd<'_>>) -> Result<()> {
        let Some(source) = self.source.as_mut().filter(|source| source.unmapped) else {
            return Ok(());
        };
        let users = users.ok_or_else(|| {
            let place = self.mount.destination.display();
            Error::invalid(format!(
                "the idmapped mount at {place} has no mappings, and the container no user namespace"
            ))
        })?;
        source.map_ids(
            &self.options,
            users,
            self.mount.source.as_deref().unwrap_or(Path::new("")),
        )
    }
}

impl Source {
    fn map_ids(&mut self, options: &Options, users: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let recursive = options.idmap == Some(Recursion::Below);
        map_ids(self.tree.as_fd(), recursive, users, path)?;
        self.unmapped = false;
        Ok(())
    }
}

/// Maps the ids of a detached mount of `path`.
pub(crate) fn map_ids(
    tree: BorrowedFd<'_>,
    recursive: bool,
    users: BorrowedFd<'_>,
    path: &Path,
) -> Result<()> {
    match sys::mount::map_ids(tree, recursive, users) {
        Err(error) if matches!(error.errno, Errno::INVAL | Errno::NOSYS) => {
            Err(Error::unsupported(format!(
                "idmapped mounts of {}: the kernel or its filesystem lacks them ({error})",
                path.display()
            )))
        }
        result => result.doing_with(|| format!("mapping the ids of {}", path.display())),
    }
}
