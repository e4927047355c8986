//! AppArmor profiles and SELinux labels for the next execve.
//!
//! Invariant: a label that was asked for is set or the container does not start; it is written to a file of the host's own
//! procfs (attacks 4 and 16), opened while the process may still open it.

use crate::error::{Doing, Error, Result};
use crate::procfs::Procfs;
use oci::runtime::Process;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use sys::Context;

/// A label on its way.
#[derive(Debug)]
pub(crate) struct ExecLabel {
    file: OwnedFd,
    text: String,
}

/// Which module a label is of, and what is written.
pub(crate) fn wanted(process: &Process) -> Result<Option<(Module, &str)>> {
    let word = |word: &'_ Option<String>| word.as_deref().is_some_and(|word| !word.is_empty());
    match (
        word(&process.apparmor_profile),
        word(&process.selinux_label),
    ) {
        (false, false) => Ok(None),
        (true, false) => Ok(process
            .apparmor_profile
            .as_deref()
            .map(|l| (Module::AppArmor, l))),
        (false, true) => Ok(process
            .selinux_label
            .as_deref()
            .map(|l| (Module::Selinux, l))),
        (true, true) => Err(Error::invalid(
            "an AppArmor profile and an SELinux label at once",
        )),
    }
}

/// A security module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    AppArmor,
    Selinux,
}

impl Module {
    /// Whether the kernel enforces it.
    pub(crate) fn enabled(self) -> bool {
        match self {
            Self::AppArmor => std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with(b"Y")),
            Self::Selinux => std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        }
    }
}

impl ExecLabel {
    /// Opens the file that the calling process's label is written to.
    pub(crate) fn prepare(procfs: &Procfs, process: &Process) -> Result<Option<Self>> {
        let Some((module, label)) = wanted(process)? else {
            return Ok(None);
        };
        if label.contains(['\0', '\n']) {
            return Err(Error::invalid(format!("the security label {label:?}")));
        }
        let (files, text): (&[&str], _) = match module {
            // The second is the file of both modules before Linux 5.8.
            Module::AppArmor => (
                &["self/attr/apparmor/exec", "self/attr/exec"],
                format!("exec {label}"),
            ),
            Module::Selinux => (&["self/attr/exec"], label.to_owned()),
        };
        let mut result = Err(sys::Error::new("open", Errno::NOENT));
        for file in files {
            result = procfs.file(file, OFlags::WRONLY);
            if !result
                .as_ref()
                .is_err_and(|error| error.errno == Errno::NOENT)
            {
                break;
            }
        }
        let file = result.doing("opening the file for the security label")?;
        Ok(Some(Self { file, text }))
    }

    /// Lets the next execve change to the label.
    pub(crate) fn apply(&self) -> Result<()> {
        rustix::io::write(&self.file, self.text.as_bytes())
            .call(|| format!("write(<attr/exec>, {:?})", self.text))
            .doing("setting the security label")
            .map(drop)
    }
}
