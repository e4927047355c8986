//! A client of registries: which endpoint to ask, with which authorisation, how often.
//!
//! Source: the OCI distribution specification 1.1, "Endpoints" (the numbers `end-…` below are its).

use crate::auth::{Credentials, Tokens};
use crate::authorizer::Authorizer;
use crate::blob::BlobStream;
use crate::config::{Endpoint, Registries};
use crate::error::{Error, Result};
use crate::transport::{Answer, Call, Transport, protocol};
use crate::waits::Waits;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, StatusCode};
use oci::digest::Hasher;
use oci::image::{CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, media_type};
use oci::{Digest, Reference};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// How often something is tried at one endpoint.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// Tags of one repository, and bytes of one page of them.
const TAGS_MAX: usize = 100_000;
const TAGS_BYTES_MAX: u64 = 16 << 20;
/// The number of no endpoint.
const NONE_YET: usize = usize::MAX;
/// Parts of blobs that are fetched or wait to be read, of all blobs of one client.
const PARTS_AT_ONCE: usize = 4;

/// What a repository is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read, from mirrors too.
    Pull,
    /// To write.
    Push,
}

/// A client of all registries: connections, tokens and limits are shared by what it is used for.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Arc<Transport>,
    pub(crate) tokens: Tokens,
    pub(crate) parts: Arc<Semaphore>,
}

/// One repository of a registry, as somebody.
#[derive(Debug)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
    name: Reference,
    endpoints: Vec<Arc<Endpoint>>,
    credentials: Credentials,
    purpose: Purpose,
    /// The endpoint that answered last, [`NONE_YET`] before any has.
    preferred: AtomicUsize,
}

/// A manifest or index as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest, computed.
    pub digest: Digest,
    /// What the registry says it is.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

impl Manifest {
    /// Reads the document.
    pub fn parse(&self) -> Result<Document> {
        let expected = Some(self.media_type.as_str()).filter(|kind| !is_vague(kind));
        Document::parse(&self.bytes, expected).map_err(|source| Error::Document {
            what: self.digest.to_string(),
            source,
        })
    }
}

/// Whether a content type says no more than that something is JSON.
fn is_vague(kind: &str) -> bool {
    matches!(
        kind,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    )
}

impl Client {
    /// A client of the registries as they are configured.
    pub fn new(registries: Registries) -> Self {
        Self::with_waits(registries, Waits::default())
    }

    /// As [`Self::new`], with other limits of waiting.
    pub fn with_waits(registries: Registries, waits: Waits) -> Self {
        let shared = Shared {
            transport: Arc::new(Transport::new(registries, waits)),
            tokens: Tokens::default(),
            parts: Arc::new(Semaphore::new(PARTS_AT_ONCE)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The repository of an image.
    pub fn repository(
        &self,
        name: &Reference,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Arc<Repository>> {
        let registries = &self.shared.transport.registries;
        let endpoints = registries.endpoints(name.domain(), purpose == Purpose::Pull)?;
        Ok(Arc::new(Repository {
            shared: Arc::clone(&self.shared),
            name: name.clone().without_tag(),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
            credentials,
            purpose,
            preferred: AtomicUsize::new(NONE_YET),
        }))
    }

    /// Checks credentials with a registry (end-1). Returns an identity token where the registry gives one in their place.
    pub async fn log_in(&self, domain: &str, credentials: &Credentials) -> Result<Option<String>> {
        let endpoints = self.shared.transport.registries.endpoints(domain, false)?;
        let asked = self.ask_any(&endpoints, "/v2/", credentials, "", domain);
        match asked.await? {
            (answer, identity) if answer.status().is_success() => Ok(identity),
            (answer, _) => Err(answer.into_error().await),
        }
    }

    /// Asks the first of a registry's endpoints that can be reached. Returns an identity token, too, when one was given.
    pub(crate) async fn ask_any(
        &self,
        endpoints: &[Endpoint],
        path: &str,
        credentials: &Credentials,
        scope: &str,
        what: &str,
    ) -> Result<(Answer, Option<String>)> {
        let mut last = None;
        for endpoint in endpoints {
            let call = Call::new(Method::GET, endpoint.address.url(path));
            let authorizer = Authorizer {
                shared: &self.shared,
                endpoint,
                credentials,
                scope: scope.to_owned(),
                what,
            };
            match authorizer.send(&call, &Bytes::new()).await {
                Err(error @ Error::Transport { .. }) => last = Some(error),
                answered => return answered,
            }
        }
        Err(last.expect("a registry has an endpoint"))
    }
}

impl Repository {
    /// The repository's name.
    pub fn name(&self) -> &Reference {
        &self.name
    }

    /// Fetches a manifest by its digest, or else by its tag (end-3). What a digest was given for is checked against it.
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.anywhere(|endpoint| self.manifest_at(endpoint, reference))
            .await
    }

    async fn manifest_at(
        &self,
        endpoint: Arc<Endpoint>,
        reference: &Reference,
    ) -> Result<Manifest> {
        let target = target(reference);
        let call = self
            .call(Method::GET, &endpoint, &format!("/manifests/{target}"))
            .header(ACCEPT, &accepted());
        let answer = self.ask(&endpoint, &call).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(no_manifest(reference, answer).await),
            _ => return Err(answer.into_error().await),
        }
        let kind = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let said = answer.header("docker-content-digest");
        let said: Option<Digest> = said.and_then(|text| text.parse().ok());
        let bytes = answer.bytes(MANIFEST_BYTES_MAX).await?;
        let expected = reference.digest().or(said.as_ref()).copied();
        let digest = check(&target, &bytes, expected)?;
        Ok(Manifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// Fetches a small blob whole, such as a configuration (end-2).
    pub async fn document(self: &Arc<Self>, descriptor: &Descriptor) -> Result<Bytes> {
        let what = descriptor.digest.to_string();
        if descriptor.size > CONFIG_BYTES_MAX {
            let call = self.call(Method::GET, &self.endpoints[0], &format!("/blobs/{what}"));
            return Err(protocol(
                &call,
                format!("announces {} bytes of it", descriptor.size),
            ));
        }
        let mut stream = self.blob(descriptor);
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await? {
            bytes.extend_from_slice(&piece);
        }
        check(&what, &bytes, Some(descriptor.digest))?;
        Ok(bytes.into())
    }

    /// Fetches a blob as a stream (end-2): as many bytes as its descriptor says, resumed where a connection breaks. The digest
    /// is the receiver's to check.
    pub fn blob(self: &Arc<Self>, descriptor: &Descriptor) -> BlobStream {
        BlobStream::start(Arc::clone(self), descriptor)
    }

    /// The tags of the repository (end-8), all pages of them.
    pub async fn tags(&self) -> Result<Vec<String>> {
        self.anywhere(|endpoint| self.tags_at(endpoint)).await
    }

    async fn tags_at(&self, endpoint: Arc<Endpoint>) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut tags: Vec<String> = Vec::new();
        let mut call = self.call(Method::GET, &endpoint, "/tags/list");
        loop {
            let answer = self.ask(&endpoint, &call).await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Err(Error::NoRepository {
                    name: self.name.familiar_name(),
                    message: answer.message_or("name unknown").await,
                });
            }
            if !answer.status().is_success() {
                return Err(answer.into_error().await);
            }
            let next = { answer.header("link") }
                .and_then(next_page)
                .map(str::to_owned);
            let body = answer.bytes(TAGS_BYTES_MAX).await?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| protocol(&call, format!("sends no list of tags: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > TAGS_MAX {
                return Err(protocol(&call, format!("has more than {TAGS_MAX} tags")));
            }
            let Some(next) = next else { return Ok(tags) };
            // Another page is at the same registry, whatever the link says of a host.
            let path = next.split_once("/v2/").map(|(_, path)| path.to_owned());
            let path =
                path.ok_or_else(|| protocol(&call, format!("has its next tags at {next:?}")))?;
            call.url = endpoint.address.url(&format!("/v2/{path}"));
        }
    }

    /// A request about this repository.
    pub(crate) fn call(&self, method: Method, endpoint: &Endpoint, path: &str) -> Call {
        Call::new(
            method,
            endpoint
                .address
                .url(&format!("/v2/{}{path}", self.name.path())),
        )
    }

    /// Sends a request without a body to an endpoint, authorised, and again while that may help.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer> {
        self.ask_fully(self.authorizer(endpoint), call, &Bytes::new())
            .await
    }

    /// As [`Self::ask`], with a body.
    pub(crate) async fn ask_with(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        body: &Bytes,
    ) -> Result<Answer> {
        self.ask_fully(self.authorizer(endpoint), call, body).await
    }

    /// As [`Self::ask`], with the right to read another repository of the registry.
    pub(crate) async fn ask_beside(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        other: &Reference,
    ) -> Result<Answer> {
        let mut authorizer = self.authorizer(endpoint);
        authorizer.scope = format!("{} repository:{}:pull", authorizer.scope, other.path());
        self.ask_fully(authorizer, call, &Bytes::new()).await
    }

    async fn ask_fully(
        &self,
        authorizer: Authorizer<'_>,
        call: &Call,
        body: &Bytes,
    ) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, wait) = match authorizer.send(call, body).await {
                Ok((answer, _)) => {
                    let wait = retry_after(&answer);
                    let status = answer.status();
                    if !(status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS) {
                        return Ok(answer);
                    }
                    (answer.into_error().await, wait)
                }
                Err(error) => (error, None),
            };
            let unreached = matches!(error, Error::Transport { .. } | Error::Timeout { .. });
            let elsewhere = unreached && self.is_guess(authorizer.endpoint);
            if attempt >= ATTEMPTS_MAX || !error.is_passing() || elsewhere {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "asking a registry again");
            self.rest(attempt, wait).await;
        }
    }

    /// Whether nobody knows yet that an endpoint speaks TLS, and the same place is tried without next.
    fn is_guess(&self, endpoint: &Endpoint) -> bool {
        let known = self.endpoints.get(self.preferred.load(Ordering::Relaxed));
        let has_answered = known.is_some_and(|known| **known == *endpoint);
        let mut plain = endpoint.clone();
        plain.address.tls = false;
        endpoint.address.tls && !has_answered && self.endpoints.iter().any(|other| **other == plain)
    }

    /// Waits before the next attempt: as long as the registry wants, within limits, or else longer each time.
    pub(crate) async fn rest(&self, attempt: u32, wait: Option<Duration>) {
        let waits = self.shared.transport.waits;
        let own = waits.retry * (1 << attempt.saturating_sub(1).min(ATTEMPTS_MAX));
        tokio::time::sleep(wait.map_or(own, |wait| wait.min(waits.retry_after_max))).await;
    }

    pub(crate) fn authorizer<'a>(&'a self, endpoint: &'a Endpoint) -> Authorizer<'a> {
        const NOBODY: &Credentials = &Credentials::Anonymous;
        let rights = match self.purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        Authorizer {
            shared: &self.shared,
            endpoint,
            // A mirror is somebody else's.
            credentials: if endpoint.mirror {
                NOBODY
            } else {
                &self.credentials
            },
            scope: format!("repository:{}:{rights}", self.name.path()),
            what: self.name.path(),
        }
    }

    /// Does something at the endpoint that answered last, and else at the others in their order.
    pub(crate) async fn anywhere<T, F: Future<Output = Result<T>>>(
        &self,
        act: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<T> {
        let preferred = match self.preferred.load(Ordering::Relaxed) {
            NONE_YET => 0,
            known => known,
        };
        let others = (0..self.endpoints.len()).filter(|index| *index != preferred);
        let mut last: Option<(u8, Error)> = None;
        for index in std::iter::once(preferred).chain(others) {
            let endpoint = &self.endpoints[index];
            match act(Arc::clone(endpoint)).await {
                Ok(done) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(done);
                }
                Err(error) => {
                    tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint of a registry failed");
                    // What the registry itself says counts, not that a mirror or the other scheme could not be reached.
                    let weight = match &error {
                        _ if endpoint.mirror => 0,
                        Error::Transport { .. } => 1,
                        Error::Timeout { .. } => 2,
                        _ => 3,
                    };
                    if last.as_ref().is_none_or(|(known, _)| weight > *known) {
                        last = Some((weight, error));
                    }
                }
            }
        }
        Err(last.expect("a registry has an endpoint").1)
    }
}

/// The error of an answer that a manifest is not there.
pub(crate) async fn no_manifest(reference: &Reference, answer: Answer) -> Error {
    Error::NoManifest {
        name: reference.familiar(),
        message: answer
            .message_or("manifest unknown: manifest unknown")
            .await,
    }
}

/// What a manifest is asked for by.
pub(crate) fn target(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference
            .tag()
            .unwrap_or(oci::reference::DEFAULT_TAG)
            .to_owned(),
    }
}

pub(crate) fn accepted() -> String {
    use media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", ")
}

/// The digest of content, which has to be the expected one.
fn check(what: &str, bytes: &[u8], expected: Option<Digest>) -> Result<Digest> {
    let Some(expected) = expected else {
        return Ok(Digest::sha256(bytes));
    };
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if found == expected {
        return Ok(found);
    }
    Err(Error::Digest {
        what: what.to_owned(),
        expected: Box::new(expected),
        found: Box::new(found),
    })
}

/// The target of a `Link` header with `rel="next"`: RFC 8288.
fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then_some(target)
}

/// How long a registry asks to wait: RFC 9110 section 10.2.3.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.header(RETRY_AFTER.as_str())?;
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::now())
            .ok()?,
    };
    Some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(
            next_page("</v2/a/tags/list?last=x&n=10>; rel=\"next\""),
            Some("/v2/a/tags/list?last=x&n=10")
        );
        assert_eq!(next_page("</v2/a>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }

    #[test]
    fn content_is_checked_by_the_digest_asked_for() {
        let digest = Digest::sha256(b"x");
        assert_eq!(check("it", b"x", Some(digest)).unwrap(), digest);
        assert!(matches!(
            check("it", b"y", Some(digest)),
            Err(Error::Digest { .. })
        ));
        assert_eq!(check("it", b"y", None).unwrap(), Digest::sha256(b"y"));
    }
}
