//! Accepts TLS with a certificate that is read again when its files change, without a connection that would notice.

use certificates::{Error, Identity, Result, authorities};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

/// How often is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(1);

/// By what a file is known to have changed: its number, size and time (seconds, nanoseconds).
type Stamp = Option<(u64, u64, i64, i64)>;

/// Accepts TLS.
pub struct Acceptor {
    files: Files,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Files {
    identity: Identity,
    /// Who vouches for clients; none: clients need no certificate.
    authorities: Option<PathBuf>,
}

struct State {
    acceptor: TlsAcceptor,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

impl Acceptor {
    /// Shows a certificate to anybody.
    ///
    /// # Errors
    /// A file cannot be read, or a key is not its certificate's.
    pub fn open_to_all(identity: Identity) -> Result<Self> {
        Self::new(Files {
            identity,
            authorities: None,
        })
    }

    /// Lets in only who shows a certificate for which one of the authorities in a file vouches.
    ///
    /// # Errors
    /// As [`Acceptor::open_to_all`].
    pub fn mutual(identity: Identity, authorities: PathBuf) -> Result<Self> {
        Self::new(Files {
            identity,
            authorities: Some(authorities),
        })
    }

    fn new(files: Files) -> Result<Self> {
        // Before they are read: a change in between is seen the next time.
        let stamps = files.stamps();
        let state = State {
            acceptor: files.acceptor()?,
            stamps,
            looked: Instant::now(),
        };
        Ok(Self {
            files,
            state: Mutex::new(state),
        })
    }

    /// What accepts a connection. Files that cannot be used, such as a new certificate whose key is still to come, leave
    /// what there was.
    pub fn get(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let stamps = self.files.stamps();
            if stamps != state.stamps {
                state.stamps = stamps;
                match self.files.acceptor() {
                    Ok(acceptor) => {
                        state.acceptor = acceptor;
                        tracing::info!(file = ?self.files.identity.certificate, "read the certificate again");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the changed certificate cannot be used, the old one is kept");
                    }
                }
            }
        }
        state.acceptor.clone()
    }
}

impl Files {
    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        };
        let identity = [&self.identity.certificate, &self.identity.key];
        let paths = identity.into_iter().chain(&self.authorities);
        paths.map(|path| stamp(path)).collect()
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let invalid = |error: &dyn std::error::Error| Error::new(&self.identity.certificate, error);
        let (chain, key) = self.identity.read()?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&error))?;
        let builder = match &self.authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|error| Error::new(path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key);
        let mut config = config.map_err(|error| invalid(&error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
