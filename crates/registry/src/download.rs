//! Content that is at a URL of anybody's: what an import fetches. Redirects, waits and certificates are as for registries,
//! and nobody's credentials are sent.

use crate::client::Client;
use crate::config::{Address, Endpoint};
use crate::error::{Error, Result};
use crate::transport::{Answer, Call, protocol};
use bytes::Bytes;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, LAST_MODIFIED};
use std::time::SystemTime;

/// Bytes of one download.
const DOWNLOAD_BYTES_MAX: u64 = 256 << 30;

/// Content on its way.
#[derive(Debug)]
pub struct Download {
    answer: Answer,
    /// How many bytes it has, where the server tells.
    pub size: Option<u64>,
    /// When it was last changed, where the server tells.
    pub modified: Option<SystemTime>,
    done: u64,
}

impl Client {
    /// Begins to fetch what is at a URL, of http or https. `authorization` is a header's value for its host alone.
    pub async fn download(&self, url: &str, authorization: Option<&str>) -> Result<Download> {
        let address: Address = { url.split(['?', '#']).next().unwrap_or_default() }.parse()?;
        if !url.contains("://") {
            return Err(Error::Address {
                text: url.to_owned(),
                reason: "it has no scheme",
            });
        }
        let endpoint = Endpoint {
            address,
            verified: true,
            mirror: false,
        };
        let url = url.split('#').next().unwrap_or_default().to_owned();
        let mut call = Call::new(Method::GET, url);
        if let Some(value) = authorization {
            call = call.header(AUTHORIZATION, value);
        }
        let transport = &self.shared.transport;
        let answer = transport.send(&endpoint, call, &Bytes::new()).await?;
        if !answer.status().is_success() {
            return Err(answer.into_error().await);
        }
        let size = answer.header(CONTENT_LENGTH.as_str());
        let size = size.and_then(|text| text.parse().ok());
        let modified = answer.header(LAST_MODIFIED.as_str());
        let modified = modified.and_then(|text| httpdate::parse_http_date(text).ok());
        Ok(Download {
            answer,
            size,
            modified,
            done: 0,
        })
    }
}

impl Download {
    /// The next piece, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = self.answer.next().await? else {
            return Ok(None);
        };
        self.done += piece.len() as u64;
        if self.done > DOWNLOAD_BYTES_MAX {
            let what = format!("sends more than {DOWNLOAD_BYTES_MAX} bytes");
            return Err(protocol(&self.answer.call, what));
        }
        Ok(Some(piece))
    }
}
