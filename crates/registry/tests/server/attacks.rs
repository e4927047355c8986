//! Input that is meant to do harm. Each test names the attack.

use crate::wire::{OCI_INDEX, OCI_MANIFEST, Registry, image};
use oci::Digest;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// All files of a directory, at any depth.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// CVE-2024-3727: a digest, or a name, that is a path.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_digests_lead_nowhere_else() {
    let registry = Registry::start().await;
    registry.push_image("a", "latest", b"x").await;
    let before = files(registry.storage.path());
    let long = "a/".repeat(200);
    for (method, path) in [
        ("GET", "/v2/../../etc/passwd"),
        ("GET", "/v2/a/../../../etc/manifests/passwd"),
        ("GET", "/v2/a/blobs/sha256:../../../../version"),
        ("GET", "/v2/a/blobs/..%2f..%2fversion"),
        ("GET", "/v2/a/manifests/..%2f_tags%2flatest"),
        ("PUT", "/v2/a/manifests/..%2f..%2fx"),
        ("PUT", "/v2/a/_manifests/manifests/x"),
        ("PUT", "/v2/a/manifests/sha256:..%2f..%2fx"),
        ("POST", "/v2/../x/blobs/uploads/"),
        ("POST", "/v2/a/_blobs/blobs/uploads/"),
        ("POST", "/v2/a%2f..%2f..%2fb/blobs/uploads/"),
        ("POST", &format!("/v2/{long}b/blobs/uploads/")),
        ("PATCH", "/v2/a/blobs/uploads/../../../version"),
        ("DELETE", "/v2/a/blobs/uploads/.."),
        ("DELETE", "/v2/a/manifests/.."),
        ("GET", "/v2/a/referrers/sha256:.."),
    ] {
        let status = registry.send(method, path, &[], b"").await.status;
        assert!(status == 400 || status == 404, "{method} {path}: {status}");
    }
    assert_eq!(files(registry.storage.path()), before);
}

/// CVE-2021-41190: a document that is a manifest to one reader and an index to another.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_manifests_are_refused() {
    let registry = Registry::start().await;
    let blob = registry.push_blob("a", b"x").await;
    let both = image(&[&blob], r#","manifests":[]"#);
    let twice = image(&[&blob], r#","layers":[]"#);
    let plain = image(&[&blob], "");
    for (kind, body) in [
        (OCI_MANIFEST, both.as_str()),
        (OCI_MANIFEST, &twice),
        (OCI_INDEX, &plain),
        ("application/json", &plain),
        (OCI_MANIFEST, "{"),
        (OCI_MANIFEST, ""),
        (OCI_MANIFEST, &"[".repeat(100_000)),
    ] {
        let headers = [("Content-Type", kind)];
        let answer = registry
            .send("PUT", "/v2/a/manifests/x", &headers, body.as_bytes())
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "MANIFEST_INVALID"),
            "{body:.100}"
        );
    }
    assert_eq!(registry.get("/v2/a/manifests/x").await.status, 404);
}

/// A manifest whose digest is another's, or that counts on what only another repository has.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_what_it_says_and_has_what_it_needs() {
    let registry = Registry::start().await;
    let elsewhere = registry.push_blob("private", b"secret").await;
    let headers = [("Content-Type", OCI_MANIFEST)];
    let manifest = image(&[&elsewhere], "");
    let path = "/v2/a/manifests/x";
    let answer = registry
        .send("PUT", path, &headers, manifest.as_bytes())
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "MANIFEST_BLOB_UNKNOWN")
    );
    let path = format!("/v2/private/manifests/{elsewhere}");
    let answer = registry
        .send("PUT", &path, &headers, manifest.as_bytes())
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "DIGEST_INVALID")
    );
    // An index may be sparse, and a subject may come later.
    let none = Digest::sha256(b"none");
    let one = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{none}","size":1}}"#);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{one}],"subject":{one}}}"#
    );
    let headers = [("Content-Type", OCI_INDEX)];
    let answer = registry
        .send("PUT", "/v2/a/manifests/x", &headers, index.as_bytes())
        .await;
    assert_eq!(answer.status, 201);
}

/// CVE-2021-20291 and its like: documents that are larger than any memory.
#[tokio::test(flavor = "multi_thread")]
async fn huge_manifests_are_refused() {
    let registry = Registry::start().await;
    let blob = registry.push_blob("a", b"x").await;
    let headers = [("Content-Type", OCI_MANIFEST)];
    for (size, status) in [((4 << 20) - 1000, 201), (4 << 20, 413), (20 << 20, 413)] {
        let more = format!(r#","annotations":{{"x":"{}"}}"#, "x".repeat(size));
        let manifest = image(&[&blob], &more);
        let answer = registry
            .send("PUT", "/v2/a/manifests/x", &headers, manifest.as_bytes())
            .await;
        // Who goes on sending after that is cut off.
        let cut_off = status == 413 && answer.status == 0 && size > 8 << 20;
        assert!(
            answer.status == status || cut_off,
            "{size}: {}",
            answer.status
        );
    }
    // Without a length, it is stopped all the same.
    let head = "PUT /v2/a/manifests/y HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    for _ in 0..5 {
        request.extend_from_slice(b"100000\r\n");
        request.extend_from_slice(&vec![b' '; 1 << 20]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(registry.raw(&request).await.status, 413);
}

/// Uploads without end: what nobody goes on with takes a place, and there are so many.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_of_uploads() {
    let registry = Registry::start().await;
    for number in 0..1000 {
        let path = registry.storage.path().join(format!("uploads/{number}"));
        std::fs::create_dir(path).unwrap();
    }
    let answer = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (429, "TOOMANYREQUESTS")
    );
    assert!(answer.header("retry-after").is_some());
    // The one that was left alone for long makes place for another.
    let oldest = registry.storage.path().join("uploads/7");
    let oldest = std::fs::File::open(oldest).unwrap();
    oldest.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    registry.begin("a").await;
    let answer = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(answer.status, 429);
}

/// Two requests that write to one upload, to have one hash and another content.
#[tokio::test(flavor = "multi_thread")]
async fn one_request_at_a_time_writes_to_an_upload() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    let mut first = TcpStream::connect(registry.address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\none");
    first.write_all(head.as_bytes()).await.unwrap();
    let id = location.rsplit('/').next().unwrap();
    let data = registry.storage.path().join(format!("uploads/{id}/data"));
    while std::fs::metadata(&data).unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for (method, body) in [("PATCH", "x"), ("PUT", "x"), ("GET", ""), ("DELETE", "")] {
        let path = format!("{location}?digest={}", Digest::sha256(b"x"));
        let second = registry.send(method, &path, &[], body.as_bytes()).await;
        assert_eq!(
            (second.status, second.code().as_str()),
            (409, "BLOB_UPLOAD_INVALID")
        );
    }
    first.write_all(b"-other").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
    assert_eq!(std::fs::read(&data).unwrap(), b"one-other");
}

/// A request that two readers would end at different places.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_lengths_are_refused() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    for headers in [
        "Content-Length: 3\r\nContent-Length: 5\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: -1\r\n",
    ] {
        let request = format!(
            "PATCH {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\nabcde"
        );
        assert_eq!(
            registry.raw(request.as_bytes()).await.status,
            400,
            "{headers}"
        );
    }
}

/// Slow clients: a request that never ends, of which a few bytes come now and then. The clock is the test's: it moves on when
/// nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn slow_clients_are_cut_off() {
    let registry = Registry::start().await;
    let location = registry.begin("a").await;
    for request in [
        // An idle connection, and a head that is never whole: closed without an answer.
        String::new(),
        "GET /v2/ HTTP/1.1\r\nHost".to_owned(),
    ] {
        let answer = registry.raw(request.as_bytes()).await;
        assert!(answer.status == 0 || answer.status == 408, "{answer:?}");
    }
    for request in [
        format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome"),
        "PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome".to_owned(),
    ] {
        let mut socket = TcpStream::connect(registry.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let started = tokio::time::Instant::now();
        let mut answer = Vec::new();
        loop {
            tokio::select! {
                // The connection may break off instead of ending.
                read = socket.read_buf(&mut answer) => match read {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => break,
                },
                () = tokio::time::sleep(Duration::from_secs(20)) => {}
            }
            // A byte now and then makes nobody fast. When the server has closed, reading tells.
            let _ = socket.write_all(b"x").await;
            assert!(
                started.elapsed() < Duration::from_secs(1000),
                "it is still served"
            );
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 408"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    // What came is there, for who goes on.
    assert_eq!(registry.get(&location).await.status, 204);
}
