//! Bodies of requests: into an upload, or small ones into memory.
//!
//! What comes is written and hashed on a thread that may wait for the disk, in batches, while the next batch comes; no thread
//! waits for a client. What an upload has in memory does not depend on its size.

use super::pace::{Pace, STALL};
use super::reply::{Code, Refusal};
use super::store::uploads::Upload;
use crate::error::Result;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};

/// Bytes that wait to be written, before no more are read.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a blob.
pub(crate) const BLOB_BYTES_MAX: u64 = 1 << 40;
/// How long the body of a refused request is still read, and how much of it: a client that writes does not see an answer.
const DRAIN: Duration = Duration::from_secs(5);
const DRAIN_BYTES_MAX: usize = 8 << 20;

/// The next piece of a body, `None` at its end.
async fn next(body: &mut Incoming, pace: &mut Pace) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = timeout_at(pace.deadline(), body.frame()).await;
        let frame = frame.map_err(|_| {
            let slow = "the body comes too slowly";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, slow)
        })?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| {
            let message = format!("the body broke off: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, message)
        })?;
        if let Ok(piece) = frame.into_data() {
            pace.passed(piece.len());
            return Ok(Some(piece));
        }
    }
}

/// What comes of a body that goes into an upload.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) upload: Upload,
    /// Why not all of it came.
    pub(crate) broken: Option<Refusal>,
}

/// Adds a body of at most so many bytes to an upload. What came before a body broke off is kept.
pub(crate) async fn into_upload(
    upload: Upload,
    body: &mut Incoming,
    bytes_max: u64,
) -> Result<Received, Refusal> {
    let mut pace = Pace::new(STALL);
    let mut idle = Some(upload);
    let mut writing: Option<JoinHandle<(Upload, Result<()>)>> = None;
    let (mut batch, mut waiting, mut received) = (Vec::new(), 0, 0);
    let mut end: Option<Option<Refusal>> = None;
    loop {
        if !batch.is_empty()
            && let Some(mut upload) = idle.take()
        {
            let batch = std::mem::take(&mut batch);
            waiting = 0;
            writing = Some(tokio::task::spawn_blocking(move || {
                let appended = upload.append(&batch);
                (upload, appended)
            }));
        }
        if end.is_some()
            && let Some(upload) = idle.take()
        {
            let broken = end.flatten();
            return Ok(Received { upload, broken });
        }
        tokio::select! {
            piece = next(body, &mut pace), if end.is_none() && waiting < BATCH_BYTES => match piece {
                Ok(Some(piece)) => {
                    received += piece.len() as u64;
                    if received > bytes_max {
                        end = Some(Some(too_large(bytes_max)));
                        continue;
                    }
                    waiting += piece.len();
                    if !piece.is_empty() {
                        batch.push(piece);
                    }
                }
                Ok(None) => end = Some(None),
                Err(refusal) => end = Some(Some(refusal)),
            },
            written = written(&mut writing), if writing.is_some() => {
                writing = None;
                let (upload, appended) = written?;
                if let Err(error) = appended {
                    upload.suspend();
                    return Err(error.into());
                }
                idle = Some(upload);
                if waiting >= BATCH_BYTES {
                    // Nothing was read meanwhile: the disk was slow, not the client.
                    pace.renew();
                }
            }
        }
    }
}

async fn written(
    writing: &mut Option<JoinHandle<(Upload, Result<()>)>>,
) -> Result<(Upload, Result<()>), Refusal> {
    match writing {
        Some(writing) => Ok(writing.await?),
        None => std::future::pending().await,
    }
}

fn too_large(bytes_max: u64) -> Refusal {
    let message = format!("the body has more than {bytes_max} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

/// Reads a small body whole.
pub(crate) async fn into_memory(body: &mut Incoming, bytes_max: u64) -> Result<Vec<u8>, Refusal> {
    let announced = hyper::body::Body::size_hint(body).lower();
    if announced > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut pace = Pace::new(STALL);
    let mut bytes = Vec::new();
    while let Some(piece) = next(body, &mut pace).await? {
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads on for a while, so that the client comes to read the answer.
pub(crate) async fn drain(body: &mut Incoming) {
    let read = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length >= left {
                break;
            }
            left -= length;
        }
    };
    // Whoever goes on longer sees the connection break.
    let _ = timeout(DRAIN, read).await;
}
