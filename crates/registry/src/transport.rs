//! HTTP towards registries: connections and their reuse, proxies, redirects, and how long anything may take.
//!
//! Invariants: credentials are sent to the endpoint they are for and are dropped where a redirect leads to another host; a
//! redirect never leads from https to http. Every wait has a limit.

use crate::config::{Endpoint, Registries, host};
use crate::error::{Error, Result, Source};
use crate::tls;
use crate::waits::Waits;
use bytes::Bytes;
use connections::Resolver;
use http::header::{
    AUTHORIZATION, HOST, HeaderMap, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 10;
/// Bytes of one read of a connection, and of an answer's headers.
const READ_BYTES_MAX: usize = 128 << 10;
/// Idle connections kept to one place.
const IDLE_MAX: usize = 8;
/// Bytes of an answer that is an error which are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Characters of it that are told.
const ERROR_CHARS_MAX: usize = 300;

const AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"));

/// A request's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A connection to send requests on. It ends with this: hyper's own end of a request that nobody waits for comes when the connection's
/// task is woken, which it is not while the other side reads nothing, and until then the request's body is held.
struct Sender {
    requests: SendRequest<Body>,
    task: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a connection leads: what may use it again.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    tls: bool,
    authority: String,
    verified: bool,
}

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

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What was asked in the end.
    pub(crate) call: Call,
    pub(crate) response: Response<Incoming>,
    waits: Waits,
    connection: Option<Returning>,
}

/// A connection that is free again when an answer is read to its end.
struct Returning {
    sender: Sender,
    place: Place,
    transport: Arc<Transport>,
}

impl fmt::Debug for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Returning")
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

    fn reuse(&self, place: &Place) -> Option<Sender> {
        let mut idle = self.idle();
        let senders = idle.get_mut(place)?;
        while let Some(sender) = senders.pop() {
            if sender.requests.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Place, Vec<Sender>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(
        &self,
        place: &Place,
        endpoint: &Endpoint,
        proxy: Option<&Intercept>,
    ) -> Result<Sender> {
        let tcp = match proxy {
            None => self.dial(&place.authority, place.tls).await?,
            Some(proxy) => {
                let authority = proxy
                    .uri()
                    .authority()
                    .map_or("", |authority| authority.as_str());
                self.dial(authority, proxy.uri().scheme_str() == Some("https"))
                    .await?
            }
        };
        if !place.tls {
            return handshake(tcp).await;
        }
        let connector = self.connector(place, endpoint)?;
        let name = tls::server_name(&place.authority)?;
        match proxy {
            None => handshake(connector.connect(name, tcp).await.map_err(untrusted)?).await,
            Some(proxy) => {
                let tunnel = tunnel(tcp, &place.authority, proxy).await?;
                handshake(connector.connect(name, tunnel).await.map_err(untrusted)?).await
            }
        }
    }

    fn connector(&self, place: &Place, endpoint: &Endpoint) -> Result<TlsConnector> {
        let known = || {
            self.connectors
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(connector) = known().get(place) {
            return Ok(connector.clone());
        }
        // Where a redirect leads has certificates of its own.
        let mut endpoint = endpoint.clone();
        endpoint.address.authority.clone_from(&place.authority);
        let connector = tls::connector(&self.registries, &endpoint)?;
        known().insert(place.clone(), connector.clone());
        Ok(connector)
    }

    /// Opens a connection to the first address that takes one.
    async fn dial(&self, authority: &str, tls: bool) -> Result<TcpStream> {
        let default = if tls { 443 } else { 80 };
        let port = authority
            .parse::<http::uri::Authority>()
            .ok()
            .and_then(|known| known.port_u16());
        let name = host(authority);
        let addresses = self.resolver.addresses(name).await;
        let addresses = addresses.map_err(|error| failed(Box::new(error)))?;
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, port.unwrap_or(default))).await {
                Ok(stream) => {
                    stream
                        .set_nodelay(true)
                        .map_err(|error| failed(Box::new(error)))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(Box::new(last)))
    }
}

impl Place {
    fn of(endpoint: &Endpoint, url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        Some(Self {
            tls: uri.scheme_str() == Some("https"),
            authority: uri.authority()?.as_str().to_owned(),
            verified: endpoint.verified,
        })
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next piece of the body, `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = limited(
                &self.call,
                self.waits.pause,
                self.response.body_mut().frame(),
            )
            .await?;
            match frame {
                None => {
                    self.release();
                    return Ok(None);
                }
                Some(Err(error)) => return Err(transport(&self.call, error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, of a limited size.
    pub(crate) async fn bytes(mut self, bytes_max: u64) -> Result<Bytes> {
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let body = Limited::new(self.response.body_mut(), limit);
        let read = limited(&self.call, self.waits.answer, body.collect()).await?;
        let bytes = read.map_err(|error| match error.is::<LengthLimitError>() {
            // It would send as much the next time.
            true => protocol(&self.call, format!("sends more than {bytes_max} bytes")),
            false => transport(&self.call, error),
        })?;
        self.release();
        Ok(bytes.to_bytes())
    }

    /// The error that the answer is.
    pub(crate) async fn into_error(self) -> Error {
        let (call, status) = (self.call.to_string(), self.status());
        let message = self.message().await;
        Error::Status {
            call,
            status,
            message,
        }
    }

    /// What the error that the answer is says, or something else where it says nothing.
    pub(crate) async fn message_or(self, default: &str) -> String {
        let message = self.message().await;
        match message.is_empty() {
            true => default.to_owned(),
            false => message,
        }
    }

    async fn message(self) -> String {
        let body = self.bytes(ERROR_BYTES_MAX as u64).await;
        message(&body.unwrap_or_default())
    }

    /// Reads what is left of a small answer, so that its connection can be used again.
    pub(crate) async fn discard(self) {
        // Without that it is closed, which does no harm.
        let _ = self.bytes(ERROR_BYTES_MAX as u64).await;
    }

    /// Gives the connection back.
    fn release(&mut self) {
        if let Some(Returning {
            sender,
            place,
            transport,
        }) = self.connection.take()
        {
            let mut idle = transport.idle();
            let senders = idle.entry(place).or_default();
            if senders.len() < IDLE_MAX && !sender.requests.is_closed() {
                senders.push(sender);
            }
        }
    }
}

/// What a registry's error document says: the first error's code and message.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Document>(body) {
        Ok(Document { errors }) => { errors.into_iter().next() }
            .map(|Entry { code, message }| {
                format!("{}: {message}", code.to_lowercase().replace('_', " "))
            })
            .unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    // It goes to a terminal.
    let printable = text.chars().filter(|character| !character.is_control());
    printable.take(ERROR_CHARS_MAX).collect()
}

/// The request for the wire: with the path alone, or the whole URL where a proxy reads it.
fn build(
    call: &Call,
    uri: &Uri,
    proxy: Option<Intercept>,
    body: Body,
) -> Result<Request<Body>, http::Error> {
    let target = match &proxy {
        Some(_) => call.url.as_str(),
        None => uri.path_and_query().map_or("/", |target| target.as_str()),
    };
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(target)
        .body(body)?;
    let headers = request.headers_mut();
    headers.extend(call.headers.clone());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    headers.insert(HOST, HeaderValue::from_str(authority)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(known) = proxy.as_ref().and_then(Intercept::basic_auth) {
        headers.insert(PROXY_AUTHORIZATION, known.clone());
    }
    Ok(request)
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
    let (requests, connection) = http1::Builder::new()
        .max_buf_size(READ_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| failed(Box::new(error)))?;
    let task = tokio::spawn(async move {
        // Whoever waits for an answer on this connection gets the error, too.
        let _ended = connection.with_upgrades().await;
    });
    let task = task.abort_handle();
    Ok(Sender { requests, task })
}

/// A connection through a proxy: RFC 9110 section 9.3.6.
async fn tunnel(
    tcp: TcpStream,
    authority: &str,
    proxy: &Intercept,
) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
    let mut sender = handshake(tcp).await?;
    let target = if authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        authority.to_owned()
    } else {
        format!("{authority}:443")
    };
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(HOST, &target);
    if let Some(known) = proxy.basic_auth() {
        request = request.header(PROXY_AUTHORIZATION, known.clone());
    }
    let request = request
        .body(no_body())
        .map_err(|error| failed(Box::new(error)))?;
    let response = sender
        .requests
        .send_request(request)
        .await
        .map_err(|error| failed(Box::new(error)))?;
    if !response.status().is_success() {
        return Err(failed(
            format!("the proxy {} answers {}", proxy.uri(), response.status()).into(),
        ));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| failed(Box::new(error)))?;
    Ok(TokioIo::new(upgraded))
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

/// A failure before it is known for which call.
fn failed(source: Source) -> Error {
    Error::Transport {
        call: String::new(),
        source,
    }
}

fn untrusted(error: std::io::Error) -> Error {
    failed(Box::new(error))
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

    #[test]
    fn errors_are_short_and_harmless() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\u001b[2J","detail":{}}]}"#;
        assert_eq!(message(body), "manifest unknown: manifest unknown[2J");
        assert_eq!(message(b"<html>\x07oops"), "<html>oops");
        assert_eq!(message("x".repeat(1000).as_bytes()).len(), ERROR_CHARS_MAX);
    }
}
