//! Certificates and keys in files, in PEM.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

/// The result of reading certificates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path:?}: {reason}")]
pub struct Error {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

impl Error {
    /// A file, and why it cannot be used.
    pub fn new(path: &Path, reason: &dyn std::error::Error) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Who one is: a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that vouch for it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Identity {
    /// The chain and the key.
    ///
    /// # Errors
    /// A file cannot be read, or has nothing of its kind.
    pub fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| Error::new(&self.key, &error))?;
        Ok((certificates(&self.certificate)?, key))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| Error::new(path, &error))?;
    if found.is_empty() {
        return Err(Error {
            path: path.to_owned(),
            reason: "there is no certificate in it".to_owned(),
        });
    }
    Ok(found)
}

/// The authorities in a file, of which there is one at least.
///
/// # Errors
/// The file cannot be read, or has none.
pub fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots
            .add(authority)
            .map_err(|error| Error::new(path, &error))?;
    }
    Ok(roots)
}
