//! Images from and to registries: hull's engine against Debian's docker-registry, with hull and docker as clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

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
