//! System calls the standard library lacks, behind safe functions: the only crate with `unsafe` code.
//!
//! A function here is one system call, or the few that only make sense together; it decides nothing. What rustix already
//! offers safely is used from rustix directly and is not wrapped again.

#![allow(unsafe_code, reason = "the one crate that talks to the kernel by hand")]

pub mod activation;
pub mod bpf;
mod error;
pub mod executable;
pub mod interface;
pub mod mount;
pub mod netlink;
pub mod process;
pub mod quota;
pub mod root;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod writeback;

pub use error::{Context, Error, Result, chain};
