//! Building images, by hull's client and by Docker's with its classic builder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Engine, Said, said};

/// A directory to build, and the engine that does.
struct Bench {
    engine: Engine,
    context: PathBuf,
}

impl Bench {
    fn new(dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let engine = Engine::new();
        let context = engine.path("context");
        std::fs::create_dir(&context).unwrap();
        let bench = Self { engine, context };
        bench.write("Dockerfile", dockerfile);
        for (path, content) in files {
            bench.write(path, content);
        }
        bench
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.context.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn try_build(&self, arguments: &[&str]) -> Said {
        let context = self.context.display().to_string();
        self.engine
            .run(&[&["build"], arguments, &[&context]].concat())
    }

    /// Builds as `t`; what was shown.
    fn build(&self, arguments: &[&str]) -> String {
        let said = self.try_build(&[&["-t", "t"], arguments].concat());
        assert_eq!(
            said.code,
            0,
            "{}\n{}\nengine: {}",
            said.stdout,
            said.stderr,
            self.engine.log()
        );
        said.stderr
    }

    /// Builds in vain; what was said.
    fn fails(&self, arguments: &[&str]) -> String {
        let said = self.try_build(arguments);
        assert_ne!(said.code, 0, "{}", said.stderr);
        self.assert_clean();
        said.stderr
    }

    fn docker_build(&self, arguments: &[&str]) -> Said {
        let context = self.context.display().to_string();
        let arguments = [&["build"], arguments, &[&context]].concat();
        let mut command = self.engine.client("docker", &arguments);
        said(command.env("DOCKER_BUILDKIT", "0").output().unwrap())
    }

    /// What a command says in a container of `t`.
    fn shell(&self, script: &str) -> String {
        self.engine
            .ok(&["run", "--rm", "--network", "none", "t", "sh", "-c", script])
    }

    fn inspect(&self, format: &str) -> String {
        self.engine
            .ok(&["inspect", "--type", "image", "--format", format, "t"])
    }

    /// No container, snapshot, secret or temporary file is left.
    fn assert_clean(&self) {
        self.engine.assert_nothing_left();
        assert_eq!(self.engine.ok(&["ps", "-aq"]), "");
        for directory in ["data/tmp", "run/build-secrets"] {
            let path = self.engine.path(directory);
            self.engine
                .until("temporary files go", || names(&path).is_empty());
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

const COMMON: &str = r#"ARG BASE=busybox
FROM $BASE AS one
ARG WHO=world
ENV A=1 B="two words"
RUN echo hello $WHO $A > /out
WORKDIR /app/x
COPY a.txt sub /app/
COPY --chown=user --chmod=600 a.txt b/
FROM scratch AS unused
COPY none /
FROM one
COPY --from=one /out /out2
RUN <<EOF
set -e
cat /out2
[ "$A" = 1 ]
EOF
LABEL l="$B"
EXPOSE 80 90/udp
USER user
ENTRYPOINT ["cat"]
CMD ["/out2"]
"#;

/// cron, for one, reads no table of times that has several names.
#[test]
fn a_file_of_a_context_has_one_name_in_the_image() {
    let bench = Bench::new(
        "FROM busybox\nCOPY a /one/\nCOPY a /two/\nCOPY . /all/\nRUN cat /all/sub/s >> /all/a\n",
        &[("a", "A"), ("sub/s", "S")],
    );
    let names =
        "for f in one/a two/a all/a all/sub/s; do busybox stat -c %h /$f; cat /$f; echo; done";
    bench.build(&[]);
    assert_eq!(bench.shell(names), "1\nA\n1\nA\n1\nAS\n1\nS");
    bench.write("sub/s", "T");
    bench.build(&[]);
    assert_eq!(bench.shell(names), "1\nA\n1\nA\n1\nAT\n1\nT");
    bench.assert_clean();
}

impl Bench {
    /// What the engine says of the files that it keeps of the context.
    fn kept_marks(&self) -> serde_json::Value {
        let name = self.context.canonicalize().unwrap();
        let path = format!("/build/context?name={}", name.display());
        let (status, body) = self.engine.ask("GET", &path, None);
        assert!(status == 200 || status == 404, "{status}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["marks"].clone()
    }

    /// Builds until the engine is sure of a file: its times must be older than the last look at it.
    fn build_until_kept(&self, path: &str, arguments: &[&str]) {
        self.engine.until("the file is kept", || {
            self.build(arguments);
            self.kept_marks()[path]
                .as_str()
                .is_some_and(|mark| !mark.is_empty())
        });
    }

    /// The directory of the context that is kept.
    fn kept(&self) -> PathBuf {
        let all = self.engine.path("data/build-contexts");
        let [one] = &names(&all)[..] else {
            panic!("{:?}", names(&all))
        };
        all.join(one)
    }
}

#[test]
fn of_a_context_that_is_kept_only_what_has_changed_is_sent() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /c/\n",
        &[
            ("a", "A"),
            ("d/b", "B"),
            ("d/c", "C"),
            ("gone/x/y", "Y"),
            ("large", &"L".repeat(1 << 20)),
        ],
    );
    symlink("a", bench.context.join("link")).unwrap();
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000"];
    bench.build_until_kept("a", &epoch);
    let list = "cd /c && busybox find . | busybox sort | busybox xargs busybox stat -c '%n %h %a'";
    let listed = bench.shell(list);
    assert!(
        listed.contains("./large 1 644") && listed.contains("./a 1 644"),
        "{listed}"
    );
    // Nobody else writes there: so it shows whether the client has sent the file.
    std::fs::write(bench.kept().join("files/a"), "K").unwrap();
    bench.write("d/b", "BB");
    bench.build(&epoch);
    assert_eq!(bench.shell("cat /c/a /c/d/b /c/link"), "KBBK");
    // A large one is the layer's alone.
    assert!(bench.kept_marks()["large"].is_null() && !bench.kept().join("files/large").exists());
    std::fs::write(bench.kept().join("files/a"), "A").unwrap();
    // Every way to change.
    std::fs::remove_file(bench.context.join("d/c")).unwrap();
    bench.write("d/c/e", "E");
    std::fs::remove_dir_all(bench.context.join("gone")).unwrap();
    bench.write("gone", "G");
    bench.write("new/n", "N");
    let mode = std::fs::Permissions::from_mode(0o750);
    std::fs::set_permissions(bench.context.join("a"), mode).unwrap();
    std::fs::remove_file(bench.context.join("link")).unwrap();
    symlink("d/b", bench.context.join("link")).unwrap();
    bench.build(&epoch);
    assert_eq!(
        bench.shell("cd /c && cat a d/b d/c/e gone new/n link"),
        "ABBEGNBB"
    );
    let kept = bench.inspect("{{.Id}}");
    // The same as one that nobody has seen.
    let usage = bench.engine.ok(&["builder", "du", "--verbose"]);
    assert!(usage.contains("source.local"), "{usage}");
    bench.engine.ok(&["builder", "prune", "-a", "-f"]);
    assert!(names(&bench.engine.path("data/build-contexts")).is_empty());
    bench.engine.ok(&["rmi", "-f", "t"]);
    bench.build(&epoch);
    assert_eq!(bench.inspect("{{.Id}}"), kept);
    bench.assert_clean();
}

#[test]
fn a_kept_context_is_of_one_build_at_a_time() {
    let mut bench = Bench::new(
        "FROM busybox\nARG V\nCOPY . /c/\nRUN echo $V; cat /c/*\n",
        &[("a", "A")],
    );
    bench.build_until_kept("a", &[]);
    let context = bench.context.display().to_string();
    for round in 0..3 {
        bench.write("b", &round.to_string());
        let builds = ["1", "2", "3"].map(|value| {
            let argument = format!("V={round}{value}");
            let mut command = bench
                .engine
                .hull(&["build", "--build-arg", &argument, &context]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        for build in builds {
            let said = build.wait_with_output().unwrap();
            assert!(said.status.success(), "{said:?}");
        }
        bench.build(&[]);
        assert_eq!(bench.shell("cat /c/a /c/b"), format!("A{round}"));
    }
    let (status, _) = (bench.engine).ask("GET", "/build/context?name=nothing", None);
    assert_eq!(status, 404);
    // It is there for the next engine, and not believed when the machine was started since.
    bench.engine.kill();
    bench.engine.start();
    std::fs::write(bench.kept().join("files/a"), "K").unwrap();
    bench.build(&["--no-cache"]);
    assert_eq!(bench.shell("cat /c/a"), "K");
    bench.engine.kill();
    let index = bench.kept().join("index");
    let mut bytes = std::fs::read(&index).unwrap();
    // The first byte of the boot ID, behind eight bytes and its length.
    bytes[10] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    bench.engine.start();
    assert!(names(&bench.engine.path("data/build-contexts")).is_empty());
    bench.build(&["--no-cache"]);
    assert_eq!(bench.shell("cat /c/a"), "A");
    bench.assert_clean();
}

#[test]
fn both_clients_build_the_same() {
    let bench = Bench::new(COMMON, &[("a.txt", "A"), ("sub/s", "S")]);
    let said = bench.docker_build(&["-t", "t", "--build-arg", "WHO=you", "--label", "x=y"]);
    assert_eq!(said.code, 0, "{said:?}");
    for line in [
        "Step 1/15 : FROM $BASE AS one",
        " ---> Running in ",
        "hello you 1",
        "Removing intermediate container",
        "Successfully built ",
        "Successfully tagged t:latest",
    ] {
        assert!(said.stdout.contains(line), "{line}: {}", said.stdout);
    }
    let id = bench.inspect("{{.Id}}");
    assert_eq!(
        bench.engine.ok(&["run", "--rm", "--network", "none", "t"]),
        "hello you 1"
    );
    assert_eq!(
        bench.inspect("{{.Config.User}} {{json .Config.ExposedPorts}} {{.Config.Labels.l}} {{.Config.Labels.x}} {{.Config.WorkingDir}}"),
        "user {\"80/tcp\":{},\"90/udp\":{}} two words y /app/x"
    );
    let history = bench
        .engine
        .ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "t"]);
    assert!(
        history.contains("RUN |1 WHO=you /bin/sh -c echo hello $WHO $A > /out # buildkit"),
        "{history}"
    );
    let listed = bench.engine.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--user=0",
        "--entrypoint",
        "stat",
        "t",
        "-c",
        "%n %u:%g %a",
        "/app/a.txt",
        "/app/s",
        "/app/x/b",
        "/app/x/b/a.txt",
    ]);
    // A directory that is made for files has their mode, as far as it is octal.
    assert_eq!(
        listed,
        "/app/a.txt 0:0 644\n/app/s 0:0 644\n/app/x/b 1000:1000 600\n/app/x/b/a.txt 1000:1000 600"
    );
    // The other client, and another time: the same image, all of it from the cache.
    let shown = bench.build(&["--build-arg", "WHO=you", "--label", "x=y"]);
    assert!(shown.contains("15 steps, 6 cached"), "{shown}");
    assert_eq!(bench.inspect("{{.Id}}"), id);
    bench.assert_clean();
}

#[test]
fn the_cache_knows_contents_and_not_times() {
    let bench = Bench::new(
        "FROM busybox\nCOPY a b /in/\nRUN cat /in/*\nARG V\nRUN echo $V\n",
        &[("a", "A"), ("b", "B")],
    );
    let built = |arguments: &[&str]| {
        let shown = bench.build(arguments);
        let last = shown.lines().last().unwrap().to_owned();
        let cached = last.split(", ").nth(1).unwrap().to_owned();
        (cached, shown)
    };
    assert_eq!(built(&[]).0, "0 cached");
    let first = bench.inspect("{{.Id}}");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5000);
    std::fs::File::open(bench.context.join("a"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert_eq!(built(&[]).0, "3 cached");
    assert_eq!(bench.inspect("{{.Id}}"), first);
    bench.write("b", "C");
    let (cached, shown) = built(&["--explain"]);
    assert_eq!(cached, "0 cached", "{shown}");
    assert!(shown.contains("the file /b has changed"), "{shown}");
    assert!(shown.contains("what is below has changed"), "{shown}");
    let (cached, shown) = built(&["--explain", "--build-arg", "V=2"]);
    assert_eq!(cached, "2 cached", "{shown}");
    assert!(shown.contains("the argument V is new"), "{shown}");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bench.context.join("a"), mode).unwrap();
    assert_eq!(built(&[]).0, "0 cached");
    assert_eq!(built(&["--no-cache"]).0, "0 cached");
    assert_eq!(built(&["--no-cache-filter", "stage-0"]).0, "0 cached");
    assert_eq!(built(&["--no-cache-filter", "other"]).0, "3 cached");
    // The records outlive the engine, and go when they are told to.
    let usage = bench.engine.ok(&["builder", "du", "--verbose"]);
    assert!(usage.contains("regular"), "{usage}");
    bench.engine.ok(&["builder", "prune", "-a", "-f"]);
    let usage = bench.engine.ok(&["builder", "du", "--verbose"]);
    assert!(!usage.contains("regular"), "{usage}");
    assert_eq!(built(&[]).0, "0 cached");
    bench.assert_clean();
}

#[test]
fn results_outlive_the_engine_and_layers_their_images() {
    let mut bench = Bench::new("FROM busybox\nRUN echo 1 > /1\n", &[]);
    bench.build(&[]);
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.kill();
    bench.engine.start();
    let shown = bench.build(&[]);
    assert!(shown.contains("2 steps, 1 cached"), "{shown}");
    assert_eq!(bench.shell("cat /1"), "1");
}

#[test]
fn an_image_brings_its_cache_along() {
    let bench = Bench::new(
        "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY a /a\n",
        &[("a", "1")],
    );
    let stamp = |image: &str| {
        bench
            .engine
            .words(&format!("run --rm --network none {image} cat /stamp"))
    };
    let build = |arguments: &[&str]| {
        bench.engine.words("builder prune -af");
        let said = bench.docker_build(arguments);
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    };
    build(&["-t", "made", "--build-arg", "BUILDKIT_INLINE_CACHE=1"]);
    // One that is not there is told of, and no more.
    let said = build(&[
        "-t",
        "again",
        "--cache-from",
        "made",
        "--cache-from",
        "missing",
    ]);
    assert!(said.contains("the cache missing is of no use"), "{said}");
    assert_eq!(stamp("again"), stamp("made"));
    build(&["-t", "other"]);
    assert_ne!(stamp("other"), stamp("made"));
    // What the image was not built of it is no cache for.
    bench.write(
        "Dockerfile",
        "FROM busybox\nENV A=1\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY a /a\n",
    );
    build(&["-t", "changed", "--cache-from", "made"]);
    assert_ne!(stamp("changed"), stamp("made"));
    // And an image without one is none.
    let said = build(&["-t", "last", "--cache-from", "other"]);
    assert!(
        said.contains("the image has no cache of this engine in it"),
        "{said}"
    );
}

#[test]
fn a_linked_layer_is_used_again_on_another_base() {
    let bench = Bench::new("", &[("a", "A")]);
    let dockerfile = |before: &str| {
        format!(
            "FROM busybox\nRUN mkdir -m 1777 /open && echo {before} > /before\nCOPY --link --chown=user a /open/\n"
        )
    };
    // Times of directories are part of a layer that has them.
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000"];
    bench.write("Dockerfile", &dockerfile("2"));
    bench.build(&epoch);
    bench.write("Dockerfile", &dockerfile("3"));
    let shown = bench.build(&epoch);
    assert!(shown.contains("3 steps, 1 cached"), "{shown}");
    assert_eq!(
        bench.shell("cat /before /open/a; stat -c '%a %U' /open /open/a"),
        "3\nA1777 root\n644 user"
    );
}

#[test]
fn the_same_inputs_give_the_same_image() {
    let dockerfile =
        "FROM busybox\nWORKDIR /w\nCOPY a sub/\nCOPY <<X /x\n1\nX\nRUN echo 1 > /1; mkdir /2\n";
    let bench = Bench::new(dockerfile, &[("a", "A")]);
    let arguments = ["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000"];
    bench.build(&arguments);
    let first = bench.inspect("{{.Id}} {{.Created}}");
    bench.build(&arguments);
    assert_eq!(bench.inspect("{{.Id}} {{.Created}}"), first);
    assert!(first.ends_with("2001-09-09T01:46:40Z"), "{first}");
    assert_eq!(
        bench.shell("stat -c %Y /1 /2 /x /w/sub/a /w"),
        ["1000000000"; 5].join("\n")
    );
}

#[test]
fn files_go_where_they_belong() {
    let bench = Bench::new(
        r#"FROM busybox AS base
RUN mkdir /d /real && ln -s /real /link && touch /d/old
FROM base
COPY *.txt /d/
COPY 1.txt /d/named
COPY 1.txt /link/
COPY --link 1.txt /tmp/linked
COPY --parents sub/deep/x.o sub/./deep/y.c /p/
COPY --exclude=*.o sub/deep /e/
COPY <<A <<'B' /docs/
path $PATH
A
path $PATH
B
COPY --from=base --chown=7:8 /d/old /o
COPY ["with space", "/with space"]
ADD files.tar /t/
ADD --unpack=false files.tar /raw/
COPY --chmod=u=rwx,go=r 1.txt /modes
"#,
        &[
            ("1.txt", "1"),
            ("2.txt", "2"),
            ("sub/deep/x.o", "x"),
            ("sub/deep/y.c", "y"),
            ("with space", "s"),
        ],
    );
    let tar = std::process::Command::new("tar")
        .args(["--owner=5", "--group=6", "-C"])
        .arg(&bench.context)
        .args(["-cf", "files.tar", "sub"])
        .current_dir(&bench.context)
        .status();
    assert!(tar.unwrap().success());
    bench.build(&[]);
    assert_eq!(
        bench.shell("cat /d/1.txt /d/2.txt /d/named /real/1.txt /tmp/linked"),
        "12111"
    );
    assert_eq!(
        bench.shell("stat -c %a /tmp"),
        bench.engine.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "stat",
            "-c",
            "%a",
            "/tmp"
        ])
    );
    assert_eq!(
        bench.shell("cat /p/sub/deep/x.o /p/deep/y.c; ls /e"),
        "xyy.c"
    );
    assert_eq!(
        bench.shell("cat /docs/A /docs/B"),
        "path /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\npath $PATH"
    );
    assert_eq!(
        bench.shell("stat -c %u:%g /o /t/sub/deep/y.c; stat -c %a /modes; cat '/with space'"),
        "7:8\n5:6\n744\ns"
    );
    assert_eq!(bench.shell("tar -tf /raw/files.tar | head -n 1"), "sub/");
}

#[test]
fn owners_and_links_are_as_buildkits() {
    let bench = Bench::new(
        r#"FROM busybox AS base
RUN mkdir -m 700 /d && echo s > /d/s && chown -R 9:9 /d && ln -s s /d/l
RUN echo named:x:1500:1600::/:/bin/sh >> /etc/passwd

FROM base AS last
ARG TARGETSTAGE
USER named
WORKDIR /w/x
USER root
COPY --chown=named f /named
COPY --chown=12 f /number
COPY --chown=3:4 f /made/by/
COPY --from=base /d /top
COPY --from=base /d/l /linked
COPY l /links/
COPY f none* /some/
COPY back\\slash /back
ADD --chown=5:6 a.tar /unpacked
RUN --mount=type=cache,id=c,from=base,source=/d,target=/c cat /c/s > /first && echo more >> /c/s
RUN --mount=type=cache,id=c,from=base,source=/d,target=/c cat /c/s > /second
RUN echo $TARGETSTAGE > /stage
"#,
        &[("f", "f"), ("back\\slash", "b")],
    );
    symlink("f", bench.context.join("l")).unwrap();
    let (context, tar) = (bench.context.display().to_string(), "a.tar".to_owned());
    let tar = bench.context.join(tar).display().to_string();
    run("tar", &["-C", &context, "-cf", &tar, "f"]);
    bench.build(&[]);
    let owners = "stat -c '%n %u:%g %a' /w /w/x /named /number /made /made/by /made/by/f /top /top/s /unpacked /unpacked/f";
    assert_eq!(
        bench.shell(owners),
        "/w 1500:1600 755\n/w/x 1500:1600 755\n/named 1500:1600 644\n/number 12:12 644\n/made 3:4 755\n\
         /made/by 3:4 755\n/made/by/f 3:4 644\n/top 0:0 755\n/top/s 9:9 644\n/unpacked 5:6 755\n/unpacked/f 5:6 644"
    );
    assert_eq!(
        bench.shell("cat /linked /links/l; readlink /linked /links/l; ls /some; cat /back /first /second /stage"),
        "s\nff\nbs\ns\nmore\nlast"
    );
}

#[test]
fn the_history_is_as_buildkits() {
    let bench = Bench::new(
        r#"FROM busybox
MAINTAINER me
ARG A=$NONE
ARG GIVEN=default B
ENV E=e
COPY --chown=1 --link f $E ./
COPY <<EOF /doc
text
EOF
RUN true $A
EXPOSE 80 90-91/udp
ONBUILD RUN true
HEALTHCHECK --interval=90s CMD x
ENTRYPOINT ["a", "b \"c\""]
CMD d
"#,
        &[("f", "f"), ("e", "e")],
    );
    bench.build(&["--build-arg", "GIVEN=given"]);
    let history = ["history", "--no-trunc", "--format", "{{.CreatedBy}}", "t"];
    let history = bench.engine.ok(&history);
    let told: Vec<&str> = history.lines().rev().collect();
    let expected = [
        "MAINTAINER me",
        "ARG A=",
        "ARG GIVEN=given B",
        "ENV E=e",
        "COPY --chown=1 f e ./ # buildkit",
        "COPY <<EOF /doc # buildkit",
        "RUN |3 A= GIVEN=given B= /bin/sh -c true $A # buildkit",
        "EXPOSE [80/tcp 90/udp 91/udp]",
        r#"HEALTHCHECK &{["CMD-SHELL" "x"] "1m30s" "0s" "0s" "0s" '\x00'}"#,
        r#"ENTRYPOINT ["a" "b \"c\""]"#,
        r#"CMD ["/bin/sh" "-c" "d"]"#,
    ];
    assert_eq!(told, expected);
    assert_eq!(
        bench.inspect("{{.Author}} {{.Config.ArgsEscaped}}"),
        "me true"
    );
}

#[test]
fn a_secret_can_be_as_large_as_a_bundle_of_certificates() {
    let bench = Bench::new(
        "FROM busybox\nRUN --mount=type=secret,id=ca wc -c < /run/secrets/ca > /bytes\n",
        &[],
    );
    let secret = bench.engine.path("bundle");
    std::fs::write(&secret, vec![b'x'; 500 << 10]).unwrap();
    let flag = format!("id=ca,src={}", secret.display());
    bench.build(&["--secret", &flag]);
    assert_eq!(bench.shell("cat /bytes"), "512000");
    bench.assert_clean();
    std::fs::write(&secret, vec![b'x'; 600 << 10]).unwrap();
    let refused = bench.fails(&["--secret", &flag]);
    assert!(refused.contains("the secrets have more than"), "{refused}");
}

#[test]
fn what_cannot_be_copied_is_told() {
    let files = [("1.txt", "1"), ("2.txt", "2"), ("sub/deep/x.o", "x")];
    let bench = Bench::new("", &files);
    for (dockerfile, expected) in [
        (
            "FROM busybox\nCOPY none /",
            "file not found in build context",
        ),
        (
            "FROM busybox\nCOPY 1.txt 2.txt /x",
            "must be a directory and end with a /",
        ),
        (
            "FROM busybox\nCOPY --chown=nobody-here 1.txt /",
            "nobody-here",
        ),
        ("FROM busybox\nCOPY --chmod=9 1.txt /", "invalid chmod"),
        ("FROM busybox\nCOPY sub/deep /etc/passwd", "non-directory"),
        ("FROM busybox\nADD http://127.0.0.1:1/x /", "refused"),
        ("FROM none-such-image:x\n", "none-such-image"),
        (
            "FROM busybox AS a\nCOPY --from=b x /\nFROM a AS b",
            "before it is defined",
        ),
    ] {
        bench.write("Dockerfile", dockerfile);
        let said = bench.fails(&[]);
        assert!(said.contains(expected), "{dockerfile}: {said}");
    }
}

#[test]
fn mounts_leave_no_trace() {
    let mut bench = Bench::new(
        r#"FROM busybox AS tools
RUN echo tool > /tool
FROM busybox
RUN --mount=type=secret,id=key,uid=1000 --mount=type=secret,id=absent stat -c '%u %a' /run/secrets/key && cat /run/secrets/key | wc -c && ! test -e /run/secrets/absent
RUN --mount=type=secret,id=key,env=KEY echo "${#KEY} long" && ! test -e /run/secrets/key
RUN --mount=type=cache,target=/cache/a echo x >> /cache/a/n && wc -l < /cache/a/n
RUN --mount=target=/src,rw cat /src/a && echo gone > /src/a
RUN --mount=target=/src cat /src/a && ! touch /src/b
RUN --mount=from=tools,source=/tool,target=/opt/bin/tool cat /opt/bin/tool
RUN --mount=type=tmpfs,target=/scratch/deep,size=1m touch /scratch/deep/x && touch /kept
"#,
        &[("a", "content\n"), ("secret", "very-hidden-words")],
    );
    let secret = format!("id=key,src={}", bench.context.join("secret").display());
    std::fs::write(bench.context.join(".dockerignore"), "secret\n").unwrap();
    let shown = bench.build(&["--secret", &secret]);
    for expected in [" 1000 400", " 17", " 17 long", " 1\n", " content", " tool"] {
        assert!(shown.contains(expected), "{expected:?}: {shown}");
    }
    assert_eq!(
        bench.shell("ls -d /run /cache /src /opt /scratch /kept 2>/dev/null; true"),
        "/kept"
    );
    // The cache mount stays; the secret is nowhere.
    let shown = bench.build(&["--secret", &secret, "--no-cache"]);
    assert!(shown.contains(" 2\n"), "{shown}");
    bench.assert_clean();
    bench.engine.kill();
    let found = std::process::Command::new("grep")
        .args(["-rl", "very-hidden-words"])
        .args([bench.engine.path("data"), bench.engine.path("run")])
        .output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
    bench.engine.start();
    bench.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=key,required=true true",
    );
    assert!(bench.fails(&[]).contains("secret key: not found"));
    bench.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=ssh,required true",
    );
    assert!(bench.fails(&[]).contains("ssh agent default: not found"));
}

#[test]
fn a_failed_command_leaves_nothing_and_its_code() {
    let bench = Bench::new("FROM busybox\nRUN echo before; exit 7\n", &[]);
    let said = bench.docker_build(&[]);
    assert_eq!(said.code, 7, "{said:?}");
    assert!(
        said.stderr
            .contains("The command '/bin/sh -c echo before; exit 7' returned a non-zero code: 7")
    );
    let said = bench.fails(&[]);
    assert!(
        said.contains("before") && said.contains("did not complete successfully: exit code: 7"),
        "{said}"
    );
    bench.write("Dockerfile", "FROM busybox\nRUN [\"/none\"]\n");
    assert!(bench.fails(&[]).contains("no such file"));
    bench.write("Dockerfile", "FROM busybox\nCPOY a b\n");
    let said = bench.fails(&[]);
    assert!(
        said.contains("did you mean COPY?") && said.contains("2 | CPOY a b"),
        "{said}"
    );
    let said = bench.docker_build(&[]);
    assert!(
        said.stderr
            .contains("dockerfile parse error on line 2: unknown instruction: CPOY"),
        "{said:?}"
    );
}

#[test]
fn a_client_that_is_killed_ends_its_build() {
    let bench = Bench::new("FROM busybox\nRUN echo running; sleep 1000\n", &[]);
    let context = bench.context.display().to_string();
    // The client itself, without a guard of its time that would outlive it.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["build", &context])
        .env("HULL_HOST", bench.engine.socket())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    bench.engine.until("the command runs", || {
        !bench.engine.ok(&["ps", "-q"]).is_empty()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    bench.engine.until("the container goes", || {
        bench.engine.ok(&["ps", "-aq"]).is_empty()
    });
    bench.assert_clean();
}

/// A small file system where the engine keeps its data. It goes with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Self {
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=24m",
                "small",
                &at.display().to_string(),
            ],
        );
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.display().to_string()]);
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn a_full_disk_ends_the_build_and_not_the_engine() {
    let mut engine = Engine::empty();
    engine.kill();
    let disk = SmallDisk::mount(tempfile::tempdir().unwrap().keep());
    std::fs::remove_dir_all(engine.path("data")).unwrap();
    symlink(&disk.0, engine.path("data")).unwrap();
    engine.start();
    engine.ok_with_input(
        &["import", "--change", "CMD [\"sh\"]", "-", "busybox"],
        &support::busybox_tar(),
    );
    let context = engine.path("context");
    std::fs::create_dir(&context).unwrap();
    let bench = Bench { engine, context };
    let free = || rustix::fs::statvfs(&disk.0).unwrap().f_bfree;
    bench.write("small", "s");
    bench.write("Dockerfile", "FROM busybox\nCOPY small /\n");
    bench.build(&[]);
    let before = free();
    // While a command writes, and while the context comes.
    bench.write(
        "Dockerfile",
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=64\n",
    );
    assert!(bench.fails(&[]).contains("No space left on device"));
    let large = std::fs::File::create(bench.context.join("large")).unwrap();
    std::io::copy(&mut std::io::repeat(7).take(64 << 20), &mut &large).unwrap();
    bench.write("Dockerfile", "FROM busybox\nCOPY large /\n");
    let said = bench.fails(&[]);
    assert!(said.contains("No space left on device"), "{said}");
    std::fs::remove_file(bench.context.join("large")).unwrap();
    bench
        .engine
        .until("the disk is as free as before", || free() + 64 >= before);
    bench.write("Dockerfile", "FROM busybox\nRUN echo goes on > /on\n");
    bench.build(&[]);
    assert_eq!(bench.shell("cat /on"), "goes on");
    bench.assert_clean();
}

#[test]
fn a_large_context_that_is_ignored_costs_nothing() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /c/\n",
        &[(".dockerignore", "large*\nsub\n"), ("kept", "k")],
    );
    // Thirty gigabytes, of which there is nothing on the disk.
    std::fs::create_dir(bench.context.join("sub")).unwrap();
    for name in ["large1", "large2", "sub/deep"] {
        let file = std::fs::File::create(bench.context.join(name)).unwrap();
        file.set_len(10 << 30).unwrap();
    }
    bench.build(&[]);
    assert_eq!(bench.shell("ls -A /c"), ".dockerignore\nDockerfile\nkept");
    let said = bench.docker_build(&["-t", "t"]);
    assert_eq!(said.code, 0, "{said:?}");
    bench.assert_clean();
}

#[test]
fn an_engine_that_is_killed_cleans_when_it_starts() {
    let mut bench = Bench::new("FROM busybox\nRUN sleep 1000\n", &[]);
    let context = bench.context.display().to_string();
    let mut child = bench.engine.hull(&["build", &context]).spawn().unwrap();
    bench.engine.until("the command runs", || {
        !bench.engine.ok(&["ps", "-q"]).is_empty()
    });
    bench.engine.kill();
    assert_ne!(child.wait().unwrap().code(), Some(0));
    bench.engine.start();
    bench.assert_clean();
}

/// CVE-2024-1753, CVE-2024-9676, CVE-2026-33748, CVE-2026-44517: links of a context, a stage or an image lead nowhere outside.
#[test]
fn attack_49_links_lead_nowhere_outside() {
    let bench = Bench::new("FROM scratch\n", &[("d/f", "f")]);
    let secret = bench.engine.path("outside");
    std::fs::write(&secret, "outside").unwrap();
    symlink(&secret, bench.context.join("absolute")).unwrap();
    symlink("../outside", bench.context.join("relative")).unwrap();
    symlink("/", bench.context.join("root")).unwrap();
    for source in [
        "absolute",
        "relative",
        "root/etc/shadow",
        "../outside",
        "root/../../outside",
    ] {
        bench.write(
            "Dockerfile",
            &format!("FROM busybox\nCOPY {source} /stolen\n"),
        );
        let said = bench.fails(&[]);
        assert!(
            said.contains("file not found") || said.contains("No such file"),
            "{source}: {said}"
        );
        bench.write(
            "Dockerfile",
            &format!("FROM busybox\nRUN --mount=target=/m,source={source} cat /m\n"),
        );
        assert!(!bench.fails(&[]).contains("outside\n"), "{source}");
    }
    // A link in a directory is copied as it is, and a target that is one stays inside the image.
    let evil = format!(
        "FROM busybox\nRUN ln -s {} /out && ln -s ../../../.. /up\nCOPY d/f /out/f\nCOPY d/f /up/f\nWORKDIR /out/w\n",
        bench.engine.path("").display()
    );
    bench.write("Dockerfile", &evil);
    bench.build(&[]);
    assert!(!bench.engine.path("f").exists() && !bench.engine.path("w").exists());
    assert_eq!(bench.shell("cat /f"), "f");
}

/// CVE-2024-23652: what a command leaves in the place of a mount point is removed in its layer, if at all.
#[test]
fn attack_47_mount_points_are_removed_in_the_layer_alone() {
    let bench = Bench::new("", &[("a", "A")]);
    let victim = bench.engine.path("victim");
    std::fs::create_dir(&victim).unwrap();
    let path = victim.display();
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/x/y/victim true\nRUN --mount=target=/z/a,source=a rm -rf /nothing; ln -s {path} /l\nRUN --mount=type=tmpfs,target=/l/deep true\n"
    );
    bench.write("Dockerfile", &dockerfile);
    bench.build(&[]);
    assert!(victim.is_dir());
    assert_eq!(bench.shell("ls -d /x /z 2>/dev/null; true"), "");
}

/// CVE-2024-24557: two images that differ in configuration alone share no results.
#[test]
fn attack_48_the_whole_configuration_is_part_of_the_key() {
    let bench = Bench::new("FROM busybox\nUSER user\nRUN id -u\n", &[]);
    bench.build(&[]);
    bench.write("Dockerfile", "FROM busybox\nRUN id -u\n");
    assert!(bench.build(&[]).contains("2 steps, 0 cached"));
    bench.write(
        "Dockerfile",
        "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN id -u\n",
    );
    assert!(bench.build(&[]).contains("3 steps, 0 cached"));
}

/// CVE-2021-3602: a command has the variables of its image and arguments, not the engine's.
#[test]
fn attack_50_the_engines_environment_does_not_leak() {
    let bench = Bench::new("FROM busybox\nARG SECOND=2\nRUN env > /env\n", &[]);
    bench.build(&["--build-arg", "HTTP_PROXY=http://proxy.example"]);
    let environment = bench.shell("cat /env");
    let mut names: Vec<String> = { environment.lines() }
        .map(|line| line.split('=').next().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "HOME",
            "HOSTNAME",
            "HTTP_PROXY",
            "PATH",
            "PWD",
            "SECOND",
            "SHLVL",
            "http_proxy"
        ]
    );
    // How to reach the world is no part of what is built.
    assert!(
        bench
            .build(&["--build-arg", "HTTP_PROXY=http://other.example"])
            .contains("1 cached")
    );
    assert!(
        !bench
            .engine
            .ok(&["history", "--no-trunc", "t"])
            .contains("proxy.example")
    );
}

#[test]
fn contexts_come_in_many_ways() {
    let bench = Bench::new(
        "FROM busybox\nCOPY . /c\n",
        &[("keep", "k"), ("drop.o", "d"), ("sub/x.o", "x")],
    );
    bench.write(
        ".dockerignore",
        "**/*.o\n!sub/x.o\n.dockerignore\nDockerfile\n",
    );
    bench.build(&[]);
    assert_eq!(
        bench.shell("cd /c; find . -type f | sort"),
        "./keep\n./sub/x.o"
    );
    // A Dockerfile from elsewhere, from standard input, and a context from there.
    let other = bench.engine.path("other");
    std::fs::write(&other, "FROM busybox\nCOPY keep /k\n").unwrap();
    bench.build(&["-f", &other.display().to_string()]);
    let context = bench.context.display().to_string();
    bench.engine.ok_with_input(
        &["build", "-q", "-t", "t", "-f", "-", &context],
        b"FROM busybox\nRUN echo in > /in\n",
    );
    assert_eq!(bench.shell("cat /in"), "in");
    bench.engine.ok_with_input(
        &["build", "-t", "t", "-"],
        b"FROM busybox\nRUN echo stdin > /in\n",
    );
    assert_eq!(bench.shell("cat /in"), "stdin");
    let tar = std::process::Command::new("tar")
        .args(["-C", &context, "-cz", "."])
        .output()
        .unwrap();
    bench
        .engine
        .ok_with_input(&["build", "-t", "t", "-"], &tar.stdout);
    assert_eq!(
        bench.shell("cd /c; find . -type f | sort"),
        "./keep\n./sub/x.o"
    );
    // Named contexts: files, and an image in the place of another.
    bench.write("Dockerfile", "FROM base\nCOPY --from=more keep /more\nRUN --mount=from=more,target=/m cat /m/sub/x.o > /x\n");
    bench.build(&[
        "--build-context",
        &format!("more={context}"),
        "--build-context",
        "base=docker-image://busybox",
    ]);
    assert_eq!(bench.shell("cat /more /x"), "kx");
    // An archive from standard input beside a directory.
    bench.write(
        "Named",
        "FROM busybox\nCOPY --from=more keep /more\nCOPY sub /in\n",
    );
    let archive = Command::new("tar")
        .args(["-C", &context, "-cz", "."])
        .output()
        .unwrap()
        .stdout;
    let more = format!("more={context}");
    let line = [
        "build",
        "-t",
        "t",
        "-f",
        "Named",
        "--build-context",
        &more,
        "-",
    ];
    bench.engine.ok_with_input(&line, &archive);
    assert_eq!(bench.shell("cat /more"), "k");
    // Files can be what all else stands on.
    bench.write(
        "Dockerfile",
        "FROM more AS a\nFROM busybox\nCOPY --from=a / /all/\n",
    );
    bench.build(&["--build-context", &more]);
    assert_eq!(bench.shell("cat /all/keep"), "k");
    let shown = bench.build(&["--build-context", &more, "--target", "a"]);
    assert!(shown.contains("1 steps, 1 cached"), "{shown}");
    assert_eq!(
        bench.inspect("{{len .RootFS.Layers}} {{.Config.WorkingDir}}"),
        "1 /"
    );
}

#[test]
fn results_go_where_they_are_asked_to() {
    let bench = Bench::new(
        "FROM busybox AS a\nRUN echo 1 > /1\nFROM scratch\nCOPY --from=a /1 /dir/1\n",
        &[],
    );
    let at = |name: &str| bench.engine.path(name).display().to_string();
    bench.build(&[
        "--iidfile",
        &at("id"),
        "-o",
        &at("files"),
        "-o",
        &format!("type=tar,dest={}", at("tar")),
    ]);
    assert_eq!(
        std::fs::read_to_string(at("id")).unwrap(),
        bench.inspect("{{.Id}}")
    );
    assert_eq!(
        std::fs::read_to_string(bench.engine.path("files/dir/1")).unwrap(),
        "1\n"
    );
    bench.build(&["-o", &format!("type=docker,dest={}", at("image"))]);
    bench.engine.ok(&["rmi", "t"]);
    bench.engine.ok(&["load", "-i", &at("image")]);
    assert_eq!(bench.inspect("{{len .RootFS.Layers}}"), "1");
    let said = bench.try_build(&["-q", "--target", "a"]);
    assert!(
        said.stdout.starts_with("sha256:") && said.stderr.is_empty(),
        "{said:?}"
    );
    for (arguments, expected) in [
        (
            &["--squash"][..],
            "only supported on a Docker daemon with experimental features",
        ),
        (
            &["--security-opt", "label=disable"],
            "security options are not supported on linux",
        ),
        (
            &["--isolation", "hyperv"],
            "unsupported isolation: \"hyperv\"",
        ),
        (
            &["--disable-content-trust=false"],
            "--disable-content-trust=false is not supported",
        ),
        (&["--target", "none"], "failed to reach build target none"),
        (&["--progress", "other"], "invalid progress mode"),
        (&["-o", "type=tar,compression=zstd"], "not supported"),
        (&["-o", "type=oci,compression=estargz"], "not supported"),
        (&["--cache-to", "type=gha"], "not supported"),
        (&["--push"], "needs a name"),
        (&["--builder", "other"], "no builder \"other\" found"),
        (&["--build-arg", "=x"], "it has no name"),
        (&["--annotation", "index:a=b"], "annotation of an index"),
    ] {
        assert!(bench.fails(arguments).contains(expected), "{arguments:?}");
    }
    bench.assert_clean();
}

#[test]
fn a_failure_shows_the_lines_of_its_step() {
    let bench = Bench::new("FROM busybox\nRUN true && \\\n  false\nCMD x\n", &[]);
    let said = bench.try_build(&["-t", "t"]);
    assert_eq!(said.code, 1);
    let shown = "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN true && \\\n   3 | >>>   false\n   \
                 4 |     CMD x\n--------------------\nThe command '/bin/sh -c true &&   false' returned a non-zero code: 1";
    assert!(said.stderr.contains(shown), "{}", said.stderr);
    let shown = bench.fails(&[
        "--build-arg",
        "BUILDKIT_DOCKERFILE_CHECK=error=true",
        "--target",
        "n",
    ]);
    assert!(!shown.contains(">>>"), "{shown}");
}

#[test]
fn a_terminal_shows_steps_and_what_came_of_them() {
    let bench = Bench::new(
        "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1024 count=5000\nCOPY a /a\n",
        &[("a", "A")],
    );
    let on_terminal = |dockerfile: &str| {
        bench.write("D", dockerfile);
        let context = bench.context.display();
        let hull = env!("CARGO_BIN_EXE_hull");
        let line = format!("stty rows 20 cols 70; {hull} build -t t -f {context}/D {context}");
        let limited = [
            "--foreground",
            "-k",
            "5",
            "120",
            "script",
            "-qec",
            &line,
            "/dev/null",
        ];
        let mut command = bench.engine.client("timeout", &limited);
        command.env("TERM", "xterm").stdin(Stdio::null());
        let said = said(command.output().unwrap());
        (said.code, said.stdout)
    };
    let dockerfile = std::fs::read_to_string(bench.context.join("Dockerfile")).unwrap();
    let (code, shown) = on_terminal(&dockerfile);
    assert_eq!(code, 0, "{shown}");
    for part in [
        "[+] Building ",
        ") FINISHED",
        " => [2/3] RUN dd if=/dev/zero",
        "layers:\r\n",
        "5.12MB  RUN dd if=/dev/zero of=/large",
        "largest in the image:\r\n",
        "5.12MB  /large",
        "3 steps, 0 cached",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    assert!(
        on_terminal(&dockerfile)
            .1
            .contains(" => CACHED [3/3] COPY a /a")
    );
    let (code, shown) = on_terminal("FROM busybox\nRUN printf 'a\\033[2Jb\\n'; exit 3\n");
    assert_ne!(code, 0);
    for part in [" => ERROR [2/2] RUN", " > [2/2] RUN", "ab\r\n------"] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    bench.assert_clean();
}

#[test]
fn triggers_of_a_base_run_in_builds_on_top_of_it() {
    let bench = Bench::new(
        "FROM busybox\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\n",
        &[("a", "A")],
    );
    bench.build(&[]);
    bench.engine.ok(&["tag", "t", "base"]);
    bench.write("Dockerfile", "FROM base\nRUN cat /b > /c\n");
    bench.build(&[]);
    assert_eq!(bench.shell("cat /a /b /c"), "AAA");
    assert_eq!(bench.inspect("{{json .Config.OnBuild}}"), "null");
}

#[test]
fn stages_are_built_at_the_same_time() {
    // Each of two stages waits for the other by a cache that they share.
    let wait = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/c touch /c/{own}; n=0; until test -e /c/{other}; do n=$((n+1)); test $n -lt 600 || exit 1; sleep 0.1; done; touch /{own}\n"
        )
    };
    let dockerfile = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        wait("a", "b"),
        wait("b", "a")
    );
    let bench = Bench::new(&dockerfile, &[]);
    bench.build(&[]);
    assert_eq!(bench.shell("ls /a /b"), "/a\n/b");
}

#[test]
fn output_of_a_build_is_whole() {
    let bench = Bench::new(
        "FROM busybox\nRUN i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done\n",
        &[],
    );
    let shown = bench.build(&[]);
    let lines = shown
        .lines()
        .filter(|line| line.contains(" line ") && !line.contains("RUN"))
        .count();
    assert_eq!(lines, 3000);
    let mut child = bench
        .engine
        .hull(&["build", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"FROM busybox\nRUN printf 'no end'\n")
        .unwrap();
    assert!(
        said(child.wait_with_output().unwrap())
            .stderr
            .contains(" no end\n")
    );
}

#[test]
fn base_images_come_from_registries_that_know_the_client() {
    let registry = support::registry::Registry::locked();
    let base = registry.name("base:1");
    let bench = Bench::new(&format!("FROM {base}\nRUN echo 1 > /1\n"), &[]);
    let config = bench.engine.path("config").display().to_string();
    let as_user = |program: &str, arguments: &[&str]| {
        let mut command = bench.engine.client(program, arguments);
        command
            .env("DOCKER_CONFIG", &config)
            .env("DOCKER_BUILDKIT", "0");
        said(command.output().unwrap())
    };
    let hull = env!("CARGO_BIN_EXE_hull");
    bench.engine.ok(&["tag", "busybox", &base]);
    let login = ["login", "-u", "me", "-p", "secret", &registry.address];
    assert_eq!(as_user(hull, &login).code, 0);
    assert_eq!(as_user(hull, &["push", "-q", &base]).code, 0);
    let context = bench.context.display().to_string();
    for program in [hull, "docker"] {
        bench.engine.ok(&["rmi", &base]);
        let built = as_user(program, &["build", "-t", "t", &context]);
        assert_eq!(built.code, 0, "{program}: {built:?}");
        // It is there again, and is asked for anew where that is wished.
        let before = registry.asked(&["/v2/base/manifests/1"]);
        assert_eq!(
            as_user(program, &["build", "--pull", "-t", "t", &context]).code,
            0
        );
        assert!(registry.asked(&["/v2/base/manifests/1"]) > before);
        bench.engine.ok(&["rmi", "t"]);
    }
    bench.engine.ok(&["rmi", &base]);
    let refused = bench.try_build(&[]);
    assert!(refused.stderr.contains("denied"), "{refused:?}");
}

#[test]
fn dockerfiles_are_checked() {
    let bench = Bench::new(
        "FROM busybox AS Base\nCOPY left out /\nENV HOMES=$HOMEE\nCMD run me\n",
        &[("out", ""), (".dockerignore", "left\n")],
    );
    let checked = bench.try_build(&["--check"]);
    assert_eq!(checked.code, 1, "{checked:?}");
    let rules: Vec<&str> = { checked.stdout.lines() }
        .filter_map(|line| line.strip_prefix("WARNING: ")?.split(' ').next())
        .collect();
    let expected = [
        "StageNameCasing",
        "CopyIgnoredFile",
        "UndefinedVar",
        "JSONArgsRecommended",
    ];
    assert_eq!(rules, expected);
    assert!(checked.stdout.contains("   4 | >>> CMD run me\n"));
    let json = bench.try_build(&["--call", "check,format=json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["warnings"][1]["ruleName"], "CopyIgnoredFile");
    assert_eq!(
        json["warnings"][1]["location"]["ranges"][0]["start"]["line"],
        2
    );

    // A build tells the same in the end, and fails of it where the file says so.
    bench.write(
        "Dockerfile",
        "FROM busybox\nCMD run me\nHEALTHCHECK CMD ask me\n",
    );
    let shown = bench.build(&[]);
    assert!(shown.contains("1 warning found"), "{shown}");
    assert!(shown.contains(" - JSONArgsRecommended: "), "{shown}");
    let strict = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"];
    let refused = bench.fails(&strict);
    let expected = "lint violation found for rules: JSONArgsRecommended";
    assert!(refused.contains(expected), "{refused}");
    bench.write(
        "Dockerfile",
        "# check=skip=JSONArgsRecommended;error=true\nFROM busybox\nCMD run me\n",
    );
    bench.build(&[]);
    let clean = bench.try_build(&["--check"]);
    assert_eq!(
        (clean.code, clean.stdout.as_str()),
        (0, "Check complete, no warnings found.\n")
    );
}

/// Runs a program of the host that has to succeed.
fn run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

/// Serves files of a directory over HTTP, and how often it was asked.
struct Web {
    address: String,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Web {
    fn new(directory: PathBuf) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n")
                    && std::io::Read::read(&mut stream, &mut byte).unwrap() == 1
                {
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
                log.lock().unwrap().push(request);
                let path = path.split('?').next().unwrap().trim_start_matches('/');
                let (status, body) = match std::fs::read(directory.join(path)) {
                    Ok(body) => ("200 OK", body),
                    Err(_) => ("404 Not Found", b"nothing".to_vec()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                // A client may have enough.
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn files_are_added_from_addresses() {
    let bench = Bench::new(
        "",
        &[("local", "local"), ("web/a%b", ""), ("web/f", "hello")],
    );
    let web = Web::new(bench.context.join("web"));
    let made = bench.engine.path("made.tar");
    run(
        "tar",
        &[
            "-C",
            &bench.context.display().to_string(),
            "-cf",
            &made.display().to_string(),
            "local",
        ],
    );
    std::fs::copy(&made, bench.context.join("web/a.tar")).unwrap();
    let dockerfile = format!(
        "FROM busybox\nADD --checksum={HELLO} {f}?token=x /named\nADD local {f} /dir/\nADD --chmod=755 {tar} /tar/\n\
         ADD --unpack=true {tar} /unpacked/\n",
        f = web.url("f"),
        tar = web.url("a.tar")
    );
    bench.write("Dockerfile", &dockerfile);
    std::fs::write(bench.engine.path("token"), "secret\n").unwrap();
    let secret = format!(
        "id=HTTP_AUTH_TOKEN_127.0.0.1,src={}",
        bench.engine.path("token").display()
    );
    bench.build(&["--secret", &secret]);
    let shown = bench.shell(
        "stat -c '%n %a %Y' /named /dir/f /tar/a.tar; cat /named /dir/f /dir/local /unpacked/local; ls /tar",
    );
    assert_eq!(
        shown,
        "/named 600 784111777\n/dir/f 600 784111777\n/tar/a.tar 755 784111777\nhellohellolocallocala.tar"
    );
    {
        let asked = web.asked.lock().unwrap();
        let has_token = |request: &String| request.contains("Bearer secret\r\n");
        assert!(asked.iter().all(has_token), "{asked:?}");
    }
    // The same content is the same layer, whenever it comes; another one is another.
    assert!(bench.build(&[]).contains("CACHED"));
    std::fs::write(bench.context.join("web/f"), "other").unwrap();
    let refused = bench.fails(&[]);
    assert!(refused.contains("digest mismatch"), "{refused}");
    assert!(
        !refused.contains("token=x") || refused.contains("ADD --checksum"),
        "{refused}"
    );

    for (line, expected) in [
        (
            format!("ADD {} /x/", web.url("")),
            "cannot determine filename",
        ),
        (format!("ADD {} /x", web.url("missing")), "404"),
        (
            format!("ADD --checksum={HELLO} local /x"),
            "--checksum is for one source",
        ),
        ("ADD git@h:a /x".to_owned(), "by ssh"),
    ] {
        bench.write("Dockerfile", &format!("FROM busybox\n{line}\n"));
        let refused = bench.fails(&[]);
        assert!(refused.contains(expected), "{line}: {refused}");
    }
}

/// A repository with two commits and a tag, served as files.
fn repository(bench: &Bench) -> String {
    let script = "set -e; git init -q -b main r; cd r; git config user.email a@b; git config user.name a; mkdir sub; echo 1 > sub/f; \
                  printf 'FROM busybox\\nCOPY sub/f /f\\n' > Dockerfile; ln -s /etc evil; git add -A; git commit -qm 1; git tag v1; \
                  echo 2 > sub/f; git commit -qam 2; cd ..; git clone -q --bare r web/r.git; cd web/r.git; git update-server-info; \
                  git rev-parse v1";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(&bench.context)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn repositories_are_added_and_built() {
    let bench = Bench::new("", &[("web/x", "")]);
    let first = repository(&bench);
    let web = Web::new(bench.context.join("web"));
    let url = web.url("r.git");
    let dockerfile = format!(
        "FROM busybox\nADD {url} /head\nADD {url}#v1:sub /sub\nADD --keep-git-dir=true --checksum={first} {url}#{first} /commit\n\
         ADD --keep-git-dir {url}#v1 /tag\nADD --keep-git-dir {url}#main /branch\n"
    );
    bench.write("Dockerfile", &dockerfile);
    bench.build(&[]);
    let shown =
        bench.shell("cat /head/sub/f /sub/f /commit/sub/f; ls -A /head; ls -d /commit/.git");
    assert_eq!(shown, "2\n1\n1\nDockerfile\nevil\nsub\n/commit/.git");
    // A repository knows what it was fetched as.
    let names = "cd /; cat tag/.git/refs/tags/v1; cat branch/.git/refs/heads/main branch/.git/HEAD | uniq | wc -l; \
                 ls -d /*/.git/FETCH_HEAD 2>/dev/null; ls -A tag/.git/refs/heads";
    assert_eq!(bench.shell(names), format!("{first}\n1"));
    // A tree that is the same again is not added again.
    assert!(bench.build(&[]).contains("CACHED"));
    let built = bench
        .engine
        .run(&["build", "-t", "t", &format!("{url}#v1")]);
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(bench.shell("cat /f"), "1");
    for (line, expected) in [
        (
            format!("ADD --checksum=1234567 {url} /x"),
            "expected checksum",
        ),
        (format!("ADD {url}#none /x"), "cannot fetch"),
        (format!("ADD {url}#:evil /x"), "open"),
        (format!("ADD {url}#--output=x /x"), "names no branch"),
    ] {
        bench.write("Dockerfile", &format!("FROM busybox\n{line}\n"));
        let refused = bench.fails(&[]);
        assert!(refused.contains(expected), "{line}: {refused}");
    }
}

#[test]
fn contexts_come_from_addresses() {
    let bench = Bench::new(
        "",
        &[("web/Dockerfile", "FROM busybox\nRUN echo alone > /f\n")],
    );
    let tree = bench.engine.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("Dockerfile"), "FROM busybox\nCOPY f /f\n").unwrap();
    std::fs::write(tree.join("f"), "tar\n").unwrap();
    let archive = bench.context.join("web/a.tar.gz").display().to_string();
    run(
        "tar",
        &["-C", &tree.display().to_string(), "-czf", &archive, "."],
    );
    let web = Web::new(bench.context.join("web"));
    for (path, content) in [("Dockerfile", "alone"), ("a.tar.gz", "tar")] {
        let built = bench.engine.run(&["build", "-t", "t", &web.url(path)]);
        assert_eq!(built.code, 0, "{built:?}");
        assert_eq!(bench.shell("cat /f"), content);
        let url = web.url(path);
        let mut docker = bench.engine.client("docker", &["build", "-t", "t", &url]);
        let built = said(docker.env("DOCKER_BUILDKIT", "0").output().unwrap());
        assert_eq!(built.code, 0, "{built:?}");
    }
    let missing = bench.engine.run(&["build", &web.url("missing")]);
    assert!(missing.stderr.contains("404"), "{missing:?}");
}
