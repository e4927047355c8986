//! Pushed, pulled, in a list of platforms, with credentials: what people do every day.

use crate::content::tar_of;
use crate::support::registry::Registry;
use crate::support::{self, Engine};
use crate::{HULL, as_user, pushed};
use oci::image::media_type;

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
    let words = format!("No such image: {name}");
    assert!(never.stderr.contains(&words), "{never:?}");
    let never = engine.run(&["run", "--pull", "never", "nowhere/x"]);
    assert!(
        never.stderr.contains("No such image: nowhere/x:latest"),
        "{never:?}"
    );

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
    let (_, told) = engine.ask("GET", &format!("/v1.51/distribution/{list}/json"), None);
    let told = String::from_utf8(told).unwrap();
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

#[test]
fn a_push_of_one_platform_pushes_that_one() {
    let registry = Registry::open();
    let engine = Engine::empty();
    let name = registry.name("one:1");
    let tar = tar_of("for another machine");
    engine.ok_with_input(&["import", "--platform", "linux/arm64", "-", &name], &tar);
    for program in [HULL, "docker"] {
        let push = |platform: &str| {
            let line = ["push", "-q", "--platform", platform, &name];
            as_user(&engine, program, &line)
        };
        let said = push("linux/s390x");
        let words = format!(
            "image with reference {name} was found but its platform (linux/arm64) does not match the \
             specified platform (linux/s390x)"
        );
        assert!(
            said.code == 1 && said.stderr.contains(&words),
            "{program}: {said:?}"
        );
        assert_eq!(push("linux/arm64").code, 0, "{program}");
    }
    let shown = as_user(
        &engine,
        HULL,
        &["manifest", "inspect", "--insecure", "-v", &name],
    );
    assert!(shown.stdout.contains("arm64"), "{shown:?}");
}
