//! The OCI runtime: namespaces, mounts, cgroups, capabilities, seccomp, exec, hooks.

mod api;
pub mod cgroup;
mod error;
mod seccomp;

pub use api::{Create, ExecRequest, Rootfs, Stdio, Target};
pub use cgroup::Cgroup;
pub use error::{Error, ErrorKind, Result};
