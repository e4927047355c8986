//! Standard output and standard error.

use crate::error::{IoContext, Result};
use std::io::Write;

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    write(text.as_bytes())
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Writes bytes to standard output, at once.
pub(crate) fn write(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .during(|| "write to standard output")
}

/// Writes bytes to standard error, at once.
pub(crate) fn write_stderr(bytes: &[u8]) -> Result<()> {
    std::io::stderr()
        .lock()
        .write_all(bytes)
        .during(|| "write to standard error")
}

/// Whether colours are wanted where a terminal has them: <https://no-color.org>.
pub(crate) fn wants_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes a line to standard error. When that is gone, nobody is left to tell.
pub(crate) fn complain(text: &str) {
    let _ = write_stderr(format!("{text}\n").as_bytes());
}
