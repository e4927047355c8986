//! What builds keep from one another: cache mounts that several commands have, and secrets, which nothing keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use oci::Digest;
use serde_json::{Value, from_slice, json};
use std::fs;
use std::process::Command;
use support::buildx::{Bench, assert_has};
use support::said;

fn hull(bench: &Bench, flags: &[&str]) -> String {
    let context = bench.context.display().to_string();
    let said = bench
        .engine
        .run(&[&["build", "-t", "t"], flags, &[&context]].concat());
    assert_eq!(said.code, 0, "{}\n{}", said.stderr, bench.engine.log());
    said.stderr
}

/// Two stages at the same time, each with a command and a name, and one that needs both.
fn both(command: &str) -> String {
    let stage = |name: &str, other: &str| {
        let command = command.replace("NAME", name).replace("OTHER", other);
        format!("FROM busybox AS {name}\nRUN {command} && echo {name} > /{name}\n")
    };
    format!(
        "{}{}FROM busybox\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n",
        stage("a", "b"),
        stage("b", "a")
    )
}

/// Waits, in a command, until a file is there; a thousand times a tenth of a second is for ever.
const UNTIL: &str = "for i in $(seq 1000); do [ -e FILE ] && break; sleep 0.1; done && [ -e FILE ]";

#[test]
fn a_locked_cache_has_one_user_at_a_time() {
    let bench = Bench::new(
        &both(
            "--mount=type=cache,id=c,target=/c,sharing=locked mkdir /c/mine && sleep 0.5 && rmdir /c/mine",
        ),
        &[],
    );
    hull(&bench, &[]);
    // One build keeps another one from it, too.
    let context = bench.context.display().to_string();
    let builds = [0, 1].map(|_| {
        let mut build = bench.engine.hull(&["build", "--no-cache", &context]);
        build.spawn().unwrap()
    });
    for build in builds {
        let said = said(build.wait_with_output().unwrap());
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    bench.assert_clean();
}

#[test]
fn a_shared_cache_has_several_users() {
    let wait = UNTIL.replace("FILE", "/c/OTHER");
    let mount = "--mount=type=cache,id=c,target=/c";
    let bench = Bench::new(&both(&format!("{mount} touch /c/NAME && {wait}")), &[]);
    hull(&bench, &[]);
    bench.assert_clean();
}

#[test]
fn a_private_cache_is_another_one_while_it_is_used() {
    let wait = UNTIL.replace("FILE", "/s/OTHER");
    let mounts =
        "--mount=type=cache,id=s,target=/s --mount=type=cache,id=p,target=/p,sharing=private";
    let dockerfile = both(&format!(
        "{mounts} touch /p/NAME /s/NAME && {wait} && [ \"$(ls /p)\" = NAME ] && touch /s/NAME.done && {}",
        UNTIL.replace("FILE", "/s/OTHER.done")
    ));
    let bench = Bench::new(&dockerfile, &[]);
    hull(&bench, &[]);
    // What nobody uses any more is taken again.
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=p,target=/p,sharing=private ls /p > /seen\n",
    );
    hull(&bench, &[]);
    assert!(matches!(bench.shell("cat /seen").as_str(), "a" | "b"));
    bench.assert_clean();
}

#[test]
fn locked_caches_are_taken_in_one_order() {
    let mount = |id: &str| format!("--mount=type=cache,id={id},target=/{id},sharing=locked");
    let (x, y) = (mount("x"), mount("y"));
    let mut dockerfile = String::new();
    for at in 0..8 {
        let mounts = match at % 2 {
            0 => format!("{x} {y}"),
            _ => format!("{y} {x}"),
        };
        dockerfile += &format!("FROM busybox AS s{at}\nRUN {mounts} echo {at} > /{at}\n");
    }
    dockerfile += "FROM busybox\n";
    for at in 0..8 {
        dockerfile += &format!("COPY --from=s{at} /{at} /\n");
    }
    let bench = Bench::new(&dockerfile, &[]);
    for _ in 0..3 {
        hull(&bench, &["--no-cache"]);
    }
    // Twice in one command it is the same one.
    bench.write(
        "context/Dockerfile",
        &format!(
            "FROM busybox\nRUN {x} {} touch /x/f && ls /again/f\n",
            x.replace("target=/x", "target=/again")
        ),
    );
    hull(&bench, &[]);
    bench.assert_clean();
}

/// A Dockerfile whose command sees a secret in both ways, and a build with a value of it.
const WITH_SECRET: &str = "FROM busybox\nARG A=1\n\
    RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S \
    [ \"$(cat /run/secrets/s)\" = \"$S\" ] && echo ${#S} > /length\n";

fn with_secret(bench: &Bench, secret: &str, flags: &[&str]) -> String {
    bench.write("secret", secret);
    let flag = format!("id=s,src={}", bench.path("secret"));
    hull(bench, &[&["--secret", &flag], flags].concat())
}

#[test]
fn a_secret_is_in_no_layer() {
    let bench = Bench::new(WITH_SECRET, &[]);
    with_secret(&bench, "hidden-words", &[]);
    assert_eq!(
        bench.shell("cat /length; ls -A /run 2>&1; true"),
        "12\nls: /run: No such file or directory"
    );
    let saved = bench.path("saved.tar");
    bench.engine.ok(&["save", "-o", &saved, "t"]);
    let saved = std::fs::read(saved).unwrap();
    let has = |text: &[u8]| saved.windows(text.len()).any(|window| window == text);
    assert!(has(b"/bin/sh") && !has(b"hidden-words"));
    bench.assert_clean();
}

#[test]
fn a_secret_is_not_in_the_history() {
    let bench = Bench::new(WITH_SECRET, &[]);
    let shown = with_secret(
        &bench,
        "hidden-words",
        &["--attest", "type=provenance,mode=max"],
    );
    let told = bench.engine.ok(&["history", "--no-trunc", "t"]);
    assert_has(&told, &["${#S}"]);
    let inspected = bench.engine.ok(&["inspect", "--type", "image", "t"]);
    let kept = bench.engine.ok(&["builder", "du", "--verbose"]);
    for text in [shown, told, inspected, kept, bench.engine.log()] {
        assert!(!text.contains("hidden-words"), "{text}");
    }
    bench.assert_clean();
}

#[test]
fn a_secret_is_no_part_of_the_cache_key() {
    let bench = Bench::new(WITH_SECRET, &[]);
    with_secret(&bench, "hidden-words", &[]);
    let shown = with_secret(&bench, "other", &[]);
    assert_has(&shown, &["3 steps, 1 cached"]);
    assert_eq!(bench.shell("cat /length"), "12");
    // Nor can one guess it by what the cache says of arguments.
    let shown = with_secret(&bench, "other", &["--explain", "--build-arg", "A=2"]);
    assert_has(&shown, &["the argument A has changed"]);
    assert_eq!(bench.shell("cat /length"), "5");
    bench.assert_clean();
}

/// What a cache from elsewhere says in place of names: in its annotations, as the ID of a cache mount, and in that mount's tar.
#[test]
fn attack_46_no_path_that_a_cache_tells_is_written() {
    let bench = Bench::new(
        "FROM busybox\nRUN --mount=type=cache,id=../../../escaped,target=/c cp -r /c /got; echo a > /c/file\n",
        &[],
    );
    let cache = bench.path("cache");
    let to = format!("type=local,dest={cache},mode=max,mounts=true");
    hull(&bench, &["--cache-to", &to]);
    let blob = |digest: &str| format!("{cache}/blobs/{}", digest.replace(':', "/"));
    let read = |path: &str| -> Value { from_slice(&fs::read(path).unwrap()).unwrap() };
    let write = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes).to_string();
        fs::write(blob(&digest), bytes).unwrap();
        digest
    };
    // A tar whose entries lead out of where they are unpacked.
    bench.write("tar/inner/in", "x");
    bench.write("tar/escaped", "x");
    let mut tar = Command::new("tar");
    tar.args([
        "-C",
        &bench.path("tar/inner"),
        "-czPf",
        "-",
        "in",
        "../escaped",
    ]);
    let evil = tar.output().unwrap().stdout;
    let index_path = format!("{cache}/index.json");
    let mut index = read(&index_path);
    let listed = &mut index["manifests"][0];
    let mut manifest = read(&blob(listed["digest"].as_str().unwrap()));
    let mount = manifest["layers"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap();
    assert!(
        mount["mediaType"].as_str().unwrap().contains("mount"),
        "{mount}"
    );
    (mount["digest"], mount["size"]) = (write(&evil).into(), evil.len().into());
    let name = json!({"org.opencontainers.image.title": "../../../../escaped"});
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["annotations"] = name.clone();
    }
    manifest["annotations"] = name;
    let manifest = manifest.to_string();
    (listed["digest"], listed["size"]) = (write(manifest.as_bytes()).into(), manifest.len().into());
    fs::write(&index_path, index.to_string()).unwrap();
    fs::remove_dir_all(bench.path("tar")).unwrap();
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["builder", "prune", "-af"]);
    // A change of the step, which takes the mount and not the result.
    let changed = fs::read_to_string(bench.path("context/Dockerfile")).unwrap() + "RUN true\n";
    bench.write("context/Dockerfile", &changed.replace("cp -r", "cp -R"));
    let shown = hull(
        &bench,
        &["--cache-from", &format!("type=local,src={cache}")],
    );
    // Half of a mount is none.
    assert_has(&shown, &["importing cache manifest", "leads out of"]);
    assert_eq!(bench.shell("ls /got"), "", "{shown}");
    let find = ["-name", "*escaped*"];
    let found = Command::new("find").arg(bench.path("")).args(find).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    bench.assert_clean();
}

#[test]
fn an_explanation_names_what_has_changed() {
    let bench = Bench::new(
        "FROM busybox AS one\nCOPY f /f\nFROM busybox\nARG MODE=ro\n\
         RUN --mount=type=bind,target=/src,$MODE --mount=type=bind,from=tools,target=/tools \
         --mount=type=bind,from=one,target=/one --mount=type=secret,id=s \
         --mount=type=cache,target=/c,from=tools,source=/d cat /src/a /tools/d/t /one/f\n",
        &[("a", "A"), ("f", "F"), ("other", "O")],
    );
    bench.write("tools/d/t", "T");
    bench.write("secret", "hidden");
    let tools = format!("tools={}", bench.path("tools"));
    let secret = format!("id=s,src={}", bench.path("secret"));
    let flags = ["--explain", "--build-context", &tools, "--secret", &secret];
    let built = |more: &[&str]| hull(&bench, &[&flags, more].concat());
    assert_has(&built(&[]), &["no step with this text is in the cache"]);
    let cached = "it was built before, and nothing that it depends on has changed";
    assert_has(&built(&[]), &[cached]);
    bench.write("secret", "another");
    assert_has(&built(&[]), &[cached]);
    bench.write("context/a", "B");
    let shown = built(&[]);
    assert_has(&shown, &["the mounted file /a has changed"]);
    bench.write("tools/d/t", "U");
    let shown = built(&[]);
    assert_has(&shown, &["the mounted file /d/t of tools has changed"]);
    assert!(!shown.contains("/other"), "{shown}");
    bench.write("tools/d/new", "N");
    assert_has(&built(&[]), &["the mounted file /d/new of tools is new"]);
    bench.write("context/f", "G");
    assert_has(&built(&[]), &["the stage or image one has changed"]);
    let shown = built(&["--build-arg", "MODE=rw"]);
    assert_has(
        &shown,
        &["the argument MODE has changed", "the options of mount 1"],
    );
    bench.assert_clean();
}
