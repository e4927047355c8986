//! Registries that lie, stall, flood and lead astray: each ends in an error that names what happened, or is got over.
//!
//! The server is a script of raw answers. What is named after an attack tries CVE-2021-41190 (30: manifest and index confused),
//! denial of service by documents as in CVE-2021-21285 (29), and credentials for other hosts as in CVE-2020-15157 (45).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod encrypted;
mod server;

use oci::image::{CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, media_type};
use oci::{Digest, Reference};
use registry::config::Registries;
use registry::{Client, Credentials, Error, Purpose, Repository, Waits};
use server::{Answer, Request, Server};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Limits that a test can wait for.
const IMPATIENT: Waits = Waits {
    connect: Duration::from_secs(10),
    answer: Duration::from_millis(400),
    pause: Duration::from_millis(400),
    retry: Duration::from_millis(1),
    retry_after_max: Duration::from_millis(20),
};

fn basic() -> Credentials {
    Credentials::Basic {
        user: "me".to_owned(),
        password: "secret".to_owned(),
    }
}

fn name(server: &Server) -> Reference {
    format!("{}/a/b:tag", server.address).parse().unwrap()
}

fn repository_with(registries: Registries, name: &Reference) -> Arc<Repository> {
    let client = Client::with_waits(registries, IMPATIENT);
    client.repository(name, basic(), Purpose::Pull).unwrap()
}

fn repository(server: &Server) -> Arc<Repository> {
    repository_with(Registries::default(), &name(server))
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::new(
        media_type::OCI_LAYER,
        Digest::sha256(bytes),
        bytes.len() as u64,
    )
}

/// A blob's bytes, or the error that ended it.
async fn fetch(server: &Server, descriptor: &Descriptor) -> registry::Result<Vec<u8>> {
    let mut stream = repository(server).blob(descriptor);
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

const MANIFEST: &str = concat!(
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
    r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"#,
    r#""digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"#,
    r#""layers":[]}"#
);

fn manifest() -> Answer {
    Answer::ok(MANIFEST).with("Content-Type", media_type::OCI_MANIFEST)
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let server = Server::start(|_| manifest());
    let asked = name(&server).with_digest(Digest::sha256(b"something else"));
    let error = repository(&server).manifest(&asked).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    // Nor may a registry contradict itself.
    let said = Digest::sha256(b"something else").to_string();
    let server = Server::start(move |_| manifest().with("Docker-Content-Digest", &said));
    let error = repository(&server)
        .manifest(&name(&server))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
}

#[tokio::test]
async fn a_configuration_of_another_digest_is_refused() {
    let server = Server::start(|_| Answer::ok("xx"));
    let mut wanted = blob(b"yy");
    let error = repository(&server).document(&wanted).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
    wanted.size = CONFIG_BYTES_MAX + 1;
    let asked = server.requests().len();
    assert!(repository(&server).document(&wanted).await.is_err());
    assert_eq!(server.requests().len(), asked);
}

#[tokio::test]
async fn a_body_that_a_registry_does_not_read_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/a/b:tag", listener.local_addr().unwrap());
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let registry = std::thread::spawn(move || {
        // It speaks no TLS, with which it is asked at first.
        let mut streams = listener
            .incoming()
            .map(|stream| BufReader::new(stream.unwrap()));
        let mut stream = streams.find_map(|mut stream| read_head(&mut stream).then_some(stream));
        let stream = stream.as_mut().unwrap();
        let begun = "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/b/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(begun.as_bytes()).unwrap();
        // The upload comes on the same connection, and nothing of it is read.
        assert!(read_head(stream));
        ended.recv().unwrap_err();
    });
    let repository = repository_with(Registries::default(), &reference.parse().unwrap());
    let upload = repository.begin_upload().await.unwrap();
    // More than all buffers on the way take.
    let (pieces, body) = tokio::sync::mpsc::channel(64);
    let piece = bytes::Bytes::from(vec![0; 1 << 20]);
    while pieces.try_send(Ok(piece.clone())).is_ok() {}
    assert!(upload.stream(body).await.is_err());
    let let_go = tokio::time::timeout(Duration::from_secs(60), pieces.closed());
    assert!(let_go.await.is_ok(), "somebody still holds the body");
    drop(end);
    registry.join().unwrap();
}

/// Reads the head of a request, if that is what comes.
fn read_head(stream: &mut impl BufRead) -> bool {
    let lines: Result<Vec<String>, _> = { stream.lines() }
        .take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty()))
        .collect();
    lines.is_ok_and(|lines| !lines.is_empty())
}

#[tokio::test]
async fn attack_29_a_huge_manifest_is_not_read_to_its_end() {
    // Announced or not, it is broken off at the limit.
    for announced in [true, false] {
        let server = Server::start(move |_| Answer::Endless { announced });
        let error = repository(&server)
            .manifest(&name(&server))
            .await
            .unwrap_err();
        let limit = format!("more than {MANIFEST_BYTES_MAX} bytes");
        assert!(error.to_string().contains(&limit), "{error}");
        // What is on its way fills the buffers of a connection, no more.
        assert!(
            server.sent() < MANIFEST_BYTES_MAX + (16 << 20),
            "{}",
            server.sent()
        );
    }
}

#[tokio::test]
async fn attack_29_many_layers_and_old_schemas_are_refused() {
    let layer = format!(
        r#"{{"mediaType":"x","digest":"{}","size":1}}"#,
        Digest::sha256(b"x")
    );
    let many = MANIFEST.replace(
        "\"layers\":[]",
        &format!("\"layers\":[{}]", vec![layer; 128].join(",")),
    );
    for (document, kind) in [
        (many, media_type::OCI_MANIFEST),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.to_owned(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
    ] {
        let server = Server::start(move |_| Answer::ok(&document).with("Content-Type", kind));
        let found = repository(&server).manifest(&name(&server)).await.unwrap();
        assert!(matches!(found.parse(), Err(Error::Document { .. })));
    }
}

#[tokio::test]
async fn attack_30_a_manifest_is_no_index() {
    let both = MANIFEST.replace("\"layers\":[]", "\"layers\":[],\"manifests\":[]");
    for (document, kind) in [
        (both.as_str(), media_type::OCI_MANIFEST),
        (MANIFEST, media_type::OCI_INDEX),
        (
            r#"{"schemaVersion":2,"manifests":[]}"#,
            media_type::OCI_MANIFEST,
        ),
    ] {
        let document = document.to_owned();
        let server = Server::start(move |_| Answer::ok(&document).with("Content-Type", kind));
        let found = repository(&server).manifest(&name(&server)).await.unwrap();
        assert!(
            matches!(found.parse(), Err(Error::Document { .. })),
            "{kind}"
        );
    }
    let server = Server::start(|_| manifest());
    let found = repository(&server).manifest(&name(&server)).await.unwrap();
    assert!(matches!(found.parse(), Ok(Document::Manifest(_))));
}

#[tokio::test]
async fn a_blob_that_goes_on_beyond_its_size_is_broken_off() {
    let server = Server::start(|_| Answer::Endless { announced: false });
    let error = fetch(&server, &blob(&[0; 1000])).await.unwrap_err();
    assert!(
        error.to_string().contains("more than 1000 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_stalls_is_given_up() {
    let server = Server::start(|_| Answer::Silence);
    let error = repository(&server)
        .manifest(&name(&server))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    // In the middle of a blob, too.
    let server = Server::start(|_| Answer::Stall {
        length: 1000,
        sent: b"begin".to_vec(),
    });
    let error = fetch(&server, &blob(&[0; 1000])).await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { .. } | Error::Protocol { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request| Answer::redirect(&request.path));
    let error = repository(&server)
        .manifest(&name(&server))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("redirects more than"), "{error}");
    assert!(server.requests().len() <= 60, "{}", server.requests().len());
}

/// Answers that want a name and a password first.
fn locked(request: &Request, inside: impl Fn() -> Answer) -> Answer {
    match request.header("authorization") {
        Some(_) => inside(),
        None => Answer::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    }
}

#[tokio::test]
async fn attack_45_another_host_gets_no_credentials() {
    let other = Server::start(|_| Answer::ok("content"));
    let target = format!("http://{}/elsewhere", other.address);
    let server = Server::start(move |request| locked(request, || Answer::redirect(&target)));
    assert_eq!(fetch(&server, &blob(b"content")).await.unwrap(), b"content");
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.header("authorization").is_some())
    );
    let elsewhere = other.requests();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(elsewhere[0].header("authorization"), None);
    // A layer's own URLs are never asked, whatever a manifest says.
    let foreign = Server::start(|_| Answer::ok("content"));
    let mut descriptor = blob(b"content");
    descriptor.urls = vec![format!("http://{}/layer", foreign.address)];
    fetch(&server, &descriptor).await.unwrap();
    assert!(foreign.requests().is_empty());
}

#[tokio::test]
async fn what_breaks_off_is_resumed_where_it_broke() {
    let content: Arc<[u8]> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let served = Arc::clone(&content);
    let server = Server::start(move |request| {
        let start = request.range().map_or(0, |(start, _)| start);
        let rest = &served[start..];
        let answer = match start {
            0 => Answer::ok(rest),
            _ => Answer::range(rest, start, served.len()),
        };
        // Each connection brings a part, and breaks.
        answer.cut(300_000)
    });
    assert_eq!(fetch(&server, &blob(&content)).await.unwrap(), &*content);
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .filter_map(Request::range)
        .collect();
    assert!(!ranges.is_empty() && ranges.iter().all(|(start, _)| *start > 0));
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_will_do() {
    let content: Arc<[u8]> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let (served, count) = (Arc::clone(&content), AtomicUsize::new(0));
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::ok(&*served).cut(100_000),
        _ => Answer::ok(&*served),
    });
    assert_eq!(fetch(&server, &blob(&content)).await.unwrap(), &*content);
}

#[tokio::test]
async fn another_range_than_was_asked_for_is_refused() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::ok([7; 1000]).cut(500),
        _ => Answer::range(&[7; 400], 600, 1000),
    });
    let error = fetch(&server, &blob(&[7; 1000])).await.unwrap_err();
    assert!(error.to_string().contains("another range"), "{error}");
}

#[tokio::test]
async fn registries_that_are_busy_are_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        // It may ask for an hour; it is not given one.
        0 => Answer::status(429).with("Retry-After", "3600"),
        1 => Answer::status(503),
        2 => Answer::status(500),
        _ => manifest(),
    });
    repository(&server).manifest(&name(&server)).await.unwrap();
    let server = Server::start(|_| Answer::status(503));
    let error = repository(&server)
        .manifest(&name(&server))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Status { .. }), "{error}");
    assert!(server.requests().len() <= 10, "{}", server.requests().len());
}

#[tokio::test]
async fn token_issuers_that_lie_are_refused() {
    for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":7}"#, "<html>"] {
        let issuer = Server::start(move |_| Answer::ok(answer));
        let realm = format!(
            "Bearer realm=\"http://{}/token\",service=\"s\"",
            issuer.address
        );
        let server = Server::start(move |_| Answer::status(401).with("WWW-Authenticate", &realm));
        let error = repository(&server)
            .manifest(&name(&server))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("sends no token"),
            "{answer:?}: {error}"
        );
    }
    // A token that is not taken ends it, too, and is not asked for for ever.
    let issuer = Server::start(|_| Answer::ok(r#"{"token":"t","expires_in":99999999999}"#));
    let realm = format!("Bearer realm=\"http://{}/token\"", issuer.address);
    let server = Server::start(move |_| Answer::status(401).with("WWW-Authenticate", &realm));
    let error = repository(&server)
        .manifest(&name(&server))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(issuer.requests().len() <= 2, "{}", issuer.requests().len());
}

/// A registry with a mirror before it.
fn mirrored(mirror: &str, server: &Server) -> Registries {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registries.toml");
    let text = format!(
        "[registry.\"{}\"]\nmirrors = [\"http://{mirror}\"]\n",
        server.address
    );
    std::fs::write(&path, text).unwrap();
    Registries::read(Path::new(&path), Vec::new()).unwrap()
}

#[tokio::test]
async fn a_mirror_that_is_down_or_empty_or_lies_is_passed_over() {
    let digest = Digest::sha256(MANIFEST.as_bytes());
    let lies: [fn(&Request) -> Answer; 3] = [
        |_| Answer::status(404),
        |_| Answer::status(500),
        |_| Answer::ok("{}").with("Content-Type", media_type::OCI_MANIFEST),
    ];
    for lie in lies {
        let (mirror, server) = (Server::start(lie), Server::start(|_| manifest()));
        let asked = name(&server).with_digest(digest);
        let repository = repository_with(mirrored(&mirror.address, &server), &asked);
        assert_eq!(repository.manifest(&asked).await.unwrap().digest, digest);
        assert!(!mirror.requests().is_empty());
        assert!(
            mirror
                .requests()
                .iter()
                .all(|request| request.header("authorization").is_none())
        );
    }
    let down = Server::start(|_| manifest()).address.clone();
    let server = Server::start(|_| manifest());
    let repository = repository_with(mirrored(&down, &server), &name(&server));
    repository.manifest(&name(&server)).await.unwrap();
}

#[tokio::test]
async fn a_mirror_that_wants_to_know_who_it_is_learns_nothing() {
    let mirror = Server::start(|request| locked(request, manifest));
    let server = Server::start(|_| manifest());
    let repository = repository_with(mirrored(&mirror.address, &server), &name(&server));
    repository.manifest(&name(&server)).await.unwrap();
    assert!(
        mirror
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[tokio::test]
async fn pages_of_tags_stay_at_the_registry() {
    let other = Server::start(|_| Answer::ok(r#"{"tags":["evil"]}"#));
    let next = format!(
        "<http://{}/v2/a/b/tags/list?last=x>; rel=\"next\"",
        other.address
    );
    let server = Server::start(move |request| match request.path.contains("last=") {
        false => Answer::ok(r#"{"tags":["x"]}"#).with("Link", &next),
        true => Answer::ok(r#"{"tags":["y"]}"#),
    });
    assert_eq!(repository(&server).tags().await.unwrap(), ["x", "y"]);
    assert!(other.requests().is_empty());
}
