//! What is pulled, listed and deleted.

use crate::wire::{OCI_INDEX, OCI_MANIFEST, Options, Registry, image};
use oci::Digest;
use registry::server::Sweep;
use std::time::{Duration, Instant, SystemTime};

#[tokio::test(flavor = "multi_thread")]
async fn the_base_tells_the_version() {
    let registry = Registry::start().await;
    for path in ["/v2", "/v2/"] {
        let answer = registry.get(path).await;
        assert_eq!(answer.status, 200);
        let version = answer.header("docker-distribution-api-version");
        assert_eq!(version, Some("registry/2.0"));
    }
    let nowhere = registry.get("/v1/").await;
    assert_eq!(
        (nowhere.status, nowhere.code().as_str()),
        (404, "UNSUPPORTED")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_pulled_whole_and_in_parts() {
    let registry = Registry::start().await;
    let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = registry.push_blob("a/b", &content).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let whole = registry.get(&path).await;
    assert_eq!(whole.status, 200);
    assert!(whole.body == content && whole.is_whole());
    assert_eq!(
        whole.header("docker-content-digest"),
        Some(digest.to_string().as_str())
    );
    let head = registry.send("HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("4000000"));
    for (range, status, expected) in [
        ("bytes=0-0", 206, &content[..1]),
        ("bytes=300000-3999999", 206, &content[300_000..]),
        ("bytes=-5", 206, &content[3_999_995..]),
        ("bytes=3999999-", 206, &content[3_999_999..]),
        ("bytes=7-3,9-", 200, &content[..]),
    ] {
        let part = registry.send("GET", &path, &[("Range", range)], b"").await;
        assert_eq!(part.status, status, "{range}");
        assert!(part.body == expected, "{range}");
    }
    let part = registry
        .send("GET", &path, &[("Range", "bytes=1-2")], b"")
        .await;
    assert_eq!(part.header("content-range"), Some("bytes 1-2/4000000"));
    let beyond = registry
        .send("GET", &path, &[("Range", "bytes=4000000-")], b"")
        .await;
    assert_eq!(
        (beyond.status, beyond.code().as_str()),
        (416, "RANGE_INVALID")
    );
    assert_eq!(beyond.header("content-range"), Some("bytes */4000000"));
    let etag = format!("\"{digest}\"");
    let known = registry
        .send("GET", &path, &[("If-None-Match", &etag)], b"")
        .await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    let other = [("Range", "bytes=0-0"), ("If-Range", "\"other\"")];
    assert_eq!(registry.send("GET", &path, &other, b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_unknown() {
    let registry = Registry::start().await;
    let elsewhere = registry.push_blob("elsewhere", b"x").await;
    registry.push_blob("a", b"y").await;
    for (path, code) in [
        (format!("/v2/a/blobs/{elsewhere}"), "BLOB_UNKNOWN"),
        (format!("/v2/a/manifests/{elsewhere}"), "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        ("/v2/none/tags/list".to_owned(), "NAME_UNKNOWN"),
        (
            "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000".to_owned(),
            "BLOB_UPLOAD_UNKNOWN",
        ),
    ] {
        let answer = registry.get(&path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, code),
            "{path}"
        );
        let head = registry.send("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (404, 0), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_pulled_by_tag_and_digest() {
    let registry = Registry::start().await;
    let digest = registry.push_image("a", "latest", b"config").await;
    for target in ["latest".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/manifests/{target}");
        let got = registry.get(&path).await;
        assert_eq!(
            (got.status, got.header("content-type")),
            (200, Some(OCI_MANIFEST))
        );
        assert_eq!(Digest::sha256(&got.body), digest);
        let head = registry.send("HEAD", &path, &[], b"").await;
        assert_eq!(head.header("content-length"), got.header("content-length"));
        assert_eq!(
            head.header("docker-content-digest"),
            Some(digest.to_string().as_str())
        );
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_sets_many_tags() {
    let registry = Registry::start().await;
    let blob = registry.push_blob("a", b"x").await;
    let manifest = image(&[&blob], "");
    let digest = Digest::sha256(manifest.as_bytes());
    let path = format!("/v2/a/manifests/{digest}?tag=1.2&tag=1&tag=latest");
    let kind = [("Content-Type", OCI_MANIFEST)];
    let pushed = registry
        .send("PUT", &path, &kind, manifest.as_bytes())
        .await;
    assert_eq!(pushed.status, 201);
    assert!(pushed.header("oci-tag").is_some());
    let tags = registry.get("/v2/a/tags/list").await.json();
    assert_eq!(tags["tags"], serde_json::json!(["1", "1.2", "latest"]));
    let many: String = (0..65).map(|number| format!("&tag=t{number}")).collect();
    let path = format!("/v2/a/manifests/{digest}?{many}");
    let refused = registry
        .send("PUT", &path, &kind, manifest.as_bytes())
        .await;
    assert_eq!(refused.status, 414);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages() {
    let registry = Registry::start().await;
    for tag in ["c", "a", "b", "d"] {
        registry.push_image("r/one", tag, b"x").await;
    }
    registry.push_blob("r/two", b"x").await;
    let mut path = "/v2/r/one/tags/list?n=3".to_owned();
    let mut all = Vec::new();
    loop {
        let answer = registry.get(&path).await;
        let tags = answer.json()["tags"].as_array().unwrap().clone();
        assert!(tags.len() <= 3);
        all.extend(tags);
        let Some(link) = answer.header("link") else {
            break;
        };
        let (target, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(rest, "; rel=\"next\"");
        path = target.to_owned();
    }
    assert_eq!(all, ["a", "b", "c", "d"]);
    let none = registry.get("/v2/r/one/tags/list?n=0").await;
    assert_eq!(
        (
            none.json()["tags"].as_array().unwrap().len(),
            none.header("link")
        ),
        (0, None)
    );
    let bad = registry.get("/v2/r/one/tags/list?n=-1").await;
    assert_eq!(bad.status, 400);
    let catalog = registry.get("/v2/_catalog?n=1").await;
    assert_eq!(catalog.json()["repositories"], serde_json::json!(["r/one"]));
    assert!(catalog.header("link").is_some());
    let rest = registry.get("/v2/_catalog?last=r/one").await;
    assert_eq!(rest.json()["repositories"], serde_json::json!(["r/two"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_by_type() {
    let registry = Registry::start().await;
    let subject = registry.push_image("a", "latest", b"config").await;
    let blob = Digest::sha256(b"config");
    let mut pushed = Vec::new();
    for kind in ["sbom/x", "signature/x"] {
        let more = format!(
            r#","artifactType":"{kind}","annotations":{{"k":"{kind}"}},"subject":{{"mediaType":"{OCI_MANIFEST}","digest":"{subject}","size":1}}"#
        );
        let manifest = image(&[&blob], &more);
        let digest = Digest::sha256(manifest.as_bytes());
        let path = format!("/v2/a/manifests/{digest}");
        let headers = [("Content-Type", OCI_MANIFEST)];
        let answer = registry
            .send("PUT", &path, &headers, manifest.as_bytes())
            .await;
        assert_eq!(
            answer.header("oci-subject"),
            Some(subject.to_string().as_str())
        );
        pushed.push(digest);
    }
    let path = format!("/v2/a/referrers/{subject}");
    let all = registry.get(&path).await;
    assert_eq!(all.header("content-type"), Some(OCI_INDEX));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let some = registry.get(&format!("{path}?artifactType=sbom%2Fx")).await;
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    let manifests = some.json()["manifests"].clone();
    assert_eq!(manifests.as_array().unwrap().len(), 1);
    assert_eq!(manifests[0]["digest"], pushed[0].to_string());
    assert_eq!(manifests[0]["annotations"]["k"], "sbom/x");
    // One that is deleted refers to nothing any more; of what is not there, the list is empty.
    let gone = registry
        .send(
            "DELETE",
            &format!("/v2/a/manifests/{}", pushed[0]),
            &[],
            b"",
        )
        .await;
    assert_eq!(gone.status, 202);
    assert_eq!(
        registry.get(&path).await.json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let none = registry.get(&format!("/v2/a/referrers/{blob}")).await;
    assert_eq!(none.json()["manifests"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_is_of_what_is_named() {
    let registry = Registry::start().await;
    let digest = registry.push_image("a", "one", b"x").await;
    registry.push_image("a", "two", b"x").await;
    let delete = async |path: String| registry.send("DELETE", &path, &[], b"").await.status;
    assert_eq!(delete("/v2/a/manifests/one".to_owned()).await, 202);
    assert_eq!(delete("/v2/a/manifests/one".to_owned()).await, 404);
    assert_eq!(
        registry
            .get(&format!("/v2/a/manifests/{digest}"))
            .await
            .status,
        200
    );
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).await, 202);
    assert_eq!(registry.get("/v2/a/manifests/two").await.status, 404);
    let tags = registry.get("/v2/a/tags/list").await.json();
    assert_eq!(tags["tags"], serde_json::json!([]));
    let blob = Digest::sha256(b"x");
    registry.push_blob("b", b"x").await;
    assert_eq!(delete(format!("/v2/a/blobs/{blob}")).await, 202);
    assert_eq!(delete(format!("/v2/a/blobs/{blob}")).await, 404);
    assert_eq!(
        registry.get(&format!("/v2/b/blobs/{blob}")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_off_is_refused() {
    let registry = Registry::with(Options {
        no_deletion: true,
        ..Options::default()
    })
    .await;
    let digest = registry.push_image("a", "latest", b"x").await;
    for path in [
        "/v2/a/manifests/latest".to_owned(),
        format!("/v2/a/manifests/{digest}"),
        format!("/v2/a/blobs/{}", Digest::sha256(b"x")),
    ] {
        let answer = registry.send("DELETE", &path, &[], b"").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "UNSUPPORTED")
        );
    }
    let storage = registry.stop().await;
    let read_only = Options {
        read_only: true,
        ..Options::default()
    };
    let registry = Registry::on(storage, read_only).await;
    assert_eq!(registry.get("/v2/a/manifests/latest").await.status, 200);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/x"),
        ("DELETE", "/v2/a/manifests/latest"),
    ] {
        let answer = registry.send(method, path, &[], b"").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (405, "UNSUPPORTED")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_deleted_while_it_is_served() {
    let sweep = Sweep {
        grace: Duration::from_secs(3600),
        keep: None,
        dry_run: false,
    };
    let registry = Registry::with(Options {
        sweep: Some((Duration::from_millis(10), sweep)),
        ..Options::default()
    })
    .await;
    registry.push_image("a", "latest", b"used").await;
    let (old, new) = (
        registry.push_blob("a", b"old").await,
        registry.push_blob("a", b"new").await,
    );
    let hex = old.hex();
    for path in [
        format!("repositories/a/_blobs/sha256/{hex}"),
        format!("blobs/sha256/{}/{hex}", &hex[..2]),
    ] {
        let path = registry.storage.path().join(path);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let content = registry
        .storage
        .path()
        .join(format!("blobs/sha256/{}/{hex}", &hex[..2]));
    let begun = Instant::now();
    while content.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "it is still there"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        registry.get(&format!("/v2/a/blobs/{old}")).await.status,
        404
    );
    for digest in [new, Digest::sha256(b"used")] {
        assert_eq!(
            registry.get(&format!("/v2/a/blobs/{digest}")).await.status,
            200
        );
    }
}
