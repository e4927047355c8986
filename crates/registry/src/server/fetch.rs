//! A blob on its way from another registry: written to the storage by one ([`Arrival`]), read by many ([`Fetch`]).
//!
//! Invariant: the last byte is given when all of them have the digest. A fetch that fails breaks every download of it off.

use super::reply::{Body, FileBody, read};
use super::route::Name;
use super::store::{Call as _, Store};
use crate::blob::BlobStream;
use crate::error::{Error, Result};
use bytes::Bytes;
use oci::Digest;
use oci::digest::Hasher;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Pieces of a blob that wait for a slow client, and bytes of each.
const PIECES_MAX: usize = 2;
const PIECE_BYTES: u64 = 256 << 10;

/// Where the bytes of a blob are.
pub(super) enum Content {
    /// In the storage.
    Kept(File),
    /// On their way.
    Coming(Arc<Fetch>),
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    file: File,
    pub(super) size: u64,
    progress: watch::Receiver<Progress>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// So many bytes are there.
    Bytes(u64),
    /// All are, and have the digest.
    Done,
}

/// A blob that is being written.
#[derive(Debug)]
pub(super) struct Arrival {
    store: Store,
    name: Name,
    digest: Digest,
    path: PathBuf,
    file: File,
    progress: watch::Sender<Progress>,
}

impl Arrival {
    /// Makes a place for a blob of a size, and for those who read it.
    pub(super) fn begin(
        store: &Store,
        name: &Name,
        digest: Digest,
        size: u64,
    ) -> Result<(Self, Fetch)> {
        let path = store.scratch()?;
        let opened = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = opened.call(|| format!("open({path:?}, O_CREAT|O_EXCL)"))?;
        let read = file.try_clone().call(|| format!("dup({path:?})"))?;
        let (progress, watched) = watch::channel(Progress::Bytes(0));
        let arrival = Self {
            store: store.clone(),
            name: name.clone(),
            digest,
            path,
            file,
            progress,
        };
        let fetch = Fetch {
            file: read,
            size,
            progress: watched,
        };
        Ok((arrival, fetch))
    }

    /// Writes what comes; those who read see the progress. That it has failed they see when the last reference to this is gone.
    pub(super) async fn run(self: &Arc<Self>, mut stream: BlobStream) -> Result<()> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut written = 0;
        let digest = self.digest;
        let broken_off = |error| Error::Storage {
            call: format!("write the blob {digest}"),
            source: io::Error::other(error),
        };
        let arrived = loop {
            let piece = match stream.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            written += piece.len() as u64;
            let mut file = self
                .file
                .try_clone()
                .call(|| format!("dup({:?})", self.path))?;
            let writing = tokio::task::spawn_blocking(move || {
                hasher.update(&piece);
                (hasher, file.write_all(&piece))
            });
            let result;
            (hasher, result) = writing.await.map_err(broken_off)?;
            if let Err(error) = result.call(|| format!("write({:?})", self.path)) {
                break Err(error);
            }
            self.progress.send_replace(Progress::Bytes(written));
        };
        let arrival = Arc::clone(self);
        let finishing = tokio::task::spawn_blocking(move || {
            let kept = arrived.and_then(|()| arrival.keep(hasher.finish()));
            if kept.is_ok() {
                arrival.progress.send_replace(Progress::Done);
            } else {
                // What is left is swept away later.
                let _ = fs::remove_file(&arrival.path);
            }
            kept
        });
        finishing.await.map_err(broken_off)?
    }

    fn keep(&self, found: Digest) -> Result<()> {
        if found != self.digest {
            return Err(Error::Digest {
                what: format!("a blob of {}", self.name),
                expected: Box::new(self.digest),
                found: Box::new(found),
            });
        }
        { self.file.sync_data() }.call(|| format!("fdatasync({:?})", self.path))?;
        let hold = self.store.share()?;
        self.store.place(&hold, &self.path, &self.digest)?;
        self.store.link_blob(&hold, &self.name, &self.digest)?;
        Ok(())
    }
}

impl Content {
    /// A part of the blob, as it comes.
    pub(super) fn body(self, start: u64, end: u64) -> Body {
        let fetch = match self {
            Self::Kept(file) => return Body::File(FileBody::new(file, start, end)),
            Self::Coming(fetch) => fetch,
        };
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        tokio::spawn(async move {
            if let Err(error) = fetch.give(start, end, &sender).await {
                // Nobody is left to be told when this fails.
                let _ = sender.send(Err(error)).await;
            }
        });
        let left = end - start;
        Body::Pieces { pieces, left }
    }
}

impl Fetch {
    async fn give(
        self: Arc<Self>,
        start: u64,
        end: u64,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> io::Result<()> {
        let mut progress = self.progress.clone();
        let mut at = start;
        while at < end {
            let there = progress.wait_for(|progress| self.readable(*progress) > at);
            let there = there.await.map(|progress| self.readable(*progress));
            let there = there.map_err(|_| io::Error::other("the blob could not be fetched"))?;
            let length = PIECE_BYTES.min(end.min(there) - at);
            let length = usize::try_from(length).map_err(io::Error::other)?;
            let fetch = Arc::clone(&self);
            let reading = tokio::task::spawn_blocking(move || read(&fetch.file, at, length));
            let piece = reading.await.map_err(io::Error::other)??;
            at += piece.len() as u64;
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The last byte is given when all of them have the digest: before that, nobody can take what came for the whole.
    fn readable(&self, progress: Progress) -> u64 {
        match progress {
            Progress::Bytes(bytes) => bytes.min(self.size.saturating_sub(1)),
            Progress::Done => self.size,
        }
    }
}
