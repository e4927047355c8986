//! A server of HTTP that does what a script says, well-behaved or not. It speaks one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How a client begins that wants TLS: it is told in plain text that there is none.
pub(crate) const TLS_HANDSHAKE: u8 = 22;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// With its query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first and the last byte of the range that is wanted.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (start, end) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((start.parse().ok()?, end.parse().ok()?))
    }
}

/// What is answered.
pub(crate) enum Answer {
    Whole {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        /// Bytes of the body after which the connection ends.
        cut: usize,
    },
    /// A body without an end, of as many bytes as there are, or of unknown length.
    Endless { announced: bool },
    /// Nothing.
    Silence,
    /// A part of a body, and then nothing.
    Stall { length: usize, sent: Vec<u8> },
}

impl Answer {
    fn new(status: u16, body: &[u8]) -> Self {
        Self::Whole {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            cut: usize::MAX,
        }
    }

    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, body.as_ref())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::new(status, b"")
    }

    pub(crate) fn redirect(target: &str) -> Self {
        Self::status(307).with("Location", target)
    }

    /// A part of something that begins at a byte of it.
    pub(crate) fn range(body: &[u8], start: usize, all: usize) -> Self {
        let range = format!("bytes {start}-{}/{all}", start + body.len() - 1);
        Self::new(206, body).with("Content-Range", &range)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same, broken off.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        if let Self::Whole { cut, .. } = &mut self {
            *cut = after;
        }
        self
    }
}

/// A server on a port of its own, until dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    sent: AtomicU64,
    ended: AtomicBool,
}

/// A connection, whatever it is made of.
pub(crate) trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A connection without TLS.
pub(crate) fn plain(mut socket: TcpStream) -> std::io::Result<Box<dyn Stream>> {
    let mut first = [0];
    if socket.peek(&mut first)? == 1 && first[0] == TLS_HANDSHAKE {
        socket.write_all(b"HTTP/1.0 400 X\r\n\r\n")?;
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(Box::new(socket))
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(plain, script)
    }

    /// As [`Server::start`], on what is made of each socket.
    pub(crate) fn start_on(
        open: impl Fn(TcpStream) -> std::io::Result<Box<dyn Stream>> + Send + Sync + 'static,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (shared, script) = (Arc::new(Shared::default()), Arc::new((open, script)));
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if served.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (served, script) = (Arc::clone(&served), Arc::clone(&script));
                // A client that goes early ends its connection, and no more.
                std::thread::spawn(move || {
                    let (open, script) = &*script;
                    serve(&mut *open(socket)?, script, &served)
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Bytes of endless bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes it; when that fails it has ended already.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(
    stream: &mut dyn Stream,
    script: &dyn Fn(&Request) -> Answer,
    shared: &Shared,
) -> std::io::Result<()> {
    let Some(request) = read(&mut BufReader::new(&mut *stream)) else {
        return Ok(());
    };
    shared.requests.lock().unwrap().push(request.clone());
    match script(&request) {
        Answer::Whole {
            status,
            headers,
            body,
            cut,
        } => {
            let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..cut.min(body.len())])
        }
        Answer::Endless { announced } => {
            let length = if announced {
                "Content-Length: 99999999999\r\n"
            } else {
                ""
            };
            stream.write_all(
                format!("HTTP/1.1 200 X\r\nConnection: close\r\n{length}\r\n").as_bytes(),
            )?;
            let piece = [b' '; 64 << 10];
            loop {
                stream.write_all(&piece)?;
                shared.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
        Answer::Silence => wait(stream),
        Answer::Stall { length, sent } => {
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(&sent)?;
            wait(stream)
        }
    }
}

/// Waits until the client goes.
fn wait(stream: &mut dyn Stream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        let name = name.to_lowercase();
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value.to_owned()));
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    Some(Request { path, headers })
}
