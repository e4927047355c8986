//! Builds with the SSH agents of hull's own client: `--ssh`, commands that ask them, repositories that need them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use support::{Engine, Said};

/// An engine, a key in a file, and a directory to build.
struct Bench(Engine);

impl Bench {
    fn new(engine: Engine) -> Self {
        std::fs::create_dir(engine.path("context")).unwrap();
        let bench = Self(engine);
        bench.host("ssh-keygen -q -t ed25519 -N '' -f key");
        bench
    }

    /// A command of the host.
    fn host(&self, script: &str) -> String {
        let said = support::said(self.0.client("sh", &["-ec", script]).output().unwrap());
        assert_eq!(said.code, 0, "{script}: {said:?}");
        said.stdout.trim_end().to_owned()
    }

    fn write(&self, dockerfile: &str) {
        std::fs::write(self.0.path("context/Dockerfile"), dockerfile).unwrap();
    }

    fn build(&self, flags: &[&str], context: &str) -> Said {
        self.0
            .run(&[&["build", "-t", "t"], flags, &[context]].concat())
    }

    fn shell(&self, script: &str) -> String {
        self.0
            .ok(&["run", "--rm", "--network", "none", "t", "sh", "-c", script])
    }

    fn key(&self) -> String {
        format!("default={}", self.0.path("key").display())
    }

    /// Nothing of a build is left, and no agent of it.
    fn assert_clean(&self) {
        self.0.assert_nothing_left();
        let tmp = self.0.path("data/tmp");
        let is_empty = || std::fs::read_dir(&tmp).unwrap().count() == 0;
        self.0.until("temporary files go", is_empty);
        let key = self.0.path("key").display().to_string();
        let has_key = |entry: std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&key)
        };
        self.0.until("agents go", || {
            !std::fs::read_dir("/proc").unwrap().flatten().any(has_key)
        });
    }
}

#[test]
fn commands_reach_agents_and_keys() {
    let bench = Bench::new(Engine::new());
    support::agent::compile_ask(&bench.0, "context/ask");
    bench.write(
        "FROM busybox\nCOPY ask /bin/\n\
         RUN --mount=type=ssh ask $SSH_AUTH_SOCK > /default\n\
         RUN --mount=type=ssh,id=two,mode=0666 stat -c %a $SSH_AUTH_SOCK > /mode; ask $SSH_AUTH_SOCK > /two\n\
         RUN --mount=type=ssh,id=other echo no agent: $SSH_AUTH_SOCK > /none\n",
    );
    bench.host("ssh-keygen -q -t ed25519 -N '' -f two");
    let both = format!(
        "two={},{}",
        bench.0.path("key").display(),
        bench.0.path("two").display()
    );
    let built = bench.build(&["--ssh", &bench.key(), "--ssh", &both], "context");
    assert_eq!(built.code, 0, "{built:?} {}", bench.0.log());
    let shown =
        bench.shell("tail -c 11 /default; echo; cat /mode; tail -c 11 /two; echo; cat /none");
    assert_eq!(shown, "12 0 0 0 1 \n666\n12 0 0 0 2 \nno agent:");
    bench.assert_clean();
    for (flag, expected) in [
        ("default=/none", "stat /none"),
        ("default=/etc/hostname", "cannot use /etc/hostname"),
        ("default", "SSH_AUTH_SOCK is not set"),
    ] {
        let mut command = bench.0.hull(&["build", "--ssh", flag, "context"]);
        let said = support::said(command.env_remove("SSH_AUTH_SOCK").output().unwrap());
        assert!(
            said.code != 0 && said.stderr.contains(expected),
            "{flag}: {said:?}"
        );
    }
    bench.write("FROM busybox\nRUN --mount=type=ssh,required true\n");
    let said = bench.build(&[], "context");
    assert!(
        said.stderr.contains("ssh agent default: not found"),
        "{said:?}"
    );
    bench.assert_clean();
}

/// In the place of `ssh`: it demands a key of the agent, and runs what it is told to on this machine.
const SSH: &str = r#"#!/bin/sh
ssh-add -l >&2 || { echo "no key" >&2; exit 255; }
echo "$@" >> "$(dirname "$0")/said"
for last; do :; done
exec sh -c "$last"
"#;

#[test]
fn repositories_are_reached_with_an_agent() {
    let mut engine = Engine::new();
    let bin = engine.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("ssh"), SSH).unwrap();
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    engine.search_path = Some(PathBuf::from(format!("{}:{path}", bin.display())));
    engine.restart_with(&[]);
    let bench = Bench::new(engine);
    bench.host(
        "git init -q -b main r; cd r; git config user.email a@b; git config user.name a; \
         echo 1 > f; printf 'FROM busybox\nCOPY f /f\n' > Dockerfile; git add -A; git commit -qm 1; git tag v1; \
         echo 2 > f; git commit -qam 2",
    );
    let url = format!("ssh://git@host.example{}", bench.0.path("r").display());
    bench.write(&format!("FROM busybox\nADD {url}#v1 /r\n"));
    let built = bench.build(&["--ssh", &bench.key()], "context");
    assert_eq!(built.code, 0, "{built:?} {}", bench.0.log());
    assert_eq!(bench.shell("cat /r/f; ls -A /r"), "1\nDockerfile\nf");
    // The context itself, before which nothing else is told.
    let scp = format!("git@host.example:{}", bench.0.path("r").display());
    for context in [&url, &scp] {
        let built = bench.build(&["--ssh", &bench.key()], context);
        assert_eq!(built.code, 0, "{built:?} {}", bench.0.log());
        assert_eq!(bench.shell("cat /f"), "2");
    }
    let said = std::fs::read_to_string(bench.0.path("bin/said")).unwrap();
    assert!(
        said.contains("-F /dev/null") && said.contains("git@host.example git-upload-pack"),
        "{said}"
    );
    for (flags, context, expected) in [
        (
            &[][..],
            &url,
            "needs an agent of the client (--ssh default)",
        ),
        (
            &["--ssh", &bench.key()][..],
            &format!("{url}-none"),
            "cannot fetch",
        ),
    ] {
        let said = bench.build(flags, context);
        assert!(said.code != 0 && said.stderr.contains(expected), "{said:?}");
    }
    bench.assert_clean();
}

#[test]
fn the_agent_of_a_client_that_is_killed_goes() {
    let bench = Bench::new(Engine::new());
    bench.write("FROM busybox\nRUN --mount=type=ssh sleep 1000\n");
    // The client itself, without a guard of its time that would outlive it.
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["build", "--ssh", &bench.key(), "context"])
        .env("HULL_HOST", bench.0.socket())
        .current_dir(bench.0.path(""))
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    bench
        .0
        .until("the command runs", || !bench.0.ok(&["ps", "-q"]).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    bench.assert_clean();
}
