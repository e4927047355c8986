//! A client's connection, whatever it came by, and who is at its other end.

use crate::listen::Held;
use connections::server::TlsStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How often is looked whether a client is there that nothing is written to.
const PEER_LOOK: Duration = Duration::from_millis(250);

/// A connection. Nothing comes by TCP without TLS.
#[derive(Debug)]
pub(crate) struct Socket {
    io: Io,
    /// The same connection, to look at it while it is lent out.
    watched: Arc<OwnedFd>,
    /// What counts as long as the connection is there, whatever it is upgraded to.
    held: Option<Held>,
}

#[derive(Debug)]
enum Io {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    pub(crate) fn unix(stream: UnixStream) -> io::Result<Self> {
        Ok(Self {
            watched: Arc::new(stream.as_fd().try_clone_to_owned()?),
            io: Io::Unix(stream),
            held: None,
        })
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, _) = stream.get_ref();
        Ok(Self {
            watched: Arc::new(socket.as_fd().try_clone_to_owned()?),
            io: Io::Tls(Box::new(stream)),
            held: None,
        })
    }

    /// Lets the connection count until it ends.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// The other end, for who wants to know whether it is there still.
    pub(crate) fn peer(&self) -> Peer {
        Peer(Arc::downgrade(&self.watched))
    }

    /// Whether the client can end its input and go on to wait for answers. By TLS, too; but no client of HTTP does it there.
    pub(crate) fn may_close_half(&self) -> bool {
        matches!(self.io, Io::Unix(_))
    }

    /// The socket, if it is of this machine.
    pub(crate) fn local(&self) -> Option<&UnixStream> {
        match &self.io {
            Io::Unix(stream) => Some(stream),
            Io::Tls(_) => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Unix(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// The client's end of a connection, for who wants to know whether it is there still. It keeps nothing open.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Weak<OwnedFd>);

impl Peer {
    /// Returns when the client has closed its end, or the connection is over. A client that has ended its input alone may
    /// wait for answers, so a connection goes on then; that it is closed shows only when something is written, or here.
    pub(crate) async fn gone(&self) {
        self.gone_by(PEER_LOOK).await;
    }

    /// As [`Peer::gone`], looking as often as said.
    pub(crate) async fn gone_by(&self, interval: Duration) {
        while self.is_there() {
            tokio::time::sleep(interval).await;
        }
    }

    fn is_there(&self) -> bool {
        let Some(socket) = self.0.upgrade() else {
            return false;
        };
        let mut polled = [PollFd::new(&*socket, PollFlags::empty())];
        // A signal that comes between says nothing.
        let looked = poll(&mut polled, Some(&Timespec::default()));
        looked.is_err()
            || !polled[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

/// Who has connected, as the kernel or a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process of this machine, as it was when it connected; one of another process namespace has no number here.
    Process { uid: u32, pid: Option<i32> },
    /// Somebody with a certificate.
    Remote {
        address: SocketAddr,
        subject: Option<String>,
    },
}

/// The user who stands for all that have no number here.
const OVERFLOW_UID: u32 = 65534;

impl Caller {
    /// Who it is, in a way that nobody else can claim; `None` where that is not known.
    pub(crate) fn owner(&self) -> Option<String> {
        match self {
            Self::Process { uid, .. } => (*uid != OVERFLOW_UID).then(|| format!("uid {uid}")),
            Self::Remote { subject, .. } => { subject.as_ref() }.map(|it| format!("subject {it}")),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Process {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid}, pid {pid}"),
            Self::Remote {
                address,
                subject: None,
            } => write!(f, "{address}, no subject"),
            Self::Remote {
                address,
                subject: Some(subject),
            } => write!(f, "{address}, {subject:?}"),
        }
    }
}
