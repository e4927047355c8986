//! What a client of TLS believes.

use crate::files::{Error, Identity, Result, authorities};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those that an authority of the system vouches for, or one in these files.
    SystemAnd(Vec<PathBuf>),
    /// Those that an authority in this file vouches for, and no other.
    Only(PathBuf),
    /// Everybody's: who answers is not known.
    Anyone,
}

/// A client's configuration, which shows who one is where there is something to show.
///
/// # Errors
/// A file cannot be read, or a key is not its certificate's.
pub fn client(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Path::new("TLS"), &error))?;
    let builder = match trust {
        Trust::SystemAnd(files) => {
            let mut roots = RootCertStore::empty();
            // A system's bundle may hold what is not understood here; the rest counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            for path in files {
                roots.roots.extend(authorities(path)?.roots);
            }
            builder.with_root_certificates(roots)
        }
        Trust::Only(path) => builder.with_root_certificates(authorities(path)?),
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone { provider })),
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.read()?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| Error::new(&identity.certificate, &error))?
        }
    };
    Ok(Arc::new(config))
}

/// Takes any certificate, but no connection whose key is not the certificate's.
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
