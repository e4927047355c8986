//! Serving calls on a connection.

use super::{
    CONNECTION_WINDOW_BYTES, CONTENT_TYPE, Code, Messages, Outgoing, STREAM_WINDOW_BYTES, Status,
    framed,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Calls that one client makes at the same time.
const CALLS_MAX: u32 = 128;

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    /// `/package.Service/Method`
    pub(crate) path: String,
    /// What the client says of it.
    pub(crate) headers: HeaderMap,
    messages: Messages,
}

impl Call {
    /// The message of a call that has one.
    pub(crate) async fn message<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self.messages.next().await?;
        message.ok_or_else(|| Status::new(Code::Internal, "the call has no message"))
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One message.
    One(Bytes),
    /// Messages, until the sender is dropped.
    Many(mpsc::Receiver<Result<Bytes, Status>>),
}

impl Answer {
    pub(crate) fn one(message: &impl Message) -> Self {
        Self::One(framed(message))
    }
}

/// What answers calls. Its future is dropped when the client cancels the call.
pub(crate) trait Service: Send + Sync + 'static {
    fn call(&self, call: Call) -> impl Future<Output = Result<Answer, Status>> + Send;
}

/// Serves a connection until it ends.
pub(crate) async fn serve<I>(connection: I, service: Arc<impl Service>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(respond(&*service, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .serve_connection(connection, answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of BuildKit's protocol broke off");
    }
}

async fn respond(service: &impl Service, request: Request<Incoming>) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let call = Call {
        path: path.clone(),
        headers: head.headers,
        messages: Messages::new(body),
    };
    let answered = service.call(call).await;
    let (messages, over) = match answered {
        Ok(Answer::One(message)) => {
            let (sender, receiver) = mpsc::channel(1);
            sender
                .try_send(Ok(message))
                .expect("there is room for one in an empty channel");
            (receiver, None)
        }
        Ok(Answer::Many(messages)) => (messages, None),
        Err(status) => {
            tracing::debug!(path, %status, code = ?status.code, "a call of BuildKit's protocol failed");
            (mpsc::channel(1).1, Some(status))
        }
    };
    let mut body = Outgoing::new(messages, true);
    // A call that has only failed is answered by headers alone.
    body.over = over.is_some();
    let mut response = Response::new(body);
    if let Some(status) = over {
        *response.headers_mut() = status.into_headers();
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}
