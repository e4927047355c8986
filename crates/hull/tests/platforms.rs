//! Images for several platforms under one name: built, run, listed, saved, loaded, pushed, pulled, removed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use support::Engine;
use support::buildx::{Bench, assert_has};
use support::registry::Registry;

/// Says what it is for, by a program of this machine, so that it runs whatever it is for.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS one\nARG TARGETPLATFORM\n\
                     RUN echo $TARGETPLATFORM > /for\n\
                     FROM scratch\nCOPY --from=one /for /for\nCOPY --from=one /bin/busybox /bin/\n";
const HERE: &str = if cfg!(target_arch = "aarch64") {
    "linux/arm64"
} else {
    "linux/amd64"
};
const OTHER: &str = if cfg!(target_arch = "aarch64") {
    "linux/amd64"
} else {
    "linux/arm64"
};

fn both() -> String {
    // The one for this machine is not the first.
    format!("{OTHER},{HERE}")
}

/// Builds by hull's own client.
fn hull(bench: &Bench, arguments: &[&str]) -> String {
    let context = bench.context.display().to_string();
    let said = bench
        .engine
        .run(&[&["build"], arguments, &[&context]].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.stderr, bench.engine.log());
    said.stderr
}

/// What a container of an image says it is for.
fn runs_for(engine: &Engine, platform: &[&str], image: &str) -> String {
    let command = [image, "/bin/busybox", "cat", "/for"];
    let start = ["run", "--rm", "--network", "none"];
    engine.ok(&[&start[..], platform, &command].concat())
}

fn names(engine: &Engine) -> Vec<String> {
    let listed = engine.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Both are there, under a name.
fn assert_both(engine: &Engine, name: &str) {
    assert_eq!(runs_for(engine, &[], name), HERE);
    for platform in [HERE, OTHER] {
        assert_eq!(runs_for(engine, &["--platform", platform], name), platform);
    }
}

#[test]
fn one_name_has_an_image_for_each_platform() {
    let bench = Bench::new(CROSS, &[]);
    let engine = &bench.engine;
    hull(&bench, &["--platform", &both(), "-t", "x"]);
    assert_eq!(names(engine), ["busybox:latest", "x:latest"]);
    assert_both(engine, "x");
    let said = engine.run(&["run", "--pull", "never", "--platform", "linux/s390x", "x"]);
    assert!(said.code != 0, "{said:?}");
    assert_has(&said.stderr, &["linux/s390x"]);
    let architecture = |name: &str| {
        let line = ["image", "inspect", "-f", "{{.Architecture}}"];
        let own = engine.ok(&[&line[..], &[name]].concat());
        let other = engine.ok(&[&line[..], &["--platform", OTHER, name]].concat());
        (own, other)
    };
    let (own, other) = architecture("x");
    assert_eq!(
        (format!("linux/{own}"), format!("linux/{other}")),
        (HERE.into(), OTHER.into())
    );
    // Whatever it is called.
    engine.ok(&["tag", "x", "y:1"]);
    engine.ok(&["rmi", "x"]);
    assert_both(engine, "y:1");
    // What stands on it takes of it what is for its platform, and asks no registry.
    bench.write("context/a", "A");
    bench.write("context/Dockerfile", "FROM y:1\nCOPY a /\n");
    hull(&bench, &["--platform", &both(), "-t", "z"]);
    assert_both(engine, "z");
    engine.ok(&["rmi", "z"]);
    // One of them goes alone, and the rest with the name.
    engine.ok(&["rmi", "--platform", HERE, "y:1"]);
    assert_eq!(runs_for(engine, &[], "y:1"), OTHER);
    engine.ok(&["rmi", "y:1"]);
    assert_eq!(engine.ok(&["images", "-aq"]).lines().count(), 1);
    bench.assert_clean();
}

#[test]
fn a_list_tells_of_all_and_a_prune_takes_all() {
    let bench = Bench::new(CROSS, &[]);
    let engine = &bench.engine;
    let said = bench.try_build(&["--platform", &both(), "-t", "x"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_both(engine, "x");
    let (_, body) = engine.ask("GET", "/v1.51/images/json?manifests=1", None);
    let listed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let all = listed.as_array().unwrap();
    let named = |image: &&serde_json::Value| image["RepoTags"][0] == "x:latest";
    let entry = all.iter().find(named).unwrap();
    let manifests = entry["Manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "{entry}");
    let sizes = manifests
        .iter()
        .map(|it| it["Size"]["Total"].as_i64().unwrap());
    assert_eq!(entry["Size"].as_i64().unwrap(), sizes.sum::<i64>());
    assert_eq!(entry["Id"], manifests[0]["ID"]);
    // A container of one of them keeps both.
    let other = manifests[1]["ID"].as_str().unwrap();
    let container = engine.ok(&["create", "--platform", OTHER, "x", "/bin/busybox"]);
    let image = engine.ok(&["inspect", "-f", "{{.Image}}", &container]);
    assert_eq!(image, other);
    let said = engine.run(&["rmi", "x"]);
    assert_has(&said.stderr, &["is using its referenced image"]);
    let pruned = engine.ok(&["image", "prune", "-af"]);
    assert!(!pruned.contains("untagged: x:latest"), "{pruned}");
    engine.ok(&["rm", &container]);
    let planned = engine.ok(&["image", "prune", "-a", "--dry-run"]);
    assert_has(&planned, &["untagged: x:latest", other]);
    let pruned = engine.ok(&["image", "prune", "-af"]);
    assert_has(
        &pruned,
        &["untagged: x:latest", other, entry["Id"].as_str().unwrap()],
    );
    assert_eq!(engine.ok(&["images", "-aq"]), "");
    bench.assert_clean();
}

#[test]
fn archives_have_all_platforms() {
    let bench = Bench::new(CROSS, &[]);
    let engine = &bench.engine;
    let archive = |name: &str| bench.path(name);
    let (oci, docker, saved) = (
        archive("oci.tar"),
        archive("docker.tar"),
        archive("saved.tar"),
    );
    for (kind, path) in [("oci", &oci), ("docker", &docker)] {
        let output = format!("type={kind},dest={path},name=x:1");
        hull(&bench, &["--platform", &both(), "-o", &output]);
    }
    assert_eq!(names(engine), ["busybox:latest"]);
    for path in [&oci, &docker] {
        let said = engine.ok(&["load", "-i", path]);
        assert_eq!(said, "Loaded image: x:1");
        assert_both(engine, "x:1");
        engine.ok(&["tag", "x:1", "also"]);
        engine.ok(&["save", "-o", &saved, "x:1", "also"]);
        engine.ok(&["rmi", "x:1", "also"]);
    }
    engine.ok(&["load", "-i", &saved]);
    assert_both(engine, "x:1");
    assert_both(engine, "also");
    // Of all, one alone.
    engine.ok(&["save", "--platform", OTHER, "-o", &saved, "x:1"]);
    engine.ok(&["rmi", "x:1", "also"]);
    engine.ok(&["load", "-i", &saved]);
    assert_eq!(runs_for(engine, &[], "x:1"), OTHER);
    engine.ok(&["rmi", "x:1"]);
    engine.ok(&["load", "--platform", OTHER, "-i", &docker]);
    assert_eq!(runs_for(engine, &[], "x:1"), OTHER);
    let said = engine.run(&["load", "--platform", "linux/s390x", "-i", &oci]);
    assert!(said.code != 0, "{said:?}");
    bench.assert_clean();
}

#[test]
fn registries_get_all_platforms_and_give_each() {
    let registry = Registry::open();
    let name = registry.name("several:1");
    let bench = Bench::new(CROSS, &[]);
    let engine = &bench.engine;
    hull(&bench, &["--platform", &both(), "-t", &name]);
    let pushed = engine.ok(&["push", &name]);
    assert_has(&pushed, &["digest: sha256:"]);
    // The same images are the same index.
    assert_eq!(
        engine.ok(&["push", &name]).lines().last(),
        pushed.lines().last()
    );
    let shown = engine.ok(&["manifest", "inspect", &name]);
    assert_has(&shown, &["amd64", "arm64"]);
    let one = registry.name("one:1");
    engine.ok(&["tag", &name, &one]);
    engine.ok(&["push", "--platform", OTHER, &one]);
    let shown = engine.ok(&["manifest", "inspect", &one]);
    assert_has(&shown, &["\"config\""]);

    let elsewhere = Engine::new();
    elsewhere.ok(&["pull", "-q", &name]);
    assert_eq!(runs_for(&elsewhere, &[], &name), HERE);
    elsewhere.ok(&["pull", "-q", "--platform", OTHER, &name]);
    assert_both(&elsewhere, &name);
    assert_eq!(
        names(&elsewhere),
        [name.clone(), "busybox:latest".to_owned()]
    );
    // An index that is another takes the name, with what is pulled of it.
    bench.write("context/Dockerfile", &format!("{CROSS}LABEL new=1\n"));
    let said = bench.try_build(&["--platform", &both(), "-t", &name, "--push"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_both(engine, &name);
    elsewhere.ok(&["pull", "-q", "--platform", OTHER, &name]);
    assert_eq!(runs_for(&elsewhere, &[], &name), OTHER);
    bench.assert_clean();
}

#[test]
fn a_stage_stands_on_the_platform_that_it_names() {
    let bench = Bench::new(CROSS, &[]);
    let engine = &bench.engine;
    hull(&bench, &["--platform", &both(), "-t", "x"]);
    let dockerfile = format!(
        "ARG P={OTHER}\nFROM --platform=$P x AS other\nARG TARGETPLATFORM\nCOPY a /made-$TARGETPLATFORM\n\
         FROM x\nCOPY --from=other / /other\n"
    );
    bench.write("context/Dockerfile", &dockerfile);
    bench.write("context/a", "a");
    for by_buildx in [true, false] {
        let build = |arguments: &[&str]| match by_buildx {
            true => {
                let said = bench.try_build(arguments);
                assert_eq!(said.code, 0, "{}", said.stderr);
            }
            false => drop(hull(&bench, arguments)),
        };
        let shown = |name: &str, file: &str| {
            let run = ["run", "--rm", "--network", "none", name];
            engine.ok(&[&run[..], &["/bin/busybox", "cat", file]].concat())
        };
        // What it is built for stays what it was.
        build(&["-t", "y"]);
        assert_eq!(runs_for(engine, &[], "y"), HERE);
        assert_eq!(shown("y", "/other/for"), OTHER);
        assert_eq!(shown("y", &format!("/other/made-{HERE}")), "a");
        let given = format!("P={HERE}");
        build(&["-t", "y", "--build-arg", &given]);
        assert_eq!(shown("y", "/other/for"), HERE);
        // An image is for the platform of what it stands on.
        build(&["-t", "y", "--target", "other"]);
        assert_eq!(runs_for(engine, &["--platform", OTHER], "y"), OTHER);
        let architecture = engine.ok(&["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "y"]);
        assert_eq!(architecture, OTHER);
        engine.ok(&["rmi", "y"]);
    }
    for (given, expected) in [
        ("P=linux/s390x", "linux/s390x"),
        ("P=", "empty platform value"),
        ("P=a/b/c/d", "a/b/c/d"),
    ] {
        let flags = ["--build-arg", given];
        assert_has(&bench.fails(&flags), &[expected]);
        let context = bench.context.display().to_string();
        let said = engine.run(&["build", "--build-arg", given, &context]);
        assert_ne!(said.code, 0, "{said:?}");
        assert_has(&said.stderr, &[expected]);
    }
    bench.assert_clean();
}

#[test]
fn files_of_several_platforms_are_apart() {
    let bench = Bench::new(CROSS, &[]);
    let directory = |platform: &str| platform.replace('/', "_");
    let read = |path: &str| std::fs::read_to_string(bench.engine.path(path)).unwrap();
    let is_by_buildx = [true, false];
    for (number, by_buildx) in is_by_buildx.into_iter().enumerate() {
        let (files, tar) = (format!("files{number}"), format!("files{number}.tar"));
        let build = |arguments: &[&str]| match by_buildx {
            true => {
                let said = bench.try_build(arguments);
                assert_eq!(said.code, 0, "{}", said.stderr);
            }
            false => drop(hull(&bench, arguments)),
        };
        let own = format!("type=local,dest={}", bench.path(&files));
        build(&["--platform", &both(), "-o", &own]);
        let archive = format!("type=tar,dest={}", bench.path(&tar));
        build(&["--platform", &both(), "-o", &archive]);
        let unpacked = format!("unpacked{number}");
        unpack(
            Path::new(&bench.path(&tar)),
            Path::new(&bench.path(&unpacked)),
        );
        for platform in [HERE, OTHER] {
            for place in [&files, &unpacked] {
                let path = format!("{place}/{}/for", directory(platform));
                assert_eq!(read(&path).trim(), platform);
            }
        }
        // One has a directory of its own where that is asked for.
        let split = format!("{own}-split,platform-split=true");
        build(&["--platform", OTHER, "-o", &split]);
        let path = format!("{files}-split/{}/for", directory(OTHER));
        assert_eq!(read(&path).trim(), OTHER);
    }
    let merged = format!(
        "type=local,dest={},platform-split=false",
        bench.path("merged")
    );
    let shown = bench.fails(&["--platform", &both(), "-o", &merged]);
    assert_has(&shown, &["platform-split=false"]);
    // Nothing of it is an image.
    assert_eq!(names(&bench.engine), ["busybox:latest"]);
    bench.assert_clean();
}

fn unpack(archive: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let status = std::process::Command::new("tar")
        .args(["-x", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(to)
        .status();
    assert!(status.unwrap().success());
}
