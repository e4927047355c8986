//! A cache of another registry.

use crate::wire::{OCI_MANIFEST, Options, Registry, image};
use oci::Digest;
use registry::Credentials;
use registry::config::Registries;
use registry::server::UpstreamSettings;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

fn of(address: SocketAddr) -> Options<'static> {
    Options {
        no_deletion: true,
        upstream: Some(UpstreamSettings {
            address: format!("http://{address}").parse().unwrap(),
            credentials: Credentials::Anonymous,
            registries: Registries::default(),
        }),
        ..Options::default()
    }
}

/// Makes what a tag names old enough to be asked again.
fn age(storage: &Path, tag: &str) {
    let path = storage.join("repositories/a/_tags").join(tag);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(old).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_there_when_the_other_registry_is_away() {
    let upstream = Registry::start().await;
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = upstream.push_image("a", "latest", &content).await;
    let cache = Registry::with(of(upstream.address)).await;
    let blob = format!("/v2/a/blobs/{}", Digest::sha256(&content));
    for path in [
        "/v2/a/manifests/latest".to_owned(),
        format!("/v2/a/manifests/{digest}"),
    ] {
        let got = cache.get(&path).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, Some(OCI_MANIFEST))
        );
        assert_eq!(Digest::sha256(&got.body), digest);
    }
    let head = cache.send("HEAD", &blob, &[], b"").await;
    assert_eq!(head.header("content-length"), Some("12000000"));
    let part = cache
        .send("GET", &blob, &[("Range", "bytes=8-11")], b"")
        .await;
    assert_eq!((part.status, part.body.as_slice()), (206, &content[8..12]));
    let whole = cache.get(&blob).await;
    assert!(whole.is_whole() && whole.body == content);
    assert_eq!(
        cache.get("/v2/a/tags/list").await.json()["tags"],
        serde_json::json!(["latest"])
    );
    for (path, code) in [
        (
            format!("/v2/a/blobs/{}", Digest::sha256(b"none")),
            "BLOB_UNKNOWN",
        ),
        ("/v2/a/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/none/tags/list".to_owned(), "NAME_UNKNOWN"),
    ] {
        let answer = cache.get(&path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, code),
            "{path}"
        );
    }
    let pushed = cache.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(pushed.code(), "UNSUPPORTED");
    upstream.stop().await;
    age(cache.storage.path(), "latest");
    assert_eq!(cache.get("/v2/a/manifests/latest").await.status, 200);
    assert!(cache.get(&blob).await.body == content);
    assert_eq!(
        cache.get("/v2/a/tags/list").await.json()["tags"],
        serde_json::json!(["latest"])
    );
    assert_eq!(cache.get("/v2/a/manifests/other").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_followed() {
    let upstream = Registry::start().await;
    let old = upstream.push_image("a", "latest", b"old").await;
    let cache = Registry::with(of(upstream.address)).await;
    let named = async || Digest::sha256(&cache.get("/v2/a/manifests/latest").await.body);
    assert_eq!(named().await, old);
    let new = upstream.push_image("a", "latest", b"new").await;
    // For a while it is believed …
    assert_eq!(named().await, old);
    // … and then asked for, whether it has moved or not.
    for _ in 0..2 {
        age(cache.storage.path(), "latest");
        assert_eq!(named().await, new);
    }
    let gone = upstream
        .send("DELETE", "/v2/a/manifests/latest", &[], b"")
        .await;
    assert_eq!(gone.status, 202);
    age(cache.storage.path(), "latest");
    assert_eq!(cache.get("/v2/a/manifests/latest").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_come_along() {
    let upstream = Registry::start().await;
    let subject = upstream.push_image("a", "latest", b"x").await;
    let more = format!(
        r#","artifactType":"sbom/x","subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{subject}","size":1}}"#
    );
    let manifest = image(&[&Digest::sha256(b"x")], &more);
    let headers = [("Content-Type", OCI_MANIFEST)];
    let path = "/v2/a/manifests/sbom";
    assert_eq!(
        upstream
            .send("PUT", path, &headers, manifest.as_bytes())
            .await
            .status,
        201
    );
    let cache = Registry::with(of(upstream.address)).await;
    let path = format!("/v2/a/referrers/{subject}?artifactType=sbom/x");
    let expected = Digest::sha256(manifest.as_bytes()).to_string();
    assert_eq!(
        cache.get(&path).await.json()["manifests"][0]["digest"],
        expected
    );
    upstream.stop().await;
    assert_eq!(
        cache.get(&path).await.json()["manifests"][0]["digest"],
        expected
    );
}

/// A registry that has one blob, says when it gives the second half of it, and counts how often it was asked.
struct Fake {
    address: SocketAddr,
    downloads: Arc<AtomicUsize>,
    go_on: Arc<Semaphore>,
}

impl Fake {
    async fn start(content: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            downloads: Arc::default(),
            go_on: Arc::new(Semaphore::new(0)),
        };
        let (downloads, go_on) = (Arc::clone(&fake.downloads), Arc::clone(&fake.go_on));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(Self::answer(
                    socket,
                    content,
                    Arc::clone(&downloads),
                    Arc::clone(&go_on),
                ));
            }
        });
        fake
    }

    async fn answer(
        mut socket: TcpStream,
        content: &[u8],
        downloads: Arc<AtomicUsize>,
        go_on: Arc<Semaphore>,
    ) {
        let head = head(&mut socket).await;
        let ok = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        // The client may have left.
        let _ = socket.write_all(ok.as_bytes()).await;
        if head.starts_with(b"GET") {
            downloads.fetch_add(1, Ordering::SeqCst);
            let (first, second) = content.split_at(content.len() / 2);
            let _ = socket.write_all(first).await;
            go_on.acquire().await.unwrap().forget();
            let _ = socket.write_all(second).await;
        }
    }
}

/// Reads the head of a request; of one that breaks off, what came.
async fn head(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_pull_one_blob_share_one_fetch_and_get_it_as_it_comes() {
    let content: &[u8] = b"first half, second half!";
    let fake = Fake::start(content).await;
    let cache = Registry::with(of(fake.address)).await;
    let request = format!(
        "GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        Digest::sha256(content)
    );
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = TcpStream::connect(cache.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        // The first half comes though the other registry has not given the second.
        while !got.ends_with(&content[..content.len() / 2]) {
            got.push(socket.read_u8().await.unwrap());
        }
        sockets.push(socket);
    }
    // One who leaves takes nothing from the others.
    drop(sockets.remove(0));
    fake.go_on.add_permits(1);
    for mut socket in sockets {
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, &content[content.len() / 2..]);
    }
    assert_eq!(
        cache
            .get(&format!("/v2/a/blobs/{}", Digest::sha256(content)))
            .await
            .body,
        content
    );
    assert_eq!(fake.downloads.load(Ordering::SeqCst), 1);
}

/// Another registry that gives something else than was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_another_digest_is_not_given_whole_and_not_kept() {
    let fake = Fake::start(b"a lie of some length").await;
    fake.go_on.add_permits(100);
    let cache = Registry::with(of(fake.address)).await;
    let path = format!("/v2/a/blobs/{}", Digest::sha256(b"the truth"));
    for downloads in 1..=2 {
        let answer = cache.get(&path).await;
        assert!(!answer.is_whole(), "{answer:?}");
        assert_eq!(fake.downloads.load(Ordering::SeqCst), downloads);
    }
    let kept = cache.storage.path().join("blobs/sha256");
    assert!(!kept.exists() || std::fs::read_dir(kept).unwrap().count() == 0);
}

/// CVE-2020-15157: a registry that sends the client to another host, for the credentials that come along.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_go_to_the_registry_they_are_for_alone() {
    let content = b"content from elsewhere";
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (
        upstream.local_addr().unwrap(),
        elsewhere.local_addr().unwrap(),
    );
    let (heads, mut came) = mpsc::unbounded_channel();
    for (name, listener) in [("upstream", upstream), ("elsewhere", elsewhere)] {
        let heads = heads.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let head = String::from_utf8(head(&mut socket).await)
                    .unwrap()
                    .to_lowercase();
                let is_known = head.contains("authorization: basic");
                let answer = match name {
                    "upstream" if is_known => {
                        format!("307 Temporary Redirect\r\nLocation: http://{target}/x\r\nContent-Length: 0\r\n\r\n")
                    }
                    "upstream" => {
                        "401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n".to_owned()
                    }
                    _ => format!("200 OK\r\nContent-Length: {}\r\n\r\n", content.len()),
                };
                let mut answer = format!(
                    "HTTP/1.1 {}",
                    answer.replacen("\r\n", "\r\nConnection: close\r\n", 1)
                )
                .into_bytes();
                if name == "elsewhere" && head.starts_with("get") {
                    answer.extend_from_slice(content);
                }
                heads.send((name, head)).unwrap();
                // The client may have left.
                let _ = socket.write_all(&answer).await;
            }
        });
    }
    let mut options = of(address);
    let settings = options.upstream.as_mut().unwrap();
    settings.credentials = Credentials::Basic {
        user: "ann".to_owned(),
        password: "secret".to_owned(),
    };
    let cache = Registry::with(options).await;
    let got = cache
        .get(&format!("/v2/a/blobs/{}", Digest::sha256(content)))
        .await;
    assert_eq!((got.status, got.body.as_slice()), (200, &content[..]));
    let mut seen = [0, 0];
    while let Ok((name, head)) = came.try_recv() {
        let is_known = head.contains("authorization:");
        if name == "elsewhere" {
            assert!(!is_known, "{head}");
            seen[1] += 1;
        } else if is_known {
            seen[0] += 1;
        }
    }
    // HEAD and GET.
    assert_eq!(seen, [2, 2]);
}
