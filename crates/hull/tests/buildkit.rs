//! Building by BuildKit's protocol, with Docker's buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use support::buildx::{Bench, assert_has};
use support::said;

#[test]
fn a_build_is_shown_as_buildkit_shows_it_and_cached() {
    let bench = Bench::new(
        "FROM busybox AS one\nARG WHO\nRUN echo hello $WHO | tee /out\nFROM one\nCOPY a sub/ /x/\nLABEL l=m\n",
        &[("a", "A"), ("sub/s", "S"), ("unused", "U")],
    );
    let shown = bench.build(&["--build-arg", "WHO=you", "--label", "x=y", "-t", "u:1"]);
    assert_has(
        &shown,
        &[
            "[internal] load build definition from Dockerfile",
            "[internal] load metadata for docker.io/library/busybox:latest",
            "[internal] load build context",
            "[one 1/2] FROM docker.io/library/busybox:latest",
            "[one 2/2] RUN echo hello $WHO | tee /out",
            "hello you",
            "[stage-1 1/1] COPY a sub/ /x/",
            "exporting to image",
            "naming to docker.io/library/t:latest",
            "naming to docker.io/library/u:1",
        ],
    );
    assert_eq!(bench.shell("cat /out /x/a /x/s"), "hello you\nAS");
    let labels = "{{.Config.Labels.l}} {{.Config.Labels.x}}";
    assert_eq!(
        bench
            .engine
            .ok(&["inspect", "--type", "image", "--format", labels, "u:1"]),
        "m y"
    );
    let again = bench.build(&["--build-arg", "WHO=you", "--label", "x=y"]);
    assert_eq!(again.matches("CACHED").count(), 2, "{again}");
    let none = bench.build(&["--build-arg", "WHO=you", "--no-cache"]);
    assert!(!none.contains("CACHED"), "{none}");
    let filtered = bench.build(&["--build-arg", "WHO=you", "--no-cache-filter", "one"]);
    assert_has(&filtered, &["hello you"]);
    bench.assert_clean();
}

#[test]
fn the_engine_asks_for_buildkit() {
    let bench = Bench::new("FROM busybox\n", &[]);
    let mut curl = bench.engine.client("curl", &["-sS", "-I", "--unix-socket"]);
    let curl = curl
        .arg(bench.engine.path("run/hull.sock"))
        .arg("http://d/_ping");
    let head = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    assert!(head.to_lowercase().contains("builder-version: 2"), "{head}");
    let said = said(bench.buildx(&["inspect"]).output().unwrap());
    assert_has(&said.stdout, &["Driver:", "docker", "linux/"]);
    for (path, body) in [("/session", ""), ("/grpc", "{}")] {
        let (status, _) = bench.engine.ask("POST", path, Some(body));
        assert_eq!(status, 400, "{path}");
    }
}

#[test]
fn failures_are_told_with_the_lines_of_the_dockerfile() {
    let bench = Bench::new("FROM busybox\nRUN echo a && \\\n  exit 7\nRUN never\n", &[]);
    let shown = bench.fails(&[]);
    assert_has(
        &shown,
        &[
            "process \"/bin/sh -c echo a &&   exit 7\" did not complete successfully: exit code: 7",
            "Dockerfile:2",
            ">>> RUN echo a",
            ">>>   exit 7",
        ],
    );
    bench.write("context/Dockerfile", "FROM busybox\nCPOY a b\n");
    let shown = bench.fails(&[]);
    assert_has(
        &shown,
        &["unknown instruction: CPOY", "COPY", ">>> CPOY a b"],
    );
    bench.write("context/Dockerfile", "FROM busybox\nCOPY none /\n");
    assert_has(&bench.fails(&[]), &["none", ">>> COPY none /"]);
    bench.write("context/Dockerfile", "FROM none.invalid/none\n");
    assert_has(
        &bench.fails(&[]),
        &["ERROR", "load metadata for none.invalid/none:latest"],
    );
    assert_has(&bench.fails(&["-f", "/nowhere/D"]), &["/nowhere"]);
}

#[test]
fn a_client_is_asked_for_what_has_changed_alone() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /c/\n",
        &[("a", "A"), ("d/b", "B"), ("gone/x", "X"), ("l", "L")],
    );
    std::fs::hard_link(bench.context.join("l"), bench.context.join("m")).unwrap();
    // What was written just now may be written again without showing it.
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    for path in ["a", "d/b", "gone/x", "l"] {
        let file = std::fs::File::open(bench.context.join(path)).unwrap();
        file.set_modified(before).unwrap();
    }
    bench.build(&[]);
    let all = bench.engine.path("data/build-contexts");
    let kept: Vec<_> = std::fs::read_dir(&all).unwrap().collect();
    let [Ok(kept)] = &kept[..] else {
        panic!("{kept:?}")
    };
    std::fs::write(kept.path().join("files/a"), "K").unwrap();
    bench.write("context/d/b", "BB");
    std::fs::remove_dir_all(bench.context.join("gone")).unwrap();
    bench.write("context/gone", "G");
    bench.write("context/e/f", "F");
    bench.build(&[]);
    let listed = "cd /c && cat a d/b gone e/f l m && busybox stat -c %h a l m && ls -A";
    assert_eq!(
        bench.shell(listed),
        "KBBGFLL1\n1\n1\nDockerfile\na\nd\ne\ngone\nl\nm"
    );
    std::fs::remove_file(bench.context.join("gone")).unwrap();
    bench.write("context/gone/x", "XX");
    bench.build(&[]);
    assert_eq!(bench.shell("cat /c/a /c/d/b /c/gone/x /c/m"), "KBBXXL");
    bench.assert_clean();
}

#[test]
fn the_context_is_what_the_dockerfile_and_its_ignore_file_say() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /all/\nRUN --mount=target=/m ls /m > /mounted\n",
        &[
            (".dockerignore", "*.log\n!keep.log\nskip\n"),
            ("a.log", ""),
            ("keep.log", "kept"),
            ("skip/x", ""),
            ("d/e/run.sh", "#!/bin/sh\n"),
            ("ä b", "umlaut"),
        ],
    );
    let executable = std::fs::Permissions::from_mode(0o4751);
    std::fs::set_permissions(bench.context.join("d/e/run.sh"), executable).unwrap();
    symlink("/etc/passwd", bench.context.join("link")).unwrap();
    std::fs::hard_link(bench.context.join("d/e/run.sh"), bench.context.join("z")).unwrap();
    std::fs::write(bench.context.join("large"), vec![7; 3 << 20]).unwrap();
    for at in 0..300 {
        bench.write(&format!("context/many/{at}"), &at.to_string());
    }
    bench.build(&[]);
    assert_eq!(
        bench.shell("cd /all && ls -A; readlink link; stat -c '%a %s' d/e/run.sh large z; cat keep.log ??' b'; ls many | wc -l; cat many/299"),
        ".dockerignore\nDockerfile\nd\nkeep.log\nlarge\nlink\nmany\nz\n?? b\n/etc/passwd\n4751 10\n644 3145728\n4751 10\nkeptumlaut300\n299"
    );
    assert_has(&bench.shell("cat /mounted"), &["keep.log", "many"]);
    // Its own ignore file counts before the context's.
    bench.write("context/other", "FROM busybox\nCOPY . /all/\n");
    bench.write("context/other.dockerignore", "many\n*.log\n");
    let other = bench.path("context/other");
    bench.build(&["-f", &other]);
    assert_eq!(
        bench.shell("ls /all | grep -e many -e log; ls -d /all/skip"),
        "/all/skip"
    );
    bench.assert_clean();
}

#[test]
fn a_large_context_that_is_ignored_costs_nothing() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /c/\n",
        &[
            (".dockerignore", "large*\nsub\n!sub/kept\n"),
            ("kept", "k"),
            ("sub/kept", "s"),
        ],
    );
    // Thirty gigabytes, of which there is nothing on the disk.
    for name in ["large1", "large2", "sub/deep"] {
        let file = std::fs::File::create(bench.context.join(name)).unwrap();
        file.set_len(10 << 30).unwrap();
    }
    bench.build(&[]);
    let shown = bench.shell("cd /c; find . -type f | sort; cat kept sub/kept");
    assert_eq!(
        shown,
        "./.dockerignore\n./Dockerfile\n./kept\n./sub/kept\nks"
    );
    bench.assert_clean();
}

/// CVE-2024-1753, CVE-2024-9676, CVE-2026-33748, CVE-2026-44517: links of a context lead nowhere outside.
#[test]
fn attack_49_links_of_a_sent_context_lead_nowhere_outside() {
    let bench = Bench::new("", &[("d/f", "f")]);
    std::fs::write(bench.engine.path("outside"), "of the host").unwrap();
    symlink(bench.engine.path("outside"), bench.context.join("absolute")).unwrap();
    symlink("../outside", bench.context.join("relative")).unwrap();
    symlink("..", bench.context.join("up")).unwrap();
    symlink("/", bench.context.join("root")).unwrap();
    for source in [
        "absolute",
        "relative",
        "up/outside",
        "root/etc/shadow",
        "../outside",
    ] {
        for line in [
            format!("COPY {source} /stolen"),
            format!("ADD {source} /stolen"),
            format!("RUN --mount=target=/m,source={source} cat /m"),
        ] {
            bench.write("context/Dockerfile", &format!("FROM busybox\n{line}\n"));
            let said = bench.fails(&[]);
            assert!(!said.contains("of the host"), "{line}: {said}");
            assert!(!said.contains("root:"), "{line}: {said}");
        }
    }
    // A link in a directory is copied as it is, and a target that is one stays inside of the image.
    let outside = bench.path("");
    bench.write(
        "context/Dockerfile",
        &format!(
            "FROM busybox\nCOPY . /all/\nRUN ln -s {outside} /out && ln -s ../../../.. /up\n\
             COPY d/f /out/f\nCOPY d/f /up/f\nWORKDIR /out/w\n"
        ),
    );
    bench.build(&[]);
    assert_eq!(
        bench.shell("cat /f; cd /all; readlink relative"),
        "f../outside"
    );
    assert!(!bench.engine.path("f").exists() && !bench.engine.path("w").exists());
    bench.assert_clean();
}

#[test]
fn dockerfiles_and_contexts_come_from_standard_input() {
    let bench = Bench::new("FROM busybox\nCOPY a /\n", &[("a", "A")]);
    let with_input = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["build", "-t", "t"], arguments].concat();
        let mut child = bench
            .buildx(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    let context = bench.context.display().to_string();
    with_input(
        &["-f", "-", &context],
        b"FROM busybox\nCOPY a /from-input\n",
    );
    assert_eq!(bench.shell("cat /from-input"), "A");
    with_input(&["-"], b"FROM busybox\nRUN echo alone > /alone\n");
    assert_eq!(bench.shell("cat /alone"), "alone");
    let tar = Command::new("tar")
        .args(["-C", &context, "-c", "."])
        .output();
    with_input(&["-"], &tar.unwrap().stdout);
    assert_eq!(bench.shell("cat /a"), "A");
    bench.assert_clean();
}

#[test]
fn outputs_go_where_they_are_asked_to() {
    let bench = Bench::new(
        "FROM scratch AS files\nCOPY a /d/\nCOPY links /\nFROM busybox\nRUN echo b > /b\n",
        &[("a", "A"), ("links/x", "")],
    );
    symlink("d/a", bench.context.join("links/link")).unwrap();
    let (out, tar) = (bench.path("out"), bench.path("out.tar"));
    let said = bench.try_build(&["--target", "files", "-o", &out]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(
        std::fs::read_to_string(bench.engine.path("out/d/a")).unwrap(),
        "A"
    );
    assert_eq!(
        std::fs::read_link(bench.engine.path("out/link")).unwrap(),
        Path::new("d/a")
    );
    let said = bench.try_build(&["--target", "files", "-o", &format!("type=tar,dest={tar}")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = Command::new("tar").args(["-tf", &tar]).output().unwrap();
    assert_has(&String::from_utf8(listed.stdout).unwrap(), &["d/a", "link"]);
    let said = bench.try_build(&["-o", "type=cacheonly"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(bench.engine.ok(&["images", "-q"]).lines().count(), 1);
    let (id, metadata) = (bench.path("id"), bench.path("metadata"));
    bench.build(&["--iidfile", &id, "--metadata-file", &metadata]);
    let format = ["inspect", "--type", "image", "--format", "{{.Id}}", "t"];
    let image = bench.engine.ok(&format);
    assert_eq!(std::fs::read_to_string(&id).unwrap(), image);
    let metadata = std::fs::read_to_string(&metadata).unwrap();
    assert_has(&metadata, &[&image, "docker.io/library/t:latest"]);
    bench.assert_clean();
}

#[test]
fn commands_get_what_the_client_gives_them() {
    let bench = Bench::new(
        "FROM base\nCOPY --from=files n /n\n\
         RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=V sh -c 'cat /run/secrets/file; echo $V' > /seen\n\
         RUN grep -h example /etc/hosts > /hosts; ulimit -n > /limit; df -k /dev/shm | tail -n 1 > /shm\n\
         RUN --mount=type=secret,id=none ls /run/secrets > /none 2>&1 || true\n",
        &[],
    );
    bench.write("named/n", "named");
    bench.write("secret", "from a file");
    let (named, secret) = (bench.path("named"), bench.path("secret"));
    let context = bench.context.display().to_string();
    let mut command = bench.buildx(&[
        "build",
        "-t",
        "t",
        "--build-context",
        "base=docker-image://busybox",
        "--build-context",
        &format!("files={named}"),
        "--secret",
        &format!("id=file,src={secret}"),
        "--secret",
        "id=variable,env=GIVEN",
        "--add-host",
        "example:10.1.2.3",
        "--ulimit",
        "nofile=321:400",
        "--shm-size",
        "8m",
        "--network",
        "none",
        &context,
    ]);
    let said = said(command.env("GIVEN", "a variable").output().unwrap());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(
        bench.shell("cat /n /seen /hosts /limit"),
        "namedfrom a filea variable\n10.1.2.3\texample\n321"
    );
    assert_has(&bench.shell("cat /shm"), &["8192"]);
    bench.assert_clean();
}

#[test]
fn a_build_ends_with_its_client() {
    let bench = Bench::new("FROM busybox\nRUN echo begun; sleep 1000\n", &[]);
    let context = bench.context.display().to_string();
    let mut child = bench
        .buildx(&["build", "--progress", "plain", &context])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    bench.engine.until("the command runs", || {
        !bench.engine.ok(&["ps", "-q"]).is_empty()
    });
    // `timeout` passes it on.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    bench.assert_clean();
}

#[test]
fn what_is_not_supported_is_told() {
    let bench = Bench::new("FROM busybox\nCOPY Dockerfile /\n", &[]);
    for (arguments, expected) in [
        (
            &["--cache-from", "type=azblob,account_url=a,name=c"][..],
            "the cache of type",
        ),
        (
            &["--cache-to", "type=inline,mode=max"],
            "an inline cache has",
        ),
        (
            &["-o", "type=image,compression=estargz"],
            "the compression estargz",
        ),
        (&["--build-arg", "BUILDKIT_SYNTAX=a/b"], "by a frontend"),
    ] {
        assert_has(&bench.fails(arguments), &[expected]);
    }
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let bench = Bench::new("FROM busybox\nRUN echo a > /a\n", &[]);
    bench.build(&[]);
    let usage = said(bench.buildx(&["du", "--verbose"]).output().unwrap());
    assert_has(&usage.stdout, &["RUN echo a > /a", "regular"]);
    let pruned = said(bench.buildx(&["prune", "-af"]).output().unwrap());
    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    let usage = said(bench.buildx(&["du", "--verbose"]).output().unwrap());
    assert!(!usage.stdout.contains("RUN echo"), "{}", usage.stdout);
    assert!(!bench.build(&[]).contains("CACHED"));
}

/// Docker's client before it had buildx, as Debian 12 has it.
#[test]
fn clients_without_the_gateway_build_the_same() {
    let bench = Bench::new(
        "FROM busybox\nARG A\nCOPY a /\nRUN --mount=type=secret,id=s cat /run/secrets/s > /s; echo $A >> /s; exit $CODE\n",
        &[("a", "A"), ("large", "")],
    );
    bench.write("secret", "hidden");
    let (context, secret) = (bench.context.display().to_string(), bench.path("secret"));
    let secret = format!("id=s,src={secret}");
    let build = |arguments: &[&str]| {
        let fixed = [
            "build",
            "--progress",
            "plain",
            "--secret",
            &secret,
            &context,
        ];
        let arguments = [&fixed[..], arguments].concat();
        let mut command = bench.engine.client("/usr/bin/docker", &arguments);
        command.env("DOCKER_CONFIG", bench.engine.path("docker-config"));
        said(command.output().unwrap())
    };
    let built = build(&["-t", "t", "--build-arg", "A=given", "--label", "l=m"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_has(
        &built.stderr,
        &[
            "[1/3] FROM docker.io/library/busybox",
            "naming to docker.io/library/t",
        ],
    );
    assert_eq!(bench.shell("cat /a /s"), "Ahiddengiven");
    let out = bench.path("out");
    let built = build(&["-o", &out, "--build-arg", "A=given"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(
        std::fs::read_to_string(bench.engine.path("out/a")).unwrap(),
        "A"
    );
    bench.write("context/Dockerfile", "FROM busybox\nRUN exit 3\n");
    let failed = build(&[]);
    assert_ne!(failed.code, 0);
    assert_has(&failed.stderr, &["exit code: 3"]);
    bench.assert_clean();
}

/// An agent without keys, and a command that asks it for them.
#[test]
fn commands_reach_the_clients_ssh_agent() {
    let bench = Bench::new(
        "FROM busybox\nCOPY ask /bin/\n\
         RUN --mount=type=ssh,mode=0666 stat -c %a $SSH_AUTH_SOCK > /mode; ask $SSH_AUTH_SOCK > /answer\n\
         RUN --mount=type=ssh,id=other,required=false echo $SSH_AUTH_SOCK > /none\n",
        &[],
    );
    support::agent::compile_ask(&bench.engine, "context/ask");
    let path = bench.engine.path("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 5];
            // The client looks whether somebody listens, and asks what the command asks.
            while std::io::Read::read_exact(&mut stream, &mut asked).is_ok() {
                assert_eq!(asked, [0, 0, 0, 1, 11]);
                stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
            }
        }
    });
    bench.build(&["--ssh", &format!("default={}", path.display())]);
    assert_eq!(
        bench.shell("cat /mode /answer /none"),
        "666\n0 0 0 5 12 0 0 0 0"
    );
    bench.assert_clean();
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN --mount=type=ssh,required true\n",
    );
    assert_has(&bench.fails(&[]), &["ssh agent default: not found"]);
}

#[test]
fn base_images_come_from_registries_that_know_the_client() {
    let registry = support::registry::Registry::locked();
    let (base, mine) = (registry.name("base:1"), registry.name("mine:1"));
    let bench = Bench::new(&format!("FROM {base}\nRUN echo 1 > /1\n"), &[]);
    bench.engine.ok(&["tag", "busybox", &base]);
    let as_user = |arguments: &[&str]| {
        let mut command = bench.engine.hull(arguments);
        let config = bench.engine.path("docker-config");
        let said = said(command.env("DOCKER_CONFIG", config).output().unwrap());
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    as_user(&["login", "-u", "me", "-p", "secret", &registry.address]);
    as_user(&["push", "-q", &base]);
    bench.engine.ok(&["rmi", &base]);
    // It is not here, so it may have instructions that use any file.
    let shown = bench.build(&[]);
    assert_has(
        &shown,
        &[&format!("load metadata for {base}"), "RUN echo 1 > /1"],
    );
    let before = registry.asked(&["/v2/base/manifests/1"]);
    bench.build(&["--pull"]);
    assert!(registry.asked(&["/v2/base/manifests/1"]) > before);
    // The engine pushes it as that user, too.
    let said = bench.try_build(&["-t", &mine, "--push"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(registry.asked(&["PUT /v2/mine/manifests/1"]) > 0);
    std::fs::remove_dir_all(bench.engine.path("docker-config")).unwrap();
    bench.engine.ok(&["rmi", &base]);
    assert_has(
        &bench.fails(&["--no-cache"]),
        &[&format!("load metadata for {base}")],
    );
}

#[test]
fn dockerfiles_are_checked_and_their_targets_listed() {
    let dockerfile = "FROM busybox AS one\nCMD echo a\nFROM one AS two\nCOPY a /\n";
    let bench = Bench::new(dockerfile, &[("a", "A")]);
    let asked = |what: &str| {
        let context = bench.context.display().to_string();
        let mut command = bench.buildx(&["build", "--print", what, &context]);
        let said = said(command.env("BUILDX_EXPERIMENTAL", "1").output().unwrap());
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    assert_has(&asked("targets"), &["TARGET", "one", "two (default)"]);
    assert_has(
        &asked("lint"),
        &["WARNING: JSONArgsRecommended", ">>> CMD echo a"],
    );
    assert_eq!(bench.engine.ok(&["images", "-q"]).lines().count(), 1);
    // A build says it in the end.
    let shown = bench.build(&["--target", "one"]);
    assert_has(&shown, &["1 warning found", "JSONArgsRecommended"]);
    bench.assert_clean();
}
