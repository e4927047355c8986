//! Bind mounts of commands that build: what they show, and that nothing is copied for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::symlink;
use support::{Engine, Said};

/// A directory to build.
struct Bench(Engine);

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let bench = Self(Engine::new());
        for (name, content) in files {
            let path = bench.0.path("context").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        bench
    }

    fn try_build(&self, dockerfile: &str) -> Said {
        let context = self.0.path("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        let context = context.display().to_string();
        self.0.run(&["build", "--no-cache", "-t", "t", &context])
    }

    /// Builds, after which nothing is left of mounts.
    fn build(&self, dockerfile: &str) {
        let said = self.try_build(dockerfile);
        assert_eq!(said.code, 0, "{}\nengine: {}", said.stderr, self.0.log());
        self.0.assert_nothing_left();
        assert_eq!(self.0.ok(&["ps", "-aq"]), "");
        let snapshots = self.0.path("data/snapshots");
        assert_eq!(std::fs::read_dir(snapshots).unwrap().count(), 0);
    }

    fn fails(&self, dockerfile: &str) -> String {
        let said = self.try_build(dockerfile);
        assert_ne!(said.code, 0, "{}", said.stderr);
        said.stderr
    }

    fn shell(&self, script: &str) -> String {
        let run = ["run", "--rm", "--network", "none", "t", "sh", "-c", script];
        self.0.ok(&run)
    }
}

#[test]
fn what_cannot_be_copied_can_be_mounted() {
    let bench = Bench::new(&[]);
    // More than any disk has, of which there is nothing.
    bench.build(
        "FROM busybox AS large\n\
         RUN mkdir /d && truncate -s 4096G /d/hollow && echo small > /d/small\n\
         FROM busybox\n\
         RUN --mount=from=large,source=/d,target=/m [ $(stat -c %s /m/hollow) = 4398046511104 ] && ! touch /m/new\n\
         RUN --mount=from=large,target=/m,rw rm /m/d/hollow && echo changed > /m/d/small && mv /m/d /m/e\n\
         RUN --mount=from=large,target=/m,source=d,rw cat /m/small > /kept && [ -e /m/hollow ]\n",
    );
    assert_eq!(
        bench.shell("cat /kept; ls -A /m 2>&1 | tail -n 1"),
        "small\nls: /m: No such file or directory"
    );
}

#[test]
fn what_is_written_to_a_mount_is_seen_by_nobody_else() {
    let bench = Bench::new(&[("d/file", "of the context\n"), ("d/other", "x")]);
    let dockerfile = "FROM busybox AS stage\n\
         RUN mkdir /d && echo of the stage > /d/file\n\
         FROM busybox\n\
         RUN --mount=target=/c,rw --mount=target=/again,source=d,rw echo changed > /c/d/file && rm /c/d/other && cat /again/file > /1\n\
         RUN --mount=target=/c cat /c/d/file /c/d/other > /2\n\
         RUN --mount=source=d/file,target=/made/file,rw echo more >> /made/file && cat /made/file > /3\n\
         RUN --mount=from=stage,source=d/file,target=/made/file,rw echo more >> /made/file && cat /made/file > /4\n\
         RUN --mount=from=stage,source=d/file,target=/made/file cat /made/file > /5\n";
    // Of the same context, which is kept: it is what it was.
    for _ in 0..2 {
        bench.build(dockerfile);
        assert_eq!(
            bench
                .shell("for n in 1 2 3 4 5; do cat /$n; echo; done; ls /made /c 2>/dev/null; true"),
            "of the context\n\nof the context\nx\nof the context\nmore\n\nof the stage\nmore\n\nof the stage"
        );
    }
    let file = std::fs::read_to_string(bench.0.path("context/d/file")).unwrap();
    assert_eq!(file, "of the context\n");
}

#[test]
fn mounts_show_trees_as_they_are() {
    let bench = Bench::new(&[("f", "f")]);
    bench.build(
        "FROM scratch AS nothing\n\
         FROM busybox AS stage\n\
         RUN mkdir -p /d/sub && echo 1 > /d/lower && echo 2 > /d/gone && chown 7:8 /d && chmod 2711 /d\n\
         RUN rm /d/gone && echo 3 > /d/sub/upper && ln -s d /link && ln -s / /d/up && touch -d @1000 /d/sub /d\n\
         FROM busybox\n\
         RUN --mount=from=stage,source=link,target=/m stat -c '%u %g %a %Y' /m > /told && cd /m && find . | sort >> /told\n\
         RUN --mount=from=nothing,target=/m [ -z \"$(ls -A /m)\" ]\n\
         RUN --mount=from=nothing,target=/m,rw echo x > /m/x && [ $(ls -A /m) = x ]\n\
         RUN --mount=from=busybox,source=bin,target=/m /m/busybox true\n",
    );
    assert_eq!(
        bench.shell("cat /told"),
        "7 8 2711 1000\n.\n./lower\n./sub\n./sub/upper\n./up"
    );
}

/// CVE-2024-1753: links of a stage or context lead nowhere outside of it.
#[test]
fn attack_49_a_mounted_path_leads_nowhere_outside() {
    let bench = Bench::new(&[("f", "f")]);
    let secret = bench.0.path("outside");
    std::fs::write(&secret, "outside").unwrap();
    let context = bench.0.path("context");
    symlink(&secret, context.join("absolute")).unwrap();
    symlink("../outside", context.join("relative")).unwrap();
    let target = secret.display();
    let mounts = [
        "source=absolute",
        "source=absolute,rw",
        "source=relative",
        "source=relative,rw",
        "source=../outside",
        "from=stage,source=absolute",
        "from=stage,source=relative,rw",
        "from=stage,source=../../../../../../outside",
    ];
    for mount in mounts {
        let said = bench.fails(&format!(
            "FROM busybox AS stage\n\
             RUN ln -s {target} /absolute && ln -s ../../../../../..{target} /relative\n\
             FROM busybox\nRUN --mount={mount},target=/m cat /m\n"
        ));
        assert!(
            said.contains("No such file or directory"),
            "{mount}: {said}"
        );
    }
}
