//! Layers as blobs for elsewhere, and from there again: what a registry, an OCI layout or a cache of builds has of them.
//!
//! Compressed bytes are not kept (ADR 1). A blob is made into a file, because its digest and size come before its content
//! wherever it goes to; the same layer in the same form gives the same bytes each time.

use crate::compression::{Compression, Encoder, MAGIC_BYTES};
use crate::pipe::read_chunk;
use crate::pull::wait;
use crate::sender::{PIECES_MAX, Sender, Sending};
use crate::store::NewLayer;
use crate::unpacker::{Unpacked, Unpacker};
use crate::{Error, Hold, Images, PushRequest, PushState, Result};
use bytes::Bytes;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use oci::image::{Descriptor, media_type};
use registry::{BlobStream, Repository};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sys::Context as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// How a layer is compressed, and how much: without a level, as the store always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A plain tar.
    Plain,
    /// RFC 1952, at a level of 0 to 9.
    Gzip(Option<u32>),
    /// RFC 8878, at a level of 1 to 22.
    Zstd(Option<i32>),
}

impl Form {
    /// The OCI media type of a layer in this form.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::OCI_LAYER,
            Self::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Self::Zstd(_) => media_type::OCI_LAYER_ZSTD,
        }
    }
}

/// A blob that lies in a file.
#[derive(Debug)]
pub struct Packed {
    /// What it is.
    pub descriptor: Descriptor,
    path: PathBuf,
}

impl Packed {
    /// Compresses what `write` writes into a new file of a directory.
    pub fn write(
        directory: &Path,
        form: Form,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Self> {
        let new = directory.join("new");
        let file = File::create(&new).call(|| format!("open({new:?}, O_CREAT)"))?;
        let hashed = Hashed {
            out: BufWriter::new(file),
            hasher: Hasher::new(Algorithm::Sha256),
            bytes: 0,
        };
        let mut encoder = Encoder::new(form, hashed).map_err(Error::Output)?;
        write(&mut encoder)?;
        let mut hashed = encoder.finish().map_err(Error::Output)?;
        hashed.out.flush().map_err(Error::Output)?;
        let digest = hashed.hasher.finish();
        let path = directory.join(digest.hex());
        std::fs::rename(&new, &path).call(|| format!("rename({new:?}, {path:?})"))?;
        Ok(Self {
            descriptor: Descriptor::new(media_type, digest, hashed.bytes),
            path,
        })
    }

    /// Removes the file; what is left is what it was.
    pub fn remove(self) -> Result<Descriptor> {
        std::fs::remove_file(&self.path).call(|| format!("unlink({:?})", self.path))?;
        Ok(self.descriptor)
    }

    /// Sends it to the repository of a request, unless that has it. Blocks as [`Images::push_layers`] does.
    pub fn push(&self, runtime: &Handle, request: &PushRequest) -> Result<()> {
        if wait(
            runtime,
            &request.stop,
            request.repository.has_blob(&self.descriptor.digest),
        )? {
            return Ok(());
        }
        let upload = wait(runtime, &request.stop, request.repository.begin_upload())?;
        let (pieces, body) = mpsc::channel(PIECES_MAX);
        let sending = Sending::begin(runtime, request, upload, body);
        let mut content = self.open()?;
        loop {
            let piece = read_chunk(&mut content);
            let is_end = piece.as_ref().is_ok_and(Bytes::is_empty);
            // A receiver that is gone has failed, and tells why below.
            if is_end || pieces.blocking_send(piece).is_err() {
                break;
            }
        }
        drop(pieces);
        let sent = wait(runtime, &request.stop, sending.end())?;
        wait(runtime, &request.stop, sent.finish(&self.descriptor.digest))
    }

    /// Its content.
    pub fn open(&self) -> Result<File> {
        Ok(File::open(&self.path).call(|| format!("open({:?})", self.path))?)
    }
}

/// Hashes and counts what it passes on.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Images {
    /// Makes the blob of a layer, which must not go meanwhile, in a directory.
    pub fn pack_layer(&self, diff_id: &Digest, form: Form, directory: &Path) -> Result<Packed> {
        let layers = self.records.layers().map_err(Error::Records)?;
        let layer = layers.iter().find(|layer| layer.diff_id == *diff_id);
        let layer = layer.ok_or_else(|| Error::MissingLayer(Box::new(*diff_id)))?;
        Packed::write(directory, form, form.media_type(), |out| {
            self.write_layer(layer, out)
        })
    }

    /// Sends the layers that the repository of a request lacks, in the order in which they are given, which must not go
    /// meanwhile. With a form they are sent in that one, whatever form of them is known. Returns what a manifest says of each.
    /// Blocks; network is waited for by `runtime`.
    pub fn push_layers(
        &self,
        runtime: &Handle,
        request: &PushRequest,
        layers: &[Digest],
        form: Option<Form>,
        progress: &(dyn Fn(&Digest, PushState) + Sync),
    ) -> Result<Vec<Descriptor>> {
        let mut ingest = self.ingest()?;
        let records = self.layer_records(&mut ingest, layers)?;
        Sender::new(self, runtime, request, form, progress)?.layers(&records)
    }

    /// Takes a layer from its blob, unless it is here. What comes must be what both digests say.
    pub fn take_layer(
        &self,
        diff_id: &Digest,
        blob: &Digest,
        mut source: impl Read,
    ) -> Result<Hold<'_>> {
        let mut ingest = self.ingest()?;
        if ingest.has_layer(diff_id) {
            return self.hold(&[*diff_id]);
        }
        let mut start = Vec::new();
        let magic = source.by_ref().take(MAGIC_BYTES as u64);
        { magic }.read_to_end(&mut start).map_err(Error::Input)?;
        let path = ingest.path();
        let mut unpacker = Unpacker::start(Some(path.clone()), Compression::detect(&start))?;
        let mut chunk = Bytes::from(start);
        while !chunk.is_empty() && unpacker.send(&chunk).is_ok() {
            chunk = read_chunk(&mut source).map_err(Error::Input)?;
        }
        let Unpacked {
            blob: found_blob,
            diff_id: found,
            tar_size,
            size,
        } = unpacker.finish()?;
        for (what, expected, found) in [("layer", blob, found_blob), ("the tar of", diff_id, found)]
        {
            if *expected != found {
                return Err(Error::Digest {
                    what: format!("{what} {blob}"),
                    expected: Box::new(*expected),
                    found: Box::new(found),
                });
            }
        }
        let layer = NewLayer {
            diff_id: found,
            size: size.unwrap_or(0),
            tar_size,
            path,
        };
        ingest.publish(&[layer], &[], || Ok(Vec::new()))?;
        let hold = self.hold(&[found])?;
        self.release_with_last_pin(found)?;
        Ok(hold)
    }
}

/// A blob of a registry, to be read by a thread that may block.
#[derive(Debug)]
pub struct RemoteBlob {
    runtime: Handle,
    stop: watch::Receiver<bool>,
    stream: BlobStream,
    piece: Bytes,
}

impl RemoteBlob {
    /// Begins to fetch a blob. Reading ends with an error when `stop` becomes true.
    pub fn open(
        runtime: &Handle,
        repository: &Arc<Repository>,
        descriptor: &Descriptor,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let _entered = runtime.enter();
        Self {
            runtime: runtime.clone(),
            stop,
            stream: repository.blob(descriptor),
            piece: Bytes::new(),
        }
    }
}

impl Read for RemoteBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let next = wait(&self.runtime, &self.stop, self.stream.next());
            match next.map_err(io::Error::other)? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Store;

    fn layer(store: &Store) -> (Digest, Hold<'_>) {
        let snapshot = store.images.prepare_on("a", &[]).unwrap();
        std::fs::write(snapshot.upper.join("x"), b"content".repeat(1000)).unwrap();
        let made = store.take(&snapshot, Some(1000));
        store.images.remove_snapshot("a").unwrap();
        made.unwrap()
    }

    #[test]
    fn a_layer_goes_elsewhere_and_comes_back() {
        for form in [
            Form::Plain,
            Form::Gzip(None),
            Form::Gzip(Some(9)),
            Form::Zstd(None),
            Form::Zstd(Some(1)),
        ] {
            let (from, to) = (Store::new(), Store::new());
            let (diff_id, _hold) = layer(&from);
            let directory = tempfile::tempdir().unwrap();
            let packed = from.images.pack_layer(&diff_id, form, directory.path());
            let packed = packed.unwrap();
            let again = from.images.pack_layer(&diff_id, form, directory.path());
            assert_eq!(packed.descriptor, again.unwrap().descriptor, "{form:?}");
            let size = packed.open().unwrap().metadata().unwrap().len();
            assert_eq!(packed.descriptor.size, size);
            let digest = packed.descriptor.digest;
            let hold = to
                .images
                .take_layer(&diff_id, &digest, packed.open().unwrap());
            let hold = hold.unwrap();
            assert!(to.layer(&diff_id).join("x").is_file());
            // What is here is not read again.
            let nothing = io::empty();
            to.images.take_layer(&diff_id, &digest, nothing).unwrap();
            drop(hold);
            assert!(!to.layer(&diff_id).exists(), "nothing holds it any more");
        }
    }

    #[test]
    fn what_is_not_what_its_digests_say_is_refused() {
        let (from, to) = (Store::new(), Store::new());
        let (diff_id, _hold) = layer(&from);
        let directory = tempfile::tempdir().unwrap();
        let packed = from
            .images
            .pack_layer(&diff_id, Form::Gzip(None), directory.path());
        let packed = packed.unwrap();
        let mut bytes = Vec::new();
        packed.open().unwrap().read_to_end(&mut bytes).unwrap();
        let other = Digest::sha256(b"other");
        let digest = packed.descriptor.digest;
        let half = &bytes[..bytes.len() / 2];
        for (diff_id, blob, bytes) in [
            (diff_id, other, &bytes[..]),
            (other, digest, &bytes[..]),
            (diff_id, digest, half),
            (diff_id, digest, b"no layer"),
        ] {
            to.images.take_layer(&diff_id, &blob, bytes).unwrap_err();
            assert!(!to.layer(&diff_id).exists());
        }
    }
}
