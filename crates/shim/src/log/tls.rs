//! TLS on a socket that never waits: what the session holds goes when the socket takes it. For syslog: RFC 5425.

use crate::protocol::TlsFiles;
use crate::stream::is_for_later;
use certificates::{Identity, Trust};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much a session holds that the socket has not taken.
const HELD_BYTES_MAX: usize = 64 << 10;

/// A session with a server.
#[derive(Debug)]
pub(super) struct Tls {
    session: ClientConnection,
}

impl Tls {
    /// Prepares a session; nothing is sent yet.
    pub(super) fn new(files: &TlsFiles, server: IpAddr) -> io::Result<Self> {
        let session = ClientConnection::new(
            config(files).map_err(io::Error::other)?,
            ServerName::from(server),
        );
        let mut session = session.map_err(io::Error::other)?;
        session.set_buffer_limit(Some(HELD_BYTES_MAX));
        Ok(Self { session })
    }

    /// Makes sure whom it speaks with, within a time.
    pub(super) fn shake_hands(&mut self, socket: &impl AsFd, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        while self.session.is_handshaking() {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, self.session.wants_write());
            let left = deadline.saturating_duration_since(Instant::now());
            let left: Option<Timespec> = left.try_into().ok();
            if poll(&mut [PollFd::new(socket, wanted)], left.as_ref())? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.flush(socket)?;
            if !self.receive(socket)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Takes bytes as far as there is room, and sends what the socket takes.
    pub(super) fn send(&mut self, socket: &impl AsFd, bytes: &[u8]) -> rustix::io::Result<usize> {
        let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        self.flush(socket).map_err(failed)?;
        let taken = self.session.writer().write(bytes).map_err(failed)?;
        if taken == 0 {
            return Err(Errno::AGAIN);
        }
        self.flush(socket).map_err(failed)?;
        Ok(taken)
    }

    /// Reads what the server says of the session. False: it has ended it.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<bool> {
        match self.session.read_tls(&mut Socket(socket.as_fd())) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if is_for_later(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
        let state = self.session.process_new_packets();
        let said = state.map_err(io::Error::other)?.plaintext_bytes_to_read();
        // A log service has nothing to say.
        io::copy(
            &mut self.session.reader().take(said as u64),
            &mut io::sink(),
        )?;
        self.flush(socket)?;
        Ok(true)
    }

    /// Whether it waits for the socket to take more.
    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Whether it takes nothing before the server has answered.
    pub(super) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Says that nothing more comes, as far as the socket takes that.
    pub(super) fn close(&mut self, socket: &impl AsFd) {
        self.session.send_close_notify();
        // Who does not take it sees the end of the connection.
        let _ = self.flush(socket);
    }

    /// Sends what it holds, as far as the socket takes it.
    fn flush(&mut self, socket: &impl AsFd) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(socket.as_fd())) {
                Ok(_) => {}
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A socket, read and written without waiting.
struct Socket<'a>(BorrowedFd<'a>);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(count)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::send(self.0, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, certificates::Error> {
    let trust = match files.unverified {
        true => Trust::Anyone,
        false => Trust::SystemAnd(files.authorities.iter().cloned().collect()),
    };
    let identity = files.identity.clone();
    let identity = identity.map(|(certificate, key)| Identity { certificate, key });
    certificates::client(&trust, identity.as_ref())
}
