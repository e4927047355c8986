//! The engine's side of a shim: spawn it, ask it, hear its events, open streams.

use crate::error::{Context, Error, Kind, Result};
use shim::protocol::{self, Event, Launch, Message, Reply, Request, Status};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// How long a shim may take to answer. It does one thing at a time, and none of them waits for a process.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a container may take to be made: hooks run meanwhile, each with its own timeout.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(120);

/// How many requests may wait for one shim.
const REQUESTS_MAX: usize = 64;

/// How much is read from a shim at a time.
const READ_BYTES: usize = 16 << 10;

/// A shim that can be asked. Clones ask the same one.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    bundle: PathBuf,
    requests: mpsc::Sender<(Request, oneshot::Sender<Reply>)>,
}

/// What comes from a shim unasked. It ends when the shim does.
pub(crate) type EventReceiver = mpsc::Receiver<Event>;

/// A process's streams, as `shim::protocol` describes them, with what has been received of them already.
#[derive(Debug)]
pub struct Stream {
    /// The connection.
    pub socket: UnixStream,
    /// Output that has come already.
    pub received: Vec<u8>,
}

impl Link {
    /// Starts a shim and has it make the container.
    pub(crate) async fn launch(
        executable: BorrowedFd<'_>,
        launch: &Launch,
    ) -> Result<(Self, Status, EventReceiver)> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().context(|| "make a socket pair")?;
        ours.set_nonblocking(true).context(|| "set up a socket")?;
        // Nothing is asked for that the standard library cannot give to posix_spawn: a fork would copy the engine's page tables.
        let mut child = tokio::process::Command::new(sys::root::fd_path(executable))
            .arg0("hull-shim")
            .arg("shim")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .context(|| "start the container's shim")?;
        tokio::spawn(async move { child.wait().await });
        let mut stream = UnixStream::from_std(ours).context(|| "set up a socket")?;
        let frame = protocol::encode(launch).context(|| "describe the container to its shim")?;
        let mut input = Vec::new();
        let reply = tokio::time::timeout(LAUNCH_TIMEOUT, async {
            stream.write_all(&frame).await?;
            read_reply(&mut stream, &mut input).await
        });
        let reply = reply
            .await
            .map_err(|_| Error::new(Kind::System, "the container's shim does not answer"))?;
        let reply = reply.context(|| "the container's shim ended before it made the container")?;
        Self::established(stream, input, reply, launch.bundle.clone())
    }

    /// Finds the shim of a container that an earlier engine started. None: there is none any more.
    pub(crate) async fn find(bundle: &Path) -> Result<Option<(Self, Status, EventReceiver)>> {
        let Some(mut stream) = connect(bundle).await? else {
            return Ok(None);
        };
        let mut input = Vec::new();
        match ask_once(&mut stream, &mut input, &Request::Status, REPLY_TIMEOUT).await {
            Ok(reply) => Self::established(stream, input, reply, bundle.to_owned()).map(Some),
            // It was just ending.
            Err(error) if is_gone(error.kind()) => Ok(None),
            Err(error) => Err(Error::system(
                "ask a container's shim for its status",
                error,
            )),
        }
    }

    fn established(
        stream: UnixStream,
        input: Vec<u8>,
        reply: Reply,
        bundle: PathBuf,
    ) -> Result<(Self, Status, EventReceiver)> {
        let status = match reply {
            Reply::Status(status) => status,
            Reply::Failed(failure) => return Err(failure.into()),
            other => return Err(unexpected(&other)),
        };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (events, receiver) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(serve(stream, input, queue, events));
        Ok((Self { bundle, requests }, status, receiver))
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply> {
        self.ask_within(REPLY_TIMEOUT, request).await
    }

    /// Asks for something that may take its time; whoever asks besides waits as long.
    pub(crate) async fn ask_within(&self, limit: Duration, request: Request) -> Result<Reply> {
        let gone = || Error::conflict("the container's shim has ended");
        let (sender, receiver) = oneshot::channel();
        let answer = tokio::time::timeout(limit, async {
            self.requests
                .send((request, sender))
                .await
                .map_err(|_| gone())?;
            receiver.await.map_err(|_| gone())
        });
        let answer = answer
            .await
            .map_err(|_| Error::new(Kind::System, "the container's shim does not answer"))?;
        match answer? {
            Reply::Failed(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    /// Asks for something that has no answer but that it is done.
    pub(crate) async fn tell(&self, request: Request) -> Result<()> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a connection of its own, asks, and returns it as the streams it has become.
    pub(crate) async fn open(&self, request: &Request) -> Result<(Reply, Stream)> {
        self.open_within(REPLY_TIMEOUT, request).await
    }

    /// As [`Link::open`], for what may take its time.
    pub(crate) async fn open_within(
        &self,
        limit: Duration,
        request: &Request,
    ) -> Result<(Reply, Stream)> {
        let socket = connect(&self.bundle).await?;
        let mut socket = socket.ok_or_else(|| Error::conflict("the container's shim has ended"))?;
        let mut received = Vec::new();
        let reply = ask_once(&mut socket, &mut received, request, limit).await;
        match reply.context(|| "ask the container's shim")? {
            Reply::Failed(failure) => Err(failure.into()),
            reply => Ok((reply, Stream { socket, received })),
        }
    }
}

/// What asking a shim gives that ends at that moment.
fn is_gone(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionReset | UnexpectedEof)
}

pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::new(
        Kind::System,
        format!("the container's shim answered something else: {reply:?}"),
    )
}

async fn connect(bundle: &Path) -> Result<Option<UnixStream>> {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
    let path = bundle.join(protocol::SOCKET);
    let connect = async || {
        // By way of a descriptor: the path of a socket is limited to 107 bytes, that of a bundle is not.
        let dir = std::fs::File::open(bundle)?;
        UnixStream::connect(sys::root::fd_path(dir.as_fd()).join(protocol::SOCKET)).await
    };
    match connect().await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            // One that ends while it is asked resets what it has not accepted.
            NotFound | ConnectionRefused | ConnectionReset => Ok(None),
            _ => Err(Error::system(format!("connect to {path:?}"), error)),
        },
    }
}

async fn ask_once(
    stream: &mut UnixStream,
    input: &mut Vec<u8>,
    request: &Request,
    limit: Duration,
) -> std::io::Result<Reply> {
    let frame = protocol::encode(request).map_err(std::io::Error::other)?;
    let answer = tokio::time::timeout(limit, async {
        stream.write_all(&frame).await?;
        read_reply(stream, input).await
    });
    answer
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Reads until a reply is there; what follows it stays in `input`.
async fn read_reply(stream: &mut UnixStream, input: &mut Vec<u8>) -> std::io::Result<Reply> {
    loop {
        while let Some(message) = protocol::decode(input).map_err(std::io::Error::other)? {
            if let Message::Reply(reply) = message {
                return Ok(reply);
            }
        }
        if stream.read_buf(input).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Carries requests, replies and events until the shim or everybody who could ask is gone.
async fn serve(
    mut stream: UnixStream,
    mut input: Vec<u8>,
    mut queue: mpsc::Receiver<(Request, oneshot::Sender<Reply>)>,
    events: mpsc::Sender<Event>,
) {
    let mut waiting = VecDeque::new();
    let (subscribed, _) = oneshot::channel();
    let mut next = Some((Request::Subscribe, subscribed));
    loop {
        if let Some((request, sender)) = next.take() {
            let Ok(frame) = protocol::encode(&request) else {
                continue;
            };
            if stream.write_all(&frame).await.is_err() {
                return;
            }
            waiting.push_back(sender);
        }
        loop {
            match protocol::decode(&mut input) {
                Ok(Some(Message::Reply(reply))) => {
                    let sender: Option<oneshot::Sender<Reply>> = waiting.pop_front();
                    // Whoever asked may have given up.
                    let _ = sender.map(|sender| sender.send(reply));
                }
                Ok(Some(Message::Event(event))) => {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "a shim sent what is no message");
                    return;
                }
            }
        }
        input.reserve(READ_BYTES);
        tokio::select! {
            request = queue.recv() => match request {
                Some(request) => next = Some(request),
                None => return,
            },
            read = stream.read_buf(&mut input) => match read {
                Ok(count) if count > 0 => {}
                _ => return,
            },
        }
    }
}
