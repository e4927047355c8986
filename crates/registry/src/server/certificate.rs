//! The certificate that is shown: read again when its files change, without a connection that would notice.

use super::settings::Tls;
use crate::error::Result;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

/// How often is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(1);

/// By what a file is known to have changed: its number, size and time (seconds, nanoseconds).
type Stamp = Option<(u64, u64, i64, i64)>;

/// A certificate and its key.
pub(crate) struct Certificate {
    files: Tls,
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    stamps: [Stamp; 2],
    looked: Instant,
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn read(files: &Tls) -> Result<Self> {
        // Before they are read: a change in between is seen the next time.
        let stamps = stamps(files);
        let state = State {
            acceptor: files.acceptor()?,
            stamps,
            looked: Instant::now(),
        };
        Ok(Self {
            files: files.clone(),
            state: Mutex::new(state),
        })
    }

    /// What accepts a connection. Files that cannot be used, such as a new certificate whose key is still to come, leave
    /// what there was.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let stamps = stamps(&self.files);
            if stamps != state.stamps {
                state.stamps = stamps;
                match self.files.acceptor() {
                    Ok(acceptor) => {
                        state.acceptor = acceptor;
                        tracing::info!(file = ?self.files.certificate, "read the certificate again");
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

fn stamps(files: &Tls) -> [Stamp; 2] {
    let stamp = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}
