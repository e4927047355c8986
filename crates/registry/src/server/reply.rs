//! Answers: bodies, headers, and the error documents of the specification.
//!
//! A file is read in large pieces, from the page cache in place and else on a thread that may wait, one piece at a time: what a
//! download has in memory does not depend on its size.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a file that are read, and sent, at once.
const PIECE_BYTES: u64 = 256 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it; `None` once it was sent.
    Whole(Option<Bytes>),
    /// A part of a file.
    File(FileBody),
    /// So many bytes as they come. An error, or an early end, breaks the connection off.
    Pieces {
        pieces: mpsc::Receiver<io::Result<Bytes>>,
        left: u64,
    },
}

/// A part of a file on its way.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: File, at: u64, end: u64) -> Self {
        Self {
            file: Arc::new(file),
            at,
            end,
            reading: None,
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let length = usize::try_from(PIECE_BYTES.min(self.end - self.at)).unwrap_or(usize::MAX);
        let read = match &mut self.reading {
            None => match read_cached(&self.file, self.at, length) {
                Some(piece) => Ok(piece),
                None => {
                    let (file, at) = (Arc::clone(&self.file), self.at);
                    let reading = tokio::task::spawn_blocking(move || read(&file, at, length));
                    let reading = self.reading.insert(reading);
                    ready!(Pin::new(reading).poll(context)).map_err(io::Error::other)?
                }
            },
            Some(reading) => ready!(Pin::new(reading).poll(context)).map_err(io::Error::other)?,
        };
        self.reading = None;
        if let Ok(piece) = &read {
            self.at += piece.len() as u64;
        }
        Poll::Ready(Some(read))
    }
}

/// What of a part of a file is in memory already.
fn read_cached(file: &File, at: u64, length: usize) -> Option<Bytes> {
    let mut piece = vec![0; length];
    let mut slices = [IoSliceMut::new(&mut piece)];
    let count = rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT).ok()?;
    piece.truncate(count);
    (count > 0).then(|| piece.into())
}

/// Reads some of a part of a file.
pub(crate) fn read(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; length];
    let count = file.read_at(&mut piece, at)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(count);
    Ok(piece.into())
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => bytes.take().map(Ok),
            Self::File(file) => ready!(file.poll_piece(context)),
            Self::Pieces { pieces, left } => {
                let piece = ready!(pieces.poll_recv(context));
                if let Some(Ok(piece)) = &piece {
                    *left = left.saturating_sub(piece.len() as u64);
                }
                piece
            }
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File(file) => file.end - file.at,
            Self::Pieces { left, .. } => *left,
        })
    }
}

/// A handler's result.
pub(crate) type Reply = Result<Response<Body>, Refusal>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Body::Whole(None))
}

/// An answer with a body.
pub(crate) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A document.
pub(crate) fn document(kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, Body::Whole(Some(bytes.into())));
    set(&mut response, header::CONTENT_TYPE, kind);
    response
}

/// Sets a header. What could not be one, for control characters in it, is left out; nothing that is stored has any.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The error codes of the specification, and Docker's `RANGE_INVALID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RangeInvalid,
    SizeInvalid,
    TooManyRequests,
    Unauthorized,
    Unknown,
    Unsupported,
}

impl Code {
    fn text(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

/// A request that is not done: the status, the code and the sentence for the client.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    pub(crate) message: String,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// Adds a header to the answer.
    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn no_blob(digest: &oci::Digest) -> Self {
        let message = format!("this repository has no blob {digest}");
        Self::new(StatusCode::NOT_FOUND, Code::BlobUnknown, message)
    }

    pub(crate) fn no_manifest(what: impl std::fmt::Display) -> Self {
        let message = format!("this repository has no manifest for {what}");
        Self::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, message)
    }

    pub(crate) fn no_upload(id: impl std::fmt::Display) -> Self {
        let message = format!("there is no upload {id} in this repository");
        Self::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, message)
    }

    pub(crate) fn bad_tag() -> Self {
        let reason = "a tag has up to 128 word characters, dots and dashes, and begins with a word character";
        Self::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, reason)
    }

    /// Something that this registry does not do, or is configured not to do.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let entry = serde_json::json!({"code": self.code.text(), "message": self.message});
        let body = serde_json::json!({"errors": [entry]}).to_string();
        let mut response = document("application/json", body);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            set(&mut response, name, &value);
        }
        response
    }
}

/// What is not the client's fault is logged here, once, and told without what the log says of this machine.
impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        use crate::Error::{NoUpload, TooManyUploads, UploadBusy};
        match &error {
            NoUpload(id) => Self::no_upload(id),
            UploadBusy(_) => Self::new(
                StatusCode::CONFLICT,
                Code::BlobUploadInvalid,
                error.to_string(),
            ),
            TooManyUploads(_) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                error.to_string(),
            )
            .header(header::RETRY_AFTER, "60"),
            crate::Error::Storage { source, .. } => {
                tracing::error!(%error, cause = %source, "the storage failed");
                if source.kind() == io::ErrorKind::StorageFull {
                    let full = "the registry's storage is full";
                    Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unknown, full)
                } else {
                    let failed = "the registry's storage failed: its log says how";
                    Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, failed)
                }
            }
            _ => {
                tracing::error!(%error, cause = ?std::error::Error::source(&error), "a request failed");
                let failed = "the registry failed: its log says how";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, failed)
            }
        }
    }
}

/// A blocking task that did not end by itself: it panicked, or the runtime is going down.
impl From<tokio::task::JoinError> for Refusal {
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "a request broke off");
        let failed = "the registry failed: its log says how";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::io::Write as _;

    #[tokio::test]
    async fn a_part_of_a_file_comes_in_bounded_pieces() {
        let content: Vec<u8> = (0..700_000u32)
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let (start, end) = (5, content.len() as u64 - 3);
        let mut body = Body::File(FileBody::new(file, start, end));
        assert_eq!(body.size_hint().exact(), Some(end - start));
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() as u64 <= PIECE_BYTES);
            read.extend_from_slice(&piece);
        }
        assert!(read == content[5..content.len() - 3]);
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_file_that_was_cut_short_breaks_the_answer_off() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let body = Body::File(FileBody::new(file, 0, 10));
        assert!(body.collect().await.is_err());
    }

    #[test]
    fn errors_have_the_form_of_the_specification() {
        let refusal = Refusal::new(
            StatusCode::NOT_FOUND,
            Code::ManifestBlobUnknown,
            "a \"b\" is not there",
        );
        let Body::Whole(Some(body)) = refusal.into_response().into_body() else {
            panic!("an error has a body");
        };
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(body["errors"][0]["message"], "a \"b\" is not there");
    }
}
