//! Calls to whoever serves the other end of a connection.

use super::{
    CONNECTION_WINDOW_BYTES, CONTENT_TYPE, Code, MESSAGES_MAX, Messages, Outgoing,
    STREAM_WINDOW_BYTES, Status, framed,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a silent peer is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say so: clients have busy machines.
const PING_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a call with one answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to make calls on.
#[derive(Debug, Clone)]
pub(crate) struct Channel(http2::SendRequest<Outgoing>);

/// A call with messages in both directions.
pub(crate) struct Duplex {
    sender: Option<mpsc::Sender<Result<Bytes, Status>>>,
    answer: Answered,
}

/// The other direction of a call. Servers tell nothing, not even headers, before they have a message or an end.
enum Answered {
    Not(Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>),
    Begun(Messages),
}

impl Channel {
    /// Takes a connection. The future goes on until that ends, and has to be polled for anything to happen.
    pub(crate) async fn new<I>(
        connection: I,
    ) -> Result<(Self, impl Future<Output = ()> + Send), hyper::Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(connection)
            .await?;
        let drive = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session of a build broke off");
            }
        };
        Ok((Self(sender), drive))
    }

    /// A call with one message and one answer.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> Result<A, Status> {
        let called = async {
            let mut duplex = self.open(path, HeaderMap::new());
            duplex.send(message).await?;
            duplex.finish();
            let answer = duplex.next().await?;
            answer.ok_or_else(|| Status::new(Code::Internal, format!("{path} has no answer")))
        };
        let timed = tokio::time::timeout(CALL_TIMEOUT, called).await;
        timed.unwrap_or_else(|_| {
            let text = format!("the client has not answered {path}");
            Err(Status::new(Code::Unavailable, text))
        })
    }

    /// Begins a call with messages in both directions.
    pub(crate) fn open(&self, path: &'static str, headers: HeaderMap) -> Duplex {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let mut request = Request::new(Outgoing::new(receiver, false));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority("localhost")
            .path_and_query(path)
            .build()
            .expect("the paths of calls are constants");
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        Duplex {
            sender: Some(sender),
            answer: Answered::Not(Box::pin(self.0.clone().send_request(request))),
        }
    }
}

impl Duplex {
    /// Sends a message.
    pub(crate) async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let closed = || Status::new(Code::Unavailable, "the client has ended the stream");
        let sender = self.sender.as_ref().ok_or_else(closed)?;
        sender.send(Ok(framed(message))).await.map_err(|_| closed())
    }

    /// Says that there are no more messages.
    pub(crate) fn finish(&mut self) {
        self.sender = None;
    }

    /// The next message; `None` when the call has ended well.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            let messages = match &mut self.answer {
                Answered::Begun(messages) => messages,
                Answered::Not(response) => {
                    let response = response.await.map_err(|error| {
                        let text = format!("the client's session is gone: {error}");
                        Status::new(Code::Unavailable, text)
                    })?;
                    self.answer = Answered::Begun(begun(response)?);
                    continue;
                }
            };
            if let Some(message) = messages.next().await? {
                return Ok(Some(message));
            }
            return match &messages.trailers {
                Some(trailers) => Status::read(trailers).map(|()| None),
                None => Err(Status::new(Code::Unavailable, "the stream broke off")),
            };
        }
    }
}

impl std::fmt::Debug for Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

fn begun(response: Response<Incoming>) -> Result<Messages, Status> {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let text = format!(
            "the client's session answers with HTTP status {}",
            head.status
        );
        return Err(Status::new(Code::Unknown, text));
    }
    let mut messages = Messages::new(body);
    // A call that has only failed is answered by headers alone.
    if head.headers.contains_key(super::STATUS) {
        messages.trailers = Some(head.headers);
    }
    Ok(messages)
}
