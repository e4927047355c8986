//! Builds that end otherwise than well: steps that fail and are entered, and clients that are interrupted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Stdio;
use support::Engine;
use support::terminal::Terminal;

/// Interrupts what runs at a terminal.
const CTRL_C: &str = "\u{3}";

/// An engine with a Dockerfile to build.
struct Bench(Engine);

impl Bench {
    fn new(dockerfile: &str) -> Self {
        let engine = Engine::new();
        std::fs::create_dir(engine.path("context")).unwrap();
        let bench = Self(engine);
        bench.write(dockerfile);
        bench
    }

    fn write(&self, dockerfile: &str) {
        std::fs::write(self.0.path("context/Dockerfile"), dockerfile).unwrap();
    }

    /// A build at a terminal.
    fn at_terminal(&self, flags: &str) -> Terminal {
        let hull = env!("CARGO_BIN_EXE_hull");
        let context = self.0.path("context");
        let line = format!(
            "stty rows 20 cols 100; exec {hull} build {flags} {}",
            context.display()
        );
        Terminal::new(&self.0, &line)
    }

    fn until_a_container_runs(&self) {
        self.0
            .until("the command runs", || !self.0.ok(&["ps", "-q"]).is_empty());
    }

    /// No container, snapshot, layer of a container, secret or temporary file is left.
    fn assert_clean(&self) {
        self.0
            .until("containers go", || self.0.ok(&["ps", "-aq"]).is_empty());
        self.0.assert_nothing_left();
        for directory in ["data/tmp", "run/build-secrets"] {
            let path = self.0.path(directory);
            let is_empty = || std::fs::read_dir(&path).map_or(true, |it| it.count() == 0);
            self.0.until("temporary files go", is_empty);
        }
        // The image's own.
        self.0.until("layers go", || {
            std::fs::read_dir(self.0.path("data/layers"))
                .unwrap()
                .count()
                == 1
        });
    }
}

#[test]
fn a_failed_command_can_be_entered() {
    let bench = Bench::new(
        "FROM busybox\nENV E=of-the-image\nARG A=of-the-build\nUSER user\nWORKDIR /w\n\
         RUN --mount=type=secret,id=s,uid=1000 --mount=type=cache,target=/cache,uid=1000 \
         --mount=type=bind,target=/context true > /w/written && echo kept > /cache/kept && exit 7\n",
    );
    std::fs::write(bench.0.path("secret"), "hidden").unwrap();
    for progress in ["tty", "plain", "rawjson", "quiet"] {
        let flags = format!(
            "--debug-shell-on-failure --progress {progress} --secret id=s,src={}",
            bench.0.path("secret").display()
        );
        let mut terminal = bench.at_terminal(&flags);
        terminal.until("goes on when the shell ends");
        terminal.until("/w $ ");
        terminal.types("echo $E-$A-$(id -un)-$(cat /run/secrets/s)-$(cat /cache/kept)\n");
        terminal.types("ls . /context; tty\n");
        terminal.types("exit 3\n");
        let (code, shown) = terminal.end();
        assert_ne!(code, 0, "{shown}");
        for part in [
            "of-the-image-of-the-build-user-hidden-kept\r\n",
            "Dockerfile",
            "written",
            "/dev/pts/",
        ] {
            assert!(
                shown.contains(part),
                "{progress}: {part:?} is missing in\n{shown}"
            );
        }
        let end = shown.trim_end().lines().next_back().unwrap();
        assert!(
            end.contains("returned a non-zero code: 7"),
            "{progress}: {shown}"
        );
    }
    // The steps before the failed one are kept, what it has written is not.
    bench.0.ok(&["builder", "prune", "-af"]);
    bench.assert_clean();
}

#[test]
fn a_command_without_a_shell_is_not_entered() {
    let bench = Bench::new("FROM busybox\nSHELL [\"/none\"]\nRUN [\"/bin/false\"]\n");
    let (code, shown) = bench.at_terminal("--debug-shell-on-failure").end();
    assert_ne!(code, 0, "{shown}");
    assert!(shown.contains("cannot be entered"), "{shown}");
    assert!(shown.contains("returned a non-zero code: 1"), "{shown}");
    // Nor is there a shell without a terminal.
    let context = bench.0.path("context").display().to_string();
    let said = bench
        .0
        .run(&["build", "--debug-shell-on-failure", &context]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("needs a terminal"), "{said:?}");
    let query = "/build?shellonfailure=1&remote=x";
    assert_eq!(bench.0.ask("POST", query, None).0, 400);
    bench.0.ok(&["builder", "prune", "-af"]);
    bench.assert_clean();
}

#[test]
fn the_other_stages_end_when_one_fails_and_is_entered() {
    let bench = Bench::new(
        "FROM busybox AS slow\nRUN sleep 1000\nFROM busybox AS bad\nRUN false\n\
         FROM busybox\nCOPY --from=slow / /slow\nCOPY --from=bad / /bad\n",
    );
    let mut terminal = bench.at_terminal("--debug-shell-on-failure");
    terminal.until("/ # ");
    bench.0.until("the shell is alone", || {
        bench.0.ok(&["ps", "-q"]).lines().count() == 1
    });
    terminal.types("exit\n");
    let (_, shown) = terminal.end();
    assert!(shown.contains("RUN false"), "{shown}");
    let context = bench.0.path("context").display().to_string();
    let said = bench.0.run(&["build", &context]);
    assert!(said.stderr.contains("RUN false"), "{said:?}");
    bench.assert_clean();
}

#[test]
fn a_client_that_is_killed_in_a_shell_leaves_nothing() {
    let bench = Bench::new("FROM busybox\nRUN echo > /written; false\n");
    let terminal = bench.at_terminal("--debug-shell-on-failure");
    terminal.until("/ # ");
    // The client's own process: the shell has the terminal, so no key does it.
    let marker = bench.0.path("context").display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(" build --debug-shell-on-failure ")
            && line.trim().ends_with(&marker)
            && !line.contains("script")
        {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
    terminal.end();
    bench.assert_clean();
}

/// Interrupts a build when its command runs.
fn interrupt(progress: &str) {
    let bench = Bench::new(
        "FROM busybox\nRUN --mount=type=secret,id=s echo > /written; echo running; sleep 1000\n",
    );
    std::fs::write(bench.0.path("secret"), "hidden").unwrap();
    let secret = bench.0.path("secret").display().to_string();
    let flags = format!("--progress {progress} --secret id=s,src={secret}");
    let mut terminal = bench.at_terminal(&flags);
    bench.until_a_container_runs();
    terminal.types(CTRL_C);
    let (code, shown) = terminal.end();
    assert_ne!(code, 0, "{shown}");
    assert!(
        !shown.contains("\u{1b}[?25l"),
        "the cursor is not hidden: {shown:?}"
    );
    bench.assert_clean();
}

#[test]
fn an_interrupt_leaves_nothing_of_a_build_that_is_drawn() {
    interrupt("tty");
}

#[test]
fn an_interrupt_leaves_nothing_of_a_build_in_lines() {
    interrupt("plain");
}

#[test]
fn an_interrupt_leaves_nothing_of_a_build_in_events() {
    interrupt("rawjson");
}

#[test]
fn an_interrupt_leaves_nothing_of_a_quiet_build() {
    interrupt("quiet");
}

#[test]
fn an_interrupt_ends_what_is_not_a_command() {
    let bench =
        Bench::new("FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked sleep 1000\n");
    let mut first = bench.at_terminal("--progress plain");
    bench.until_a_container_runs();
    // It waits for the cache that the first one has.
    bench.write(
        "FROM busybox\nCOPY Dockerfile /\nRUN --mount=type=cache,target=/c,sharing=locked sleep 1000 # 2\n",
    );
    let mut second = bench.at_terminal("--progress plain");
    second.until("[3/3]");
    second.types(CTRL_C);
    second.end();
    first.types(CTRL_C);
    first.end();
    // It waits for its context.
    let mut child = bench
        .0
        .hull(&["build", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = vec![0; 1024];
    start[..5].copy_from_slice(b"large");
    start[257..262].copy_from_slice(b"ustar");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &start).unwrap();
    let tmp = bench.0.path("data/tmp");
    bench.0.until("the context begins", || {
        std::fs::read_dir(&tmp).is_ok_and(|it| it.count() > 0)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // Nothing goes that a build still has.
    let used = [
        "builder",
        "du",
        "--filter",
        "inuse=true",
        "--format",
        "{{.ID}}",
    ];
    bench
        .0
        .until("the builds end", || bench.0.ok(&used).is_empty());
    bench.0.ok(&["builder", "prune", "-af"]);
    bench.assert_clean();
}
