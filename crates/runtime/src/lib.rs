//! The OCI runtime: namespaces, mounts, cgroups, capabilities, seccomp, exec, hooks.
//!
//! A container is born in two processes. The caller ([`create`]) checks the configuration, opens everything that takes its
//! rights — the root, the sources of mounts, the cgroup — and makes init by one clone3 with all namespaces at once. Init is a
//! copy of the caller with all its descriptors: it mounts, enters the root, becomes the user, and waits at the gate until
//! [`Container::start`] (or, from another process, [`start_at`]) lets it execute the program. Between both is one packet
//! socket, whose end means success. [`exec`] does the same for a further process.
//!
//! ```text
//! api        what callers say        create  the caller's side       init     the container's side      exec   both, for exec
//! channel    what both say           namespaces  rootfs (no_pivot)  mounts  dev  masks  sysctl  stdio               what init makes
//! launch     from root to program    user  capabilities  limits  lsm  seccomp                            what a process gets
//! criu       checkpoint and restore
//! cgroup     v1, v2, hybrid, systemd  dbus  hooks  reaper  procfs  sockets  sealed                              tools of theirs
//! cli        runc's command line     state   what it remembers
//! ```
//!
//! Invariants: a path of the container is resolved inside its root, once, to a descriptor; procfs is the host's own, verified;
//! what was made is undone when a later step fails; nothing is executed but the container's program, its hooks, and the host's
//! own newuidmap, newgidmap and criu.
//!
//! Callers have one thread, and run sealed ([`sealed::ensure`]).

mod api;
mod capabilities;
pub mod cgroup;
mod channel;
mod cli;
mod create;
mod criu;
mod dbus;
mod dev;
mod error;
mod exec;
mod hooks;
mod id_maps;
mod init;
mod launch;
mod limits;
mod lsm;
mod masks;
mod mountinfo;
mod mounts;
mod namespaces;
mod net_devices;
mod no_pivot;
mod procfs;
mod reaper;
mod resctrl;
mod rootfs;
pub mod sealed;
mod seccomp;
mod sockets;
mod state;
mod stdio;
mod sysctl;
pub mod user;

pub use api::{Create, ExecRequest, Rootfs, Stdio, Target};
pub use cgroup::{Cgroup, CgroupManager, SubCgroup};
pub use cli::main;
pub use create::{Container, create, start_at};
pub use criu::{FromImages, IMAGES_MARK, NewImages, find_criu, make_images, prepare_restore};
pub use dbus::BusError;
pub use error::{Error, ErrorKind, Result};
pub use exec::{Exec, exec};
