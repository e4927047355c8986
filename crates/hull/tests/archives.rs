//! Archives of images that go to and come from skopeo, podman and dockerd: several images in one, the same digests on both
//! sides, layers compressed with gzip and zstd.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use oci::Digest;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::Engine;
use support::dockerd::Dockerd;
use support::registry::Registry;

/// Names of the images that travel: two with a layer in common, one with a name of a registry.
const NAMES: [&str; 3] = ["app:1", "app:2", "registry.example/team/other:x"];

/// An engine with the images.
fn engine() -> Engine {
    let engine = Engine::new();
    engine.ok(&["tag", "busybox", "app:1"]);
    engine.ok(&[
        "run",
        "--name",
        "one",
        "app:1",
        "sh",
        "-c",
        "echo two >/two; rm /etc/group",
    ]);
    engine.ok(&["commit", "-c", "ENV A=b", "one", "app:2"]);
    engine.ok(&["rm", "one"]);
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("other"), "other").unwrap();
    let tar = Command::new("tar")
        .arg("-C")
        .arg(other.path())
        .args(["-c", "."])
        .output();
    engine.ok_with_input(&["import", "-", NAMES[2]], &tar.unwrap().stdout);
    engine
}

/// The IDs of the images.
fn ids(engine: &Engine) -> Vec<String> {
    let id = |name: &&str| engine.ok(&["images", "-q", "--no-trunc", name]);
    NAMES.iter().map(id).collect()
}

fn saved(engine: &Engine) -> PathBuf {
    let path = engine.path("saved.tar");
    let line = [&["save", "-o", path.to_str().unwrap()], &NAMES[..]].concat();
    engine.ok(&line);
    path
}

/// What a command says, which has to succeed.
fn ok(command: &mut Command) -> String {
    command.stdin(Stdio::null());
    let said = support::said(command.output().unwrap());
    assert_eq!(said.code, 0, "{command:?}: {said:?}");
    said.stdout.trim().to_owned()
}

fn skopeo(arguments: &[&str]) -> String {
    ok(Command::new("timeout")
        .args(["300", "skopeo"])
        .args(arguments))
}

/// podman with a storage of its own below a directory.
fn podman(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["300", "podman", "--storage-driver", "vfs", "--root"]);
    command
        .arg(root.join("podman"))
        .arg("--runroot")
        .arg(root.join("podman-run"));
    ok(command.args(arguments))
}

/// An engine without images, into which an archive is loaded.
fn loaded(archive: &Path) -> Engine {
    let engine = Engine::empty();
    engine.ok(&["load", "-i", archive.to_str().unwrap()]);
    engine.ok(&["system", "verify"]);
    engine
}

#[test]
fn what_is_saved_skopeo_and_podman_read_with_the_same_digests() {
    let engine = engine();
    let (archive, ids) = (saved(&engine), ids(&engine));
    let place = archive.display();
    for (name, id) in NAMES.iter().zip(&ids) {
        let config = skopeo(&[
            "inspect",
            "--config",
            "--raw",
            &format!("docker-archive:{place}:{name}"),
        ]);
        assert_eq!(Digest::sha256(config.as_bytes()).to_string(), *id, "{name}");
    }
    podman(
        engine.path("").as_path(),
        &["load", "-i", archive.to_str().unwrap()],
    );
    for (name, id) in NAMES.iter().zip(&ids) {
        let line = ["image", "inspect", "--format", "{{.Id}}", name];
        let found = podman(engine.path("").as_path(), &line);
        assert_eq!(format!("sha256:{found}"), *id, "{name}");
    }
}

#[test]
fn what_is_saved_dockerd_loads_and_what_it_saves_is_loaded() {
    let engine = engine();
    let (archive, ids, daemon) = (saved(&engine), ids(&engine), Dockerd::start());
    ok(&mut daemon.docker(&["load", "-i", archive.to_str().unwrap()]));
    for (name, id) in NAMES.iter().zip(&ids) {
        let line = ["image", "inspect", "--format", "{{.Id}}", name];
        assert_eq!(ok(&mut daemon.docker(&line)), *id, "{name}");
    }
    let back = engine.path("back.tar");
    let line = [&["save", "-o", back.to_str().unwrap()], &NAMES[..]].concat();
    ok(&mut daemon.docker(&line));
    let other = loaded(&back);
    assert_eq!(self::ids(&other), ids);
    assert_eq!(other.ok(&["run", "--rm", "app:2", "cat", "/two"]), "two");
}

#[test]
fn what_podman_saves_is_loaded_with_the_same_digests() {
    let engine = engine();
    let (archive, ids) = (saved(&engine), ids(&engine));
    let root = engine.path("");
    podman(&root, &["load", "-i", archive.to_str().unwrap()]);
    let several = engine.path("several.tar");
    let line = [
        &["save", "-q", "-m", "-o", several.to_str().unwrap()],
        &NAMES[..],
    ]
    .concat();
    podman(&root, &line);
    let other = loaded(&several);
    for (name, id) in NAMES.iter().zip(&ids) {
        // What has no registry gets podman's.
        let named = match name.contains('/') {
            true => (*name).to_owned(),
            false => format!("localhost/{name}"),
        };
        assert_eq!(
            other.ok(&["images", "-q", "--no-trunc", &named]),
            *id,
            "{name}"
        );
    }
    // As an OCI layout it has a configuration of podman's making, and the same layers.
    let layout = engine.path("layout.tar");
    let line = [
        "save",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        layout.to_str().unwrap(),
        "app:2",
    ];
    podman(&root, &line);
    let other = loaded(&layout);
    let layers = ["image", "inspect", "-f", "{{.RootFS.Layers}}"];
    let of = |engine: &Engine, name: &str| engine.ok(&[&layers[..], &[name]].concat());
    assert_eq!(of(&other, "localhost/app:2"), of(&engine, "app:2"));
    assert_eq!(
        other.ok(&["run", "--rm", "localhost/app:2", "cat", "/two"]),
        "two"
    );
}

#[test]
fn what_skopeo_makes_of_it_is_loaded_whatever_its_compression() {
    let engine = engine();
    let (archive, id) = (saved(&engine), &ids(&engine)[1]);
    let source = format!("docker-archive:{}:app:2", archive.display());
    let plain = engine.path("plain.tar");
    skopeo(&[
        "copy",
        &source,
        &format!("docker-archive:{}:app:2", plain.display()),
    ]);
    assert_eq!(
        &loaded(&plain).ok(&["images", "-q", "--no-trunc", "app:2"]),
        id
    );
    let layers = ["image", "inspect", "-f", "{{.RootFS.Layers}}", "app:2"];
    for compression in ["gzip", "zstd"] {
        let layout = engine.path(compression);
        let target = format!("oci-archive:{}:app:2", layout.display());
        let how = [
            "copy",
            "--dest-compress",
            "--dest-compress-format",
            compression,
        ];
        skopeo(&[&how[..], &[&source, &target]].concat());
        let other = loaded(&layout);
        assert_eq!(other.ok(&layers), engine.ok(&layers));
        assert_eq!(other.ok(&["run", "--rm", "app:2", "cat", "/two"]), "two");
    }
}

#[test]
fn layers_that_came_with_zstd_go_on_with_zstd() {
    let engine = engine();
    let (archive, there) = (saved(&engine), Registry::open());
    let image = there.name("app:2");
    let source = format!("docker-archive:{}:app:2", archive.display());
    let how = [
        "copy",
        "--dest-tls-verify=false",
        "--dest-compress-format",
        "zstd",
        "--format",
        "oci",
    ];
    skopeo(&[&how[..], &[&source, &format!("docker://{image}")]].concat());
    let kinds = |registry: &Registry, name: &str| {
        let at = format!("docker://{}", registry.name(name));
        let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &at]);
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().clone();
        let kind = |layer: serde_json::Value| layer["mediaType"].as_str().unwrap().to_owned();
        layers.into_iter().map(kind).collect::<Vec<_>>()
    };
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_eq!(kinds(&there, "app:2"), [zstd; 2]);
    let other = Engine::empty();
    other.ok(&["pull", "-q", &image]);
    let run = |name: &str| other.ok(&["run", "--rm", name, "cat", "/two"]);
    assert_eq!(run(&image), "two");

    // A registry that has none of it; then back from there.
    let elsewhere = Registry::open();
    let name = elsewhere.name("app:2");
    other.ok(&["tag", &image, &name]);
    other.ok(&["push", "-q", &name]);
    assert_eq!(kinds(&elsewhere, "app:2"), [zstd; 2]);
    let id = other.ok(&["images", "-q", "--no-trunc", &name]);
    other.ok(&["rmi", &image, &name]);
    other.ok(&["pull", "-q", &name]);
    assert_eq!(other.ok(&["images", "-q", "--no-trunc", &name]), id);
    assert_eq!(run(&name), "two");
    // What is made here goes as everybody reads it.
    engine.ok(&["tag", "app:1", &elsewhere.name("made:1")]);
    engine.ok(&["push", "-q", &elsewhere.name("made:1")]);
    assert_eq!(
        kinds(&elsewhere, "made:1"),
        ["application/vnd.oci.image.layer.v1.tar+gzip"]
    );
}
