//! What a registry that is reached by TLS may not do: lead to where there is none.

use crate::server::{Answer, Request, Server, Stream, TLS_HANDSHAKE, plain};
use crate::{blob, locked, repository_with};
use oci::Reference;
use registry::config::Registries;
use registry::{Error, Repository};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate for `localhost` whose key is in the open.
fn fixture(name: &str) -> std::path::PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.join("tests/server/localhost").join(name)
}

/// A scripted server with TLS, whose address is a name.
fn encrypted(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    let certificate = CertificateDer::from_pem_file(fixture("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let open = move |socket: TcpStream| {
        let connection = ServerConnection::new(Arc::clone(&config));
        let connection = connection.map_err(std::io::Error::other)?;
        Ok(Box::new(StreamOwned::new(connection, socket)) as Box<dyn Stream>)
    };
    let mut server = Server::start_on(open, script);
    server.address = server.address.replace("127.0.0.1", "localhost");
    server
}

/// A repository of a registry whose certificate counts, or else of one that is trusted without any; and the certificates.
fn repository(server: &Server, verified: bool) -> (Arc<Repository>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().join(&server.address);
    std::fs::create_dir(&certificates).unwrap();
    std::fs::copy(fixture("cert.pem"), certificates.join("ca.crt")).unwrap();
    let mut registries = Registries::with_certificates(vec![directory.path().to_owned()]);
    let address = format!("https://{}", server.address);
    registries.locate("registry.example", address.parse().unwrap());
    if !verified {
        registries.trust("registry.example");
    }
    (repository_with(registries, &image()), directory)
}

fn image() -> Reference {
    "registry.example/a/b:tag".parse().unwrap()
}

async fn fetch(repository: &Arc<Repository>) -> registry::Result<Vec<u8>> {
    let mut stream = repository.blob(&blob(b"content"));
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn attack_45_no_redirect_leads_out_of_tls() {
    let plain = Server::start(|_| Answer::ok("content"));
    let target = format!("http://{}/elsewhere", plain.address);
    let server = encrypted(move |request| locked(request, || Answer::redirect(&target)));
    let (known, _certificates) = repository(&server, true);
    for error in [
        fetch(&known).await.unwrap_err(),
        known.manifest(&image()).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("redirects from https to http"), "{text}");
    }
    assert!(plain.requests().is_empty());
    let authorized = |request: &Request| request.header("authorization").is_some();
    assert!(server.requests().iter().any(authorized));

    // Who is trusted without proof may lead there; without the credentials.
    let (trusted, _certificates) = repository(&server, false);
    assert_eq!(fetch(&trusted).await.unwrap(), b"content");
    assert_eq!(plain.requests().len(), 1);
    assert!(!plain.requests().iter().any(authorized));
}

#[tokio::test]
async fn attack_45_another_encrypted_host_gets_no_credentials() {
    let other = encrypted(|_| Answer::ok("content"));
    let target = format!("https://{}/elsewhere", other.address);
    let server = encrypted(move |request| locked(request, || Answer::redirect(&target)));
    // The other's certificate counts, too, and nobody has said what it is.
    let (known, _certificates) = repository(&server, true);
    assert!(matches!(fetch(&known).await, Err(Error::Transport { .. })));
    assert!(other.requests().is_empty());
    let (trusted, _certificates) = repository(&server, false);
    assert_eq!(fetch(&trusted).await.unwrap(), b"content");
    assert!(
        other
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[tokio::test]
async fn attack_45_a_password_goes_to_no_issuer_without_tls() {
    let issuer = Server::start(|_| Answer::ok(r#"{"token":"x"}"#));
    let realm = format!("Bearer realm=\"http://{}/token\"", issuer.address);
    let server = encrypted(move |request| match request.header("authorization") {
        Some(_) => Answer::ok("content"),
        None => Answer::status(401).with("WWW-Authenticate", &realm),
    });
    let (known, _certificates) = repository(&server, true);
    let error = fetch(&known).await.unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");
    assert!(issuer.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = encrypted(|_| Answer::ok("content"));
    let mut registries = Registries::default();
    let address = format!("https://{}", server.address);
    registries.locate("registry.example", address.parse().unwrap());
    let unknown = repository_with(registries, &image());
    let error = fetch(&unknown).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert!(server.requests().is_empty());
    let (known, _certificates) = repository(&server, true);
    assert_eq!(fetch(&known).await.unwrap(), b"content");
}

#[tokio::test]
async fn whoever_closes_at_a_handshake_is_asked_without_at_once() {
    let handshakes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handshakes);
    let open = move |socket: TcpStream| {
        let mut first = [0];
        if socket.peek(&mut first)? == 1 && first[0] == TLS_HANDSHAKE {
            counted.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        plain(socket)
    };
    let server = Server::start_on(open, |_| Answer::ok("content"));
    let known = crate::repository(&server);
    assert_eq!(fetch(&known).await.unwrap(), b"content");
    assert_eq!(handshakes.load(Ordering::Relaxed), 1);
}
