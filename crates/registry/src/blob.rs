//! The content of a blob as a stream of pieces, in order, whatever happens to the connections it comes by.
//!
//! A blob of several parts is fetched by several requests at once where the registry gives ranges: connections of far away
//! registries are slow each. How much is in memory is bounded: parts that wait to be read count against the client's limit.
//! A connection that breaks is resumed at the byte where it broke.

use crate::client::{ATTEMPTS_MAX, Repository};
use crate::config::Endpoint;
use crate::error::{Error, Result};
use crate::ranges::{Parts, Range};
use crate::transport::{Answer, Call, protocol};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use oci::image::Descriptor;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces of a blob that wait to be read; each is as large as what one read of a connection gives.
const PIECES_MAX: usize = 4;

/// A blob on its way.
#[derive(Debug)]
pub struct BlobStream {
    pieces: mpsc::Receiver<Result<Bytes>>,
    task: JoinHandle<()>,
}

impl BlobStream {
    pub(crate) fn start(repository: Arc<Repository>, descriptor: &Descriptor) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let fetch = Fetch {
            repository,
            path: format!("/blobs/{}", descriptor.digest),
            size: descriptor.size,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = fetch.run(&sender).await {
                // Nobody is left to be told when this fails.
                let _ = sender.send(Err(error)).await;
            }
        });
        Self { pieces, task }
    }

    /// The next piece, `None` at the end. All pieces together are as long as the blob's descriptor says.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.pieces.recv().await.transpose()
    }
}

impl Drop for BlobStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is fetched.
#[derive(Debug)]
pub(crate) struct Fetch {
    repository: Arc<Repository>,
    path: String,
    size: u64,
}

/// Takes pieces; `false` when nobody wants more.
pub(crate) trait Sink {
    async fn put(&mut self, piece: Bytes) -> bool;
}

impl Sink for &mpsc::Sender<Result<Bytes>> {
    async fn put(&mut self, piece: Bytes) -> bool {
        self.send(Ok(piece)).await.is_ok()
    }
}

impl Fetch {
    async fn run(self, pieces: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
        let whole = Range {
            start: 0,
            end: self.size,
        };
        let Some(first) = Parts::first(whole) else {
            return self.range(whole, None, pieces).await;
        };
        // The answer to the first part tells whether the registry gives parts at all.
        let answer = self.open(first).await?;
        if answer.status() == StatusCode::OK {
            return self.range(whole, Some(answer), pieces).await;
        }
        let shared = Arc::clone(&self.repository.shared);
        Parts::fetch(Arc::new(self), shared, whole, answer, pieces).await
    }

    /// Fetches a range, beginning with an answer where there is one, and again from where it broke off.
    pub(crate) async fn range(
        &self,
        range: Range,
        answer: Option<Answer>,
        mut pieces: impl Sink,
    ) -> Result<()> {
        let mut rest = range;
        let mut opened = answer;
        let mut attempt = 0;
        while rest.start < rest.end {
            let before = rest.start;
            let mut answer = match opened.take() {
                Some(opened) => opened,
                None => self.open(rest).await?,
            };
            let error = match self.copy(&mut answer, &mut rest, &mut pieces).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // One that brought something was a good one.
            attempt = if rest.start > before { 1 } else { attempt + 1 };
            if attempt >= ATTEMPTS_MAX || !error.is_passing() {
                return Err(error);
            }
            tracing::debug!(%error, at = rest.start, "resuming a blob");
            self.repository.rest(attempt, None).await;
        }
        Ok(())
    }

    /// Asks for a range, wherever it can be had.
    async fn open(&self, range: Range) -> Result<Answer> {
        let open = |endpoint| self.open_at(endpoint, range);
        self.repository.anywhere(open).await
    }

    async fn open_at(&self, endpoint: Arc<Endpoint>, range: Range) -> Result<Answer> {
        let mut call = self.repository.call(Method::GET, &endpoint, &self.path);
        if range.start > 0 || range.end < self.size {
            call = call.header(RANGE, &format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = self.repository.ask(&endpoint, &call).await?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            _ => Err(answer.into_error().await),
        }
    }

    /// Copies the body of an answer, advancing `rest`. What a registry sends from the beginning though it was not asked to is
    /// skipped.
    async fn copy(
        &self,
        answer: &mut Answer,
        rest: &mut Range,
        pieces: &mut impl Sink,
    ) -> Result<()> {
        let mut skip = 0;
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let start = { answer.header(CONTENT_RANGE.as_str()) }.and_then(range_start);
            if start != Some(rest.start) {
                return Err(protocol(
                    &answer.call,
                    format!("sends another range than from {}", rest.start),
                ));
            }
        } else {
            skip = rest.start;
        }
        while let Some(mut piece) = answer.next().await? {
            if skip > 0 {
                let skipped =
                    usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
                skip -= skipped as u64;
                piece = piece.split_off(skipped);
            }
            let left = rest.end - rest.start;
            if piece.len() as u64 > left {
                // Of the whole blob where a part was asked for, the rest is not wanted.
                if rest.end == self.size {
                    return Err(protocol(
                        &answer.call,
                        format!("sends more than {} bytes", self.size),
                    ));
                }
                piece.truncate(usize::try_from(left).unwrap_or(piece.len()));
            }
            if piece.is_empty() {
                continue;
            }
            rest.start += piece.len() as u64;
            if !pieces.put(piece).await || rest.start == rest.end && rest.end < self.size {
                return Ok(());
            }
        }
        if rest.start < rest.end {
            return Err(cut_off(&answer.call));
        }
        Ok(())
    }
}

/// The body ended early: resumed like a connection that broke.
fn cut_off(call: &Call) -> Error {
    Error::Transport {
        call: call.to_string(),
        source: Box::new(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the answer is shorter than the blob",
        )),
    }
}

/// Where the range of a `Content-Range` header begins.
fn range_start(text: &str) -> Option<u64> {
    let range = text.strip_prefix("bytes ")?;
    range.split('-').next()?.parse().ok()
}
