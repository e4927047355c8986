//! HTTPS, with a certificate for `localhost` that nobody trusts but this test: its key is in the open, beside it.

use crate::wire::{Options, Registry};
use registry::server::{Access, Server, Settings, Tls};
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

fn certificate() -> Tls {
    Tls {
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
            tls: Some(Tls {
                certificate: fixture(certificate),
                key: fixture(key),
            }),
            sweep: None,
            upstream: None,
        });
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(".pem"), "{error}");
    }
}
