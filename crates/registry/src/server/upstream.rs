//! A cache of another registry: what is asked for is fetched once, given on while it comes, and kept.
//!
//! Content by its digest is fetched when it is not there. What a tag names is asked again when that was known for a while
//! ([`FRESH`]); when the other registry is away, what was known is believed. Nothing is kept, and the end of nothing is given
//! on, before it has its digest: a download of what has another one breaks off. Several who ask for one blob share one fetch,
//! which goes on when they leave.

use super::Shared;
use super::fetch::{Arrival, Content, Fetch};
use super::manifest::Contents;
use super::receive::BLOB_BYTES_MAX;
use super::reply::{Code, Refusal};
use super::route::{Name, Target};
use super::settings::UpstreamSettings;
use super::store::Store;
use super::store::links::NewManifest;
use crate::auth::Credentials;
use crate::client::{Client, Purpose, Repository};
use crate::error::{Error, ErrorKind, Result};
use http::StatusCode;
use oci::image::{Descriptor, INDEX_MANIFESTS_MAX};
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};

/// How long what a tag names is believed without asking.
const FRESH: Duration = Duration::from_secs(60);
/// Blobs that are fetched at once.
const FETCHES_MAX: usize = 32;
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

#[derive(Debug, Clone)]
enum Found {
    /// Another repository had it.
    Kept,
    Coming(Arc<Fetch>),
}

impl Upstream {
    pub(super) fn new(settings: &UpstreamSettings) -> Result<Self> {
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
        let begun = shared.blocking(move |store| {
            let hold = store.share()?;
            if store.link_blob(&hold, &of, &digest)? {
                return Ok(None);
            }
            Arrival::begin(store, &of, digest, size).map(Some)
        });
        let Some((arrival, fetch)) = begun.await? else {
            return Ok(Found::Kept);
        };
        let (_, repository) = self.repository(name)?;
        let (shared, permits) = (Arc::clone(shared), Arc::clone(&self.permits));
        let (key, arrival) = ((name.clone(), digest), Arc::new(arrival));
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let stream = repository.blob(&Descriptor::new("", digest, size));
            if let Err(error) = arrival.run(stream).await {
                let cause = std::error::Error::source(&error);
                tracing::warn!(%error, ?cause, %digest, "a blob could not be fetched");
            }
            if let Some(upstream) = &shared.upstream {
                upstream.fetches(|fetches| fetches.remove(&key));
            }
            // Those who see it fail now, and try again, are not told the same once more.
            drop(arrival);
        });
        Ok(Found::Coming(Arc::new(fetch)))
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
        let error = match self.ask(shared, name, target, known).await {
            Ok(()) => return Ok(()),
            Err(Failure::Here(refusal)) => return Err(refusal),
            Err(Failure::There(error)) => error,
        };
        match (error.kind(), known) {
            (ErrorKind::NotFound, _) => Err(Refusal::no_manifest(target)),
            (ErrorKind::Unavailable, Known::Stale(_)) => {
                tracing::warn!(%error, repository = %name, %target, "believing what was known");
                Ok(())
            }
            _ => Err(away(&error)),
        }
    }

    async fn ask(
        &self,
        shared: &Arc<Shared>,
        name: &Name,
        target: &Target,
        known: Known,
    ) -> Result<(), Failure> {
        let (reference, repository) = self.repository(name)?;
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
                let renewed = shared.blocking(move |store| store.renew_tag(&of, &tag));
                return Ok(renewed.await?);
            }
            tags.push(tag.clone());
        }
        let manifest = repository.manifest(&reference).await?;
        let rejected = |reason: String| Error::Protocol {
            call: format!("GET {reference}"),
            what: format!("sends a manifest that is not accepted: {reason}"),
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
        stored.await?;
        Ok(())
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
            Ok(index) if index.manifests.len() > INDEX_MANIFESTS_MAX => {
                let message = format!("more than {INDEX_MANIFESTS_MAX} manifests refer to it");
                let status = StatusCode::BAD_GATEWAY;
                Err(Refusal::new(status, Code::SizeInvalid, message))
            }
            Ok(index) => {
                for descriptor in index.manifests {
                    let target = Target::Digest(descriptor.digest);
                    match self.bring_manifest(shared, name, &target).await {
                        // It was deleted after it was listed.
                        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
                        other => other?,
                    }
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
        ErrorKind::Denied | ErrorKind::Forbidden => (StatusCode::FORBIDDEN, Code::Denied),
        ErrorKind::Invalid | ErrorKind::Unavailable => (StatusCode::BAD_GATEWAY, Code::Unknown),
    };
    tracing::warn!(%error, cause = ?std::error::Error::source(error), "the other registry failed");
    Refusal::new(
        status,
        code,
        "the registry that this is a cache of failed, or denies it",
    )
}

/// On which side something has failed.
enum Failure {
    Here(Refusal),
    There(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Here(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::There(error)
    }
}
