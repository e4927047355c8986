//! Requests to an engine over its socket, on one connection that stays (RFC 9112): so that what is measured is the engine,
//! and not the start of a client.

use crate::Result;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an engine may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A connection to an engine.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).and_then(|stream| {
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| format!("{}: {error}", socket.display()))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request, and takes the whole answer: its status and its body.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
        let failed = |error: std::io::Error| format!("{method} {path}: {error}");
        self.send(method, path, body).map_err(failed)?;
        let (status, length) = self.head().map_err(failed)?;
        let body = match length {
            _ if matches!(status, 204 | 304) => Vec::new(),
            Some(length) => self.exactly(length).map_err(failed)?,
            None => {
                let mut whole = Vec::new();
                while let Some(piece) = self.piece().map_err(failed)? {
                    whole.extend(piece);
                }
                whole
            }
        };
        Ok((status, body))
    }

    /// As [`Self::ask`], of a request that has to succeed.
    pub(crate) fn ok(&mut self, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        let (status, answer) = self.ask(method, path, body)?;
        match status {
            200..=299 | 304 => Ok(answer),
            _ => Err(format!(
                "{method} {path}: {status} {}",
                String::from_utf8_lossy(&answer)
            )),
        }
    }

    /// Asks for an answer that has no end; its pieces come from [`Self::piece`].
    pub(crate) fn follow(mut self, path: &str) -> Result<Self> {
        let failed = |error: std::io::Error| format!("GET {path}: {error}");
        self.send("GET", path, "").map_err(failed)?;
        match self.head().map_err(failed)? {
            (200, None) => Ok(self),
            (status, _) => Err(format!("GET {path}: {status}")),
        }
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<()> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// The status, and the body's length where it is not in pieces.
    fn head(&mut self) -> std::io::Result<(u16, Option<u64>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
        let (mut length, mut in_pieces) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                return Ok((status, (!in_pieces).then_some(length)));
            }
            in_pieces |= line == "transfer-encoding: chunked";
            if let Some(text) = line.strip_prefix("content-length:") {
                let parsed = text.trim().parse();
                length = parsed.map_err(|_| std::io::ErrorKind::InvalidData)?;
            }
        }
    }

    fn exactly(&mut self, length: u64) -> std::io::Result<Vec<u8>> {
        if length > ANSWER_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let mut body = Vec::new();
        let read = (&mut self.0).take(length).read_to_end(&mut body)?;
        match u64::try_from(read) == Ok(length) {
            true => Ok(body),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next piece of an answer in pieces; none at its end.
    pub(crate) fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = u64::from_str_radix(&line, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        let piece = self.exactly(length)?;
        self.line()?;
        Ok((length > 0).then_some(piece))
    }
}
