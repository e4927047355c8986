//! Sends requests: connections and their reuse, API versions, status codes.

use crate::{
    ApiVersion, BodyReader, Error, Hijacked, Host, JsonLines, Request, Result, Socket, TlsConnector,
};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// The largest decoded answer, in bytes. A list of ten thousand containers is about 20 MiB.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The largest error message that is read, in bytes.
const ERROR_BYTES_MAX: usize = 1 << 20;

/// Bytes of a streamed request body read at once.
const CHUNK_BYTES: usize = 64 << 10;

const AGENT: &str = concat!("hull/", env!("CARGO_PKG_VERSION"), " (linux)");

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;
type Sender = SendRequest<RequestBody>;

/// A client of one engine. Connections are opened when needed and kept for the next request.
#[derive(Debug)]
pub struct Client {
    host: Host,
    tls: Option<Tls>,
    version: Cell<ApiVersion>,
    /// Whether the engine has accepted the version, or the user has chosen it.
    settled: Cell<bool>,
    idle: Rc<RefCell<Vec<Sender>>>,
    trace: Option<Trace>,
}

/// What connects by TLS; it holds a key, which is nobody's to see.
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Is told of every request: method and path, and the status or the error.
type Trace = fn(&str, &str);

/// What `/_ping` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The newest API version of the engine; none from very old ones.
    pub api_version: Option<ApiVersion>,
    /// `linux`.
    pub os_type: String,
}

/// The head of an answer whose status is a success, and its body still to be read.
#[derive(Debug)]
pub struct Response {
    call: String,
    inner: http::Response<Incoming>,
    sender: Sender,
    idle: Rc<RefCell<Vec<Sender>>>,
}

impl Client {
    /// A client of the engine at `host`, with the API version the user insists on, or else the newest that works.
    pub fn new(host: Host, version: Option<ApiVersion>) -> Self {
        Self {
            host,
            tls: None,
            version: Cell::new(version.unwrap_or(ApiVersion::NEWEST)),
            settled: Cell::new(version.is_some()),
            idle: Rc::default(),
            trace: None,
        }
    }

    /// Tells `trace` of every request: method and path, and the status or the error.
    pub fn trace(&mut self, trace: fn(&str, &str)) {
        self.trace = Some(trace);
    }

    /// Speaks TLS with an engine that is reached by TCP.
    pub fn secure(&mut self, tls: TlsConnector) {
        self.tls = Some(Tls(tls));
    }

    /// A connection that nothing was sent on yet, for who passes on what somebody else says.
    pub async fn dial(&self) -> Result<Socket> {
        Socket::connect(&self.host, self.tls.as_ref().map(|tls| &tls.0)).await
    }

    /// Where the engine is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The API version of the next request: the engine's, once it has answered.
    pub fn version(&self) -> ApiVersion {
        self.version.get()
    }

    /// The API version that the engine and this client both speak, asking the engine where that is not known yet.
    pub async fn settle_version(&self) -> Result<ApiVersion> {
        if !self.settled.get() {
            self.negotiate().await?;
        }
        Ok(self.version.get())
    }

    /// Connects, to find out whether an engine is there. The connection serves the next request.
    pub async fn connect(&self) -> Result<()> {
        let sender = self.open().await?;
        self.idle.borrow_mut().push(sender);
        Ok(())
    }

    /// `GET /_ping`.
    pub async fn ping(&self) -> Result<Ping> {
        let request = Request::get(&["_ping"]);
        let call = request.to_string();
        let target = format!("{}/_ping", self.host.base_path());
        let response = self.exchange(&request, &target, empty(), &call).await?;
        let response = self.checked(response, call).await?;
        let header = |name| response.header(name).unwrap_or_default().to_owned();
        let ping = Ping {
            api_version: header("Api-Version").parse().ok(),
            os_type: header("Ostype"),
        };
        response.bytes().await?;
        Ok(ping)
    }

    /// Sends a request and decodes the answer.
    pub async fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        self.send(request).await?.json().await
    }

    /// Sends a request for a list, and maps its elements one by one, however long it is.
    pub async fn list<T: DeserializeOwned, R>(
        &self,
        request: &Request,
        map: impl Fn(T) -> R,
    ) -> Result<Vec<R>> {
        self.send(request).await?.list(map).await
    }

    /// Sends a request whose answer has nothing to say but its status.
    pub async fn call(&self, request: &Request) -> Result<()> {
        self.send(request).await?.bytes().await?;
        Ok(())
    }

    /// Sends a request; the answer's body is the caller's to read.
    pub async fn send(&self, request: &Request) -> Result<Response> {
        let body = || match &request.body {
            Some(bytes) => Full::new(bytes.clone()).map_err(never).boxed_unsync(),
            None => empty(),
        };
        let call = request.to_string();
        let asked = self.version.get();
        let response = self
            .exchange(request, &self.target(request), body(), &call)
            .await?;
        let refused = match self.checked(response, call.clone()).await {
            Err(error) if error.status() == Some(StatusCode::BAD_REQUEST.as_u16()) => error,
            Ok(response) => {
                self.settled.set(true);
                return Ok(response);
            }
            refused => return refused,
        };
        // An engine that is older than this client says so with this status. Another request may have learnt it meanwhile.
        if !self.settled.get() {
            match self.negotiate().await {
                Err(error @ Error::TooOld { .. }) => return Err(error),
                // It was not the version that the engine refused.
                Err(_) => return Err(refused),
                Ok(_) => {}
            }
        }
        if self.version.get() == asked {
            return Err(refused);
        }
        let response = self
            .exchange(request, &self.target(request), body(), &call)
            .await?;
        self.checked(response, call).await
    }

    /// Sends a request with a body that is read once.
    pub async fn upload(
        &self,
        request: &Request,
        content_type: &'static str,
        reader: impl AsyncRead + Send + 'static,
    ) -> Result<Response> {
        // The body cannot be sent twice, so the version must be right the first time.
        self.settle_version().await?;
        let mut request = request.clone();
        request.content_type = Some(content_type);
        let call = request.to_string();
        let body = ReaderBody {
            reader: Box::pin(reader),
            buffer: vec![0; CHUNK_BYTES],
        };
        let response = self
            .exchange(&request, &self.target(&request), body.boxed_unsync(), &call)
            .await?;
        self.checked(response, call).await
    }

    /// Sends a request that turns the connection into a process' stdin and output.
    pub async fn hijack(&self, request: &Request) -> Result<Hijacked> {
        let request = request
            .clone()
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp");
        let Response { call, inner, .. } = self.send(&request).await?;
        let status = inner.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::NotUpgraded { call, status });
        }
        let upgraded = hyper::upgrade::on(inner)
            .await
            .map_err(|source| Error::Http {
                call: call.clone(),
                source,
            })?;
        match upgraded.downcast::<TokioIo<Socket>>() {
            Ok(parts) => Ok(Hijacked::new(parts.io.into_inner(), parts.read_buf)),
            Err(_) => Err(Error::NotUpgraded { call, status }),
        }
    }

    fn target(&self, request: &Request) -> String {
        request.target(self.host.base_path(), self.version.get())
    }

    async fn negotiate(&self) -> Result<ApiVersion> {
        let theirs = self.ping().await?.api_version.unwrap_or(ApiVersion::OLDEST);
        if theirs < ApiVersion::OLDEST {
            return Err(Error::TooOld {
                found: theirs.to_string(),
                oldest: ApiVersion::OLDEST,
            });
        }
        self.version.set(theirs.min(ApiVersion::NEWEST));
        self.settled.set(true);
        Ok(self.version.get())
    }

    async fn open(&self) -> Result<Sender> {
        let socket = self.dial().await?;
        let failed = |source| Error::Http {
            call: format!("connect to {}", self.host),
            source,
        };
        let (sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(failed)?;
        tokio::spawn(async move {
            // Whoever waits for an answer on this connection gets the error, too.
            let _ended = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// A connection that waits for a request: an idle one that is still open, or a new one.
    async fn sender(&self) -> Result<Sender> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(mut sender) = idle else {
                return self.open().await;
            };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        target: &str,
        body: RequestBody,
        call: &str,
    ) -> Result<(http::Response<Incoming>, Sender)> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(target)
            .header(HOST, self.host.authority())
            .header(USER_AGENT, AGENT);
        if let Some(content_type) = request.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let message = builder.body(body).map_err(|source| Error::Request {
            call: call.to_owned(),
            source,
        })?;
        let mut sender = self.sender().await?;
        let result = sender.send_request(message).await;
        if let Some(trace) = self.trace {
            let error = |error: &hyper::Error| error.to_string();
            let status = |response: &http::Response<Incoming>| response.status().to_string();
            trace(
                &format!("{} {target}", request.method),
                &result.as_ref().map_or_else(error, status),
            );
        }
        let failed = |source| Error::Http {
            call: call.to_owned(),
            source,
        };
        let response = result.map_err(failed)?;
        Ok((response, sender))
    }

    /// Turns an error status into the engine's words.
    async fn checked(
        &self,
        (inner, sender): (http::Response<Incoming>, Sender),
        call: String,
    ) -> Result<Response> {
        let status = inner.status();
        // 304 is how an engine says "already so"; other redirections have no place in this API.
        if status.is_success()
            || status == StatusCode::SWITCHING_PROTOCOLS
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(Response {
                call,
                inner,
                sender,
                idle: self.idle.clone(),
            });
        }
        let json = inner
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let response = Response {
            call,
            inner,
            sender,
            idle: self.idle.clone(),
        };
        let body = response.limited(ERROR_BYTES_MAX).await?;
        let message = match json {
            true => api_types::from_slice::<api_types::ErrorResponse>(&body)
                .map(|error| error.message)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned()),
            false => String::from_utf8_lossy(&body).into_owned(),
        };
        let message = match message.trim() {
            "" => format!("{status} without a message"),
            message => message.to_owned(),
        };
        Err(Error::Status { status, message })
    }
}

impl Response {
    /// A header that has a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// HTTP's status: a success, or 304.
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// Reads the body to its end.
    pub async fn bytes(self) -> Result<Bytes> {
        self.limited(ANSWER_BYTES_MAX).await
    }

    /// Reads the body to its end and decodes it.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let call = self.call.clone();
        let bytes = self.bytes().await?;
        api_types::from_slice(&bytes).map_err(|source| Error::Decode { call, source })
    }

    /// The whole body as a list of JSON documents, each of which is mapped when it is there.
    async fn list<T: DeserializeOwned, R>(self, map: impl Fn(T) -> R) -> Result<Vec<R>> {
        let call = self.call.clone();
        let mut list = api_types::List::new(map);
        self.read(ANSWER_BYTES_MAX, |piece| list.push(piece))
            .await?;
        let mapped = list.finish();
        mapped.map_err(|source| Error::Decode { call, source })
    }

    /// The body as a reader. The connection is not used again.
    pub fn reader(self) -> BodyReader {
        BodyReader::new(self.inner.into_body())
    }

    /// The body as JSON documents, one a line. The connection is not used again.
    pub fn lines<T: DeserializeOwned>(self) -> JsonLines<T> {
        JsonLines::new(self.call.clone(), self.reader())
    }

    async fn limited(self, limit: usize) -> Result<Bytes> {
        let mut body = Vec::new();
        self.read(limit, |piece| body.extend_from_slice(piece))
            .await?;
        Ok(body.into())
    }

    /// Reads the body to its end, so that the connection can be used again.
    async fn read(self, limit: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let Self {
            call,
            inner,
            sender,
            idle,
        } = self;
        let mut body = inner.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let failed = |source| Error::Http {
                call: call.clone(),
                source,
            };
            // Trailers carry nothing that Docker's API defines.
            let Ok(piece) = frame.map_err(failed)?.into_data() else {
                continue;
            };
            length += piece.len();
            if length > limit {
                return Err(Error::TooLong { call, limit });
            }
            take(&piece);
        }
        idle.borrow_mut().push(sender);
        Ok(())
    }
}

fn empty() -> RequestBody {
    Empty::new().map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// A request body that comes from a reader, in chunks.
struct ReaderBody {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    buffer: Vec<u8>,
}

impl Body for ReaderBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let mut buffer = ReadBuf::new(&mut this.buffer);
        Poll::Ready(
            match ready!(this.reader.as_mut().poll_read(context, &mut buffer)) {
                Err(error) => Some(Err(error)),
                Ok(()) if buffer.filled().is_empty() => None,
                Ok(()) => Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled())))),
            },
        )
    }
}
