//! A registry: the OCI distribution specification 1.1 over HTTP/1.1, with or without TLS, on a storage of its own.
//!
//! A request is read (`route`), its caller known and allowed (`access`), and answered by `blobs`, `uploads`, `manifests` or
//! `lists` from the storage (`store`), or from another registry through it (`upstream`). Nothing that comes is believed: names
//! and digests have their grammar, content has its digest, documents are one thing. Every size, count and wait has a limit.

mod access;
mod blobs;
mod fetch;
mod lists;
mod manifest;
mod manifests;
mod pace;
mod quota;
mod range;
mod receive;
mod reply;
mod route;
mod settings;
mod store;
mod tokens;
mod uploads;
mod upstream;

pub use access::{Access, Rule};
pub use connections::Identity;
pub use quota::Quota;
pub use settings::{Settings, UpstreamSettings};
pub use store::sweep::{Sweep, Swept};

use crate::error::{Error, Result};
use access::{Caller, Right};
use connections::{Acceptor, Peers, subscriber};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, SERVER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pace::{Paced, STALL};
use quota::Quotas;
use reply::{Body, Code, Refusal, Reply, document, set};
use route::{Name, Route};
use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::uploads::Hashes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use upstream::Upstream;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or take to send the head of a request.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes that are read of a connection at once; a request's head has at most as many.
const BUFFER_BYTES: usize = 512 << 10;
/// How long requests may go on after the server was told to stop.
const STOP: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be accepted: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A registry.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<Arc<Acceptor>>,
}

/// What requests share.
#[derive(Debug)]
struct Shared {
    store: Store,
    hashes: Hashes,
    settings: Settings,
    quotas: Quotas,
    upstream: Option<Upstream>,
}

/// A request's head, and what is known of it.
struct Request {
    head: Parts,
    query: Vec<(String, String)>,
    caller: Caller,
    /// How long its body is, where that is announced.
    body_bytes: Option<u64>,
}

impl Request {
    /// The first value of a field of the query.
    fn query(&self, key: &str) -> Option<&str> {
        let (_, value) = self.query.iter().find(|(known, _)| known == key)?;
        Some(value)
    }

    fn queries<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        let fields = self.query.iter().filter(move |(known, _)| known == key);
        fields.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Server {
    /// Opens the storage, and reads the files that the settings name.
    pub fn open(settings: Settings) -> Result<Self> {
        let acceptor = settings.tls.clone().map(Acceptor::open_to_all);
        let acceptor = acceptor
            .transpose()
            .map_err(|connections::Error { path, reason }| Error::Settings { path, reason })?;
        let upstream = settings.upstream.as_ref().map(Upstream::new).transpose()?;
        Ok(Self {
            shared: Arc::new(Shared {
                store: Store::open(&settings.storage)?,
                hashes: Hashes::default(),
                quotas: Quotas::new(settings.quotas.clone()),
                settings,
                upstream,
            }),
            acceptor: acceptor.map(Arc::new),
        })
    }

    /// Serves until `stop` is done, then lets requests end for a while.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let peers = Arc::new(Peers::new(self.shared.settings.connections_per_address_max));
        let sweeping = tokio::spawn(sweep_now_and_then(Arc::clone(&self.shared)));
        let accepting = async {
            loop {
                let permit = Arc::clone(&connections).acquire_owned().await;
                let permit = permit.expect("it is never closed");
                match listener.accept().await {
                    Ok((socket, peer)) => {
                        let Some(connected) = peers.connect(subscriber(peer.ip())) else {
                            tracing::debug!(%peer, "refused: its address has too many connections");
                            continue;
                        };
                        let serving = self.clone().connection(socket, stopped.clone());
                        tokio::spawn(async move {
                            if let Err(error) = serving.await {
                                tracing::debug!(%peer, %error, "a connection broke off");
                            }
                            drop((permit, connected));
                        });
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop => {}
        }
        drop(listener);
        sweeping.abort();
        // Nobody may be there to be told.
        let _ = stopping.send(true);
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        if timeout(STOP, connections.acquire_many(all)).await.is_err() {
            tracing::warn!("connections were still open and are cut off");
        }
    }

    async fn connection(
        self,
        socket: TcpStream,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), crate::error::Source> {
        socket.set_nodelay(true)?;
        let socket = Paced::new(socket, STALL);
        match &self.acceptor {
            None => self.talk(socket, stopped).await,
            Some(acceptor) => {
                let accepting = acceptor.get().accept(socket);
                let socket = timeout(HANDSHAKE, accepting).await??;
                self.talk(socket, stopped).await
            }
        }
    }

    async fn talk(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), crate::error::Source> {
        let service = service_fn(|request| {
            let shared = Arc::clone(&self.shared);
            async move { Ok::<_, Infallible>(respond(&shared, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(socket), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => return Ok(ended?),
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// Deletes what nobody uses of a storage, whether it is being served or not.
pub fn sweep(storage: &Path, sweep: Sweep) -> Result<Swept> {
    Store::open(storage)?.sweep(sweep)
}

async fn sweep_now_and_then(shared: Arc<Shared>) {
    let Some((interval, sweep)) = shared.settings.sweep else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(interval).await;
        match shared.blocking(move |store| store.sweep(sweep)).await {
            Ok(swept) if swept == Swept::default() => {}
            Ok(swept) => tracing::info!("deleted {swept}"),
            // It was logged where it became one.
            Err(_) => {}
        }
    }
}

async fn respond(shared: &Arc<Shared>, request: http::Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let waits = head.headers.contains_key(EXPECT);
    let challenge = { &shared.settings }
        .access
        .challenge(&head.headers, shared.settings.tls.is_some());
    let reply = answer(shared, head, &mut body).await;
    let mut response = match reply {
        Ok(response) => response,
        Err(refusal) => {
            let status = refusal.status;
            tracing::debug!(%method, path, %status, reason = refusal.message, "refused");
            // Who waits to be told to send a body is told not to by the answer.
            if !waits {
                receive::drain(&mut body).await;
            }
            let mut response = refusal.into_response();
            if status == StatusCode::UNAUTHORIZED {
                set(&mut response, WWW_AUTHENTICATE, &challenge);
            }
            response
        }
    };
    if method == Method::HEAD {
        *response.body_mut() = Body::Whole(None);
    }
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    let agent = HeaderValue::from_static(concat!("hull/", env!("CARGO_PKG_VERSION")));
    headers.insert(SERVER, agent);
    response
}

async fn answer(shared: &Arc<Shared>, head: Parts, body: &mut Incoming) -> Reply {
    let route = Route::parse(&head.method, head.uri.path())?;
    let caller = shared.settings.access.caller(&head.headers).await?;
    let query = head.uri.query().unwrap_or_default();
    let query = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let body_bytes =
        { head.headers.get(CONTENT_LENGTH) }.and_then(|length| length.to_str().ok()?.parse().ok());
    let request = Request {
        head,
        query,
        caller,
        body_bytes,
    };
    match route {
        Route::Base => {
            shared.settings.access.require_word(&request.caller)?;
            match request.head.method {
                Method::GET | Method::HEAD => Ok(document("application/json", "{}")),
                _ => Err(Refusal::unsupported("this can be read only")),
            }
        }
        Route::Token => match request.head.method {
            Method::GET => {
                let token = shared.settings.access.token(request.caller)?;
                Ok(document("application/json", token.to_string()))
            }
            _ => Err(Refusal::unsupported("a token is got by GET")),
        },
        Route::Catalog => lists::catalog(shared, &request).await,
        Route::Tags(name) => lists::tags(shared, &request, name).await,
        Route::Referrers(name, subject) => lists::referrers(shared, &request, name, subject).await,
        Route::Manifest(name, target) => {
            manifests::serve(shared, &request, body, name, target).await
        }
        Route::Blob(name, digest) => blobs::serve(shared, &request, name, digest).await,
        Route::Uploads(name) => uploads::begin(shared, &request, body, name).await,
        Route::Upload(name, id) => uploads::serve(shared, &request, body, name, id).await,
    }
}

impl Shared {
    /// Does something with the storage, on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.store.clone();
        Ok(tokio::task::spawn_blocking(move || act(&store)).await??)
    }

    fn allows(&self, request: &Request, right: Right, name: &Name) -> bool {
        self.settings.access.allows(&request.caller, right, name)
    }

    fn require(&self, request: &Request, right: Right, name: &Name) -> Result<(), Refusal> {
        self.settings.access.require(&request.caller, right, name)
    }

    fn require_push(&self, request: &Request, name: &Name) -> Result<(), Refusal> {
        self.require_writable()?;
        self.require(request, Right::Push, name)
    }

    fn require_deletion(&self, request: &Request, name: &Name) -> Result<(), Refusal> {
        self.require_writable()?;
        if !self.settings.deletion {
            return Err(Refusal::unsupported("deletion is turned off"));
        }
        self.require(request, Right::Delete, name)
    }

    fn require_writable(&self) -> Result<(), Refusal> {
        if self.upstream.is_some() {
            return Err(Refusal::unsupported(
                "a cache of another registry is not pushed to",
            ));
        }
        if self.settings.read_only {
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                "this registry is read-only",
            ));
        }
        Ok(())
    }
}
