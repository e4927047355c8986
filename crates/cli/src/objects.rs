//! Commands that do the same to each of several named objects.

use crate::error::{Error, Result};
use crate::output;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// So many objects are asked for at once.
const PARALLEL_MAX: usize = 50;

/// Does something to every object, to many at once; `operation` returns the line to print for each, if any. Lines and errors are
/// shown in the order of the objects, each as soon as those before it are done. One error makes the command fail at its end.
pub(crate) async fn each(
    names: &[String],
    operation: impl AsyncFn(&str) -> Result<Option<String>>,
) -> Result<()> {
    let mut outcome = Ok(());
    for names in names.chunks(PARALLEL_MAX) {
        let operations = names
            .iter()
            .map(|name| Box::pin(named(name, operation(name))))
            .collect();
        in_order(operations, |result| match result.and_then(print_some) {
            Ok(()) => {}
            Err(error @ Error::Io { .. }) => outcome = Err(error),
            Err(error) => {
                output::complain(&crate::error::chain(&error));
                if outcome.is_ok() {
                    outcome = Err(Error::Exit(1));
                }
            }
        })
        .await;
    }
    outcome
}

fn print_some(line: Option<String>) -> Result<()> {
    line.map_or(Ok(()), |line| output::line(&line))
}

/// Runs all futures together, and hands over their results in order, each as soon as those before it are there.
pub(crate) async fn in_order<F: Future + Unpin>(
    mut futures: Vec<F>,
    mut done: impl FnMut(F::Output),
) {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    let mut next = 0;
    poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results).skip(next) {
            if result.is_none()
                && let Poll::Ready(output) = Pin::new(future).poll(context)
            {
                *result = Some(output);
            }
        }
        while let Some(output) = results.get_mut(next).and_then(Option::take) {
            done(output);
            next += 1;
        }
        if next == results.len() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
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
