//! Hijacked connections: attach and exec.
//!
//! The client asks to upgrade to `tcp`; after the 101 the connection carries the streams as the shim's connection does,
//! so they are copied as they are. Only the detach keys are looked for on the way in.

use crate::http::{Body, Error, empty};
use engine::{Attached, Stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// How often a client that has nothing more to say is looked after.
const GONE_INTERVAL: Duration = Duration::from_secs(5);

/// How much is copied at a time.
const COPY_BYTES: usize = 32 << 10;

/// What detaches unless the client says otherwise: ctrl-p, ctrl-q.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// How many keys may detach together.
const DETACH_KEYS_MAX: usize = 16;

/// The answer that turns a connection into streams, and the connection once it was sent.
pub(crate) fn upgrade<B>(
    request: &mut Request<B>,
    framed: bool,
) -> Result<(OnUpgrade, Response<Body>), Error> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Error::bad_request(
            "attach needs the headers 'Connection: Upgrade' and 'Upgrade: tcp'",
        ));
    }
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    let content_type = if framed {
        api_types::MEDIA_TYPE_MULTIPLEXED_STREAM
    } else {
        api_types::MEDIA_TYPE_RAW_STREAM
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok((hyper::upgrade::on(request), response))
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
    on_upgrade: OnUpgrade,
    attached: Attached,
    keys: Vec<u8>,
    before: Vec<u8>,
) {
    let Some(mut client) = upgraded(on_upgrade).await else {
        return;
    };
    if client.write_all(&before).await.is_err() {
        return;
    }
    let stream = match attached {
        Attached::Now(stream) => stream,
        Attached::WhenStarted(ready) => tokio::select! {
            stream = ready => match stream {
                Ok(stream) => stream,
                // It was not started.
                Err(_) => return,
            },
            () = gone(&client) => return,
        },
    };
    copy(client, stream, &keys).await;
}

/// Connects the client with an exec, and ends only when its exit code is known.
pub(crate) async fn serve_exec(
    on_upgrade: OnUpgrade,
    stream: Stream,
    keys: Vec<u8>,
    exec: std::sync::Arc<engine::exec::Exec>,
) {
    let Some(client) = upgraded(on_upgrade).await else {
        return;
    };
    let Some(client) = copy(client, stream, &keys).await else {
        return;
    };
    exec.wait().await;
    drop(client);
}

async fn upgraded(on_upgrade: OnUpgrade) -> Option<UnixStream> {
    let upgraded: Upgraded = match on_upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "a client left before its streams");
            return None;
        }
    };
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().ok()?;
    if !parts.read_buf.is_empty() {
        // No client sends input before it has seen the 101; one that does would lose it silently.
        tracing::warn!("a client sent input before its connection was upgraded");
        return None;
    }
    Some(parts.io.into_inner())
}

/// Copies both ways. Returns the client when the process's output has ended; None: it detached or left.
async fn copy(client: UnixStream, stream: Stream, keys: &[u8]) -> Option<UnixStream> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_process, mut to_process) = stream.socket.into_split();
    to_client.write_all(&stream.received).await.ok()?;
    let output = async {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match from_process.read(&mut buffer).await {
                Ok(0) | Err(_) => return true,
                Ok(count) => {
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        return false;
                    }
                }
            }
        }
    };
    let ended = tokio::select! {
        ended = output => ended,
        () = input(&mut from_client, &mut to_process, keys) => false,
    };
    from_client.reunite(to_client).ok().filter(|_| ended)
}

/// Copies the client's input until it detaches or is gone. The end of input alone does not end the client: it may wait
/// for output.
async fn input(client: &mut OwnedReadHalf, process: &mut OwnedWriteHalf, keys: &[u8]) {
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
    gone(client.as_ref()).await;
}

/// Ends when the client has closed its connection.
async fn gone(client: &UnixStream) {
    loop {
        tokio::time::sleep(GONE_INTERVAL).await;
        if has_hung_up(client.as_fd()) {
            return;
        }
    }
}

fn has_hung_up(fd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ready: io::Result<_> = poll(&mut fds, Some(&now)).map_err(Into::into);
    ready.is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
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
