//! What one client may have of a registry: bytes of repositories, and connections.

use crate::wire::{OCI_MANIFEST, Options, Registry, image};
use oci::Digest;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const KIB: usize = 1024;

/// Random-looking content that is another for each seed.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..251)
        .cycle()
        .map(|byte: u8| byte ^ seed)
        .take(length)
        .collect()
}

async fn with(quotas: &[&str]) -> Registry {
    Registry::with(Options {
        quotas,
        ..Options::default()
    })
    .await
}

async fn push(registry: &Registry, name: &str, content: &[u8]) -> u16 {
    let path = format!(
        "/v2/{name}/blobs/uploads/?digest={}",
        Digest::sha256(content)
    );
    let answer = registry.send("POST", &path, &[], content).await;
    if answer.status != 201 {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "DENIED"),
            "{answer:?}"
        );
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("the quota team"), "{text}");
    }
    answer.status
}

/// Bytes of files in a directory of the storage.
fn stored(registry: &Registry, directory: &str) -> u64 {
    fn walk(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .map(|path| match path.is_dir() {
                true => walk(&path),
                false => path.metadata().unwrap().len(),
            })
            .sum()
    }
    walk(&registry.storage.path().join(directory))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_has_no_more_than_its_quota() {
    let registry = with(&["team=100K", "team/small=10K"]).await;
    assert_eq!(push(&registry, "team/a", &content(1, 60 * KIB)).await, 201);
    assert_eq!(push(&registry, "team/a", &content(2, 60 * KIB)).await, 403);
    assert_eq!(
        push(&registry, "team/small", &content(3, 20 * KIB)).await,
        403
    );
    assert_eq!(
        push(&registry, "team/small", &content(3, 9 * KIB)).await,
        201
    );
    assert_eq!(push(&registry, "teams", &content(4, 200 * KIB)).await, 201);
    assert_eq!(stored(&registry, "uploads"), 0);
    assert_eq!(stored(&registry, "blobs"), (60 + 9 + 200) * KIB as u64);

    // The same again, and from a sibling, is stored once and counts once.
    let known = content(1, 60 * KIB);
    assert_eq!(push(&registry, "team/a", &content(5, 31 * KIB)).await, 201);
    let digest = Digest::sha256(&known);
    let mount = |from: &str, digest: &Digest| {
        format!("/v2/team/b/blobs/uploads/?mount={digest}&from={from}")
    };
    let answer = registry
        .send("POST", &mount("team/a", &digest), &[], b"")
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let other = Digest::sha256(&content(4, 200 * KIB));
    let answer = registry
        .send("POST", &mount("teams", &other), &[], b"")
        .await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));

    // Of the 100 KiB all are used: not even a manifest has place, until something goes.
    let manifest = image(&[&digest], "");
    let kind = [("Content-Type", OCI_MANIFEST)];
    let path = "/v2/team/a/manifests/1";
    let answer = registry.send("PUT", path, &kind, manifest.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "DENIED"));
    let gone = Digest::sha256(&content(5, 31 * KIB));
    let answer = registry
        .send("DELETE", &format!("/v2/team/a/blobs/{gone}"), &[], b"")
        .await;
    assert_eq!(answer.status, 202);
    let answer = registry.send("PUT", path, &kind, manifest.as_bytes()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_ended_where_its_quota_ends() {
    let registry = with(&["team=100K"]).await;
    let location = registry.begin("team/a").await;
    let first = registry
        .send("PATCH", &location, &[], &content(1, 70 * KIB))
        .await;
    assert_eq!(first.status, 202);
    // What has come of it leaves less for others, and for itself.
    assert_eq!(push(&registry, "team/b", &content(2, 40 * KIB)).await, 403);
    // Of unknown length, so that it is not refused before it comes.
    let mut request = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for seed in 0..8 {
        let piece = content(seed, 10 * KIB);
        request.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let answer = registry.raw(&request).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (403, "DENIED"),
        "{answer:?}"
    );
    assert!(stored(&registry, "uploads") < 100 * KIB as u64);
    // It goes on from where it was good.
    let put = format!(
        "{location}?digest={}",
        Digest::sha256(&content(1, 70 * KIB))
    );
    let answer = registry.send("PUT", &put, &[], b"").await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_no_more_connections_than_it_may() {
    let registry = Registry::with(Options {
        connections_max: Some(2),
        ..Options::default()
    })
    .await;
    const REQUEST: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let open = async || {
        let mut socket = TcpStream::connect(registry.address).await.unwrap();
        // Who is refused may see the connection's end before it has written.
        let _ = socket.write_all(REQUEST).await;
        let mut answer = [0; 12];
        let answered = socket.read_exact(&mut answer).await.is_ok();
        assert!(!answered || answer.starts_with(b"HTTP/1.1 200"));
        answered.then_some(socket)
    };
    let (one, two) = (open().await, open().await);
    assert!(one.is_some() && two.is_some());
    assert!(open().await.is_none());
    drop(one);
    let deadline = Instant::now() + Duration::from_secs(100);
    while open().await.is_none() {
        assert!(Instant::now() < deadline, "the place is not given back");
    }
}
