//! Sending the layers of images to a repository.
//!
//! Compressed bytes are not kept (ADR 1), so what a layer is compressed to is known from the manifests that came with it, or
//! by compressing it, which gives the same bytes each time. The registry is asked for the known ones first, then for them in
//! other repositories of its; only what it has nowhere is made again and sent while it is made.

use crate::blobs::Form;
use crate::compression::Encoder;
use crate::parallel;
use crate::pull::wait;
use crate::push::{PushRequest, PushState};
use crate::records::{ImageRecord, LayerRecord};
use crate::{Error, Images, Result};
use bytes::{Bytes, BytesMut};
use oci::digest::{Algorithm, Hasher};
use oci::image::{CONFIG_BYTES_MAX, Descriptor, media_type};
use oci::{Digest, Reference};
use registry::Upload;
use std::collections::HashMap;
use std::io::{self, Write};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Layers that go at the same time.
const LAYERS_AT_ONCE: usize = 3;
/// How often a layer's upload is begun.
const UPLOADS_MAX: u32 = 3;
/// Bytes of one piece of a body.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be sent.
pub(crate) const PIECES_MAX: usize = 8;

/// A compressed form of a layer that is known, and repositories that have it.
#[derive(Debug, Clone)]
struct Known {
    descriptor: Descriptor,
    repositories: Vec<Reference>,
}

/// Sends layers.
pub(crate) struct Sender<'a> {
    images: &'a Images,
    runtime: &'a Handle,
    request: &'a PushRequest,
    progress: &'a (dyn Fn(&Digest, PushState) + Sync),
    known: HashMap<Digest, Vec<Known>>,
    /// How layers go; where nothing is said, as they came, or else so that everybody can read them.
    form: Option<Form>,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(
        images: &'a Images,
        runtime: &'a Handle,
        request: &'a PushRequest,
        form: Option<Form>,
        progress: &'a (dyn Fn(&Digest, PushState) + Sync),
    ) -> Result<Self> {
        let known = match form {
            None => images.known_blobs(&request.reference)?,
            // Whether a known one has this form and level cannot be told.
            Some(_) => HashMap::new(),
        };
        Ok(Self {
            images,
            runtime,
            request,
            progress,
            known,
            form,
        })
    }

    /// Sends the layers that are not there yet, several at once. Returns what the manifest says of each.
    pub(crate) fn layers(&self, layers: &[LayerRecord]) -> Result<Vec<Descriptor>> {
        let mut distinct: Vec<&LayerRecord> = layers.iter().collect();
        distinct.sort_by_key(|layer| layer.diff_id);
        distinct.dedup_by_key(|layer| layer.diff_id);
        let sent = parallel::each(distinct, LAYERS_AT_ONCE, |layer| {
            self.layer(layer)
                .map(|descriptor| (layer.diff_id, descriptor))
        })?;
        let sent: HashMap<Digest, Descriptor> = sent.into_iter().collect();
        Ok(layers
            .iter()
            .map(|layer| sent[&layer.diff_id].clone())
            .collect())
    }

    /// Sends all of an image but its manifest, which is returned.
    pub(crate) fn image(
        &self,
        record: &ImageRecord,
        layers: &[LayerRecord],
    ) -> Result<registry::Manifest> {
        let descriptors = self.layers(layers)?;
        let manifest = self.images.manifest_of(record, &descriptors)?;
        let config = self.images.blob(&record.id, CONFIG_BYTES_MAX)?;
        let repository = &self.request.repository;
        self.wait(repository.put_document(&record.id, config.into()))?;
        Ok(manifest)
    }

    fn layer(&self, layer: &LayerRecord) -> Result<Descriptor> {
        let repository = &self.request.repository;
        let forms = self
            .known
            .get(&layer.diff_id)
            .map_or(&[][..], Vec::as_slice);
        for form in forms {
            let digest = &form.descriptor.digest;
            if self.wait(repository.has_blob(digest))? {
                (self.progress)(&layer.diff_id, PushState::Exists);
                return Ok(plainly(&form.descriptor));
            }
            for from in &form.repositories {
                // A repository that may not be read, or lacks it by now, is no help, and no failure.
                if self.wait(repository.mount(digest, from)).unwrap_or(false) {
                    (self.progress)(&layer.diff_id, PushState::Mounted(from.path().to_owned()));
                    return Ok(plainly(&form.descriptor));
                }
            }
        }
        let mut attempt = 1;
        loop {
            match self.send(layer) {
                Err(Error::Registry(error))
                    if attempt < UPLOADS_MAX && error.is_worth_another_try() =>
                {
                    attempt += 1
                }
                result => break result,
            }
        }
    }

    /// Compresses a layer, and sends it meanwhile.
    fn send(&self, layer: &LayerRecord) -> Result<Descriptor> {
        let upload = self.wait(self.request.repository.begin_upload())?;
        let (pieces, body) = mpsc::channel(PIECES_MAX);
        let sending = Sending::begin(self.runtime, self.request, upload, body);
        let mut sink = Sink {
            pieces,
            piece: BytesMut::with_capacity(PIECE_BYTES),
            hasher: Hasher::new(Algorithm::Sha256),
            size: 0,
        };
        let form = self.form(&layer.diff_id);
        let mut encoder = Encoder::new(form, &mut sink).map_err(Error::Output)?;
        let counted = Counted {
            out: &mut encoder,
            done: 0,
            told: 0,
            layer,
            sender: self,
        };
        let written = self.images.write_layer(layer, counted);
        let ended = written.and_then(|()| encoder.finish().map(drop).map_err(Error::Output));
        let ended = ended.and_then(|()| sink.send().map_err(Error::Output));
        let (digest, size) = (sink.hasher.finish(), sink.size);
        if let Err(error) = &ended {
            // The registry must not take what there is for the whole.
            let broken = io::Error::other(error.to_string());
            let _ = sink.pieces.blocking_send(Err(broken));
        }
        drop(sink.pieces);
        let sent = self.wait(sending.end());
        // A sink that was closed has its cause on the other side.
        let upload = match (ended, sent) {
            (_, Err(error)) if !matches!(error, Error::Stopped) => return Err(error),
            (Err(error), _) => return Err(error),
            (Ok(()), sent) => sent?,
        };
        self.wait(upload.finish(&digest))?;
        (self.progress)(&layer.diff_id, PushState::Pushed);
        Ok(Descriptor::new(form.media_type(), digest, size))
    }

    fn form(&self, diff_id: &Digest) -> Form {
        if let Some(form) = self.form {
            return form;
        }
        let forms = self.known.get(diff_id).into_iter().flatten();
        let mut kinds = forms.map(|form| plainly(&form.descriptor).media_type);
        match kinds.next().as_deref() {
            Some(media_type::OCI_LAYER_ZSTD) => Form::Zstd(None),
            _ => Form::Gzip(None),
        }
    }

    pub(crate) fn wait<T>(&self, work: impl Future<Output = registry::Result<T>>) -> Result<T> {
        wait(self.runtime, &self.request.stop, work).map_err(|error| match error {
            Error::Registry(registry::Error::Denied { message, .. }) => {
                Error::PushDenied { message }
            }
            other => other,
        })
    }
}

impl Images {
    /// The compressed forms of layers by diff ID, with the repositories of the same registry that have them.
    fn known_blobs(&self, target: &Reference) -> Result<HashMap<Digest, Vec<Known>>> {
        let references = self.records.references().map_err(Error::Records)?;
        let mut known: HashMap<Digest, Vec<Known>> = HashMap::new();
        for record in self.records.images().map_err(Error::Records)? {
            let Some((manifest, _)) = self.stored_manifest(&record)? else {
                continue;
            };
            let named = references
                .iter()
                .filter(|named| named.means(&record.id))
                .map(|named| &named.reference);
            let beside =
                named.filter(|name| name.digest().is_some() && name.domain() == target.domain());
            let repositories: Vec<Reference> = beside
                .filter(|name| !name.same_repository(target))
                .cloned()
                .collect();
            for (diff_id, descriptor) in record.layers.iter().zip(&manifest.layers) {
                let forms = known.entry(*diff_id).or_default();
                match forms
                    .iter_mut()
                    .find(|form| form.descriptor.digest == descriptor.digest)
                {
                    Some(form) => form.repositories.extend(repositories.iter().cloned()),
                    None => forms.push(Known {
                        descriptor: descriptor.clone(),
                        repositories: repositories.clone(),
                    }),
                }
            }
        }
        Ok(known)
    }
}

/// A body on its way.
///
/// Invariant: when nobody wants it any more its channel closes, so that whoever fills it does not wait for room in vain.
pub(crate) struct Sending(JoinHandle<Option<registry::Result<Upload>>>);

impl Sending {
    pub(crate) fn begin(
        runtime: &Handle,
        request: &PushRequest,
        upload: Upload,
        body: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Self {
        let mut stop = request.stop.clone();
        Self(runtime.spawn(async move {
            tokio::select! {
                sent = upload.stream(body) => Some(sent),
                Ok(_) = stop.wait_for(|stopped| *stopped) => None,
            }
        }))
    }

    /// Waits until all of it is sent; for ever, if nobody wants it any more.
    pub(crate) async fn end(self) -> registry::Result<Upload> {
        match self.0.await {
            Ok(Some(sent)) => sent,
            Ok(None) => std::future::pending().await,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// A descriptor as an OCI manifest has it, whatever manifest it was in.
fn plainly(descriptor: &Descriptor) -> Descriptor {
    let kind = descriptor.media_type.as_str();
    let kind = match kind {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        other => other,
    };
    Descriptor::new(kind, descriptor.digest, descriptor.size)
}

/// Hashes what it gets, and passes it on in large pieces.
struct Sink {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
    hasher: Hasher,
    size: u64,
}

impl Sink {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece =
            std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.hasher.update(&piece);
        self.size += piece.len() as u64;
        self.pieces
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells how much went.
struct Counted<'a, W> {
    out: W,
    done: u64,
    told: u64,
    layer: &'a LayerRecord,
    sender: &'a Sender<'a>,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.done += count as u64;
        if self.done - self.told >= PIECE_BYTES as u64 || self.done == self.layer.tar_size {
            self.told = self.done;
            if *self.sender.request.stop.borrow() {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            let state = PushState::Pushing {
                done: self.done,
                size: self.layer.tar_size,
            };
            (self.sender.progress)(&self.layer.diff_id, state);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
