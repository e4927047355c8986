//! Attaching by websocket: RFC 6455 on the outside, the streams of any other attached client on the inside.
//!
//! As with dockerd output has no frames of its own in a message, whether there is a terminal or not, and messages are binary since
//! version 1.28 of the API.

use crate::body::Body;
use crate::http::{Error, empty};
use crate::socket::Socket;
use crate::streams::Client;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode,
};
use tokio_tungstenite::tungstenite::{self, Message};

/// Bytes of a message from a client, and what is copied to it at a time.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const COPY_BYTES: usize = 32 << 10;

/// How long a client may take to answer a goodbye.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Characters of a key: sixteen bytes in base64.
const KEY_CHARS: usize = 24;

/// Bytes of the longest character in UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// What messages to the client are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Messages {
    Text,
    Binary,
}

/// Takes the client for streams: the answer, and its end.
pub(crate) fn take<B>(
    request: &mut Request<B>,
    messages: Messages,
) -> Result<(Client, Response<Body>), Error> {
    let accept = accept(request.headers())?;
    let (here, there) = UnixStream::pair().map_err(failed)?;
    let client = Client::Piped(Socket::unix(here).map_err(failed)?);
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // Who asks for one protocol within gets it: it is the client's own matter.
    if let Some(protocol) = request.headers().get(SEC_WEBSOCKET_PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    }
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Err(error) = serve(upgrade, there, messages).await {
            tracing::debug!(%error, "a websocket broke off");
        }
    });
    Ok((client, response))
}

fn failed(error: io::Error) -> Error {
    Error::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot make a stream: {error}"),
    )
}

/// The answer to the client's key, if the request is a handshake: RFC 6455, 4.2.1.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Error> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let has = |name, word: &str| {
        let words = text(name).unwrap_or_default().split(',');
        words
            .into_iter()
            .any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(Error::bad_request("not websocket protocol"));
    }
    if text(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Error::bad_request("missing or bad WebSocket Version"));
    }
    if has_several(headers) {
        return Err(Error::bad_request("missing or bad WebSocket Protocol"));
    }
    // A page of another site in a browser that has a certificate could type into containers otherwise.
    if let Some(origin) = text(ORIGIN)
        && origin.split_once("://").map(|(_, authority)| authority) != text(HOST)
    {
        return Err(Error::new(
            StatusCode::FORBIDDEN,
            format!("a websocket from another origin: {origin:?}"),
        ));
    }
    let key = text(SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_CHARS);
    let key = key.ok_or_else(|| Error::bad_request("mismatch challenge/response"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Error::bad_request(error.to_string()))
}

/// Whether a choice of protocols within is asked for, of which none is known here.
fn has_several(headers: &HeaderMap) -> bool {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    values.iter().count() > 1 || values.iter().any(|value| value.as_bytes().contains(&b','))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Passes bytes on until either end has no more.
async fn serve(
    upgrade: OnUpgrade,
    streams: UnixStream,
    messages: Messages,
) -> Result<(), AnyError> {
    let parts = upgrade.await?.downcast::<TokioIo<Socket>>();
    let parts = parts.map_err(|_| "a connection of another kind")?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let read = parts.read_buf.to_vec();
    let socket = parts.io.into_inner();
    let socket =
        WebSocketStream::from_partially_read(socket, read, Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_process, mut to_process) = streams.into_split();
    let input = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) => to_process.write_all(&bytes).await?,
                Message::Text(text) => to_process.write_all(text.as_bytes()).await?,
                Message::Close(_) => break,
                // The library answers them.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok::<_, AnyError>(())
    };
    let output = async {
        let mut text = Text::default();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = from_process.read(&mut buffer).await?;
            if count == 0 {
                let goodbye = CloseFrame {
                    code: CloseCode::Normal,
                    reason: "".into(),
                };
                to_client.send(Message::Close(Some(goodbye))).await?;
                return Ok::<_, AnyError>(());
            }
            let message = match messages {
                Messages::Binary => Message::Binary(Bytes::copy_from_slice(&buffer[..count])),
                Messages::Text => Message::text(text.push(&buffer[..count])),
            };
            to_client.send(message).await?;
        }
    };
    let ended = tokio::select! {
        ended = input => ended,
        ended = output => ended,
    };
    // What is on its way to the client, the answer to its goodbye or ours, gets there; its own answer is waited for, so that
    // nothing it has said meanwhile breaks the connection before.
    let farewell = async {
        to_client.close().await?;
        while from_client.next().await.transpose()?.is_some() {}
        Ok::<_, tungstenite::Error>(())
    };
    // One that does not answer is left.
    let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
    ended
}

/// Makes text of bytes that may be cut within a character. What is no UTF-8 is replaced.
#[derive(Debug, Default)]
struct Text {
    /// The beginning of a character.
    cut: Vec<u8>,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let whole = match self.cut.utf8_chunks().last() {
            Some(last) if is_beginning(last.invalid()) => self.cut.len() - last.invalid().len(),
            _ => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        let whole = std::mem::replace(&mut self.cut, rest);
        String::from_utf8_lossy(&whole).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() < CHARACTER_BYTES_MAX
        && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        pairs.collect()
    }

    const HANDSHAKE: [(&str, &str); 5] = [
        ("host", "engine:2376"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn a_handshake_is_answered_as_the_rfc_says() {
        let accepted = accept(&headers(&HANDSHAKE)).unwrap();
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (index, _) in HANDSHAKE.iter().enumerate().skip(1) {
            let mut wrong = HANDSHAKE;
            wrong[index].1 = "wrong";
            let refused = accept(&headers(&wrong)).unwrap_err();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        for (origin, allowed) in [
            ("https://engine:2376", true),
            ("https://evil.example", false),
            ("null", false),
            ("https://engine:2376.evil.example", false),
        ] {
            let mut all = headers(&HANDSHAKE);
            all.insert(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(accept(&all).is_ok(), allowed, "{origin}");
        }
    }

    #[test]
    fn text_is_not_cut_within_a_character() {
        let whole = "a\u{e4}\u{20ac}\u{1f433}z".as_bytes();
        for size in 1..whole.len() {
            let mut text = Text::default();
            let parts = whole.chunks(size).map(|part| text.push(part));
            assert_eq!(parts.collect::<String>().as_bytes(), whole, "{size}");
        }
        assert_eq!(Text::default().push(b"a\xffb"), "a\u{fffd}b");
    }
}
