//! Images from and to registries: hull's engine against Debian's docker-registry, with hull and docker as clients,
//! and against registries that are scripts of what no good one does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "it can do more than is needed here")]
#[path = "../../registry/tests/hostile/server.rs"]
mod server;
mod support;

use oci::Digest;
use oci::image::{Document, media_type};
use server::{Answer, Server};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::registry::Registry;
use support::{Engine, Said};

/// An engine with `busybox` under a name of the registry, pushed and gone again; the name and the manifest's digest.
fn pushed(registry: &Registry, image: &str) -> (Engine, String, String) {
    let engine = Engine::new();
    let name = registry.name(image);
    engine.ok(&["tag", "busybox", &name]);
    let said = engine.ok(&["push", &name]);
    let digest = said
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"));
    let digest = digest.unwrap().to_owned();
    engine.ok(&["rmi", &name, "busybox"]);
    assert_eq!(engine.ok(&["images", "-q"]), "");
    (engine, name, digest)
}

/// A command with credentials of its own.
fn as_user(engine: &Engine, program: &str, line: &[&str]) -> Said {
    let mut command = engine.client(program, line);
    command.env("DOCKER_CONFIG", engine.path("config"));
    support::said(command.output().unwrap())
}

const HULL: &str = env!("CARGO_BIN_EXE_hull");

#[test]
fn images_go_there_and_back() {
    let registry = Registry::open();
    let (engine, name, digest) = pushed(&registry, "a/b:one");
    let said = engine.ok(&["pull", &name]);
    let expected = [
        "one: Pulling from a/b".to_owned(),
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {name}"),
        name.clone(),
    ];
    for line in expected {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert_eq!(engine.ok(&["run", "--rm", &name, "echo", "hi"]), "hi");
    assert!(
        engine
            .docker(&["pull", &name])
            .contains("Image is up to date")
    );
    assert_eq!(engine.docker(&["pull", "-q", &name]), name);

    // By digest, without any tag.
    engine.ok(&["rmi", &name]);
    let by_digest = format!("{}@{digest}", registry.name("a/b"));
    assert_eq!(engine.ok(&["pull", "-q", &by_digest]), by_digest);
    assert_eq!(engine.ok(&["run", "--rm", &by_digest, "echo", "hi"]), "hi");
    engine.ok(&["rmi", &by_digest]);

    let wrong = format!("{}@sha256:{}", registry.name("a/b"), "0".repeat(64));
    for missing in [registry.name("a/b:two"), registry.name("no/such"), wrong] {
        let said = engine.run(&["pull", &missing]);
        assert_eq!(said.code, 1);
        assert!(
            said.stderr.contains("not found: manifest unknown"),
            "{said:?}"
        );
    }
    assert_eq!(engine.ok(&["images", "-q"]), "");
}

#[test]
fn all_tags_are_pulled_and_pushed() {
    let registry = Registry::open();
    let engine = Engine::new();
    for tag in ["x", "y", "z"] {
        engine.ok(&["tag", "busybox", &registry.name(&format!("all:{tag}"))]);
    }
    engine.ok(&["push", "-a", &registry.name("all")]);
    let ids = engine.ok(&["images", "-q", &registry.name("all")]);
    for tag in ["x", "y", "z"] {
        engine.ok(&["rmi", &registry.name(&format!("all:{tag}"))]);
    }
    engine.ok(&["pull", "-q", "-a", &registry.name("all")]);
    assert_eq!(engine.ok(&["images", "-q", &registry.name("all")]), ids);
    let tags = engine.ok(&["images", "--format", "{{.Tag}}", &registry.name("all")]);
    assert_eq!(tags.lines().count(), 3, "{tags}");
}

#[test]
fn a_locked_registry_wants_to_know_who_it_is() {
    let registry = Registry::locked();
    let engine = Engine::new();
    let name = registry.name("mine:1");
    engine.ok(&["tag", "busybox", &name]);
    for program in [HULL, "docker"] {
        let said = as_user(&engine, program, &["pull", &name]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("pull access denied for"), "{said:?}");
        assert_eq!(as_user(&engine, program, &["push", &name]).code, 1);

        let login = ["login", "-u", "me", "-p", "wrong", &registry.address];
        let said = as_user(&engine, program, &login);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("unauthorized"), "{said:?}");
        assert!(!engine.path("config/config.json").exists());

        let login = ["login", "-u", "me", "-p", "secret", &registry.address];
        let said = as_user(&engine, program, &login);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (0, "Login Succeeded\n"),
            "{said:?}"
        );
        // What one client keeps, the other finds.
        for client in [HULL, "docker"] {
            assert_eq!(as_user(&engine, client, &["push", "-q", &name]).code, 0);
            assert_eq!(as_user(&engine, client, &["pull", "-q", &name]).code, 0);
        }
        assert_eq!(
            as_user(&engine, program, &["logout", &registry.address]).code,
            0
        );
        assert_eq!(as_user(&engine, program, &["pull", &name]).code, 1);
        // `me:wrong`, as if the password had changed meanwhile.
        let kept = format!(
            r#"{{"auths":{{"{}":{{"auth":"bWU6d3Jvbmc="}}}}}}"#,
            registry.address
        );
        std::fs::write(engine.path("config/config.json"), kept).unwrap();
        let said = as_user(&engine, program, &["login", &registry.address]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.stderr
                .contains("Stored credentials invalid or expired"),
            "{said:?}"
        );
        std::fs::remove_file(engine.path("config/config.json")).unwrap();
    }
}

#[test]
fn run_pulls_when_it_is_told_to() {
    let registry = Registry::open();
    let (engine, name, _) = pushed(&registry, "run:1");
    let run = |policy: &[&str]| {
        let line = [&["run", "--rm"], policy, &[&name, "echo", "hi"]].concat();
        engine.run(&line)
    };
    let never = run(&["--pull", "never"]);
    assert_eq!(never.code, 125, "{never:?}");
    assert!(never.stderr.contains("No such image"), "{never:?}");

    let missing = run(&[]);
    assert_eq!(
        (missing.code, missing.stdout.as_str()),
        (0, "hi\n"),
        "{missing:?}"
    );
    let first = format!("Unable to find image '{name}' locally\n");
    assert!(missing.stderr.starts_with(&first), "{missing:?}");
    assert!(missing.stderr.contains("Pull complete"), "{missing:?}");
    assert_eq!(run(&[]).stderr, "");

    let always = run(&["--pull", "always"]);
    assert_eq!((always.code, always.stdout.as_str()), (0, "hi\n"));
    assert!(always.stderr.contains("Image is up to date"), "{always:?}");
    engine.ok(&["rmi", &name]);
    let quiet = run(&["-q"]);
    assert_eq!(
        (quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()),
        (0, "hi\n", "")
    );

    let nowhere = engine.run(&["run", "--rm", &registry.name("no/such"), "true"]);
    assert_eq!(nowhere.code, 125, "{nowhere:?}");
    // What is no name of a registry is not asked for anywhere.
    let directory = engine.run(&["run", "--rm", "./nonexistent", "true"]);
    assert!(
        !directory.stderr.contains("Unable to find"),
        "{directory:?}"
    );
}

#[test]
fn a_list_of_manifests_gives_each_platform_its_own() {
    let registry = Registry::open();
    let (engine, name, digest) = pushed(&registry, "multi:here");
    // Another manifest in the list, for a platform that this machine is not.
    engine.ok_with_input(
        &["import", "-", &registry.name("multi:other")],
        &tar_of("other"),
    );
    engine.ok(&["push", "-q", &registry.name("multi:other")]);
    let (list, other) = (registry.name("multi:list"), registry.name("multi:other"));
    let manifest = |line: &[&str]| {
        let said = as_user(&engine, HULL, &[&["manifest"], line].concat());
        assert_eq!(said.code, 0, "{line:?}: {said:?}");
        said.stdout
    };
    manifest(&["create", "--insecure", &list, &name, &other]);
    manifest(&["annotate", "--arch", "s390x", &list, &other]);
    let shown = manifest(&["inspect", &list]);
    assert!(
        shown.contains("s390x") && shown.contains(&digest),
        "{shown}"
    );
    let pushed = manifest(&["push", "--insecure", "-p", &list]);
    assert_eq!(manifest(&["inspect", "--insecure", &list]), shown);
    engine.ok(&["rmi", &other]);
    // The engine tells the same of it.
    let told = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "20", "--unix-socket"])
        .arg(engine.path("run/hull.sock"))
        .arg(format!("http://localhost/v1.51/distribution/{list}/json"))
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains(pushed.trim()) && told.contains(media_type::OCI_INDEX),
        "{told}"
    );
    assert!(
        told.contains(r#"{"architecture":"s390x","os":"linux"}"#),
        "{told}"
    );

    let said = engine.ok(&["pull", &list]);
    assert!(
        said.contains(&format!("Digest: {}", pushed.trim())),
        "{said}"
    );
    assert_eq!(engine.ok(&["run", "--rm", &list, "echo", "hi"]), "hi");
    let said = engine.run(&["pull", "--platform", "linux/riscv64", &list]);
    assert!(
        said.code == 1 && said.stderr.contains("no matching manifest"),
        "{said:?}"
    );
}

#[test]
fn what_the_registry_has_in_another_repository_is_not_sent_again() {
    let registry = Registry::open();
    let engine = Engine::new();
    engine.ok(&["tag", "busybox", &registry.name("first")]);
    engine.ok(&["push", "-q", &registry.name("first")]);
    let sent = registry.asked(&["\"PATCH "]);
    engine.ok(&["tag", "busybox", &registry.name("second")]);
    let said = engine.ok(&["push", &registry.name("second")]);
    assert!(said.contains("Mounted from first"), "{said}");
    // No more than the configuration.
    assert!(registry.asked(&["\"PATCH "]) <= sent + 1);
}

#[test]
fn two_pulls_at_once_fetch_each_layer_once() {
    let registry = Registry::open();
    let (engine, name, _) = pushed(&registry, "both:1");
    let before = registry.asked(&["\"GET /v2/both/blobs/"]);
    let line = ["pull", "-q", name.as_str()];
    let pulls = [(); 4].map(|()| engine.hull(&line).spawn().unwrap());
    for pull in pulls {
        let said = support::said(pull.wait_with_output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
    }
    let layer = engine.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", &name]);
    assert_eq!(layer, "1");
    // The layer once; the small configuration at most by each.
    let asked = registry.asked(&["\"GET /v2/both/blobs/"]) - before;
    assert!(
        (2..=5).contains(&asked),
        "{asked}\nengine: {}",
        engine.log()
    );
}

/// A tar with one small file.
fn tar_of(content: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), content).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(directory.path()).args(["-c", "."]);
    let output = tar.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// What a manifest says of some content.
fn descriptor(kind: &str, bytes: &[u8]) -> String {
    let (digest, size) = (Digest::sha256(bytes), bytes.len());
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

fn manifest(config: &str, layers: &str) -> String {
    let kind = media_type::OCI_MANIFEST;
    format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{layers}]}}"#)
}

fn index(manifests: &str) -> String {
    let kind = media_type::OCI_INDEX;
    format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[{manifests}]}}"#)
}

/// The configuration of an image with one layer, and more fields.
fn config(layer: &[u8], more: &str) -> String {
    let id = Digest::sha256(layer);
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{{more}}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
    )
}

/// A registry of documents and blobs, by the end of their paths.
fn registry_of(contents: Vec<(String, Vec<u8>)>) -> Server {
    Server::start(move |request| {
        let found = contents
            .iter()
            .find(|(name, _)| request.path.ends_with(name.as_str()));
        let Some((_, bytes)) = found else {
            return Answer::status(404);
        };
        let kind = match Document::parse(bytes, None) {
            Ok(Document::Index(_)) => media_type::OCI_INDEX,
            Ok(Document::Manifest(_)) => media_type::OCI_MANIFEST,
            Err(_) => "application/octet-stream",
        };
        Answer::ok(bytes).with("Content-Type", kind)
    })
}

/// Content under its digest.
fn by_digest(content: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    let content = content.as_ref();
    (Digest::sha256(content).to_string(), content.to_vec())
}

/// The registry of an image `image:1` of one layer.
fn registry_of_image(layer: &[u8], config: &str) -> Server {
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, layer),
    );
    registry_of(vec![
        ("/manifests/1".to_owned(), manifest.into()),
        by_digest(config),
        by_digest(layer),
    ])
}

/// Everything that images leave on disk.
fn stored(engine: &Engine) -> Vec<std::path::PathBuf> {
    let directories = ["blobs", "layers", "tmp"].map(|name| engine.path("data").join(name));
    let mut pending = directories.to_vec();
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() && entry.file_name() == "sha256" {
                true => pending.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

/// A pull that fails with these words, and leaves nothing.
fn refused(engine: &Engine, server: &Server, words: &str) {
    let said = engine.run(&["pull", &format!("{}/image:1", server.address)]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(words), "{words}: {said:?}");
    assert_eq!(engine.ok(&["images", "-q"]), "");
    assert_eq!(stored(engine), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_no_image_is_refused_and_leaves_nothing() {
    let engine = Engine::empty();
    let artifact = manifest(&descriptor("application/vnd.example.chart", b"{}"), "");
    let server = registry_of(vec![
        ("/manifests/1".into(), artifact.into()),
        by_digest("{}"),
    ]);
    refused(&engine, &server, "artifact");

    // Indexes of indexes end somewhere.
    let mut contents = vec![by_digest(index(""))];
    for _ in 0..8 {
        let (_, last) = contents.last().unwrap();
        contents.push(by_digest(index(&descriptor(media_type::OCI_INDEX, last))));
    }
    contents.last_mut().unwrap().0 = "/manifests/1".to_owned();
    refused(&engine, &registry_of(contents), "nested more than");

    // The layer is not what the configuration says, or not what the manifest says.
    let layer = tar_of("x");
    let server = registry_of_image(&layer, &config(b"another", ""));
    refused(&engine, &server, "has the digest");
    let config = config(&layer, "");
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let mut other = layer.clone();
    // A byte of the file's content.
    other[1024] ^= 1;
    let server = registry_of(vec![
        ("/manifests/1".into(), manifest.into()),
        by_digest(&config),
        (Digest::sha256(&layer).to_string(), other),
    ]);
    refused(&engine, &server, "has the digest");
}

#[test]
fn a_tag_that_moves_during_a_pull_gives_one_image_or_the_other() {
    let engine = Engine::empty();
    let (layer, count) = (tar_of("x"), AtomicUsize::new(0));
    let config = config(&layer, "");
    let real = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let expected = Digest::sha256(real.as_bytes()).to_string();
    let listed = |bytes: &[u8]| {
        let platform = r#","platform":{"architecture":"amd64","os":"linux"}}"#;
        let plain = descriptor(media_type::OCI_MANIFEST, bytes);
        index(&plain.replacen('}', platform, 1))
    };
    let (list, moved) = (listed(real.as_bytes()), listed(b"gone"));
    let known = [by_digest(&real), by_digest(&config), by_digest(&layer)];
    let server = Server::start(move |request| {
        if request.path.ends_with("/manifests/1") {
            // The second time it means something that is nowhere.
            let now = [&list, &moved][count.fetch_add(1, Ordering::Relaxed).min(1)];
            return Answer::ok(now).with("Content-Type", media_type::OCI_INDEX);
        }
        match known.iter().find(|(name, _)| request.path.ends_with(name)) {
            Some((_, bytes)) => Answer::ok(bytes).with("Content-Type", media_type::OCI_MANIFEST),
            None => Answer::status(404),
        }
    });
    engine.ok(&["pull", "-q", &format!("{}/image:1", server.address)]);
    assert!(
        server
            .requests()
            .iter()
            .any(|request| request.path.ends_with(&expected))
    );
}

#[test]
fn a_pull_that_is_stopped_leaves_nothing() {
    let engine = Engine::empty();
    let layer = tar_of("x");
    let config = config(&layer, "");
    let manifest = manifest(
        &descriptor(media_type::OCI_CONFIG, config.as_bytes()),
        &descriptor(media_type::OCI_LAYER, &layer),
    );
    let (name, half) = (
        Digest::sha256(&layer).to_string(),
        layer[..layer.len() / 2].to_vec(),
    );
    let length = layer.len();
    let server = Server::start(move |request| match &request.path {
        path if path.ends_with("/manifests/1") => {
            Answer::ok(&manifest).with("Content-Type", media_type::OCI_MANIFEST)
        }
        path if path.ends_with(name.as_str()) => Answer::Stall {
            length,
            sent: half.clone(),
        },
        _ => Answer::ok(&config),
    });
    let image = format!("{}/image:1", server.address);
    let client = engine.hull(&["pull", &image]).spawn().unwrap();
    engine.until("the layer is on its way", || !stored(&engine).is_empty());
    // `timeout`, which stands before the client, gives it on.
    let pid = client.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(kill.unwrap().success());
    assert!(!client.wait_with_output().unwrap().status.success());
    engine.until("what came is gone", || stored(&engine).is_empty());
    assert_eq!(engine.ok(&["images", "-q"]), "");
}

#[test]
fn attack_38_39_and_41_an_images_configuration_is_not_the_hosts() {
    let engine = Engine::empty();
    let layer = support::busybox_tar();
    // A volume above the root, labels that other engines took for orders, a user from nowhere.
    let marker = engine.path("marker");
    let more = format!(
        r#""Volumes":{{"/../../../../{0}":{{}}}},"Labels":{{"containerd.io/gc.root":"{0}","io.hull.hook":"touch {0}","prestart":"touch {0}"}},"Cmd":["sh","-c","ls -d /volume* {0} 2>&1; id -u"]"#,
        marker.display()
    );
    let server = registry_of_image(&layer, &config(&layer, &more));
    let image = format!("{}/image:1", server.address);
    engine.ok(&["pull", "-q", &image]);
    let said = engine.run(&["run", "--rm", &image]);
    assert!(!marker.exists(), "{said:?}");
    for user in [
        "0\\n",
        "root:x:0:0",
        "-1",
        "4294967296",
        "+0",
        "nobody/../root",
    ] {
        let more = format!(r#""User":"{user}","Cmd":["id","-u"]"#);
        let server = registry_of_image(&layer, &config(&layer, &more));
        let image = format!("{}/image:1", server.address);
        engine.ok(&["pull", "-q", &image]);
        let said = engine.run(&["run", "--rm", &image]);
        assert!(said.code != 0 && said.stdout.is_empty(), "{user}: {said:?}");
    }
    engine.assert_nothing_left();
}
