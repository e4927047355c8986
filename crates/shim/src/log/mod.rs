//! Log files in Docker's json-file format: one JSON object a line, `{"log":"text\n","stream":"stdout","time":"RFC 3339"}`.
//!
//! The shim writes ([`Recorder`]), the engine reads ([`Reader`]); they share nothing but the files, so either may be
//! restarted at any moment. Invariant: a line is written with one write(2), so a reader sees it whole or, after a crash
//! of the machine, as a last line without a newline, which it skips.
//!
//! Rotation renames `x` to `x.1`, `x.1` to `x.2` and so on, and starts a new `x`. Compressed ones are `x.2.gz` and so on; `x.1` stays
//! as it is for those who follow. Besides, output can go to a log service ([`remote`]), which must not stop the container for longer
//! than its configuration says.

mod compression;
mod journal;
mod lines;
mod reader;
mod recorder;
mod remote;
mod syslog;
mod tls;
mod writer;

pub use reader::{Entry, ReadOptions, Reader};

pub(crate) use recorder::Recorder;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A line longer than this is recorded in parts; only the last part ends with a newline. Docker's own limit.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The stream's number in Docker's multiplexed stream format.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// The name of the `n`th rotated file, 0 being the current one.
fn rotated(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// The name of a rotated file once it is compressed.
fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    PathBuf::from(name)
}
