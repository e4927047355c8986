//! What a caller hands to the runtime and gets back.

use crate::cgroup::{Cgroup, CgroupManager, SubCgroup};
use oci::runtime::{Process, Spec};
use rustix::process::Pid;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A container to create.
#[derive(Debug)]
pub struct Create<'a> {
    /// Names the container's cgroup unless the configuration does, and its state document.
    pub id: &'a str,
    /// What relative paths of the configuration are relative to.
    pub bundle: &'a Path,
    /// The configuration.
    pub spec: &'a Spec,
    /// Where the root filesystem comes from.
    pub rootfs: Rootfs<'a>,
    /// The process's standard input, output and error.
    pub stdio: Stdio,
    /// Whether the runtime's own init stays as PID 1: it forwards signals, reaps orphans and exits as the process does.
    pub reaper: bool,
    /// Overrides `spec.process.user`: `user`, `uid`, `user:group` … resolved in the container's own passwd and group files.
    pub user: Option<&'a str>,
    /// Further groups, by name or number, resolved likewise. Counts with `user` only.
    pub group_add: &'a [String],
    /// How many descriptors from 3 on the process inherits.
    pub preserve_fds: u32,
    /// A listening `SOCK_SEQPACKET` unix socket on which another process opens the gate ([`crate::start_at`]); unset,
    /// [`crate::Container::start`] does.
    pub gate: Option<OwnedFd>,
    /// Whether the container gets a session keyring of its own, instead of the caller's.
    pub new_keyring: bool,
    /// Who makes its cgroup.
    pub cgroup_manager: CgroupManager,
    /// Whether the container does without a cgroup where its creator may make none. Limits are an error then.
    pub rootless: bool,
    /// Whether the root is entered by chroot(2), for hosts that run from a ramdisk: pivot_root(2) cannot leave that. The
    /// container's root user can then come back out if it may call chroot itself.
    pub no_pivot: bool,
}

impl<'a> Create<'a> {
    /// A container with the root filesystem of its configuration, the caller's standard streams and nothing special.
    pub fn new(id: &'a str, bundle: &'a Path, spec: &'a Spec) -> Self {
        Self {
            id,
            bundle,
            spec,
            rootfs: Rootfs::Path,
            stdio: Stdio::Inherit,
            reaper: false,
            user: None,
            group_add: &[],
            preserve_fds: 0,
            gate: None,
            new_keyring: true,
            cgroup_manager: CgroupManager::Direct,
            rootless: false,
            no_pivot: false,
        }
    }
}

/// Where the root filesystem comes from.
#[derive(Debug, Clone, Copy)]
pub enum Rootfs<'a> {
    /// `spec.root.path`.
    Path,
    /// An overlay mounted inside the new mount namespace, never in the host's mount table; `spec.root.path` is not used.
    Overlay {
        /// Read-only layers, the topmost first.
        lowers: &'a [PathBuf],
        /// The writable layer.
        upper: &'a Path,
        /// An empty directory of the same filesystem as `upper`.
        work: &'a Path,
    },
}

/// A process's standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's.
    Inherit,
    /// These; closed on the caller's side.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A pseudo terminal of the container's devpts; its master comes back. Its size is `process.consoleSize`.
    Terminal,
}

/// A running container known by its init, be it created by this process or another.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id, and its bundle's absolute path: for the state that a seccomp listener is sent.
    pub id: &'a str,
    /// See `id`.
    pub bundle: &'a Path,
    /// Its init.
    pub init: Pid,
    /// A pidfd of it.
    pub pidfd: BorrowedFd<'a>,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// Its configuration.
    pub spec: &'a Spec,
}

/// A process to execute in a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// What is executed.
    pub process: &'a Process,
    /// Its standard streams.
    pub stdio: Stdio,
    /// As in [`Create::user`].
    pub user: Option<&'a str>,
    /// As in [`Create::group_add`].
    pub group_add: &'a [String],
    /// As in [`Create::preserve_fds`].
    pub preserve_fds: u32,
    /// Whether it may be executed in a frozen container, where it then stays frozen.
    pub ignore_paused: bool,
    /// Where below the container's cgroup it is to be; empty for there.
    pub sub_cgroups: &'a [SubCgroup],
}

impl<'a> ExecRequest<'a> {
    /// A process with the user of its configuration.
    pub fn new(process: &'a Process, stdio: Stdio) -> Self {
        Self {
            process,
            stdio,
            user: None,
            group_add: &[],
            preserve_fds: 0,
            ignore_paused: false,
            sub_cgroups: &[],
        }
    }
}
