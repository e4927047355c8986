//! What a repository has, without fetching it: HEAD requests, and referrers.

use crate::client::{Repository, accepted, no_manifest, target};
use crate::error::Result;
use crate::transport::protocol;
use http::header::{ACCEPT, CONTENT_LENGTH};
use http::{Method, StatusCode};
use oci::image::{Index, MANIFEST_BYTES_MAX, media_type};
use oci::{Digest, Reference};

impl Repository {
    /// The digest of the manifest that a tag names (end-3), where the registry tells it: those that do not need
    /// [`Repository::manifest`].
    pub async fn manifest_digest(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.anywhere(|endpoint| async move {
            let path = format!("/manifests/{}", target(reference));
            let call = self.call(Method::HEAD, &endpoint, &path);
            let answer = self
                .ask(&endpoint, &call.header(ACCEPT, &accepted()))
                .await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Err(no_manifest(reference, answer).await),
                _ => return Err(answer.into_error().await),
            }
            let digest = answer.header("docker-content-digest");
            let digest = digest.and_then(|text| text.parse().ok());
            answer.discard().await;
            Ok(digest)
        })
        .await
    }

    /// The size of a blob in bytes (end-2); `None` when the repository has none.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.anywhere(|endpoint| async move {
            let call = self.call(Method::HEAD, &endpoint, &format!("/blobs/{digest}"));
            let answer = self.ask(&endpoint, &call).await?;
            let size = match answer.status() {
                StatusCode::OK => answer.header(CONTENT_LENGTH.as_str()),
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(answer.into_error().await),
            };
            let size = size.and_then(|text| text.parse().ok());
            answer.discard().await;
            match size {
                Some(size) => Ok(Some(size)),
                None => Err(protocol(&call, "does not tell a blob's size".to_owned())),
            }
        })
        .await
    }

    /// The manifests that refer to one (end-12), of the first page; none where the registry does not know the request.
    pub async fn referrers(&self, subject: &Digest) -> Result<Index> {
        self.anywhere(|endpoint| async move {
            let call = self.call(Method::GET, &endpoint, &format!("/referrers/{subject}"));
            let answer = self.ask(&endpoint, &call).await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => {
                    answer.discard().await;
                    return Ok(Index {
                        schema_version: 2,
                        media_type: Some(media_type::OCI_INDEX.to_owned()),
                        artifact_type: None,
                        manifests: Vec::new(),
                        subject: None,
                        annotations: std::collections::BTreeMap::new(),
                    });
                }
                _ => return Err(answer.into_error().await),
            }
            let bytes = answer.bytes(MANIFEST_BYTES_MAX).await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| protocol(&call, format!("sends no list of referrers: {error}")))
        })
        .await
    }
}
