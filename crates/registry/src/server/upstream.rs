//! A cache of another registry: what is asked for is fetched once, given on while it comes, and kept.
//!
//! Content by its digest is fetched when it is not there. What a tag names is asked again when that was known for a while
//! ([`FRESH`]); when the other registry is away, what was known is believed. Nothing is kept, and the end of nothing is given
//! on, before it has its digest: a download of what has another one breaks off. Several who ask for one blob share one fetch,
//! which goes on when they leave.

use super::manifest::Contents;
use super::receive::BLOB_BYTES_MAX;
use super::reply::{Body, Code, FileBody, Refusal, read};
use super::route::{Name, Target};
use super::settings::UpstreamSettings;
use super::store::Store;
use super::store::links::NewManifest;
use super::{Shared, UpstreamSettings as Settings};
use crate::auth::Credentials;
use crate::blob::BlobStream;
use crate::client::{Client, Purpose, Repository};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use http::StatusCode;
use oci::digest::Hasher;
use oci::image::Descriptor;
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, mpsc, watch};

/// How long what a tag names is believed without asking.
const FRESH: Duration = Duration::from_secs(60);
/// Blobs that are fetched at once.
const FETCHES_MAX: usize = 32;
/// Pieces of a blob that wait for a slow client, and bytes of each.
const PIECES_MAX: usize = 2;
const PIECE_BYTES: u64 = 256 << 10;
/// What the other registry is called here; nobody else can be (RFC 2606).
const DOMAIN: &str = "upstream.invalid";

/// The blobs that are being looked for or fetched, for one repository each.
type Fetches = HashMap<(Name, Digest), Arc<OnceCell<Found>>>;

/// The other registry.
#[derive(Debug)]
pub(super) struct Upstream {
    client: Client,
    credentials: Credentials,
    fetches: Mutex<Fetches>,
    permits: Arc<Semaphore>,
}

/// Where the bytes of a blob are.
pub(super) enum Content {
    /// In the storage.
    Kept(File),
    /// On their way.
    Coming(Arc<Fetch>),
}

#[derive(Debug, Clone)]
enum Found {
    /// Another repository had it.
    Kept,
    Coming(Arc<Fetch>),
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    file: File,
    size: u64,
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

impl Upstream {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let UpstreamSettings {
            address,
            credentials,
            registries,
        } = settings;
        let mut registries = registries.clone();
        registries.locate(DOMAIN, address.clone());
        Ok(Self {
            client: Client::new(registries),
            credentials: credentials.clone(),
            fetches: Mutex::default(),
            permits: Arc::new(Semaphore::new(FETCHES_MAX)),
        })
    }

    fn repository(&self, name: &Name) -> Result<(Reference, Arc<Repository>), Refusal> {
        let reference: Reference = format!("{DOMAIN}/{name}").parse().map_err(|_| {
            let message = "the other registry cannot have such a name";
            Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, message)
        })?;
        let credentials = self.credentials.clone();
        let repository = { &self.client }.repository(&reference, credentials, Purpose::Pull)?;
        Ok((reference, repository))
    }

    /// The size of a blob there.
    pub(super) async fn blob_size(&self, name: &Name, digest: Digest) -> Result<u64, Refusal> {
        let (_, repository) = self.repository(name)?;
        let size = repository
            .blob_size(&digest)
            .await
            .map_err(|error| away(&error))?;
        let size = size.ok_or_else(|| Refusal::no_blob(&digest))?;
        if size > BLOB_BYTES_MAX {
            let message = format!("the blob has more than {BLOB_BYTES_MAX} bytes");
            return Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                Code::SizeInvalid,
                message,
            ));
        }
        Ok(size)
    }

    /// Finds a blob that is not in the storage, and begins to fetch it where nobody does yet. Its size.
    pub(super) async fn blob(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        digest: Digest,
    ) -> Result<(Content, u64), Refusal> {
        let key = (name.clone(), digest);
        let cell = self.fetches(|fetches| Arc::clone(fetches.entry(key.clone()).or_default()));
        let found = cell
            .get_or_try_init(|| self.begin(shared, name, digest))
            .await;
        match found {
            Ok(Found::Coming(fetch)) => Ok((Content::Coming(Arc::clone(fetch)), fetch.size)),
            other => {
                self.fetches(|fetches| fetches.remove(&key));
                other?;
                let of = name.clone();
                let kept = shared
                    .blocking(move |store| store.blob(&of, &digest))
                    .await?;
                let (file, size) = kept.ok_or_else(|| Refusal::no_blob(&digest))?;
                Ok((Content::Kept(file), size))
            }
        }
    }

    fn fetches<T>(&self, act: impl FnOnce(&mut Fetches) -> T) -> T {
        act(&mut self.fetches.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn begin(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        digest: Digest,
    ) -> Result<Found, Refusal> {
        // Whether the repository has it is for the other registry to say, whoever has it here.
        let size = self.blob_size(name, digest).await?;
        let of = name.clone();
        let opened = shared.blocking(move |store| {
            let hold = store.share()?;
            if store.link_blob(&hold, &of, &digest)? {
                return Ok(None);
            }
            let path = store.scratch()?;
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            let file = file.map_err(|source| storage(&path, source))?;
            Ok(Some((path, file)))
        });
        let Some((path, file)) = opened.await? else {
            return Ok(Found::Kept);
        };
        let (_, repository) = self.repository(name)?;
        let (progress, watched) = watch::channel(Progress::Bytes(0));
        let target = file.try_clone().map_err(|source| storage(&path, source))?;
        let arrival = Arrival {
            store: shared.store.clone(),
            name: name.clone(),
            digest,
            path,
            file: target,
            progress,
        };
        let (shared, permits) = (Arc::clone(shared), Arc::clone(&self.permits));
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let key = (arrival.name.clone(), digest);
            let stream = repository.blob(&Descriptor::new("", digest, size));
            if let Err(error) = arrival.run(stream).await {
                let cause = std::error::Error::source(&error);
                tracing::warn!(%error, ?cause, %digest, "a blob could not be fetched");
            }
            if let Some(upstream) = &shared.upstream {
                upstream.fetches(|fetches| fetches.remove(&key));
            }
        });
        Ok(Found::Coming(Arc::new(Fetch {
            file,
            size,
            progress: watched,
        })))
    }

    /// Brings a manifest to the storage, or what a tag names now. It may still not be there afterwards: then the other registry
    /// does not have it either.
    pub(super) async fn bring_manifest(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        target: &Target,
    ) -> Result<(), Refusal> {
        let (of, wanted) = (name.clone(), target.clone());
        let known = shared
            .blocking(move |store| known(store, &of, &wanted))
            .await?;
        if known == Known::Fresh {
            return Ok(());
        }
        match (self.ask(shared, name, target, known).await, known) {
            (Ok(()), _) => Ok(()),
            (Err(error), _) if error.kind() == ErrorKind::NotFound => {
                Err(Refusal::no_manifest(target))
            }
            (Err(error), Known::Stale(_)) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, repository = %name, %target, "believing what was known");
                Ok(())
            }
            (Err(error), _) => Err(away(&error)),
        }
    }

    async fn ask(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        target: &Target,
        known: Known,
    ) -> Result<()> {
        let (reference, repository) = self.repository(name).map_err(|refusal| refused(&refusal))?;
        let reference = match target {
            Target::Digest(digest) => reference.with_digest(*digest),
            Target::Tag(tag) => reference.with_tag(tag).expect("a tag was checked"),
        };
        let mut tags = Vec::new();
        if let Target::Tag(tag) = target {
            if let Known::Stale(digest) = known
                && repository.manifest_digest(&reference).await? == Some(digest)
            {
                let (of, tag) = (name.clone(), tag.clone());
                let renewed = shared
                    .blocking(move |store| store.renew_tag(&of, &tag))
                    .await;
                return renewed.map_err(|refusal| refused(&refusal));
            }
            tags.push(tag.clone());
        }
        let manifest = repository.manifest(&reference).await?;
        let rejected = |reason: String| Error::Settings {
            path: PathBuf::from(reference.to_string()),
            reason,
        };
        let contents = Contents::read(&manifest.bytes).map_err(rejected)?;
        let media_type = contents
            .agreed_type(Some(&manifest.media_type))
            .map_err(rejected)?;
        let digest = manifest.digest;
        let size = manifest.bytes.len() as u64;
        let referrer = { contents.subject }
            .map(|subject| (subject, contents.referrer(&media_type, digest, size)));
        let new = NewManifest {
            digest,
            media_type,
            // They come when somebody asks for them.
            blobs: Vec::new(),
            referrer,
            tags,
        };
        let of = name.clone();
        let stored = shared.blocking(move |store| store.push_manifest(&of, &manifest.bytes, &new));
        stored.await.map(drop).map_err(|refusal| refused(&refusal))
    }

    /// The tags of a repository there; `None` when the registry is away.
    pub(super) async fn tags(&self, name: &Name) -> Result<Option<Vec<String>>, Refusal> {
        let (_, repository) = self.repository(name)?;
        match repository.tags().await {
            Ok(tags) => Ok(Some(tags)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, repository = %name, "listing the tags that are known");
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = format!("there is no repository {name}");
                Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    Code::NameUnknown,
                    message,
                ))
            }
            Err(error) => Err(away(&error)),
        }
    }

    /// Brings the manifests that refer to one to the storage.
    pub(super) async fn bring_referrers(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        subject: &Digest,
    ) -> Result<(), Refusal> {
        let (_, repository) = self.repository(name)?;
        match repository.referrers(subject).await {
            Ok(index) => {
                for descriptor in index.manifests {
                    let target = Target::Digest(descriptor.digest);
                    self.bring_manifest(shared, name, &target).await?;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, repository = %name, "listing the referrers that are known");
                Ok(())
            }
            Err(error) => Err(away(&error)),
        }
    }
}

/// What the storage knows of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// What it is.
    Fresh,
    /// What it was.
    Stale(Digest),
    Nothing,
}

fn known(store: &Store, name: &Name, target: &Target) -> Result<Known> {
    let (digest, is_fresh) = match target {
        Target::Digest(digest) => (*digest, true),
        Target::Tag(tag) => match store.tag(name, tag)? {
            None => return Ok(Known::Nothing),
            // A clock that was turned back makes nothing fresh.
            Some((digest, since)) => (digest, since.elapsed().is_ok_and(|age| age < FRESH)),
        },
    };
    if store.manifest(name, &digest)?.is_none() {
        return Ok(Known::Nothing);
    }
    store.renew_manifest(name, &digest)?;
    Ok(if is_fresh {
        Known::Fresh
    } else {
        Known::Stale(digest)
    })
}

/// What the other registry's failure is to a client.
fn away(error: &Error) -> Refusal {
    let (status, code) = match error.kind() {
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, Code::NameUnknown),
        ErrorKind::Denied => (StatusCode::FORBIDDEN, Code::Denied),
        ErrorKind::Invalid | ErrorKind::Unavailable => (StatusCode::BAD_GATEWAY, Code::Unknown),
    };
    tracing::warn!(%error, cause = ?std::error::Error::source(error), "the other registry failed");
    Refusal::new(
        status,
        code,
        "the registry that this is a cache of failed, or denies it",
    )
}

/// A failure on this side, where that side's are expected; it was logged where it became one.
fn refused(refusal: &Refusal) -> Error {
    Error::Storage {
        call: refusal.message.clone(),
        source: io::ErrorKind::Other.into(),
    }
}

fn storage(path: &Path, source: io::Error) -> Error {
    Error::Storage {
        call: format!("write({path:?})"),
        source,
    }
}

/// A blob that is being written.
struct Arrival {
    store: Store,
    name: Name,
    digest: Digest,
    path: PathBuf,
    file: File,
    progress: watch::Sender<Progress>,
}

impl Arrival {
    /// Writes what comes; those who read see the progress, and that it has ended when this has.
    async fn run(self, mut stream: BlobStream) -> Result<()> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut written = 0;
        let mut file = self
            .file
            .try_clone()
            .map_err(|error| storage(&self.path, error))?;
        let came = loop {
            let piece = match stream.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let length = piece.len() as u64;
            let writing = tokio::task::spawn_blocking(move || {
                hasher.update(&piece);
                let result = file.write_all(&piece);
                (file, hasher, result)
            });
            let result;
            (file, hasher, result) = writing
                .await
                .map_err(|error| storage(&self.path, io::Error::other(error)))?;
            if let Err(error) = result {
                break Err(storage(&self.path, error));
            }
            written += length;
            self.progress.send_replace(Progress::Bytes(written));
        };
        let finishing = tokio::task::spawn_blocking(move || {
            let kept = came.and_then(|()| self.keep(hasher.finish()));
            match &kept {
                Ok(()) => {
                    self.progress.send_replace(Progress::Done);
                }
                // What is left is swept away later.
                Err(_) => drop(fs::remove_file(&self.path)),
            }
            kept
        });
        finishing.await.map_err(|error| Error::Storage {
            call: "keep a blob".to_owned(),
            source: io::Error::other(error),
        })?
    }

    fn keep(&self, found: Digest) -> Result<()> {
        if found != self.digest {
            return Err(Error::Digest {
                what: format!("a blob of {}", self.name),
                expected: Box::new(self.digest),
                found: Box::new(found),
            });
        }
        { self.file.sync_data() }.map_err(|error| storage(&self.path, error))?;
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
