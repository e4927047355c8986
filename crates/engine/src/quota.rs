//! Limits of what writable layers and volumes hold: project quotas of the filesystem that the data root is on.
//!
//! A limited tree is a project of its own. Invariant: nothing is written down about projects but in the filesystem: a
//! directory knows its project, and a project without files is nobody's, so that it can be given to the next tree.

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::model::Spec;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::PoisonError;

/// Projects from here on are taken: above those that people number by hand.
const PROJECTS_BASE: u32 = 0x6875_0000;

/// So many trees can be limited.
const PROJECTS_MAX: u32 = 1 << 16;

/// Bytes of a size as Docker writes it: `10G`, `512m`, `1.5gb`.
///
/// # Errors
/// It is none, or nothing.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let invalid = || Error::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.trim_end().parse().map_err(|_| invalid())?;
    let exponent = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * 1024_f64.powi(exponent);
    if !(1.0..=9e18).contains(&bytes) {
        return Err(invalid());
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 1 and 9e18"
    )]
    Ok(bytes as u64)
}

/// How much a container's writable layer may hold; None: as much as there is.
///
/// # Errors
/// An option that there is not, a bad size.
pub(crate) fn storage_bytes(spec: &Spec) -> Result<Option<u64>> {
    let mut bytes = None;
    for (name, value) in &spec.storage {
        match name.to_ascii_lowercase().as_str() {
            "size" => bytes = Some(parse_size(value)?),
            _ => return Err(Error::invalid(format!("Unknown option {name}"))),
        }
    }
    Ok(bytes)
}

/// Fails unless what is in a directory can be limited.
pub(crate) fn check_support(what: &str, directory: &Path) -> Result<()> {
    let enforced = sys::quota::are_enforced(open(directory)?.as_fd());
    if enforced.context(|| format!("ask for the quotas of {directory:?}"))? {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{what} requested but no quota support: {} is on a filesystem without project quotas in force. XFS has them when it is mounted with pquota, ext4 when it was made with -O quota,project and is mounted with prjquota",
        directory.display()
    )))
}

impl Engine {
    /// Limits what directories hold together, of which the first has the others in it and nothing else, unless they are
    /// limited already.
    pub(crate) fn limit_tree(&self, directories: &[&Path], bytes: u64) -> Result<()> {
        // Two trees must not take the same project.
        let _taking = self
            .0
            .projects
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let [first, .., last] = directories else {
            unreachable!("a tree has a directory with another");
        };
        if project_of(last)?.is_some() {
            return Ok(());
        }
        let root = open(first)?;
        let project = free_project(&root)?;
        sys::quota::set_limit(root.as_fd(), project, bytes)
            .context(|| format!("limit {first:?}"))?;
        for path in directories {
            let set = sys::quota::set_project(open(path)?.as_fd(), project);
            set.context(|| format!("make {path:?} a part of a project"))?;
        }
        Ok(())
    }

    /// Removes a tree, of which a directory is given, and its limit if it has one.
    pub(crate) fn remove_limited(
        &self,
        directory: &Path,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let project = project_of(directory)?;
        remove()?;
        let Some(project) = project else {
            return Ok(());
        };
        // A project is of a filesystem, which this directory is on, too.
        let above = { directory.ancestors() }.find(|path| path.is_dir());
        let root = open(above.unwrap_or(&self.0.config.data_root))?;
        sys::quota::set_limit(root.as_fd(), project, 0)
            .context(|| format!("take away the limit of project {project}"))
    }
}

/// The project that the engine has given to a directory. One that is not there has none.
fn project_of(directory: &Path) -> Result<Option<u32>> {
    let opened = match File::open(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.context(|| format!("open {directory:?}"))?,
    };
    let project = sys::quota::project(opened.as_fd());
    let project = project.context(|| format!("ask for the project of {directory:?}"))?;
    let own = PROJECTS_BASE..PROJECTS_BASE + PROJECTS_MAX;
    Ok(Some(project).filter(|project| own.contains(project)))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("open {path:?}"))
}

/// A project that no file has.
fn free_project(directory: &File) -> Result<u32> {
    for project in PROJECTS_BASE..PROJECTS_BASE + PROJECTS_MAX {
        let files = sys::quota::files(directory.as_fd(), project);
        if files.context(|| "ask for the files of a project")? == 0 {
            return Ok(project);
        }
    }
    Err(Error::conflict(format!(
        "{PROJECTS_MAX} projects are in use"
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("1", 1),
            ("10k", 10 << 10),
            ("10M", 10 << 20),
            ("1.5gb", 3 << 29),
            ("2 GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "0", "-1g", "g", "1x", "1gg", "nan", "inf", "1e30t"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
