//! How blobs are pushed: whole, in chunks, as a stream, from another repository.

use crate::wire::{Options, Registry};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn finish(registry: &Registry, location: &str, digest: &Digest, rest: &[u8]) -> u16 {
    let path = format!("{location}?digest={digest}");
    registry.send("PUT", &path, &[], rest).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn in_chunks_and_in_their_order_only() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    let chunk = async |range: &str, body: &[u8]| {
        let headers = [("Content-Range", range)];
        registry.send("PATCH", &location, &headers, body).await
    };
    let first = chunk("0-3", b"abcd").await;
    assert_eq!((first.status, first.header("range")), (202, Some("0-3")));
    for (range, body) in [("6-7", "gh"), ("0-3", "abcd"), ("3-4", "de")] {
        let answer = chunk(range, body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.header("range")),
            (416, Some("0-3")),
            "{range}"
        );
        assert_eq!(answer.header("location"), Some(location.as_str()));
    }
    for (range, body) in [("4-5", "efg"), ("4-9", "ef"), ("4", "e"), ("5-4", "e")] {
        let answer = chunk(range, body.as_bytes()).await;
        assert!(
            answer.status == 400 || answer.status == 413,
            "{range}: {answer:?}"
        );
    }
    let status = registry.get(&location).await;
    assert_eq!((status.status, status.header("range")), (204, Some("0-3")));
    assert_eq!(chunk("4-5", b"ef").await.status, 202);
    let digest = Digest::sha256(b"abcdefgh");
    assert_eq!(finish(&registry, &location, &digest, b"gh").await, 201);
    assert_eq!(
        registry.get(&format!("/v2/a/blobs/{digest}")).await.body,
        b"abcdefgh"
    );
    assert_eq!(registry.get(&location).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_stream_without_a_length() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    let request = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    );
    let answer = registry.raw(request.as_bytes()).await;
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-4")));
    let digest = Digest::sha256(b"abcde");
    assert_eq!(finish(&registry, &location, &digest, b"").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sha512() {
    let registry = Registry::start().await;
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"long");
    let digest = hasher.finish();
    for query in ["", "?digest-algorithm=sha512", "?digest-algorithm=sha256"] {
        let path = format!("/v2/a/blobs/uploads/{query}");
        let begun = registry.send("POST", &path, &[], b"").await;
        let location = begun.header("location").unwrap();
        assert_eq!(
            finish(&registry, location, &digest, b"long").await,
            201,
            "{query}"
        );
    }
    let got = registry.get(&format!("/v2/a/blobs/{digest}")).await;
    assert_eq!(
        got.header("docker-content-digest"),
        Some(digest.to_string().as_str())
    );
    let other = "/v2/a/blobs/uploads/?digest-algorithm=md5";
    assert_eq!(
        registry.send("POST", other, &[], b"").await.code(),
        "DIGEST_INVALID"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn from_another_repository() {
    let registry = Registry::start().await;
    let digest = registry.push_blob("from", b"x").await;
    let mount = async |query: String| {
        let path = format!("/v2/to/blobs/uploads/?{query}");
        registry.send("POST", &path, &[], b"").await
    };
    let none = Digest::sha256(b"none");
    for query in [
        format!("mount={none}&from=from"),
        format!("mount={digest}&from=nowhere"),
        format!("mount={digest}&from=../from"),
    ] {
        let answer = mount(query).await;
        assert_eq!(answer.status, 202);
        assert!(answer.header("location").unwrap().contains("/uploads/"));
    }
    let path = format!("/v2/to/blobs/{digest}");
    assert_eq!(registry.get(&path).await.status, 404);
    let mounted = mount(format!("mount={digest}&from=from")).await;
    assert_eq!(
        (mounted.status, mounted.header("location")),
        (201, Some(path.as_str()))
    );
    assert_eq!(registry.get(&path).await.body, b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_about_its_digest_is_not_kept() {
    let registry = Registry::start().await;
    let promised = Digest::sha256(b"truth");
    let path = format!("/v2/a/blobs/uploads/?digest={promised}");
    let answer = registry.send("POST", &path, &[], b"lie").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "DIGEST_INVALID")
    );
    let location = registry.begin("a").await;
    assert_eq!(finish(&registry, &location, &promised, b"lie").await, 400);
    assert_eq!(registry.get(&location).await.status, 404);
    assert_eq!(
        registry
            .get(&format!("/v2/a/blobs/{promised}"))
            .await
            .status,
        404
    );
    for text in [
        "",
        "sha256:x",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:../../x",
    ] {
        let location = registry.begin("a").await;
        let path = format!("{location}?digest={text}");
        let answer = registry.send("PUT", &path, &[], b"x").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "DIGEST_INVALID"),
            "{text}"
        );
        // The upload is not lost by that.
        assert_eq!(registry.get(&location).await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_cancelled() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    assert_eq!(
        registry.send("DELETE", &location, &[], b"").await.status,
        204
    );
    assert_eq!(registry.get(&location).await.status, 404);
    let uploads = std::fs::read_dir(registry.storage.path().join("uploads")).unwrap();
    assert_eq!(uploads.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_connection_brought_is_gone_on_from() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    let mut socket = TcpStream::connect(registry.address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    socket
        .write_all(format!("{head}some").as_bytes())
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The server may answer, or close.
    let _ = socket.read_to_end(&mut answer).await;
    let length = loop {
        let status = registry.get(&location).await;
        match status.status {
            204 => break status.header("range").unwrap().to_owned(),
            // The first request is still at it.
            409 => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    };
    assert_eq!(length, "0-3");
    // Another process goes on, which has no more than what is on disk.
    let registry = Registry::on(registry.stop().await, Options::default()).await;
    let digest = Digest::sha256(b"something");
    assert_eq!(finish(&registry, &location, &digest, b"thing").await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_that_breaks_leaves_nothing() {
    let registry = Registry::start().await;
    let digest = Digest::sha256(b"something");
    let request = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome"
    );
    let mut socket = TcpStream::connect(registry.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    // The server may answer, or close.
    let _ = socket.read_to_end(&mut Vec::new()).await;
    let uploads = registry.storage.path().join("uploads");
    let begun = Instant::now();
    while std::fs::read_dir(&uploads).unwrap().count() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "an upload is left"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
