//! HTTPS, with a certificate for `localhost` that nobody trusts but this test: its key is in the open, beside it.

use crate::wire::{Options, Registry};
use registry::server::{Access, Identity, Server, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn fixture(name: &str) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.join("tests/server/localhost").join(name)
}

fn certificate() -> Identity {
    Identity {
        certificate: fixture("cert.pem"),
        key: fixture("key.pem"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_pulled_over_tls() {
    let plain = Registry::start().await;
    let content: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = plain.push_blob("a", &content).await;
    let options = Options {
        tls: Some(certificate()),
        ..Options::default()
    };
    let registry = Registry::on(plain.stop().await, options).await;
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(fixture("cert.pem")).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(registry.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut socket = connector.connect(name, socket).await.unwrap();
    let request =
        format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The end may come without a farewell; what came is compared.
    let _ = socket.read_to_end(&mut answer).await;
    assert!(answer.ends_with(&content));
    // Who speaks without TLS is not answered.
    assert_ne!(registry.get("/v2/").await.status, 200);
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let storage = tempfile::tempdir().unwrap();
    for (certificate, key) in [("none.pem", "key.pem"), ("cert.pem", "cert.pem")] {
        let opened = Server::open(Settings {
            storage: storage.path().to_owned(),
            read_only: false,
            deletion: false,
            access: Access::new(None, Vec::new()).unwrap(),
            tls: Some(Identity {
                certificate: fixture(certificate),
                key: fixture(key),
            }),
            connections_per_address_max: 1,
            quotas: Vec::new(),
            sweep: None,
            upstream: None,
        });
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(".pem"), "{error}");
    }
}

/// The certificate that a server shows, whoever vouches for it.
async fn shown(registry: &Registry, trusted: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(registry.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, socket).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let renewed = |name: &str| fixture("../renewed").join(name);
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(fixture(name), at(name)).unwrap();
    }
    let old = CertificateDer::from_pem_file(fixture("cert.pem")).unwrap();
    let new = CertificateDer::from_pem_file(renewed("cert.pem")).unwrap();
    let tls = Identity {
        certificate: at("cert.pem"),
        key: at("key.pem"),
    };
    let registry = Registry::with(Options {
        tls: Some(tls),
        ..Options::default()
    })
    .await;
    assert!(shown(&registry, &old).await && !shown(&registry, &new).await);
    // A certificate whose key is still to come, and one that is none, change nothing.
    let look = std::time::Duration::from_millis(1100);
    for half in [renewed("cert.pem"), fixture("../tls.rs")] {
        std::fs::copy(half, at("cert.pem")).unwrap();
        tokio::time::sleep(look).await;
        assert!(shown(&registry, &old).await);
    }
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(renewed(name), at(name)).unwrap();
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(100);
    while !shown(&registry, &new).await {
        assert!(
            std::time::Instant::now() < deadline,
            "the new one is not shown"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!shown(&registry, &old).await);
}
