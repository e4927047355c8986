//! HTTP towards registries: connections and their reuse, proxies, redirects, and how long anything may take.
//!
//! Invariants: credentials are sent to the endpoint they are for and are dropped where a redirect leads to another host; a
//! redirect never leads from https to http. Every wait has a limit.

mod answer;
mod connection;

pub(crate) use answer::Answer;

use crate::config::{Endpoint, Registries};
use crate::error::{Error, Result, Source};
use crate::waits::Waits;
use answer::Returning;
use bytes::Bytes;
use connection::{Place, Sender, build};
use connections::Resolver;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::client::proxy::matcher::Matcher;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 10;

const AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Sends requests.
pub(crate) struct Transport {
    pub(crate) registries: Registries,
    pub(crate) waits: Waits,
    proxies: Matcher,
    resolver: Resolver,
    connectors: Mutex<HashMap<Place, TlsConnector>>,
    idle: Mutex<HashMap<Place, Vec<Sender>>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// A request that can be sent again, to another place.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The whole URL.
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
}

impl Call {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
        }
    }

    /// Adds a header whose value is made of what is printed.
    pub(crate) fn header(mut self, name: http::header::HeaderName, value: &str) -> Self {
        // A value that is none would be one with control characters; the registry then misses it and says so.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl fmt::Display for Call {
    /// The method and the URL, without its query: that may be signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        write!(f, "{} {url}", self.method)
    }
}

pub(crate) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub(crate) fn bytes_body(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl Transport {
    pub(crate) fn new(registries: Registries, waits: Waits) -> Self {
        Self {
            registries,
            waits,
            proxies: Matcher::from_env(),
            resolver: Resolver::default(),
            connectors: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Sends a request whose body can be sent again, following redirects.
    pub(crate) async fn send(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        call: Call,
        body: &Bytes,
    ) -> Result<Answer> {
        let mut call = call;
        let mut place = None;
        for _ in 0..=REDIRECTS_MAX {
            let answer = self
                .once(endpoint, &call, place.as_ref(), bytes_body(body.clone()))
                .await?;
            let status = answer.response.status();
            // The first three may turn what is sent into what is asked for: RFC 9110 section 15.4.
            let followed = match status.as_u16() {
                301..=303 => matches!(call.method, Method::GET | Method::HEAD),
                307 | 308 => true,
                _ => false,
            };
            if !followed {
                return Ok(answer);
            }
            let target = answer
                .header(LOCATION.as_str())
                .unwrap_or_default()
                .to_owned();
            answer.discard().await;
            let next = self.redirected(endpoint, &call, &target)?;
            let (old, new) = (
                Place::of(endpoint, &call.url),
                Place::of(endpoint, &next.url),
            );
            call = next;
            if old != new {
                call.headers.remove(AUTHORIZATION);
            }
            place = new;
        }
        let what = format!("redirects more than {REDIRECTS_MAX} times");
        Err(protocol(&call, what))
    }

    /// The request that a redirect asks for.
    fn redirected(&self, endpoint: &Endpoint, call: &Call, target: &str) -> Result<Call> {
        let url = absolute(&call.url, target)
            .ok_or_else(|| protocol(call, format!("redirects to {target:?}")))?;
        // Who is trusted without proof may not send the rest of the way without it, either.
        if call.url.starts_with("https://") && endpoint.verified && !url.starts_with("https://") {
            return Err(protocol(call, "redirects from https to http".to_owned()));
        }
        Ok(Call {
            url,
            ..call.clone()
        })
    }

    /// Sends a request with a body, once; a redirect is an answer.
    pub(crate) async fn send_body(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        call: &Call,
        body: Body,
    ) -> Result<Answer> {
        self.once(endpoint, call, None, body).await
    }

    async fn once(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        call: &Call,
        place: Option<&Place>,
        body: Body,
    ) -> Result<Answer> {
        let place = match place {
            Some(place) => place.clone(),
            None => Place::of(endpoint, &call.url)
                .ok_or_else(|| protocol(call, "has no such address".to_owned()))?,
        };
        let uri: Uri = call.url.parse().map_err(|error| transport(call, error))?;
        let proxy = self.proxies.intercept(&uri);
        let mut sender = match self.reuse(&place) {
            Some(sender) => sender,
            None => {
                let connect = self.connect(&place, endpoint, proxy.as_ref());
                limited(call, self.waits.connect, connect)
                    .await?
                    .map_err(|error| explained(call, error))?
            }
        };
        let request = build(call, &uri, proxy.filter(|_| !place.tls), body)
            .map_err(|error| transport(call, error))?;
        let response = limited(
            call,
            self.waits.answer,
            sender.requests.send_request(request),
        )
        .await?;
        let response = response.map_err(|error| transport(call, error))?;
        Ok(Answer {
            call: call.clone(),
            response,
            waits: self.waits,
            connection: Some(Returning {
                sender,
                place,
                transport: Arc::clone(self),
            }),
        })
    }
}

/// A URL that is relative to another: RFC 3986 section 5, for what servers send.
pub(crate) fn absolute(base: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return Some(target.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if target.starts_with("//") {
        return Some(format!("{scheme}:{target}"));
    }
    if target.contains("://") || target.is_empty() {
        return None;
    }
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let authority = &rest[..authority_end];
    if target.starts_with('/') {
        return Some(format!("{scheme}://{authority}{target}"));
    }
    let path = rest[authority_end..].split('?').next().unwrap_or_default();
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{scheme}://{authority}{directory}/{target}"))
}

async fn limited<T>(call: &Call, wait: Duration, work: impl Future<Output = T>) -> Result<T> {
    timeout(wait, work).await.map_err(|_| Error::Timeout {
        call: call.to_string(),
        seconds: wait.as_secs(),
    })
}

/// Names the call of a failure to connect.
fn explained(call: &Call, error: Error) -> Error {
    match error {
        Error::Transport { source, .. } => Error::Transport {
            call: call.to_string(),
            source,
        },
        other => other,
    }
}

fn transport(call: &Call, error: impl Into<Source>) -> Error {
    Error::Transport {
        call: call.to_string(),
        source: error.into(),
    }
}

/// An error of the registry's side.
pub(crate) fn protocol(call: &Call, what: String) -> Error {
    Error::Protocol {
        call: call.to_string(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_are_resolved() {
        let base = "https://a.example:5000/v2/x/blobs/uploads/?q=/1";
        for (target, expected) in [
            ("http://b/c", Some("http://b/c")),
            ("//b/c", Some("https://b/c")),
            ("/v2/y?z=1", Some("https://a.example:5000/v2/y?z=1")),
            (
                "id?state=2",
                Some("https://a.example:5000/v2/x/blobs/uploads/id?state=2"),
            ),
            ("ftp://b", None),
            ("", None),
        ] {
            assert_eq!(absolute(base, target).as_deref(), expected, "{target}");
        }
    }
}
