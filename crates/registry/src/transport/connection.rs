//! Connections to registries: opened directly or through a proxy, by TLS, and used again.

use super::{AGENT, Body, Call, Transport, no_body};
use crate::config::{Endpoint, host};
use crate::error::{Error, Result, Source};
use crate::tls;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Uri};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// Bytes of one read of a connection, and of an answer's headers.
const READ_BYTES_MAX: usize = 128 << 10;
/// Idle connections kept to one place.
const IDLE_MAX: usize = 8;

/// A connection to send requests on. It ends with this: hyper's own end of a request that nobody waits for comes when the connection's
/// task is woken, which it is not while the other side reads nothing, and until then the request's body is held.
pub(super) struct Sender {
    pub(super) requests: SendRequest<Body>,
    task: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a connection leads: what may use it again.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) tls: bool,
    authority: String,
    verified: bool,
}

impl Place {
    pub(super) fn of(endpoint: &Endpoint, url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        Some(Self {
            tls: uri.scheme_str() == Some("https"),
            authority: uri.authority()?.as_str().to_owned(),
            verified: endpoint.verified,
        })
    }
}

impl Transport {
    pub(super) fn reuse(&self, place: &Place) -> Option<Sender> {
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

    pub(super) async fn connect(
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

    /// Keeps a connection for the next request to its place, if it still is one and there are few.
    pub(super) fn keep(&self, place: Place, sender: Sender) {
        let mut idle = self.idle();
        let senders = idle.entry(place).or_default();
        if senders.len() < IDLE_MAX && !sender.requests.is_closed() {
            senders.push(sender);
        }
    }
}

/// The request for the wire: with the path alone, or the whole URL where a proxy reads it.
pub(super) fn build(
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
