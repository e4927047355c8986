//! Named contexts that are images in OCI layouts, and addresses; by hull's client and by buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::buildx::{Bench, assert_has};
use support::{Said, said};

/// A build by hull's client.
fn hull(bench: &Bench, flags: &[&str]) -> Said {
    let context = bench.path("context");
    bench
        .engine
        .run(&[&["build", "-t", "t"], flags, &[&context]].concat())
}

/// Both clients build with these flags.
fn both(bench: &Bench, flags: &[&str], shown: &str) {
    bench.build(flags);
    assert_eq!(bench.shell("cat /shown"), shown);
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["builder", "prune", "-af"]);
    bench.engine.ok(&["image", "prune", "-f"]);
    let built = hull(bench, flags);
    assert_eq!(built.code, 0, "{built:?}\n{}", bench.engine.log());
    assert_eq!(bench.shell("cat /shown"), shown);
    bench.assert_clean();
}

/// Makes layouts of two images, the second one with an index, and forgets them.
fn layouts(bench: &Bench) -> String {
    let layout = bench.path("layout");
    bench.write("context/Dockerfile", "FROM busybox\nRUN echo one > /a\n");
    let one = format!("type=oci,tar=false,name=base:one,dest={layout}");
    assert_eq!(hull(bench, &["-o", &one]).code, 0);
    let two = format!("type=oci,tar=false,name=base:two,dest={layout}-two");
    bench.write(
        "context/Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /a\n",
    );
    bench.write("context/amd64", "amd64");
    bench.write("context/arm64", "arm64");
    let built = hull(
        bench,
        &["-o", &two, "--platform", "linux/amd64,linux/arm64"],
    );
    assert_eq!(built.code, 0, "{built:?}");
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["image", "prune", "-f"]);
    bench.engine.ok(&["builder", "prune", "-af"]);
    layout
}

#[test]
fn images_in_layouts_are_contexts() {
    let bench = Bench::new("", &[]);
    let layout = layouts(&bench);
    bench.write(
        "context/Dockerfile",
        "FROM base\nCOPY --from=more /a /b\nRUN --mount=from=more,target=/m cat /a /b /m/a > /shown\n",
    );
    let one = format!("base=oci-layout://{layout}:one");
    let two = format!("more=oci-layout://{layout}-two:two");
    let flags = ["--build-context", &one, "--build-context", &two];
    both(&bench, &flags, "one\namd64amd64");
    // A digest says which one, too.
    let index = std::fs::read(bench.engine.path("layout/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    bench.write("context/Dockerfile", "FROM base\nRUN cat /a > /shown\n");
    let by_digest = format!("base=oci-layout://{layout}@{digest}");
    both(&bench, &["--build-context", &by_digest], "one");
}

#[test]
fn layouts_that_are_damaged_are_no_contexts() {
    let bench = Bench::new("", &[]);
    let layout = layouts(&bench);
    bench.write("context/Dockerfile", "FROM base\n");
    let fails = |flag: &str, expected: &str| {
        let said = hull(&bench, &["--build-context", flag]);
        assert_ne!(said.code, 0);
        assert_has(&said.stderr, &[expected]);
        bench.assert_clean();
    };
    fails(&format!("base=oci-layout://{layout}:none"), "no tag none");
    fails("base=oci-layout:///none", "/none/index.json");
    let arm = format!("base=oci-layout://{layout}-two:two");
    let said = hull(
        &bench,
        &["--build-context", &arm, "--platform", "linux/s390x"],
    );
    assert_has(&said.stderr, &["has no image for linux/s390x"]);
    // Every blob in its turn is not what its name says.
    for entry in std::fs::read_dir(bench.engine.path("layout/blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        let mut broken = whole.clone();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        let said = hull(
            &bench,
            &[
                "--build-context",
                &format!("base=oci-layout://{layout}:one"),
            ],
        );
        assert_ne!(said.code, 0, "{}: {said:?}", path.display());
        bench.assert_clean();
        std::fs::write(&path, &whole).unwrap();
    }
}

/// Makes a repository that ssh leads to, without a network: its address, and the flag of an agent.
fn repository(bench: &mut Bench, script: &str) -> (String, String) {
    let begin = "git init -q -b main r; cd r; git config user.email a@b; git config user.name a; ";
    let script = format!("{begin}{script}");
    let made = { bench.engine.client("sh", &["-ec", &script]) }.output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    // A server of repositories that needs no network: the program that git would run on one.
    let ssh = "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n";
    bench.write("bin/ssh", ssh);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bench.engine.path("bin/ssh"), mode).unwrap();
    let path = std::env::var("PATH").unwrap();
    bench.engine.search_path = Some(PathBuf::from(format!("{}:{path}", bench.path("bin"))));
    bench.engine.restart_with(&[]);
    let listener = std::os::unix::net::UnixListener::bind(bench.engine.path("agent")).unwrap();
    // Nobody asks this agent for anything.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let url = format!("ssh://git@host.example{}", bench.path("r"));
    (url, format!("default={}", bench.path("agent")))
}

#[test]
fn repositories_are_contexts_beside_directories() {
    let mut bench = Bench::new(
        "FROM busybox\nCOPY --from=r f /r\nCOPY --from=d f /d\nCOPY . /c\nRUN cat /r /d /c/c > /shown\n",
        &[("c", "c")],
    );
    let script = "echo r > f; \
                  printf 'FROM busybox\\nCOPY f /f\\nCOPY --from=d f /d\\nRUN cat /f /d > /shown\\n' > Dockerfile; \
                  git add -A; git commit -qm 1";
    let (url, agent) = repository(&mut bench, script);
    bench.write("d/f", "d\n");
    let repository = format!("r={url}");
    let directory = format!("d={}", bench.path("d"));
    let named = [
        "--build-context",
        &repository,
        "--build-context",
        &directory,
        "--ssh",
        &agent,
    ];
    both(&bench, &named, "r\nd\nc");
    // The context itself is elsewhere, and something is sent all the same.
    let flags = [
        "build",
        "-t",
        "t",
        "--ssh",
        &agent,
        "--build-context",
        &directory,
        &url,
    ];
    let built = bench.engine.run(&flags);
    assert_eq!(built.code, 0, "{built:?}\n{}", bench.engine.log());
    assert_eq!(bench.shell("cat /shown"), "r\nd");
    bench.assert_clean();
}

/// What a command says that reads something.
fn with_input(mut command: Command, input: &[u8]) -> Said {
    let command = { command.stdin(Stdio::piped()) }.stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // A command that ends before it has read everything breaks the pipe; its own code tells why.
    let _ = child.stdin.take().unwrap().write_all(input);
    said(child.wait_with_output().unwrap())
}

#[test]
fn a_reference_and_a_directory_of_a_repository_are_a_context() {
    let script = "mkdir -p sub/deep; echo 1 > sub/f; echo outside > f; \
                  printf 'FROM busybox\\nCOPY . /c\\nRUN cd /c; cat f > /shown; ls >> /shown\\n' > sub/Dockerfile; \
                  git add -A; git commit -qm 1; git tag v1; echo 2 > sub/f; git commit -qam 2";
    let mut bench = Bench::new("", &[]);
    let (url, agent) = repository(&mut bench, script);
    for by_buildx in [true, false] {
        let build = |flags: &[&str], context: &str, input: &[u8]| {
            let front = ["build", "-t", "t", "--ssh", &agent];
            let line = [&front[..], flags, &[context]].concat();
            let command = match by_buildx {
                true => bench.buildx(&line),
                false => bench.engine.hull(&line),
            };
            let built = with_input(command, input);
            assert_eq!(built.code, 0, "{line:?}: {built:?}\n{}", bench.engine.log());
            bench.shell("cat /shown")
        };
        for (part, content) in [("#v1:sub", "1"), ("#:sub", "2"), ("#main:sub/", "2")] {
            let shown = build(&[], &format!("{url}{part}"), b"");
            assert_eq!(shown, format!("{content}\nDockerfile\nf"), "{part}");
        }
        // The Dockerfile is of standard input, whatever is at the address.
        let input = b"FROM busybox\nCOPY f deep* /d/\nRUN cat /d/f > /shown\n";
        assert_eq!(build(&["-f", "-"], &format!("{url}#v1:sub"), input), "1");
        assert_eq!(build(&["-f", "-"], &url, input), "outside");
    }
    bench.assert_clean();
}
