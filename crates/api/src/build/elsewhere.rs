//! Outputs and caches of builds by this engine's own client: archives that go to it in pieces, blobs that it has sent.

use super::tell::event;
use crate::http::Pieces;
use crate::images::line;
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::{
    ArchiveOutput, BlobSink, BlobSource, CacheExport, CacheImport, CacheKind, CachePlace,
    CacheSource, CacheTarget, Context, Error, ImageOutput, LayoutOutput, LayoutTo, Output,
    OutputWish, Result,
};
use engine::images::{self, LayoutArchive};
use oci::image::{Descriptor, annotation};
use oci::{Digest, Reference};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;

/// What of a build goes elsewhere, as it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    pub(crate) outputs: Vec<types::BuildWish>,
    pub(crate) cache_imports: Vec<types::BuildWish>,
    pub(crate) cache_exports: Vec<types::BuildWish>,
}

/// An archive on its way to the client.
struct PieceWriter {
    pieces: Pieces,
    stream: String,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = types::BuildEvent::Piece {
            stream: self.stream.clone(),
            data: BASE64.encode(bytes),
        };
        let sent = self.pieces.blocking_send(Ok(line(&event(&piece))));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends an output.
struct ToClient {
    pieces: Pieces,
    stream: String,
}

impl fmt::Debug for ToClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToClient")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl ToClient {
    fn writer(&self) -> BufWriter<PieceWriter> {
        let writer = PieceWriter {
            pieces: self.pieces.clone(),
            stream: self.stream.clone(),
        };
        BufWriter::with_capacity(PIECE_BYTES, writer)
    }
}

fn sending(source: io::Error) -> Error {
    Error::System {
        doing: "send an archive".to_owned(),
        source,
    }
}

fn archiving(source: images::Error) -> Error {
    Error::Images {
        doing: "write an archive".to_owned(),
        source,
    }
}

impl ArchiveOutput for ToClient {
    fn take(&self, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut writer = self.writer();
        write(&mut writer)?;
        writer.flush().map_err(sending)
    }
}

/// Sends a cache: blobs now, and in the end what they are.
#[derive(Debug, Clone)]
pub(crate) struct CacheArchive(Arc<Archive>);

struct Archive {
    client: ToClient,
    /// Begun with the first blob.
    layout: Mutex<Option<LayoutArchive<BufWriter<PieceWriter>>>>,
    tag: String,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl Archive {
    fn layout(&self) -> MutexGuard<'_, Option<LayoutArchive<BufWriter<PieceWriter>>>> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobSink for CacheArchive {
    fn write(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let mut layout = self.0.layout();
        let layout = match &mut *layout {
            Some(layout) => layout,
            none => none.insert(LayoutArchive::new(self.0.client.writer()).map_err(archiving)?),
        };
        layout.content(blob, content).map_err(archiving)
    }
}

impl CacheArchive {
    /// Ends the archive.
    pub(crate) fn finish(&self, manifest: &Descriptor) -> Result<()> {
        let Some(layout) = self.0.layout().take() else {
            return Ok(());
        };
        let mut named = manifest.clone();
        let tag = (annotation::REF_NAME.to_owned(), self.0.tag.clone());
        named.annotations.extend([tag]);
        layout.finish(&[named], &[]).map_err(archiving)
    }
}

/// Blobs that the client has sent.
#[derive(Debug)]
pub(super) struct Sent(pub(super) Context);

impl BlobSource for Sent {
    fn read(&self, digest: &Digest, _size: Option<u64>) -> Result<Box<dyn Read + Send + '_>> {
        let path = Path::new("/").join(images::blob_path(digest));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = self.0.root().open_at(&path, flags, Mode::empty());
        let file =
            opened.map_err(|_| Error::NotFound(format!("the client has sent no blob {digest}")))?;
        Ok(Box::new(File::from(file)))
    }
}

impl Elsewhere {
    /// The outputs, and an image of these names, which the engine keeps whatever else becomes of it; without a name, only where
    /// nothing else is asked for.
    pub(crate) fn outputs(&self, names: Vec<Reference>, pieces: &Pieces) -> Result<Vec<Output>> {
        let joined: Vec<String> = names.iter().map(Reference::familiar).collect();
        let joined = joined.join(",");
        let mut outputs = Vec::new();
        let mut has_image = false;
        for (number, wish) in self.outputs.iter().enumerate() {
            let mut attributes = wish.attributes.clone();
            attributes
                .entry("name".to_owned())
                .or_insert_with(|| joined.clone());
            let client = || ToClient {
                pieces: pieces.clone(),
                stream: format!("{}{number}", types::STREAM_OUTPUT),
            };
            outputs.push(match OutputWish::read(&wish.kind, &attributes)? {
                OutputWish::Image(image) => {
                    has_image = true;
                    Output::Image(image)
                }
                OutputWish::Tar(form) => Output::Tar {
                    to: Box::new(client()),
                    form,
                },
                OutputWish::Directory(_) => {
                    return Err(Error::Unsupported(
                        "files one by one as an output".to_owned(),
                    ));
                }
                OutputWish::Layout {
                    names,
                    manifests,
                    docker,
                    // The client unpacks it.
                    tar: _,
                } => Output::Layout(LayoutOutput {
                    names,
                    docker,
                    manifests,
                    to: LayoutTo::Archive(Box::new(client())),
                }),
            });
        }
        if !has_image && (outputs.is_empty() || !names.is_empty()) {
            let image = ImageOutput {
                names,
                ..ImageOutput::default()
            };
            outputs.insert(0, Output::Image(image));
        }
        Ok(outputs)
    }

    /// The caches that are read; `sent` has those of the client.
    pub(crate) fn sources(&self, sent: &BTreeMap<String, Context>) -> Result<Vec<CacheSource>> {
        let mut sources = Vec::new();
        let mut local = 0;
        for wish in &self.cache_imports {
            sources.push(match CacheImport::read(&wish.kind, &wish.attributes)? {
                CacheImport::Registry(reference) => CacheSource::Registry(reference),
                CacheImport::Local {
                    directory,
                    manifest,
                } => {
                    let blobs = sent.get(&local.to_string()).cloned();
                    local += 1;
                    let none = || Error::Invalid(format!("the cache {directory} was not sent"));
                    CacheSource::Client {
                        name: directory.clone(),
                        blobs: Box::new(Sent(blobs.ok_or_else(none)?)),
                        manifest: manifest.ok_or_else(none)?,
                    }
                }
            });
        }
        Ok(sources)
    }

    /// The caches that are written, and the one that goes to the client.
    pub(crate) fn targets(
        &self,
        pieces: &Pieces,
    ) -> Result<(Vec<CacheTarget>, Option<CacheArchive>)> {
        let mut targets = Vec::new();
        let mut archive = None;
        for wish in &self.cache_exports {
            let options = CacheExport::read(&wish.kind, &wish.attributes)?;
            let place = match &options.kind {
                CacheKind::Inline => CachePlace::Inline,
                CacheKind::Registry(reference) => CachePlace::Registry(reference.clone()),
                CacheKind::Local(_) if archive.is_some() => {
                    return Err(Error::Unsupported(
                        "more than one cache of type local".to_owned(),
                    ));
                }
                CacheKind::Local(_) => {
                    let tag = wish.attributes.get("tag").filter(|tag| !tag.is_empty());
                    let blobs = CacheArchive(Arc::new(Archive {
                        client: ToClient {
                            pieces: pieces.clone(),
                            stream: types::STREAM_CACHE.to_owned(),
                        },
                        layout: Mutex::default(),
                        tag: tag.map_or("latest", String::as_str).to_owned(),
                    }));
                    archive = Some(blobs.clone());
                    CachePlace::Client {
                        blobs: Box::new(blobs),
                    }
                }
            };
            targets.push(CacheTarget { place, options });
        }
        Ok((targets, archive))
    }
}
