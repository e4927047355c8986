//! gRPC on one HTTP/2 connection, as server and as client: messages with a length before them, a status in the trailers.
//!
//! Invariant: a message has at most [`MESSAGE_BYTES_MAX`] bytes, and is looked at only when it is whole; compressed ones are
//! refused, as nobody was told that they are understood. Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md).

mod client;
mod server;
mod status;

pub(crate) use client::{Channel, Duplex};
pub(crate) use server::{Answer, Call, Service, serve};
pub(crate) use status::{Code, Detail, Status, StatusMessage};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Bytes of one message. Clients keep to four million where nothing else is said.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What is before each message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;
/// Bytes that the other side may send on one stream before it has to wait.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes that it may send on all streams together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Messages that wait for a slow peer.
pub(crate) const MESSAGES_MAX: usize = 32;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: &str = "grpc-status";
const STATUS_MESSAGE: &str = "grpc-message";
const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    message
        .encode(&mut bytes)
        .expect("the buffer grows with what is put into it");
    bytes.freeze()
}

/// A framed message without its prefix.
pub(crate) fn unframed(mut message: Bytes) -> Bytes {
    message.split_off(PREFIX_BYTES.min(message.len()))
}

/// Messages that come in.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    /// What was said after the last message.
    trailers: Option<HeaderMap>,
}

impl Messages {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            trailers: None,
        }
    }

    /// The next message; `None` after the last.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                let message = M::decode(message).map_err(|error| {
                    Status::new(Code::Internal, format!("cannot read a message: {error}"))
                })?;
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let text = "the stream ends within a message";
                    return Err(Status::new(Code::Internal, text));
                }
                Some(Err(error)) => {
                    let text = format!("the stream broke off: {error}");
                    return Err(Status::new(Code::Unavailable, text));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }
}

/// Takes a whole message off the buffer's start.
fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    if buffer.len() < PREFIX_BYTES {
        return Ok(None);
    }
    if buffer[0] != 0 {
        let text = "a compressed message, which was not agreed upon";
        return Err(Status::new(Code::Unimplemented, text));
    }
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        let text = format!("a message of {length} bytes: at most {MESSAGE_BYTES_MAX} are taken");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// What is sent: messages, and as a server the status in the end.
#[derive(Debug)]
pub(crate) struct Outgoing {
    messages: mpsc::Receiver<Result<Bytes, Status>>,
    /// A server's end is told by trailers.
    tells_status: bool,
    over: bool,
}

impl Outgoing {
    fn new(messages: mpsc::Receiver<Result<Bytes, Status>>, tells_status: bool) -> Self {
        Self {
            messages,
            tells_status,
            over: false,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let end = match std::task::ready!(self.messages.poll_recv(context)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
            Some(Err(status)) => status.into_headers(),
            None => Status::ok_headers(),
        };
        self.over = true;
        match self.tells_status {
            true => Poll::Ready(Some(Ok(Frame::trailers(end)))),
            false => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_taken_when_they_are_whole() {
        let message = crate::messages::BytesMessage {
            data: b"abc".to_vec(),
        };
        let bytes = framed(&message);
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(take(&mut buffer).unwrap(), None, "{cut}");
        }
        let mut buffer = BytesMut::from(&[&bytes[..], &bytes[..3]].concat()[..]);
        let taken = take(&mut buffer).unwrap().unwrap();
        assert_eq!(
            crate::messages::BytesMessage::decode(taken).unwrap(),
            message
        );
        assert_eq!(buffer.len(), 3);
    }

    #[test]
    fn long_and_compressed_messages_are_refused() {
        let mut long = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(take(&mut long).unwrap_err().code, Code::ResourceExhausted);
        let mut compressed = BytesMut::from(&[1, 0, 0, 0, 0][..]);
        assert_eq!(take(&mut compressed).unwrap_err().code, Code::Unimplemented);
    }

    proptest! {
        /// Whatever comes, it is taken apart without a panic, and never gives more than there was.
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(message)) = take(&mut buffer) {
                prop_assert!(message.len() <= bytes.len());
            }
        }
    }
}
