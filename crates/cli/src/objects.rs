//! Commands that do the same to each of several named objects.

use crate::error::{Error, Result};
use crate::output;
use std::future::Future;

/// How a command names its objects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Each one that it was done to.
    Names,
    /// Nothing.
    Nothing,
}

/// Does something to every object in turn. Errors are shown as they come; one makes the command fail at its end.
pub(crate) async fn each(
    names: &[String],
    echo: Echo,
    operation: impl AsyncFn(&str) -> Result<()>,
) -> Result<()> {
    let mut failed = false;
    for name in names {
        match named(name, operation(name)).await {
            Ok(()) if echo == Echo::Names => output::line(name)?,
            Ok(()) => {}
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => {
                output::complain(&crate::error::chain(&error));
                failed = true;
            }
        }
    }
    if failed { Err(Error::Exit(1)) } else { Ok(()) }
}

/// Does something to an object whose name can be one.
pub(crate) async fn named<T>(name: &str, operation: impl Future<Output = Result<T>>) -> Result<T> {
    check_name(name)?;
    operation.await
}

/// An empty name would make another request of it.
pub(crate) fn check_name(name: &str) -> Result<()> {
    match name.trim().is_empty() {
        true => Err(Error::msg("invalid name or ID: value is empty")),
        false => Ok(()),
    }
}

/// Asks a question on the terminal; anything but yes is no.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    output::print(&format!(
        "{question}\nAre you sure you want to continue? [y/N] "
    ))?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_err() || !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(false);
    }
    Ok(true)
}
