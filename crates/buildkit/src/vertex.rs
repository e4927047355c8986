//! What a client sees of a build: vertexes, which begin and end, with logs and parts that have a progress of their own.
//!
//! Invariant: a client that reads slowly slows its own build down; one that reads nothing does not, and costs a bounded
//! number of messages. Source: moby/buildkit `api/services/control` (StatusResponse), `util/progress/progressui`.

use crate::grpc::{MESSAGES_MAX, Status, framed};
use crate::messages::{
    StatusResponse, Timestamp, Vertex as Message, VertexLog, VertexStatus, VertexWarning,
};
use bytes::Bytes;
use oci::Digest;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What comes before the client listens is kept, up to this many messages.
const EARLY_MAX: usize = 32 * MESSAGES_MAX;

/// Where a build tells what it does.
#[derive(Debug)]
pub(crate) struct Teller {
    /// Taken when nothing is told any more.
    sender: Mutex<Option<mpsc::Sender<Result<Bytes, Status>>>>,
    receiver: Mutex<Option<mpsc::Receiver<Result<Bytes, Status>>>>,
    heard: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks here guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vertex that has begun.
#[derive(Debug, Clone)]
pub(crate) struct Vertex {
    digest: String,
    name: String,
    started: Timestamp,
}

impl Vertex {
    /// A vertex that begins now. `key` is what makes it another than all others.
    pub(crate) fn begin(key: &str, name: impl Into<String>) -> Self {
        Self::begun(key, name, Timestamp::now())
    }

    /// One that began before.
    pub(crate) fn begun(key: &str, name: impl Into<String>, started: Timestamp) -> Self {
        Self {
            digest: Digest::sha256(key.as_bytes()).to_string(),
            name: name.into(),
            started,
        }
    }

    fn message(&self) -> Message {
        Message {
            digest: self.digest.clone(),
            name: self.name.clone(),
            started: Some(self.started),
            ..Message::default()
        }
    }
}

impl Teller {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(EARLY_MAX);
        Self {
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(Some(receiver)),
            heard: AtomicBool::new(false),
        }
    }

    /// What is told, for the one client that listens.
    pub(crate) fn listen(&self) -> Option<mpsc::Receiver<Result<Bytes, Status>>> {
        self.heard.store(true, Ordering::Relaxed);
        lock(&self.receiver).take()
    }

    /// Whether a client listens, or has listened.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Ends what is told: nothing comes any more.
    pub(crate) fn close(&self) {
        lock(&self.sender).take();
    }

    /// Tells something. Blocks while the client is behind.
    fn tell(&self, message: &StatusResponse) {
        let Some(sender) = lock(&self.sender).clone() else {
            return;
        };
        let message = Ok(framed(message));
        // A client that has gone ends the build otherwise.
        let _ = match self.is_heard() {
            true => sender.blocking_send(message).is_ok(),
            false => sender.try_send(message).is_ok(),
        };
    }

    fn tell_vertex(&self, vertex: Message) {
        self.tell(&StatusResponse {
            vertexes: vec![vertex],
            ..StatusResponse::default()
        });
    }

    pub(crate) fn begin(&self, vertex: &Vertex) {
        self.tell_vertex(vertex.message());
    }

    pub(crate) fn end(&self, vertex: &Vertex, cached: bool) {
        self.tell_vertex(Message {
            cached,
            completed: Some(Timestamp::now()),
            ..vertex.message()
        });
    }

    pub(crate) fn fail(&self, vertex: &Vertex, error: &str) {
        self.tell_vertex(Message {
            completed: Some(Timestamp::now()),
            error: error.to_owned(),
            ..vertex.message()
        });
    }

    pub(crate) fn log(&self, vertex: &Vertex, is_error: bool, bytes: &[u8]) {
        self.tell(&StatusResponse {
            logs: vec![VertexLog {
                vertex: vertex.digest.clone(),
                timestamp: Some(Timestamp::now()),
                stream: if is_error { 2 } else { 1 },
                bytes: bytes.to_vec(),
            }],
            ..StatusResponse::default()
        });
    }

    /// The progress of a part, in bytes where there are any.
    pub(crate) fn part(&self, vertex: &Vertex, part: &Part<'_>) {
        let now = Timestamp::now();
        self.tell(&StatusResponse {
            statuses: vec![VertexStatus {
                id: part.name.to_owned(),
                vertex: vertex.digest.clone(),
                name: String::new(),
                current: i64::try_from(part.bytes).unwrap_or(i64::MAX),
                total: 0,
                timestamp: Some(now),
                started: Some(part.started),
                completed: part.is_done.then_some(now),
            }],
            ..StatusResponse::default()
        });
    }

    /// Something that the user should know, in all its fields but the vertex.
    pub(crate) fn warn(&self, vertex: &Vertex, warning: VertexWarning) {
        self.tell(&StatusResponse {
            warnings: vec![VertexWarning {
                vertex: vertex.digest.clone(),
                level: 1,
                ..warning
            }],
            ..StatusResponse::default()
        });
    }
}

/// A part of a vertex.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) bytes: u64,
    pub(crate) started: Timestamp,
    pub(crate) is_done: bool,
}
