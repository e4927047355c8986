//! The OCI runtime: namespaces, mounts, cgroups, capabilities, seccomp, exec, hooks.

mod api;
mod capabilities;
pub mod cgroup;
mod channel;
mod cli;
mod create;
mod dev;
mod error;
mod exec;
mod hooks;
mod init;
mod launch;
mod limits;
mod lsm;
mod masks;
mod mounts;
mod namespaces;
mod procfs;
mod reaper;
mod rootfs;
pub mod sealed;
mod seccomp;
mod sockets;
mod state;
mod stdio;
mod sysctl;
pub mod user;

pub use api::{Create, ExecRequest, Rootfs, Stdio, Target};
pub use cgroup::Cgroup;
pub use cli::main;
pub use create::{Container, create, start_at};
pub use error::{Error, ErrorKind, Result};
pub use exec::{Exec, exec};
