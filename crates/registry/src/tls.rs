//! TLS towards registries: the system's authorities, and per registry what lies in its certificates' directory.

use crate::config::{Endpoint, Registries, host};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// How to speak TLS with an endpoint.
pub(crate) fn connector(registries: &Registries, endpoint: &Endpoint) -> Result<TlsConnector> {
    let authority = &endpoint.address.authority;
    let error = |reason: String| Error::Certificates {
        host: authority.clone(),
        reason,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|bad| error(bad.to_string()))?;
    let mut found = Found::default();
    for directory in registries.certificates(authority) {
        found.read(&directory).map_err(error)?;
    }
    let builder = if endpoint.verified {
        let mut roots = RootCertStore::empty();
        // A system's bundle may hold what is not understood here; the rest counts.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for authority in found.authorities {
            roots.add(authority).map_err(|bad| error(bad.to_string()))?;
        }
        builder.with_root_certificates(roots)
    } else {
        let anyone = Arc::new(Anyone { provider });
        builder.dangerous().with_custom_certificate_verifier(anyone)
    };
    let config = match found.identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|bad| error(bad.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that a certificate of an authority has to have.
pub(crate) fn server_name(authority: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host(authority).to_owned()).map_err(|_| Error::Address {
        text: authority.to_owned(),
        reason: "it is no name a certificate could have",
    })
}

/// What lies in a registry's directory of certificates.
#[derive(Default)]
struct Found {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Found {
    fn read(&mut self, directory: &Path) -> Result<(), String> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{directory:?}: {error}")),
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.extend(certificates(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    let read = PrivateKeyDer::from_pem_file(&key);
                    let read = read.map_err(|error| format!("{key:?}: {error}"))?;
                    self.identity = Some((certificates(&path)?, read));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    certificates.map_err(|error| format!("{path:?}: {error}"))
}

/// Takes any certificate: for registries that are called insecure.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
