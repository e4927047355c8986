//! A layer's way from compressed bytes to files: hashing, decompressing and unpacking, each on a thread of its own.
//!
//! ```text
//! caller ─ pieces ─┬─ hash: digest of the blob          (of a plain tar this is the diff ID)
//!                  └─ decompress ─┬─ hash: diff ID      (compressed only)
//!                                 └─ unpack: files
//! ```
//!
//! The caller reads an archive and goes on to its next layer while this one still unpacks.

use crate::compression::{Compression, Decoder};
use crate::pipe::{self, CHUNK_BYTES, Chunk, Reader, Writer, read_chunk};
use crate::tar::TarError;
use crate::{Error, Result, layer};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::thread::JoinHandle;
use sys::Context as _;

/// Bytes of stack of each thread: nothing here recurses.
const STACK_BYTES: usize = 256 << 10;

/// A layer on its way.
pub(crate) struct Unpacker {
    input: Option<Writer>,
    blob: Option<JoinHandle<Result<(Digest, u64)>>>,
    diff: Option<JoinHandle<Result<(Digest, u64)>>>,
    decompress: Option<JoinHandle<Result<()>>>,
    unpack: Option<JoinHandle<Result<u64>>>,
}

/// A layer that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpacked {
    /// The digest of the bytes as they came.
    pub(crate) blob: Digest,
    /// The digest of the tar in them.
    pub(crate) diff_id: Digest,
    /// Bytes of that tar.
    pub(crate) tar_size: u64,
    /// Bytes in files; `None` where only the digest was wanted.
    pub(crate) size: Option<u64>,
}

impl Unpacker {
    /// Unpacks into `directory`, which is made; without one, computes the digests only.
    pub(crate) fn start(directory: Option<PathBuf>, compression: Compression) -> Result<Self> {
        let plain = compression == Compression::None;
        let consumers = 1 + usize::from(!plain || directory.is_some());
        let (input, mut readers) = pipe::tee(consumers);
        let mut this = Self {
            input: Some(input),
            blob: Some(spawn("hash blob", {
                let reader = readers.remove(0);
                move || hash(reader)
            })?),
            diff: None,
            decompress: None,
            unpack: None,
        };
        let Some(input) = readers.pop() else {
            return Ok(this);
        };
        if plain {
            this.unpack = directory.map(|to| spawn_unpack(input, to)).transpose()?;
            return Ok(this);
        }
        let (output, mut readers) = pipe::tee(1 + usize::from(directory.is_some()));
        let reader = readers.remove(0);
        this.diff = Some(spawn("hash layer", move || hash(reader))?);
        this.decompress = Some(spawn("decompress", move || {
            decompress(input, compression, output)
        })?);
        if let (Some(to), Some(reader)) = (directory, readers.pop()) {
            this.unpack = Some(spawn_unpack(reader, to)?);
        }
        Ok(this)
    }

    /// Takes the next piece of the layer. Fails where a later step has; [`Self::finish`] then tells how.
    pub(crate) fn send(&mut self, chunk: &Chunk) -> Result<()> {
        let input = self.input.as_ref().ok_or_else(broken)?;
        input.send(chunk).map_err(|pipe::Closed| {
            self.input = None;
            broken()
        })
    }

    /// Ends the layer and waits for it.
    pub(crate) fn finish(mut self) -> Result<Unpacked> {
        if let Some(input) = self.input.take() {
            // Whoever is gone tells below why.
            let _ = input.finish();
        }
        self.join()
    }

    fn join(&mut self) -> Result<Unpacked> {
        let blob = self.blob.take().map(wait);
        let decompress = self.decompress.take().map(wait);
        let diff = self.diff.take().map(wait);
        let unpack = self.unpack.take().map(wait);
        // What came first in the pipe has the cause; the others only see their streams break off.
        let size = match (decompress.transpose(), unpack.transpose()) {
            (Err(error), Err(other)) => {
                return Err(if is_consequence(&error) { other } else { error });
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
            (Ok(_), Ok(size)) => size,
        };
        let (blob, blob_size) = blob.transpose()?.ok_or_else(broken)?;
        let (diff_id, tar_size) = diff.transpose()?.unwrap_or((blob, blob_size));
        Ok(Unpacked {
            blob,
            diff_id,
            tar_size,
            size,
        })
    }
}

impl Drop for Unpacker {
    /// Breaks the pipes off and waits, so that nobody writes into a directory that is about to be removed.
    fn drop(&mut self) {
        self.input = None;
        // An unfinished layer fails; nobody asks any more how.
        let _ = self.join();
    }
}

/// A layer that is written where it is made, instead of coming from an archive.
pub(crate) struct Feed {
    unpacker: Unpacker,
    chunk: Vec<u8>,
}

impl Feed {
    /// Feeds what is written to an unpacker of plain tar.
    pub(crate) fn new(unpacker: Unpacker) -> Self {
        Self {
            unpacker,
            chunk: Vec::with_capacity(CHUNK_BYTES),
        }
    }

    /// Ends the layer and waits for it.
    pub(crate) fn finish(mut self) -> Result<Unpacked> {
        // An unpacker that has failed tells so below.
        let _ = self.unpacker.send(&self.chunk.into());
        self.unpacker.finish()
    }
}

impl std::io::Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
            self.unpacker
                .send(&chunk.into())
                .map_err(std::io::Error::other)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn broken() -> Error {
    Error::Input(ErrorKind::BrokenPipe.into())
}

/// Whether an error only says that another thread has failed.
fn is_consequence(error: &Error) -> bool {
    match error {
        Error::Input(io) | Error::Decompress(io) | Error::Tar(TarError::Read(io)) => {
            io.kind() == ErrorKind::BrokenPipe
        }
        _ => false,
    }
}

fn spawn<V: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> V + Send + 'static,
) -> Result<JoinHandle<V>> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES);
    Ok(thread
        .spawn(work)
        .call(|| format!("clone(CLONE_THREAD) for {name:?}"))?)
}

fn wait<V>(thread: JoinHandle<V>) -> V {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn spawn_unpack(mut reader: Reader, directory: PathBuf) -> Result<JoinHandle<Result<u64>>> {
    spawn("unpack layer", move || {
        layer::unpack(&mut reader, &directory)
    })
}

fn hash(mut reader: Reader) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut bytes = 0;
    while let Some(chunk) = reader.next_chunk().map_err(Error::Input)? {
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
    }
    Ok((hasher.finish(), bytes))
}

fn decompress(input: Reader, compression: Compression, output: Writer) -> Result<()> {
    let mut decoder = Decoder::new(input, compression).map_err(Error::Decompress)?;
    loop {
        let chunk = read_chunk(&mut decoder).map_err(Error::Decompress)?;
        if chunk.is_empty() {
            return output.finish().map_err(|pipe::Closed| broken());
        }
        output.send(&chunk).map_err(|pipe::Closed| broken())?;
    }
}
