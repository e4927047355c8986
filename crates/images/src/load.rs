//! Loading archives: reading one pass of a tar whose parts come in any order, and making images of what it held.
//!
//! An archive names its parts only in `manifest.json` or `index.json`, which may come last, and it cannot be read twice. So
//! every file is taken for what its first bytes look like: JSON is kept in memory (within limits), everything that looks
//! like a layer is unpacked at once. In the end the manifests choose among what is there, by the digests that were
//! *computed*; names in the archive prove nothing. What nobody chose goes with the temporary directory.

use crate::compression::{Compression, Decoder, MAGIC_BYTES};
use crate::image::{Loaded, Progress};
use crate::limits::{ARCHIVE_LAYERS_MAX, DOCUMENTS_BYTES_MAX};
use crate::manifests::{self, Archived};
use crate::pipe::{self, CHUNK_BYTES, Chunk, read_chunk};
use crate::records::{ImageRecord, ReferenceRecord, Update};
use crate::store::{Ingest, NewLayer};
use crate::tar::{self, Entry, Kind};
use crate::unpacker::{Unpacked, Unpacker};
use crate::{Error, ErrorKind, Images, Result, place, platform};
use jiff::Timestamp;
use oci::Digest;
use oci::image::{CONFIG_BYTES_MAX, Platform};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// Layers that unpack at the same time: while one of them makes small files, the other decompresses.
const LAYERS_AT_ONCE: usize = 2;
/// Symbolic and hard links from one name in an archive to another.
const LINKS_MAX: u32 = 8;
/// Bytes of the buffer between the source and the archive's headers.
const BUFFER_BYTES: usize = 64 << 10;

/// What was found under a name in an archive.
#[derive(Debug)]
pub(crate) enum Item {
    /// JSON: the index of its bytes.
    Document(usize),
    /// The index of a layer.
    Layer(usize),
    /// Another name.
    Link(PathBuf),
    /// Something that is neither, and why it cannot be used should it be asked for.
    Other(String),
}

/// All that an archive held.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    items: HashMap<PathBuf, Item>,
    /// Documents with their digests.
    documents: Vec<(Digest, Vec<u8>)>,
    documents_bytes: u64,
    /// Layers with their names, and what became of them.
    layers: Vec<(PathBuf, Result<FoundLayer>)>,
}

/// A layer that an archive held.
#[derive(Debug, Clone)]
pub(crate) struct FoundLayer {
    /// Its digests and sizes.
    pub(crate) unpacked: Unpacked,
    /// Where it was unpacked, unless the store has it.
    pub(crate) path: Option<PathBuf>,
}

impl Images {
    /// Loads the images of an archive: as `docker save` writes it, or an OCI layout as tar; plain or compressed.
    /// All of them become visible at once, or none. With a platform, of each name the image that runs there; else all that are there.
    pub fn load(
        &self,
        archive: impl Read + Send,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Loaded>> {
        let mut ingest = self.ingest()?;
        let contents = read_archive(&mut ingest, archive, progress)?;
        let images = manifests::images(&contents, platform)?;
        publish(&mut ingest, images)
    }
}

/// Makes the images of an archive part of the store.
fn publish(ingest: &mut Ingest<'_>, all: Vec<Archived>) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    let (mut layers, mut blobs, mut updates) = (HashMap::new(), Vec::new(), Vec::new());
    let added_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    for Archived { images, references } in all {
        let mut named = Vec::new();
        for image in images {
            layers.extend(image.layers.iter().filter_map(new_layer));
            let id = image.config.0;
            let diff_ids = image.layers.iter().map(|layer| layer.unpacked.diff_id);
            updates.push(Update::PutImage(ImageRecord {
                id,
                manifest: image.manifest.0,
                layers: diff_ids.collect(),
                added_ns,
            }));
            named.push((id, image.platform));
            blobs.extend([image.config, image.manifest]);
        }
        let ids = platform::ordered(&named);
        let names = references.iter().cloned();
        updates.extend(names.map(|name| Update::SetReference(ReferenceRecord::of(name, &ids))));
        loaded.push(Loaded {
            id: ids[0],
            references,
        });
    }
    let layers: Vec<NewLayer> = layers.into_values().collect();
    ingest.publish(&layers, &blobs, || Ok(updates))?;
    Ok(loaded)
}

/// A layer by its diff ID, where it was unpacked.
fn new_layer(layer: &FoundLayer) -> Option<(Digest, NewLayer)> {
    let Unpacked {
        diff_id,
        tar_size,
        size,
        ..
    } = layer.unpacked;
    let new = NewLayer {
        diff_id,
        size: size?,
        tar_size,
        path: layer.path.clone()?,
    };
    Some((diff_id, new))
}

/// Reads a whole archive, decompressing it on another thread where it is compressed.
fn read_archive(
    ingest: &mut Ingest<'_>,
    archive: impl Read + Send,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Contents> {
    let (compression, source) = detect(archive)?;
    if compression == Compression::None {
        return Contents::read(ingest, source, progress);
    }
    std::thread::scope(|scope| {
        let (output, mut readers) = pipe::tee(1);
        let decompress = scope.spawn(move || -> Result<()> {
            let mut decoder = Decoder::new(source, compression).map_err(Error::Decompress)?;
            loop {
                let chunk = read_chunk(&mut decoder).map_err(Error::Decompress)?;
                // A reader that is gone has failed, and tells why.
                if chunk.is_empty() {
                    let _ = output.finish();
                    return Ok(());
                }
                if output.send(&chunk).is_err() {
                    return Ok(());
                }
            }
        });
        let read = Contents::read(ingest, readers.remove(0), progress);
        let decompressed = decompress
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        decompressed.and(read)
    })
}

/// Tells what a stream is, and gives it back whole.
pub(crate) fn detect<R: Read>(mut stream: R) -> Result<(Compression, impl BufRead + use<R>)> {
    let mut start = Vec::new();
    let magic = stream.by_ref().take(MAGIC_BYTES as u64);
    { magic }.read_to_end(&mut start).map_err(Error::Input)?;
    let compression = Compression::detect(&start);
    let stream = Cursor::new(start).chain(stream);
    Ok((compression, BufReader::with_capacity(BUFFER_BYTES, stream)))
}

impl Contents {
    /// Reads an archive.
    fn read(
        ingest: &mut Ingest<'_>,
        source: impl BufRead,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self> {
        let mut contents = Self::default();
        let mut running = Running::default();
        let mut reader = tar::Reader::new(source);
        while let Some(entry) = reader.next_entry()? {
            let path = place::clean(&entry.path)?;
            let item = match &entry.kind {
                Kind::File => {
                    contents.file(ingest, &mut reader, &entry, &path, &mut running, progress)?
                }
                Kind::HardLink { target } => Item::Link(place::clean(target)?),
                Kind::Symlink { target } => Item::Link(link_path(&path, target)?),
                Kind::Directory => continue,
                _ => Item::Other("it is a device or a pipe".to_owned()),
            };
            // Of several files with one name the last one counts, as when the archive is extracted.
            contents.items.insert(path, item);
        }
        // What follows says whether a compressed archive is complete.
        reader.finish()?;
        while running.finish_oldest(&mut contents)? {}
        Ok(contents)
    }

    /// Takes one file of the archive for what it looks like.
    fn file(
        &mut self,
        ingest: &mut Ingest<'_>,
        reader: &mut tar::Reader<impl BufRead>,
        entry: &Entry,
        path: &Path,
        running: &mut Running,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Item> {
        if entry.sparse.is_some() {
            return Ok(Item::Other("it is a sparse file".to_owned()));
        }
        let start = reader.read_content(CHUNK_BYTES)?;
        // The name of a tar's first member may begin like JSON.
        let is_tar = tar::looks_like_archive(&start);
        if !is_tar && looks_like_json(&start) {
            if entry.size > CONFIG_BYTES_MAX {
                return Ok(Item::Other(format!(
                    "its {} bytes are too many",
                    entry.size
                )));
            }
            return self.document(reader, start, entry.size);
        }
        let compression = Compression::detect(&start);
        if compression == Compression::None && !is_tar {
            return Ok(Item::Other("it is neither JSON nor a layer".to_owned()));
        }
        if self.layers.len() + running.layers.len() >= ARCHIVE_LAYERS_MAX {
            let reason = format!("it has more than {ARCHIVE_LAYERS_MAX} layers");
            return Err(Error::Archive(reason));
        }
        while running.layers.len() >= LAYERS_AT_ONCE {
            running.finish_oldest(self)?;
        }
        let index = self.layers.len() + running.layers.len();
        let place = match stored(ingest, path) {
            Some(digest) if compression == Compression::None => Place::Stored(digest),
            _ => Place::New(ingest.path()),
        };
        let mut unpacker = Unpacker::start(place.directory(), compression)?;
        let name = path.to_string_lossy();
        let (mut chunk, mut read, size) = (Chunk::from(start), 0, entry.size);
        while !chunk.is_empty() {
            read += chunk.len() as u64;
            // A layer that failed may be one that no manifest wants; it is skipped then.
            if unpacker.send(&chunk).is_err() {
                break;
            }
            progress(Progress {
                layer: &name,
                read,
                size,
            });
            chunk = reader.read_content(CHUNK_BYTES)?.into();
        }
        running.layers.push_back((path.to_owned(), unpacker, place));
        Ok(Item::Layer(index))
    }

    /// Keeps a document in memory.
    fn document(
        &mut self,
        reader: &mut tar::Reader<impl BufRead>,
        mut bytes: Vec<u8>,
        size: u64,
    ) -> Result<Item> {
        self.documents_bytes += size;
        if self.documents_bytes > DOCUMENTS_BYTES_MAX {
            let reason = format!("its documents have more than {DOCUMENTS_BYTES_MAX} bytes");
            return Err(Error::Archive(reason));
        }
        bytes.extend(reader.read_content(usize::MAX)?);
        self.documents.push((Digest::sha256(&bytes), bytes));
        Ok(Item::Document(self.documents.len() - 1))
    }

    /// What is under a name, following links.
    fn item(&self, path: &Path) -> Result<Option<&Item>> {
        let mut item = self.items.get(path);
        for _ in 0..LINKS_MAX {
            match item {
                Some(Item::Link(target)) => item = self.items.get(target),
                other => return Ok(other),
            }
        }
        let reason = format!("{} leads through too many links", path.display());
        Err(Error::Archive(reason))
    }

    /// The document under a name, with its digest; `None` where nothing has the name.
    pub(crate) fn document_at(&self, path: &Path) -> Result<Option<&(Digest, Vec<u8>)>> {
        match self.item(path)? {
            None => Ok(None),
            Some(Item::Document(index)) => Ok(Some(&self.documents[*index])),
            Some(Item::Other(reason)) => Err(unusable(path, reason)),
            Some(_) => Err(unusable(path, "it is no JSON")),
        }
    }

    /// The layer under a name.
    pub(crate) fn layer_at(&self, path: &Path) -> Result<&FoundLayer> {
        match self.item(path)? {
            None => Err(Error::Archive(format!("{} is missing", path.display()))),
            Some(Item::Layer(index)) => self.layer(*index),
            Some(Item::Other(reason)) => Err(unusable(path, reason)),
            Some(_) => Err(unusable(path, "it is no layer")),
        }
    }

    /// The document with a digest.
    pub(crate) fn document_by(&self, digest: &Digest) -> Option<&[u8]> {
        let found = self.documents.iter().find(|(found, _)| found == digest);
        found.map(|(_, bytes)| bytes.as_slice())
    }

    /// The layer whose bytes, as they came, have a digest.
    pub(crate) fn layer_by(&self, digest: &Digest) -> Result<&FoundLayer> {
        let has_digest = |(_, layer): &(PathBuf, Result<FoundLayer>)| {
            layer
                .as_ref()
                .is_ok_and(|layer| layer.unpacked.blob == *digest)
        };
        match self.layers.iter().position(has_digest) {
            Some(index) => self.layer(index),
            None => Err(self.missing(digest)),
        }
    }

    /// Why no content has a digest: the file that should is another, or broken, or not there.
    pub(crate) fn missing(&self, digest: &Digest) -> Error {
        let path = Path::new("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex());
        let differs = |found: &Digest| Error::Digest {
            what: path.display().to_string(),
            expected: Box::new(*digest),
            found: Box::new(*found),
        };
        match self.items.get(&path) {
            Some(Item::Document(index)) => differs(&self.documents[*index].0),
            Some(Item::Layer(index)) => match self.layer(*index) {
                Ok(layer) => differs(&layer.unpacked.blob),
                Err(error) => error,
            },
            Some(Item::Other(reason)) => unusable(&path, reason),
            Some(Item::Link(_)) | None => Error::Archive(format!("{} is missing", path.display())),
        }
    }

    fn layer(&self, index: usize) -> Result<&FoundLayer> {
        let (path, layer) = &self.layers[index];
        layer
            .as_ref()
            .map_err(|error| unusable(path, &crate::error::chain(error)))
    }
}

/// The layers that are being unpacked, the oldest first.
#[derive(Default)]
struct Running {
    layers: VecDeque<(PathBuf, Unpacker, Place)>,
}

/// Where a layer goes.
enum Place {
    /// Into this directory.
    New(PathBuf),
    /// Nowhere: the store has a layer with this diff ID, which the name promises and the content must have.
    Stored(Digest),
}

impl Place {
    fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::New(path) => Some(path.clone()),
            Self::Stored(_) => None,
        }
    }
}

impl Running {
    /// Waits for the oldest; false where there is none.
    fn finish_oldest(&mut self, contents: &mut Contents) -> Result<bool> {
        let Some((name, unpacker, place)) = self.layers.pop_front() else {
            return Ok(false);
        };
        let found = unpacker.finish().and_then(|unpacked| match &place {
            Place::Stored(digest) if *digest != unpacked.diff_id => Err(Error::Digest {
                what: name.display().to_string(),
                expected: Box::new(*digest),
                found: Box::new(unpacked.diff_id),
            }),
            place => Ok(FoundLayer {
                unpacked,
                path: place.directory(),
            }),
        });
        match found {
            // A disk that is full fails the load now, not after the rest has been read.
            Err(error) if error.kind() == ErrorKind::System => {
                return Err(Error::In {
                    what: name.display().to_string(),
                    source: Box::new(error),
                });
            }
            found => contents.layers.push((name, found)),
        }
        Ok(true)
    }
}

fn unusable(path: &Path, reason: &str) -> Error {
    Error::Entry {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// The layer of the store whose diff ID a file is named by, as those of plain layers are.
fn stored(ingest: &mut Ingest<'_>, path: &Path) -> Option<Digest> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match format!("sha256:{}", name.strip_suffix(".tar").unwrap_or(name)).parse() {
        Ok(digest) if ingest.has_layer(&digest) => Some(digest),
        _ => None,
    }
}

/// Where a symlink in an archive leads.
fn link_path(link: &Path, target: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let parent = link.parent().unwrap_or(Path::new(""));
    place::clean(&[parent.as_os_str().as_bytes(), b"/", target].concat())
}

fn looks_like_json(start: &[u8]) -> bool {
    let first = start.iter().find(|b| !b.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'['))
}
