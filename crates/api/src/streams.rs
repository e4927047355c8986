//! Hijacked connections: attach and exec.
//!
//! The client asks to upgrade to `tcp`; after the 101 the connection carries the streams as the shim's connection does,
//! so they are copied as they are. Only the detach keys are looked for on the way in. To a client that does not ask for it
//! they are the body of a plain response, and it has no input.

use crate::body::Body;
use crate::http::{Error, empty, stream};
use crate::socket::{Peer, Socket};
use bytes::Bytes;
use engine::{Attached, Stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// How often a client that has nothing more to say is looked after.
const GONE_INTERVAL: Duration = Duration::from_secs(5);

/// How much is copied at a time.
const COPY_BYTES: usize = 32 << 10;

/// What detaches unless the client says otherwise: ctrl-p, ctrl-q.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// How many keys may detach together.
const DETACH_KEYS_MAX: usize = 16;

/// How long a client may take to read the answer that its streams follow, and how often it is looked whether it has.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(2);
const HEADERS_INTERVAL: Duration = Duration::from_millis(1);

/// How long the end of a connection may take to be told.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The length of a frame's header: its source, three zeros, and the length of its contents.
const FRAME_BYTES: usize = 8;

/// The client's end of the streams.
#[derive(Debug)]
pub(crate) enum Client {
    /// Its connection, once the answer was sent.
    Upgraded(OnUpgrade),
    /// Its end of a pair of sockets, whose other end is passed on in some other form.
    Piped(Socket),
}

/// Takes the client for streams: the answer, and its end.
pub(crate) fn take<B>(
    request: &mut Request<B>,
    framed: bool,
) -> Result<(Client, Response<Body>), Error> {
    let content_type = if framed {
        api_types::MEDIA_TYPE_MULTIPLEXED_STREAM
    } else {
        api_types::MEDIA_TYPE_RAW_STREAM
    };
    if !request.headers().contains_key(header::UPGRADE) {
        return body(content_type);
    }
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok((Client::Upgraded(hyper::upgrade::on(request)), response))
}

fn body(content_type: &'static str) -> Result<(Client, Response<Body>), Error> {
    let failed = |error: io::Error| {
        Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot make a stream: {error}"),
        )
    };
    let (here, mut there) = UnixStream::pair().map_err(failed)?;
    let here = Socket::unix(here).map_err(failed)?;
    let (pieces, response) = stream(content_type);
    tokio::spawn(async move {
        // No input ever comes.
        if there.shutdown().await.is_err() {
            return;
        }
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = tokio::select! {
                read = there.read(&mut buffer) => read,
                () = pieces.closed() => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let piece = Bytes::copy_from_slice(&buffer[..count]);
                    if pieces.send(Ok(piece)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    Ok((Client::Piped(here), response))
}

/// Reads the parameter `detachKeys`, such as `ctrl-p,ctrl-q` or `ctrl-@,a`.
pub(crate) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>, Error> {
    text.filter(|text| !text.is_empty())
        .map_or(Ok(DETACH_KEYS.to_vec()), parse_keys)
}

fn parse_keys(text: &str) -> Result<Vec<u8>, Error> {
    let bad = |key: &str| Error::bad_request(format!("invalid detach keys: unknown key {key:?}"));
    let keys = text.split(',').map(|key| {
        let mut bytes = key.bytes();
        match (key.strip_prefix("ctrl-"), key.len()) {
            (None, 1) => bytes.next().ok_or_else(|| bad(key)),
            (Some(letter), 6) => match letter.as_bytes().first() {
                Some(letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')) => {
                    Ok(letter.to_ascii_uppercase() & 0x1f)
                }
                _ => Err(bad(key)),
            },
            (None, 3) if key == "DEL" => Ok(0x7f),
            _ => Err(bad(key)),
        }
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if keys.len() > DETACH_KEYS_MAX {
        return Err(Error::bad_request(format!(
            "invalid detach keys: more than {DETACH_KEYS_MAX}"
        )));
    }
    Ok(keys)
}

/// Connects the client with an attached container until either ends.
pub(crate) async fn serve_attached(
    client: Client,
    attached: Attached,
    keys: Vec<u8>,
    before: Vec<u8>,
    framing: Framing,
) {
    let Some(mut client) = client.connected().await else {
        return;
    };
    if client.write_all(&before).await.is_err() || client.flush().await.is_err() {
        return;
    }
    let peer = client.peer();
    let stream = match attached {
        Attached::Now(stream) => stream,
        Attached::WhenStarted(ready) => tokio::select! {
            stream = ready => match stream {
                Ok(stream) => stream,
                // It was not started.
                Err(_) => return farewell(client).await,
            },
            () = peer.gone_by(GONE_INTERVAL) => return,
        },
    };
    if let Some(client) = copy(client, stream, &keys, framing).await {
        farewell(client).await;
    }
}

/// Connects the client with an exec that `start` starts, and ends only when its exit code is known. Why it was not started is
/// told to the client as what the process says.
pub(crate) async fn serve_exec(
    client: Client,
    start: impl Future<Output = engine::Result<Option<Stream>>>,
    terminals: Terminals,
    keys: Vec<u8>,
    exec: std::sync::Arc<engine::exec::Exec>,
) {
    let Some(mut client) = client.connected().await else {
        return;
    };
    let stream = match start.await {
        Ok(Some(stream)) => stream,
        // No stream was asked for when it was created.
        Ok(None) => return farewell(client).await,
        Err(error) => {
            let text = format!("OCI runtime exec failed: {}: unknown\r\n", error.chain());
            let mut said = Vec::new();
            if !terminals.client {
                push_frame(&mut said, engine::LogSource::Stderr, text.len());
            }
            said.extend_from_slice(text.as_bytes());
            // Nobody is left to be told when this fails.
            let _ = client.write_all(&said).await;
            return farewell(client).await;
        }
    };
    let Some(client) = copy(client, stream, &keys, terminals.framing()).await else {
        return;
    };
    exec.wait().await;
    farewell(client).await;
}

/// Ends the connection in a way that the client can tell from one that broke.
async fn farewell(mut client: Socket) {
    // One that is gone, or does not read, needs none.
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, client.shutdown()).await;
}

/// Who has a terminal: with one, output has no frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminals {
    /// The process.
    pub(crate) process: bool,
    /// The client, as it says when it starts the process; which need not be what it has said when it was created.
    pub(crate) client: bool,
}

impl Terminals {
    fn framing(self) -> Framing {
        match (self.process, self.client) {
            (true, false) => Framing::Added,
            (false, true) => Framing::Removed(Unframer::default()),
            _ => Framing::Kept,
        }
    }
}

/// What becomes of the frames of multiplexed output on its way to the client.
#[derive(Debug)]
pub(crate) enum Framing {
    /// They go on, where there are any.
    Kept,
    /// There are none, and the client wants some.
    Added,
    /// The client gets what is in them.
    Removed(Unframer),
}

impl Framing {
    /// Makes of what was read what is written.
    fn apply<'a>(&mut self, bytes: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        buffer.clear();
        match self {
            Self::Kept => return bytes,
            Self::Added => {
                push_frame(buffer, engine::LogSource::Stdout, bytes.len());
                buffer.extend_from_slice(bytes);
            }
            Self::Removed(unframer) => unframer.push(bytes, buffer),
        }
        buffer
    }
}

/// Takes frames off, wherever they are cut.
#[derive(Debug, Default)]
pub(crate) struct Unframer {
    header: Vec<u8>,
    /// How much of the frame's contents is to come.
    left: usize,
}

impl Unframer {
    fn push(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (more, rest) = bytes.split_at(bytes.len().min(FRAME_BYTES - self.header.len()));
                self.header.extend_from_slice(more);
                bytes = rest;
                if let Ok([_, _, _, _, length @ ..]) = <[u8; FRAME_BYTES]>::try_from(&*self.header)
                {
                    self.left = u32::from_be_bytes(length) as usize;
                    self.header.clear();
                }
            } else {
                let (contents, rest) = bytes.split_at(bytes.len().min(self.left));
                output.extend_from_slice(contents);
                self.left -= contents.len();
                bytes = rest;
            }
        }
    }
}

/// Begins a frame of multiplexed output.
pub(crate) fn push_frame(output: &mut Vec<u8>, source: engine::LogSource, bytes: usize) {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    output.extend_from_slice(&[source.number(), 0, 0, 0]);
    output.extend_from_slice(&length.to_be_bytes());
}

impl Client {
    /// The connection, ready for the first byte of output. None: the client has left.
    async fn connected(self) -> Option<Socket> {
        let on_upgrade = match self {
            Self::Upgraded(on_upgrade) => on_upgrade,
            Self::Piped(client) => return Some(client),
        };
        let upgraded: Upgraded = match on_upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(%error, "a client left before its streams");
                return None;
            }
        };
        let parts = upgraded.downcast::<TokioIo<Socket>>().ok()?;
        if !parts.read_buf.is_empty() {
            // No client sends input before it has seen the 101; one that does would lose it silently.
            tracing::warn!("a client sent input before its connection was upgraded");
            return None;
        }
        let client = parts.io.into_inner();
        if let Some(local) = client.local() {
            headers_read(local).await;
        }
        Some(client)
    }
}

/// Waits until the client has read the answer. Some read it through a buffer and the streams past it (Python's http.client):
/// what comes together with the answer would be lost to them.
async fn headers_read(client: &UnixStream) {
    let read = async {
        while sys::socket::unread(client).is_ok_and(|bytes| bytes > 0) {
            tokio::time::sleep(HEADERS_INTERVAL).await;
        }
    };
    // One that reads nothing will not read the streams either.
    let _ = tokio::time::timeout(HEADERS_TIMEOUT, read).await;
}

/// Copies both ways. Returns the client when the process's output has ended; None: it detached or left.
async fn copy(client: Socket, stream: Stream, keys: &[u8], mut framing: Framing) -> Option<Socket> {
    let peer = client.peer();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_process, mut to_process) = stream.socket.into_split();
    let mut framed = Vec::new();
    let mut received = stream.received;
    if !received.is_empty() {
        // What came with the shim's answer may be the beginning of what is there already. That there is no more is no error.
        let _ = from_process.try_read_buf(&mut received);
        let output = framing.apply(&received, &mut framed);
        to_client.write_all(output).await.ok()?;
        to_client.flush().await.ok()?;
    }
    let output = async {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match from_process.read(&mut buffer).await {
                Ok(0) | Err(_) => return true,
                Ok(count) => {
                    let output = framing.apply(&buffer[..count], &mut framed);
                    if to_client.write_all(output).await.is_err()
                        || to_client.flush().await.is_err()
                    {
                        return false;
                    }
                }
            }
        }
    };
    let ended = tokio::select! {
        ended = output => ended,
        () = input(&mut from_client, &mut to_process, keys, &peer) => false,
    };
    ended.then(|| from_client.unsplit(to_client))
}

/// Copies the client's input until it detaches or is gone. The end of input alone does not end the client: it may wait
/// for output.
async fn input(
    client: &mut ReadHalf<Socket>,
    process: &mut OwnedWriteHalf,
    keys: &[u8],
    peer: &Peer,
) {
    let mut scanner = Scanner { keys, matched: 0 };
    let mut buffer = vec![0; COPY_BYTES];
    let mut forward = Vec::new();
    loop {
        match client.read(&mut buffer).await {
            Ok(0) => break,
            Err(_) => return,
            Ok(count) => {
                forward.clear();
                let detached = scanner.scan(&buffer[..count], &mut forward);
                // A process that does not read any more loses its input, as with a pipe; its output still counts.
                let _ = process.write_all(&forward).await;
                if detached {
                    return;
                }
            }
        }
    }
    let _ = process.shutdown().await;
    peer.gone_by(GONE_INTERVAL).await;
}

/// Looks for the detach keys in the input.
struct Scanner<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl Scanner<'_> {
    /// Appends to `forward` what is for the process. True: the keys were pressed.
    fn scan(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> bool {
        for byte in bytes {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            // The keys held back so far were meant for the process after all.
            forward.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                forward.push(*byte);
            } else if self.keys.len() == 1 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off_wherever_they_are_cut() {
        let mut framed = Vec::new();
        for text in ["one", "", "three"] {
            push_frame(&mut framed, engine::LogSource::Stderr, text.len());
            framed.extend_from_slice(text.as_bytes());
        }
        for size in 1..framed.len() {
            let mut framing = Framing::Removed(Unframer::default());
            let mut buffer = Vec::new();
            let plain: Vec<u8> = { framed.chunks(size) }
                .flat_map(|part| framing.apply(part, &mut buffer).to_vec())
                .collect();
            assert_eq!(plain, b"onethree", "{size}");
        }
    }

    #[test]
    fn detach_keys_are_held_back_until_they_are_none() {
        let mut scanner = Scanner {
            keys: &[1, 2],
            matched: 0,
        };
        let mut forward = Vec::new();
        assert!(!scanner.scan(&[7, 1], &mut forward));
        assert_eq!(forward, [7]);
        assert!(!scanner.scan(&[1, 8], &mut forward));
        assert_eq!(forward, [7, 1, 1, 8]);
        assert!(scanner.scan(&[1, 2, 9], &mut forward));
        assert_eq!(forward, [7, 1, 1, 8]);
    }

    #[test]
    fn keys_are_read_by_name() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q").unwrap(), DETACH_KEYS);
        assert_eq!(parse_keys("a,ctrl-@,ctrl-[").unwrap(), [b'a', 0, 0x1b]);
        for bad in ["", "ctrl-", "ctrl-1", "foo", "a,,b"] {
            assert!(parse_keys(bad).is_err(), "{bad:?}");
        }
    }
}
