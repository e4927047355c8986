//! The OCI runtime: namespaces, mounts, cgroups, capabilities, seccomp, exec, hooks.

mod api;
mod capabilities;
pub mod cgroup;
mod channel;
mod dev;
mod error;
mod hooks;
mod launch;
mod limits;
mod lsm;
mod masks;
mod mounts;
mod namespaces;
mod procfs;
mod rootfs;
mod seccomp;
mod stdio;
mod sysctl;
pub mod user;

pub use api::{Create, ExecRequest, Rootfs, Stdio, Target};
pub use cgroup::Cgroup;
pub use error::{Error, ErrorKind, Result};
