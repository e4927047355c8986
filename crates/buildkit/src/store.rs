//! Blobs of the client: a content store, as containerd's API has it, over the session.
//!
//! A session has several, by names: `local:<directory>` of caches, `oci:<key>` of contexts, `export` of an output. Source:
//! containerd `api/services/content/v1/content.proto`, moby/buildkit `session/content`.

use crate::files::Transfer;
use crate::grpc::{Code, Duplex, Status};
use crate::messages::{
    ReadContentRequest, ReadContentResponse, WriteContentRequest, WriteContentResponse,
};
use crate::session::Session;
use builder::{BlobSink, BlobSource, Error, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use oci::Digest;
use oci::image::Descriptor;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

const READ: &str = "/containerd.services.content.v1.Content/Read";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";
const HEADER_STORE: HeaderName = HeaderName::from_static("buildkit-attachable-store-id");
/// Bytes of one message. Clients take four million at most.
const PIECE_BYTES: usize = 1 << 20;
const ACTION_WRITE: i32 = 1;
const ACTION_COMMIT: i32 = 2;

/// One of a client's stores.
#[derive(Debug, Clone)]
pub(crate) struct ClientStore {
    pub(crate) handle: Handle,
    pub(crate) session: Arc<Session>,
    pub(crate) stop: watch::Receiver<bool>,
    /// What the client calls it.
    pub(crate) id: String,
}

impl ClientStore {
    pub(crate) fn transfer(&self) -> Transfer<'_> {
        Transfer {
            handle: &self.handle,
            session: &self.session,
            stop: &self.stop,
        }
    }

    fn open(&self, path: &'static str) -> Result<Duplex> {
        let id = HeaderValue::from_str(&self.id);
        let id = id.map_err(|_| Error::Invalid(format!("a bad name of a store: {:?}", self.id)))?;
        let call = self
            .session
            .open(path, HeaderMap::from_iter([(HEADER_STORE, id)]));
        call.ok_or_else(|| Error::Client(format!("the client has no store {}", self.id)))
    }
}

impl BlobSource for ClientStore {
    fn read(&self, digest: &Digest, _size: Option<u64>) -> Result<Box<dyn Read + Send + '_>> {
        let mut call = self.open(READ)?;
        let request = ReadContentRequest {
            digest: digest.to_string(),
        };
        self.transfer().wait(call.send(&request))?;
        call.finish();
        Ok(Box::new(Content {
            transfer: self.transfer(),
            call,
            piece: Vec::new(),
            read: 0,
        }))
    }
}

/// A blob that comes in messages.
struct Content<'a> {
    transfer: Transfer<'a>,
    call: Duplex,
    piece: Vec<u8>,
    read: usize,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            let next = self.transfer.wait(self.call.next::<ReadContentResponse>());
            match next.map_err(io::Error::other)? {
                Some(message) => (self.piece, self.read) = (message.data, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.read);
        buffer[..count].copy_from_slice(&self.piece[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

impl BlobSink for ClientStore {
    fn write(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let mut call = self.open(WRITE)?;
        let transfer = self.transfer();
        let mut offset = 0;
        loop {
            let mut data = Vec::new();
            let read = content.take(PIECE_BYTES as u64).read_to_end(&mut data);
            read.map_err(|source| Error::System {
                doing: format!("read the blob {}", blob.digest),
                source,
            })?;
            let bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
            let is_end = data.is_empty();
            let message = WriteContentRequest {
                action: if is_end { ACTION_COMMIT } else { ACTION_WRITE },
                name: format!("hull-{}", blob.digest),
                total: i64::try_from(blob.size).unwrap_or(i64::MAX),
                expected: blob.digest.to_string(),
                offset,
                data,
            };
            let answered = transfer.wait(async {
                // One that has failed already says so in its answer.
                let sent = call.send(&message).await;
                match call.next::<WriteContentResponse>().await {
                    Err(status) if status.code == Code::AlreadyExists => Ok(false),
                    Err(status) => Err(status),
                    Ok(None) => Err(sent.err().unwrap_or_else(|| broke_off(&blob.digest))),
                    Ok(Some(_)) => Ok(true),
                }
            })?;
            offset += bytes;
            if is_end || !answered {
                return Ok(());
            }
        }
    }
}

fn broke_off(digest: &Digest) -> Status {
    Status::new(
        Code::Unavailable,
        format!("the client takes no more of {digest}"),
    )
}
