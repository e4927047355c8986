//! Searching a registry, by the first API of Docker Hub, which is the only one there is: `GET /v1/search?q=…&n=…`.
//!
//! Source: moby's `registry/search_session.go`. What is found goes to terminals, so it has no control characters.

use crate::auth::Credentials;
use crate::client::Client;
use crate::error::Result;
use crate::transport::protocol;
use serde::Deserialize;

/// Bytes of an answer.
const SEARCH_BYTES_MAX: u64 = 4 << 20;
/// What a token issuer gives a token for.
const SCOPE: &str = "registry:catalog:search";

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name, without the registry's.
    #[serde(default)]
    pub name: String,
    /// A line about it.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default, rename = "star_count")]
    pub stars: i64,
    /// Whether the registry vouches for it.
    #[serde(default, rename = "is_official")]
    pub official: bool,
}

impl Client {
    /// Searches a registry for repositories; it gives no more than `limit`, the best first.
    pub async fn search(
        &self,
        domain: &str,
        term: &str,
        limit: usize,
        credentials: &Credentials,
    ) -> Result<Vec<Found>> {
        #[derive(Deserialize)]
        struct Page {
            results: Option<Vec<Found>>,
        }
        let endpoints = self.shared.transport.registries.indexes(domain)?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", term)
            .append_pair("n", &limit.to_string())
            .finish();
        let path = format!("/v1/search?{query}");
        let (answer, _) = self
            .ask_any(&endpoints, &path, credentials, SCOPE, domain)
            .await?;
        if !answer.status().is_success() {
            return Err(answer.into_error().await);
        }
        let call = answer.call.clone();
        let body = answer.bytes(SEARCH_BYTES_MAX).await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| protocol(&call, format!("sends no results of a search: {error}")))?;
        let found = page.results.unwrap_or_default();
        Ok(found.into_iter().take(limit).map(printable).collect())
    }
}

fn printable(mut found: Found) -> Found {
    for text in [&mut found.name, &mut found.description] {
        text.retain(|character| !character.is_control());
    }
    found
}
