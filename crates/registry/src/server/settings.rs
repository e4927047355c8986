//! What a registry is configured with.

use super::access::Access;
use super::quota::Quota;
use super::store::sweep::Sweep;
use crate::auth::Credentials;
use crate::config::{Address, Registries};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How a registry is served.
#[derive(Debug)]
pub struct Settings {
    /// Where it keeps everything; made when it is not there.
    pub storage: PathBuf,
    /// Whether nothing can be pushed or deleted.
    pub read_only: bool,
    /// Whether manifests, tags and blobs can be deleted.
    pub deletion: bool,
    /// Who may do what.
    pub access: Access,
    /// The certificate to show; without it HTTP is plain.
    pub tls: Option<Tls>,
    /// Connections that one address may have at once.
    pub connections_per_address_max: usize,
    /// How much repositories may have.
    pub quotas: Vec<Quota>,
    /// How often to sweep, and how.
    pub sweep: Option<(Duration, Sweep)>,
    /// The registry that this is a cache of.
    pub upstream: Option<UpstreamSettings>,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, and those that vouch for it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Another registry.
#[derive(Debug)]
pub struct UpstreamSettings {
    /// Where it is.
    pub address: Address,
    /// Who this is to it.
    pub credentials: Credentials,
    /// Certificates for it.
    pub registries: Registries,
}

impl Tls {
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor> {
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(|error| invalid(&self.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|error| invalid(&self.key, &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| invalid(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn invalid(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::Settings {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
