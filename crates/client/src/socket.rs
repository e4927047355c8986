//! The connection's bytes: a unix socket, TCP, TLS, or what `ssh` carries, as one type.

use crate::ssh::Tunnel;
use crate::{Error, Host, Result};
use connections::client::TlsStream;
use connections::{Resolver, ServerName, TlsConnector};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket.
    Unix(UnixStream),
    /// TCP.
    Tcp(TcpStream),
    /// TCP with TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// By ssh.
    Ssh(Tunnel),
}

impl Socket {
    /// Connects to an engine, by TLS where there is a connector.
    pub(crate) async fn connect(host: &Host, tls: Option<&TlsConnector>) -> Result<Self> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Self::try_connect(host, tls));
        let result = match connecting.await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        result.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission {
                host: host.to_string(),
                source,
            },
            _ => Error::Connect {
                host: host.to_string(),
                source,
            },
        })
    }

    async fn try_connect(host: &Host, tls: Option<&TlsConnector>) -> io::Result<Self> {
        match host {
            Host::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
            Host::Ssh(ssh) => Ok(Self::Ssh(Tunnel::open(ssh)?)),
            Host::Tcp { name, port, .. } => {
                let stream = dial(name, *port).await?;
                // Keystrokes are small and must not wait for more.
                stream.set_nodelay(true)?;
                let Some(tls) = tls else {
                    return Ok(Self::Tcp(stream));
                };
                let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new(tls.connect(name, stream).await?)))
            }
        }
    }
}

/// Connects to the first address of a name that takes a connection.
async fn dial(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in Resolver::default().addresses(name).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Ssh(tunnel) => Pin::new(tunnel).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Ssh(tunnel) => Pin::new(tunnel).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Ssh(tunnel) => Pin::new(tunnel).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Ssh(tunnel) => Pin::new(tunnel).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Ssh(tunnel) => Pin::new(tunnel).poll_shutdown(context),
        }
    }
}
