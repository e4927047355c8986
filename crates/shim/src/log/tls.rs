//! TLS on a socket that never waits: what the session holds goes when the socket takes it. For syslog: RFC 5425.

use crate::protocol::TlsFiles;
use crate::stream::is_for_later;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
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
        let session = ClientConnection::new(config(files)?, ServerName::from(server));
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

fn config(files: &TlsFiles) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let verified = if files.unverified {
        let verifier = Arc::new(Anybody(provider));
        versions
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        let mut roots = RootCertStore::empty();
        // Those that cannot be read vouch for nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &files.authorities {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| of(path, error))?;
            }
        }
        versions.with_root_certificates(roots)
    };
    let config = match &files.identity {
        None => verified.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, error))?;
            let shown = verified.with_client_auth_cert(chain, key);
            shown.map_err(|error| of(certificate, error))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| of(path, error))
}

fn of(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Believes whoever answers (`syslog-tls-skip-verify`).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
