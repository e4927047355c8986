//! Outputs of builds and caches elsewhere, by Docker's buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use support::buildx::{Bench, assert_has};
use support::registry::Registry;

const STAGES: &str = "FROM busybox AS one\nCOPY a /a\nRUN --mount=type=cache,id=things,target=/c \
                      cat /a >> /c/seen; cat /c/seen > /one\n\
                      FROM busybox\nCOPY b /b\nCOPY --from=one /one /one\nRUN cat /b /one > /end\n";

fn files(bench: &Bench) {
    bench.write("context/a", "A");
    bench.write("context/b", "B");
}

fn bench(dockerfile: &str) -> Bench {
    let bench = Bench::new(dockerfile, &[]);
    files(&bench);
    bench
}

/// Steps that a build took from the cache.
fn cached(shown: &str) -> usize {
    shown.matches("CACHED").count()
}

fn forget(bench: &Bench) {
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["builder", "prune", "-af"]);
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_cache_in_a_registry_serves_another_engine() {
    let registry = Registry::open();
    let reference = registry.name("cache");
    let one = bench(STAGES);
    let to = format!("type=registry,ref={reference},mode=max,mounts=true");
    let shown = one.build(&["--cache-to", &to]);
    assert_has(&shown, &["exporting cache to registry"]);
    let two = bench(STAGES);
    let from = format!("type=registry,ref={reference}");
    let shown = two.build(&["--cache-from", &from]);
    assert_has(&shown, &["importing cache manifest from"]);
    assert_eq!(cached(&shown), 5, "{shown}");
    assert_eq!(two.shell("cat /end"), "BA");
    let layers = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{json .RootFS}}",
        "t",
    ];
    assert_eq!(one.engine.ok(&layers), two.engine.ok(&layers));
    // What is below a changed file is built; the cache mount has come along.
    two.write("context/a", "C");
    let shown = two.build(&["--cache-from", &from]);
    assert_eq!(cached(&shown), 1, "{shown}");
    assert_eq!(two.shell("cat /end"), "BAC");
    // The same again, all of it forgotten in between.
    forget(&one);
    assert_eq!(cached(&one.build(&[])), 0);
    forget(&one);
    assert_eq!(cached(&one.build(&["--cache-from", &from])), 5);
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn the_least_cache_has_what_the_image_has() {
    let registry = Registry::open();
    let reference = registry.name("cache:least");
    let one = bench(STAGES);
    one.build(&["--cache-to", &format!("type=registry,ref={reference}")]);
    forget(&one);
    let shown = one.build(&["--cache-from", &reference]);
    // The first stage is built, and leads to the same.
    assert_eq!(cached(&shown), 3, "{shown}");
    one.assert_clean();
}

#[test]
fn an_image_can_have_its_cache_in_it() {
    let registry = Registry::open();
    let reference = registry.name("image:1");
    let one = bench("FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /c\n");
    let said = one.try_build(&["-t", &reference, "--push", "--cache-to", "type=inline"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let two = bench("FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /d\n");
    let shown = two.build(&["--cache-from", &reference]);
    assert_eq!(cached(&shown), 2, "{shown}");
    // An image on top of one that has a cache has none of it.
    two.engine.ok(&["pull", "-q", &reference]);
    two.write(
        "context/Dockerfile",
        &format!("FROM {reference}\nRUN true\n"),
    );
    two.build(&[]);
    two.engine.ok(&["save", "-o", &two.path("saved.tar"), "t"]);
    let saved = std::fs::read(two.engine.path("saved.tar")).unwrap();
    let has = |text: &[u8]| saved.windows(text.len()).any(|window| window == text);
    assert!(has(b"oci-layout") && !has(b"hull.build-cache"));
    two.assert_clean();
}

#[test]
fn a_cache_in_a_directory_serves_another_engine() {
    let one = bench(STAGES);
    let directory = one.path("cache");
    let to = format!("type=local,dest={directory},mode=max,compression=zstd");
    one.build(&["--cache-to", &to]);
    let index = json(&one.engine.path("cache/index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let two = bench(STAGES);
    let shown = two.build(&["--cache-from", &format!("type=local,src={directory}")]);
    assert_eq!(cached(&shown), 5, "{shown}");
    // What is there already is not sent again, and what is new comes beside it.
    one.write("context/a", "C");
    one.build(&["--cache-to", &to]);
    one.assert_clean();
    two.assert_clean();
}

#[test]
fn a_cache_that_is_of_no_use_is_a_warning() {
    let registry = Registry::open();
    let reference = registry.name("cache");
    let one = bench(STAGES);
    let directory = one.path("cache");
    one.build(&[
        "--cache-to",
        &format!("type=local,dest={directory},mode=max"),
    ]);
    // Layers that are damaged, one and all.
    let blobs = one.engine.path("cache/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    forget(&one);
    let from = format!("type=local,src={directory}");
    let shown = one.build(&["--cache-from", &from]);
    assert_eq!(cached(&shown), 0, "{shown}");
    assert_eq!(one.shell("cat /end"), "BA");
    // No cache at all, an image without one, a registry that is not there.
    forget(&one);
    one.engine.ok(&["tag", "busybox", &reference]);
    one.engine.ok(&["push", "-q", &reference]);
    for wrong in [&registry.name("none"), &reference, "127.0.0.1:1/none"] {
        let shown = one.build(&["--no-cache-filter", "one", "--cache-from", wrong]);
        assert_has(&shown, &["importing cache manifest from", "ERROR"]);
    }
    // One that cannot be written fails the build, unless that does not matter.
    let bad = "type=registry,ref=127.0.0.1:1/none";
    assert_has(
        &one.fails(&["--cache-to", bad]),
        &["exporting cache to registry"],
    );
    one.build(&["--cache-to", &format!("{bad},ignore-error=true")]);
    one.assert_clean();
}

#[test]
fn images_go_to_archives_and_directories() {
    let bench = bench("FROM busybox\nCOPY a /a\n");
    let oci = bench.path("oci.tar");
    let output = |text: &str| {
        let said = bench.try_build(&["-t", "x/y:1", "-o", text]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    output(&format!(
        "type=oci,dest={oci},annotation.a=b,compression=zstd"
    ));
    bench.engine.ok(&["load", "-i", &oci]);
    let run = ["run", "--rm", "--network", "none", "x/y:1", "cat", "/a"];
    assert_eq!(bench.engine.ok(&run), "A");
    bench.engine.ok(&["rmi", "x/y:1"]);
    output(&format!("type=docker,dest={}", bench.path("docker.tar")));
    let listed = Command::new("tar")
        .args(["-tf", &bench.path("docker.tar")])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert_has(&listed, &["manifest.json", "index.json", "oci-layout"]);
    bench.engine.ok(&["load", "-i", &bench.path("docker.tar")]);
    assert_eq!(bench.engine.ok(&run), "A");
    output(&format!("type=oci,tar=false,dest={}", bench.path("layout")));
    let index = json(&bench.engine.path("layout/index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = format!("layout/blobs/{}", digest.replace(':', "/"));
    let manifest = json(&bench.engine.path(&manifest));
    for blob in manifest["layers"].as_array().unwrap() {
        let digest = blob["digest"].as_str().unwrap();
        let path = bench
            .engine
            .path(&format!("layout/blobs/{}", digest.replace(':', "/")));
        assert_eq!(
            path.metadata().unwrap().len(),
            blob["size"].as_u64().unwrap()
        );
    }
    bench.assert_clean();
}

#[test]
fn the_engine_pushes_what_it_has_built() {
    let registry = Registry::open();
    let (one, two) = (registry.name("a:1"), registry.name("b:2"));
    let bench = bench("FROM busybox\nCOPY a /a\n");
    let metadata = bench.path("metadata");
    let said = bench.try_build(&[
        "-t",
        &one,
        "-t",
        &two,
        "--push",
        "--annotation",
        "who=me",
        "--metadata-file",
        &metadata,
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let told = json(Path::new(&metadata));
    let digest = told["containerimage.digest"].as_str().unwrap();
    assert_eq!(told["containerimage.descriptor"]["digest"], digest);
    let format = [
        "inspect",
        "--type",
        "image",
        "--format",
        "{{.Id}} {{json .RepoDigests}}",
        &one,
    ];
    let inspected = bench.engine.ok(&format);
    assert_has(
        &inspected,
        &[
            digest,
            told["containerimage.config.digest"].as_str().unwrap(),
        ],
    );
    for name in [&one, &two] {
        let shown = bench.engine.ok(&["manifest", "inspect", name]);
        assert_has(&shown, &["\"who\": \"me\""]);
        bench.engine.ok(&["rmi", name]);
    }
    bench
        .engine
        .ok(&["pull", "-q", &format!("{}@{digest}", registry.name("a"))]);
    bench.assert_clean();
}
