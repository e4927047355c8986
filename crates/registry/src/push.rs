//! Writing to a registry: blobs as one stream each, manifests at the end.
//!
//! A blob's digest need not be known before it is sent: it ends the upload. An upload that breaks is begun anew by whoever
//! has the content. Source: distribution-spec "Push" (end-4 to end-7, end-11).

use crate::client::{Manifest, Repository, target};
use crate::config::Endpoint;
use crate::error::{Error, Result};
use crate::transport::{Answer, Body, Call, absolute, bytes_body, protocol};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use oci::{Digest, Reference};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// The content of a blob that is made while it is sent. An error breaks the upload off.
pub type Pieces = mpsc::Receiver<io::Result<Bytes>>;

/// A blob that is being sent.
#[derive(Debug)]
pub struct Upload {
    repository: Arc<Repository>,
    endpoint: Arc<Endpoint>,
    /// Where to go on.
    location: String,
}

impl Repository {
    /// Whether the repository has a blob (end-2).
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.anywhere(|endpoint| self.has_blob_at(endpoint, digest))
            .await
    }

    async fn has_blob_at(&self, endpoint: Arc<Endpoint>, digest: &Digest) -> Result<bool> {
        let call = self.call(Method::HEAD, &endpoint, &format!("/blobs/{digest}"));
        let answer = self.ask(&endpoint, &call).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.into_error().await),
        }
    }

    /// Takes a blob from another repository of the same registry (end-11). `false` when the registry does not: the blob is then
    /// to be sent.
    pub async fn mount(&self, digest: &Digest, from: &Reference) -> Result<bool> {
        self.anywhere(|endpoint| self.mount_at(endpoint, digest, from))
            .await
    }

    async fn mount_at(
        &self,
        endpoint: Arc<Endpoint>,
        digest: &Digest,
        from: &Reference,
    ) -> Result<bool> {
        let path = format!("/blobs/uploads/?mount={digest}&from={}", from.path());
        let call = empty(self.call(Method::POST, &endpoint, &path));
        let answer = self.ask_beside(&endpoint, &call, from).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            // It has begun an upload, which nobody will use.
            StatusCode::ACCEPTED => Ok(false),
            _ => Err(answer.into_error().await),
        }
    }

    /// Begins to send a blob (end-4a).
    pub async fn begin_upload(self: &Arc<Self>) -> Result<Upload> {
        self.anywhere(|endpoint| self.begin_upload_at(endpoint))
            .await
    }

    async fn begin_upload_at(self: &Arc<Self>, endpoint: Arc<Endpoint>) -> Result<Upload> {
        let call = empty(self.call(Method::POST, &endpoint, "/blobs/uploads/"));
        let answer = self.ask(&endpoint, &call).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(answer.into_error().await);
        }
        let location = location(&answer)?;
        answer.discard().await;
        Ok(Upload {
            repository: Arc::clone(self),
            endpoint,
            location,
        })
    }

    /// Sends a whole small blob, unless the repository has it.
    pub async fn put_document(self: &Arc<Self>, digest: &Digest, bytes: Bytes) -> Result<()> {
        if self.has_blob(digest).await? {
            return Ok(());
        }
        let upload = self.begin_upload().await?;
        upload.send(bytes_body(bytes)).await?.finish(digest).await
    }

    /// Sends a manifest, under its tag or its digest (end-7).
    pub async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<()> {
        self.anywhere(|endpoint| self.put_manifest_at(endpoint, reference, manifest))
            .await
    }

    async fn put_manifest_at(
        &self,
        endpoint: Arc<Endpoint>,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<()> {
        let path = format!("/manifests/{}", target(reference));
        let call = self
            .call(Method::PUT, &endpoint, &path)
            .header(CONTENT_TYPE, &manifest.media_type);
        let answer = self.ask_with(&endpoint, &call, &manifest.bytes).await?;
        match answer.status() {
            StatusCode::CREATED => {
                answer.discard().await;
                Ok(())
            }
            _ => Err(answer.into_error().await),
        }
    }
}

impl Upload {
    /// Sends the content as it is made (end-5).
    pub async fn stream(self, pieces: Pieces) -> Result<Self> {
        self.send(PieceBody { pieces }.boxed_unsync()).await
    }

    async fn send(mut self, body: Body) -> Result<Self> {
        let call = Call::new(Method::PATCH, self.location.clone())
            .header(CONTENT_TYPE, "application/octet-stream");
        let call = self.authorized(call)?;
        let transport = &self.repository.shared.transport;
        let answer = transport.send_body(&self.endpoint, &call, body).await?;
        if !matches!(
            answer.status(),
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT
        ) {
            return Err(answer.into_error().await);
        }
        self.location = location(&answer)?;
        answer.discard().await;
        Ok(self)
    }

    /// Ends the upload: what was sent has this digest (end-6).
    pub async fn finish(self, digest: &Digest) -> Result<()> {
        let separator = if self.location.contains('?') {
            '&'
        } else {
            '?'
        };
        let url = format!("{}{separator}digest={digest}", self.location);
        let call = empty(Call::new(Method::PUT, url));
        let answer = if self.is_at_endpoint() {
            self.repository.ask(&self.endpoint, &call).await?
        } else {
            let transport = &self.repository.shared.transport;
            transport.send(&self.endpoint, call, &Bytes::new()).await?
        };
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => {
                answer.discard().await;
                Ok(())
            }
            _ => Err(answer.into_error().await),
        }
    }

    /// Adds the authorisation, for the registry's own eyes only.
    fn authorized(&self, call: Call) -> Result<Call> {
        let address = &self.endpoint.address;
        if address.tls && self.endpoint.verified && !call.url.starts_with("https://") {
            return Err(protocol(
                &call,
                "wants a blob sent without encryption".to_owned(),
            ));
        }
        if !self.is_at_endpoint() {
            return Ok(call);
        }
        Ok(self.repository.authorizer(&self.endpoint).authorize(&call))
    }

    fn is_at_endpoint(&self) -> bool {
        let address = &self.endpoint.address;
        let scheme = if address.tls { "https" } else { "http" };
        let own = format!("{scheme}://{}/", address.authority);
        self.location.starts_with(&own)
    }
}

/// A request whose body has no bytes, and says so.
fn empty(call: Call) -> Call {
    call.header(CONTENT_LENGTH, "0")
}

/// Where an answer says that an upload goes on.
fn location(answer: &Answer) -> Result<String> {
    let target = answer.header(LOCATION.as_str()).unwrap_or_default();
    absolute(&answer.call.url, target)
        .ok_or_else(|| protocol(&answer.call, format!("has an upload go on at {target:?}")))
}

/// A body whose pieces come from elsewhere.
struct PieceBody {
    pieces: Pieces,
}

impl hyper::body::Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.pieces.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Error {
    /// Whether an upload may work when it is begun anew.
    pub fn is_worth_another_try(&self) -> bool {
        self.is_passing()
            || matches!(self, Self::Status { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}
