//! Commands that do the same to each of several named objects.

use crate::error::{Error, Result};
use crate::output;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// How a command names its objects again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Each one that it was done to.
    Names,
    /// Nothing.
    Nothing,
}

/// So many objects are asked for at once.
const PARALLEL_MAX: usize = 50;

/// Does something to every object, to many at once. Errors are shown in the order of the objects; one makes the command fail
/// at its end.
pub(crate) async fn each(
    names: &[String],
    echo: Echo,
    operation: impl AsyncFn(&str) -> Result<()>,
) -> Result<()> {
    let mut failed = false;
    for names in names.chunks(PARALLEL_MAX) {
        let operations = names
            .iter()
            .map(|name| Box::pin(named(name, operation(name))))
            .collect();
        for (name, result) in names.iter().zip(join_all(operations).await) {
            match result {
                Ok(()) if echo == Echo::Names => output::line(name)?,
                Ok(()) => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => {
                    output::complain(&crate::error::chain(&error));
                    failed = true;
                }
            }
        }
    }
    if failed { Err(Error::Exit(1)) } else { Ok(()) }
}

/// Runs all futures together and returns their results in order.
pub(crate) async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(output) = Pin::new(future).poll(context)
            {
                *result = Some(output);
            }
        }
        match results.iter().all(Option::is_some) {
            true => Poll::Ready(results.drain(..).flatten().collect()),
            false => Poll::Pending,
        }
    })
    .await
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
