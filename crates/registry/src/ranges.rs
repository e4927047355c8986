//! A large blob in parts that are fetched at the same time and given in their order.

use crate::blob::{Fetch, Sink};
use crate::client::Shared;
use crate::error::{Error, Result};
use crate::transport::Answer;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;

/// Bytes of a part, all of which may be in memory.
const PART_BYTES: u64 = 4 << 20;
/// Parts of one blob that are fetched or wait to be read.
const PARTS_MAX: usize = 3;

/// From a byte to before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The parts of a blob that are under way.
pub(crate) struct Parts {
    running: VecDeque<Part>,
}

struct Part {
    pieces: mpsc::UnboundedReceiver<Result<Bytes>>,
    task: AbortHandle,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A part's pieces: as many as the part has bytes for, so that the limit of parts is one of memory.
struct Unbounded(mpsc::UnboundedSender<Result<Bytes>>);

impl Sink for &Unbounded {
    async fn put(&mut self, piece: Bytes) -> bool {
        self.0.send(Ok(piece)).is_ok()
    }
}

impl Parts {
    /// The first part of a blob that is worth having several.
    pub(crate) fn first(whole: Range) -> Option<Range> {
        (whole.end > 2 * PART_BYTES).then_some(Range {
            start: 0,
            end: PART_BYTES,
        })
    }

    /// Fetches all parts, the first from an answer that is there already.
    pub(crate) async fn fetch(
        fetch: Arc<Fetch>,
        shared: Arc<Shared>,
        whole: Range,
        first: Answer,
        pieces: &mpsc::Sender<Result<Bytes>>,
    ) -> Result<()> {
        let mut parts = Self {
            running: VecDeque::new(),
        };
        let mut next = whole.start;
        let mut first = Some(first);
        while next < whole.end || !parts.running.is_empty() {
            while next < whole.end && parts.running.len() < PARTS_MAX {
                let permits = Arc::clone(&shared.parts);
                // The oldest part is what is waited for: it must not wait for others to get a permit.
                let permit = match permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) if !parts.running.is_empty() => break,
                    Err(_) => permits.acquire_owned().await.expect("it is never closed"),
                };
                let range = Range {
                    start: next,
                    end: whole.end.min(next + PART_BYTES),
                };
                parts.start(Arc::clone(&fetch), range, first.take(), permit);
                next = range.end;
            }
            if !parts.forward(pieces).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        fetch: Arc<Fetch>,
        range: Range,
        answer: Option<Answer>,
        permit: OwnedSemaphorePermit,
    ) {
        let (sender, pieces) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let sender = Unbounded(sender);
            if let Err(error) = fetch.range(range, answer, &sender).await {
                // Nobody is left to be told when this fails.
                let _ = sender.0.send(Err(error));
            }
        });
        self.running.push_back(Part {
            pieces,
            task: task.abort_handle(),
            _permit: permit,
        });
    }

    /// Gives on all of the oldest part; `false` when nobody wants more.
    async fn forward(&mut self, pieces: &mpsc::Sender<Result<Bytes>>) -> Result<bool, Error> {
        let Some(mut part) = self.running.pop_front() else {
            return Ok(true);
        };
        while let Some(piece) = part.pieces.recv().await {
            if pieces.send(Ok(piece?)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
