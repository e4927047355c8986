//! Where clients connect: unix sockets, and TCP with certificates on both sides.
//!
//! No client can keep others from being served by what it opens: connections are counted for each socket, each process or
//! address, and each user; a handshake, the head of a request and the time between two requests have their limits.

use crate::access::Access;
use crate::build::Awaited;
use crate::server::{Context, respond};
use crate::socket::{Caller, Socket};
use buildkit::BuildKit;
use connections::{Acceptor, Connected, Peers, subject, subscriber};
use engine::Engine;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of one socket at once; further ones wait in the kernel's queue. Less where the engine may have few files open.
pub const CONNECTIONS_MAX: usize = 4096;

/// The share of the files that the engine may have open which one socket's connections have: a connection with streams has
/// three, and containers and images need some.
const FILES_PER_CONNECTION: usize = 4;

/// How much of a socket's connections one process or address may have, and one user: the rest is for others.
const PROCESS_SHARE: (usize, usize) = (1, 2);
const USER_SHARE: (usize, usize) = (7, 8);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request, and be silent between two: as long as dockerd gives.
const HEAD: Duration = Duration::from_secs(300);

/// Bytes of a request's head, and of a connection that are read ahead.
const BUFFER_BYTES: usize = 1 << 20;

/// How long to wait after a connection could not be accepted: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When a connection that is silent is asked whether the other machine is there still, how often, and how many times.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMES: u32 = 4;

/// Counts the connections that are open, so that an idle engine can end.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

/// Counts for the engine's idleness.
#[derive(Debug)]
struct Counted(Connections);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that counts with all whose limits it shares.
#[derive(Debug)]
pub(crate) struct Held {
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
    _sharers: Vec<Connected<Sharer>>,
}

/// Where clients connect, and what they may do.
#[derive(Debug)]
pub struct Listener {
    door: Door,
    access: Access,
}

#[derive(Debug)]
enum Door {
    Unix(UnixListener),
    Tls(TcpListener, Arc<Acceptor>),
}

impl Listener {
    /// A unix socket: whoever may open its file comes in.
    pub fn unix(listener: UnixListener, access: Access) -> Self {
        Self {
            door: Door::Unix(listener),
            access,
        }
    }

    /// TCP, for those whom the acceptor knows: it has to be a mutual one.
    pub fn tls(listener: TcpListener, acceptor: Arc<Acceptor>) -> Self {
        Self {
            door: Door::Tls(listener, acceptor),
            access: Access::Full,
        }
    }

    async fn accept(&self) -> io::Result<Arrived> {
        match &self.door {
            Door::Unix(listener) => Ok(Arrived::Unix(listener.accept().await?.0)),
            Door::Tls(listener, acceptor) => {
                let (stream, address) = listener.accept().await?;
                Ok(Arrived::Tcp(stream, address, Arc::clone(acceptor)))
            }
        }
    }
}

/// A connection, as the kernel gives it.
enum Arrived {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr, Arc<Acceptor>),
}

/// Who shares a limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Sharer {
    Process(i32),
    Address(IpAddr),
    User(u32),
}

/// How many connections of one listener there may be.
struct Limits {
    all: Arc<Semaphore>,
    narrow: Arc<Peers<Sharer>>,
    users: Arc<Peers<Sharer>>,
}

impl Limits {
    fn new(connections_max: usize) -> Self {
        let share = |(part, whole): (usize, usize)| (connections_max * part / whole).max(1);
        Self {
            all: Arc::new(Semaphore::new(connections_max)),
            narrow: Arc::new(Peers::new(share(PROCESS_SHARE))),
            users: Arc::new(Peers::new(share(USER_SHARE))),
        }
    }

    /// Counts a connection with all who share its limits; the words of a refusal.
    fn admit(&self, sharers: &[Sharer]) -> Result<Vec<Connected<Sharer>>, String> {
        let mut held = Vec::new();
        for sharer in sharers {
            let peers = match sharer {
                Sharer::Process(_) | Sharer::Address(_) => &self.narrow,
                Sharer::User(_) => &self.users,
            };
            held.push(peers.connect(sharer.clone()).ok_or_else(|| match sharer {
                Sharer::Process(pid) => format!("process {pid} has too many connections"),
                Sharer::Address(address) => format!("{address} has too many connections"),
                Sharer::User(uid) => format!("user {uid} has too many connections"),
            })?);
        }
        Ok(held)
    }
}

/// How many connections a socket may have here.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok());
    files.map_or(CONNECTIONS_MAX, |files| {
        (files / FILES_PER_CONNECTION).clamp(1, CONNECTIONS_MAX)
    })
}

/// Accepts connections until the future is dropped.
pub async fn serve(listeners: Vec<Listener>, engine: Engine, connections: Connections) {
    let build_kit = BuildKit::new(engine.clone());
    let awaited = Awaited::default();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let served = Served {
            engine: engine.clone(),
            build_kit: build_kit.clone(),
            awaited: awaited.clone(),
            access: listener.access,
        };
        accepting.spawn(accept(listener, served, connections.clone()));
    }
    // None of them ends.
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: Listener, served: Served, connections: Connections) {
    let limits = Limits::new(connections_max());
    loop {
        let permit = Arc::clone(&limits.all).acquire_owned().await;
        let permit = permit.expect("it is never closed");
        match listener.accept().await {
            Ok(arrived) => {
                let counted = connections.one_more();
                let sharers = arrived.sharers();
                let admitted = sharers.map(|sharers| limits.admit(&sharers));
                let served = served.clone();
                tokio::spawn(async move {
                    let done = match admitted {
                        Err(error) => Err(error.into()),
                        Ok(Err(why)) => arrived.refuse(&why).await,
                        Ok(Ok(sharers)) => {
                            let held = Held {
                                _permit: permit,
                                _counted: counted,
                                _sharers: sharers,
                            };
                            connection(arrived, served, held).await
                        }
                    };
                    if let Err(error) = done {
                        tracing::debug!(error = sys::chain(&*error), "a connection broke off");
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is served, and to whom.
#[derive(Debug, Clone)]
struct Served {
    engine: Engine,
    build_kit: BuildKit,
    awaited: Awaited,
    access: Access,
}

async fn connection(arrived: Arrived, served: Served, held: Held) -> Result<(), AnyError> {
    let (mut socket, caller) = arrived.welcome().await?;
    socket.hold(held);
    let half_close = socket.may_close_half();
    let context = Context {
        engine: served.engine,
        build_kit: served.build_kit,
        awaited: served.awaited,
        access: served.access,
        caller: Arc::new(caller),
        peer: socket.peer(),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(respond(context, request).await) }
    });
    protocol(half_close)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await?;
    Ok(())
}

/// HTTP within the limits of a connection.
fn protocol(half_close: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER_BYTES)
        .half_close(half_close);
    builder
}

impl Arrived {
    fn sharers(&self) -> io::Result<Vec<Sharer>> {
        match self {
            Self::Unix(stream) => {
                let peer = stream.peer_cred()?;
                let process = peer.pid().filter(|pid| *pid > 0).map(Sharer::Process);
                Ok(process
                    .into_iter()
                    .chain([Sharer::User(peer.uid())])
                    .collect())
            }
            Self::Tcp(_, address, _) => Ok(vec![Sharer::Address(subscriber(address.ip()))]),
        }
    }

    /// Says why nothing is served, where that can be said.
    async fn refuse(self, why: &str) -> Result<(), AnyError> {
        tracing::warn!(why, "refused a connection");
        if let Self::Unix(mut stream) = self {
            let body = format!("{{\"message\":\"{why}\"}}\n");
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            timeout(HANDSHAKE, stream.write_all(answer.as_bytes())).await??;
        }
        Ok(())
    }

    /// The connection ready for requests, and who has made it.
    async fn welcome(self) -> Result<(Socket, Caller), AnyError> {
        match self {
            Self::Unix(stream) => {
                let peer = stream.peer_cred()?;
                let caller = Caller::Process {
                    uid: peer.uid(),
                    pid: peer.pid().filter(|pid| *pid > 0),
                };
                Ok((Socket::unix(stream)?, caller))
            }
            Self::Tcp(stream, address, acceptor) => {
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                let stream = timeout(HANDSHAKE, acceptor.get().accept(stream)).await??;
                let (_, session) = stream.get_ref();
                let shown = session.peer_certificates().and_then(<[_]>::first);
                // The acceptor has seen to it; this is what would be lost if it were another one.
                let shown = shown.ok_or("a client without a certificate")?;
                let subject = subject(shown);
                Ok((Socket::tls(stream)?, Caller::Remote { address, subject }))
            }
        }
    }
}

/// Lets the kernel find out that the other machine is gone.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_to_an_end_ends_the_connection() {
        for begun in ["", "GET /_ping HTTP/1.1\r\nHost: engine\r\nX-Slow: "] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(begun.as_bytes()).await.unwrap();
            let served = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(String::new()))
            });
            let started = tokio::time::Instant::now();
            let connection = protocol(false).serve_connection(TokioIo::new(server), served);
            let error = connection.await.unwrap_err();
            assert!(error.is_timeout(), "{begun:?}: {error}");
            assert!(started.elapsed() >= HEAD);
            drop(client);
        }
    }

    #[test]
    fn one_process_leaves_room_for_others_and_one_user_too() {
        let limits = Limits::new(16);
        let of = |pid, uid| [Sharer::Process(pid), Sharer::User(uid)];
        let mut held = Vec::new();
        while let Ok(connected) = limits.admit(&of(1, 0)) {
            held.push(connected);
        }
        assert_eq!(held.len(), 8);
        let why = limits.admit(&of(1, 0)).unwrap_err();
        assert_eq!(why, "process 1 has too many connections");
        while let Ok(connected) = limits.admit(&of(2, 0)) {
            held.push(connected);
        }
        assert_eq!(held.len(), 14);
        assert_eq!(
            limits.admit(&of(3, 0)).unwrap_err(),
            "user 0 has too many connections"
        );
        assert!(limits.admit(&of(3, 1000)).is_ok());
        // What was refused by the user's limit does not count for the process.
        held.clear();
        assert!((0..8).all(|_| {
            limits
                .admit(&of(3, 0))
                .map(|connected| held.push(connected))
                .is_ok()
        }));
    }
}
