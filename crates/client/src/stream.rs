//! What an engine streams: bytes, JSON lines, frames of two outputs, and a connection it hands over.

use crate::{Error, Result, Socket};
use bytes::{Buf, Bytes};
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf, ReadHalf, WriteHalf};

/// The longest JSON line that is decoded, in bytes. An event with all labels of a container is a few KiB.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The longest error in a multiplexed stream, in bytes.
const REMOTE_ERROR_BYTES_MAX: usize = 64 << 10;

/// The body of an answer as a reader.
#[derive(Debug)]
pub struct BodyReader {
    body: Incoming,
    chunk: Bytes,
}

impl BodyReader {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
        }
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => {
                    // Trailers carry nothing that Docker's API defines.
                    if let Ok(data) = frame.into_data() {
                        self.chunk = data;
                    }
                }
            }
        }
        let count = self.chunk.len().min(buffer.remaining());
        buffer.put_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// A stream of JSON documents, one a line.
#[derive(Debug)]
pub struct JsonLines<T> {
    call: String,
    reader: BodyReader,
    buffer: Vec<u8>,
    document: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    pub(crate) fn new(call: String, reader: BodyReader) -> Self {
        Self {
            call,
            reader,
            buffer: Vec::new(),
            document: PhantomData,
        }
    }

    /// The next document; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<T>> {
        while let Some(line) = self.next_line().await? {
            let line = line.trim_ascii();
            if !line.is_empty() {
                let document = api_types::from_slice(line).map_err(|source| Error::Decode {
                    call: self.call.clone(),
                    source,
                })?;
                return Ok(Some(document));
            }
        }
        Ok(None)
    }

    /// A line with its end, or what is left at the end of the stream.
    async fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.buffer[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let rest = self.buffer.split_off(searched + found + 1);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            searched = self.buffer.len();
            if searched > LINE_BYTES_MAX {
                return Err(Error::TooLong {
                    call: self.call.clone(),
                    limit: LINE_BYTES_MAX,
                });
            }
            let count = self
                .reader
                .read_buf(&mut self.buffer)
                .await
                .map_err(|source| Error::Stream {
                    call: self.call.clone(),
                    source,
                })?;
            if count == 0 {
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }
}

/// Which output of a process bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes a multiplexed stream apart. Each frame has a header of 8 bytes: the stream (1 or 2; 0 is written like 1; 3 is an
/// error of the engine), three zeros, and the length in big endian.
#[derive(Debug)]
pub struct Frames<R> {
    reader: R,
    output: Output,
    left: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Reads frames from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            output: Output::Stdout,
            left: 0,
        }
    }

    /// Reads some bytes of one output; `None` at the end of the stream.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<Option<(Output, usize)>> {
        while self.left == 0 {
            if !self.next_header().await? {
                return Ok(None);
            }
        }
        let wanted = self.left.min(buffer.len());
        let count = self
            .reader
            .read(&mut buffer[..wanted])
            .await
            .map_err(broken)?;
        if count == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= count;
        Ok(Some((self.output, count)))
    }

    async fn next_header(&mut self) -> Result<bool> {
        let mut header = [0; 8];
        let mut filled = 0;
        while filled < header.len() {
            match self
                .reader
                .read(&mut header[filled..])
                .await
                .map_err(broken)?
            {
                0 if filled == 0 => return Ok(false),
                0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                count => filled += count,
            }
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let length = usize::try_from(length).expect("usize has at least 32 bits here");
        self.output = match header[0] {
            0 | 1 => Output::Stdout,
            2 => Output::Stderr,
            3 => return Err(self.remote_error(length).await?),
            kind => return Err(Error::Frame { kind }),
        };
        self.left = length;
        Ok(true)
    }

    async fn remote_error(&mut self, length: usize) -> Result<Error> {
        let mut message = vec![0; length.min(REMOTE_ERROR_BYTES_MAX)];
        self.reader.read_exact(&mut message).await.map_err(broken)?;
        Ok(Error::Remote {
            message: String::from_utf8_lossy(&message).into_owned(),
        })
    }
}

fn broken(source: io::Error) -> Error {
    Error::Stream {
        call: "output of a process".to_owned(),
        source,
    }
}

/// A connection that the engine handed over: a process' stdin one way, its output the other.
#[derive(Debug)]
pub struct Hijacked {
    /// What comes back: frames, or a terminal's bytes.
    pub reader: HijackedReader,
    /// Stdin. Shutting it down closes this direction only.
    pub writer: WriteHalf<Socket>,
}

impl Hijacked {
    pub(crate) fn new(socket: Socket, read_ahead: Bytes) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self {
            reader: HijackedReader { read_ahead, reader },
            writer,
        }
    }
}

/// The reading half of a [`Hijacked`] connection.
#[derive(Debug)]
pub struct HijackedReader {
    /// What came in one segment with the head of the answer.
    read_ahead: Bytes,
    reader: ReadHalf<Socket>,
}

impl AsyncRead for HijackedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return Pin::new(&mut self.reader).poll_read(context, buffer);
        }
        let count = self.read_ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.read_ahead[..count]);
        self.read_ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame
    }

    async fn demux(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, Option<Error>) {
        let mut frames = Frames::new(bytes);
        let (mut out, mut err, mut buffer) = (Vec::new(), Vec::new(), [0; 3]);
        loop {
            match frames.read(&mut buffer).await {
                Ok(Some((Output::Stdout, count))) => out.extend(&buffer[..count]),
                Ok(Some((Output::Stderr, count))) => err.extend(&buffer[..count]),
                Ok(None) => return (out, err, None),
                Err(error) => return (out, err, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_come_apart() {
        let bytes = [
            frame(1, b"hello"),
            frame(2, b"oops"),
            frame(1, b""),
            frame(0, b" w"),
        ]
        .concat();
        let (out, err, error) = demux(&bytes).await;
        assert_eq!(
            (out.as_slice(), err.as_slice()),
            (&b"hello w"[..], &b"oops"[..])
        );
        assert!(error.is_none());
    }

    #[tokio::test]
    async fn a_cut_stream_is_an_error_not_an_end() {
        let whole = frame(1, b"hello");
        for length in 1..whole.len() {
            let (_, _, error) = demux(&whole[..length]).await;
            assert!(matches!(error, Some(Error::Stream { .. })), "{length}");
        }
    }

    #[tokio::test]
    async fn errors_of_the_engine_and_unknown_frames_end_the_stream() {
        let (out, _, error) = demux(&[frame(1, b"a"), frame(3, b"boom")].concat()).await;
        assert_eq!(out, b"a");
        assert_eq!(
            error.unwrap().to_string(),
            "error from daemon in stream: boom"
        );
        let (_, _, error) = demux(b"HTTP/1.1 400 Bad").await;
        assert!(matches!(error, Some(Error::Frame { kind: b'H' })));
        let mut huge = vec![3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        huge.extend([b'x'; 100]);
        assert!(matches!(demux(&huge).await.2, Some(Error::Stream { .. })));
    }
}
