//! Podman and dockerd, as they are installed, with this runtime in the place of theirs.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, Outcome, eventually};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hull-runtime");
/// Ends a client after a minute: a terminal stays its own, and what it passes on to a container it does not end by.
const LIMITED: &str = "timeout --foreground --kill-after 5 60";

/// An engine with directories of its own, to be told things as in a shell, where `e` is its client and `image` an image with
/// busybox.
struct Engine {
    directory: tempfile::TempDir,
    client: String,
    daemon: Option<Child>,
}

impl Engine {
    fn podman() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        // Podman's own defaults are above the hard limits of many hosts.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=512:1024\", \"nproc=1024:2048\"]\n";
        std::fs::write(directory.path().join("containers.conf"), limits).unwrap();
        let client = format!(
            "CONTAINERS_CONF={path}/containers.conf {LIMITED} podman --root {path}/root --runroot {path}/run \
             --tmpdir {path}/tmp --cgroup-manager cgroupfs --storage-driver vfs --events-backend file --runtime {PROGRAM}"
        );
        let engine = Self {
            directory,
            client,
            daemon: None,
        };
        engine.import();
        engine
    }

    fn dockerd() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("daemon.json"), "{}").unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(["--host", &format!("unix://{path}/sock")])
            .args(["--data-root", &format!("{path}/data")])
            .args(["--exec-root", &format!("{path}/exec")])
            .args(["--pidfile", &format!("{path}/pid")])
            .args(["--config-file", &format!("{path}/daemon.json")])
            .args(["--add-runtime", &format!("hull={PROGRAM}")])
            .args(["--default-runtime", "hull", "--storage-driver", "vfs"])
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = format!("{LIMITED} docker --host unix://{path}/sock");
        let engine = Self {
            directory,
            client,
            daemon: Some(daemon),
        };
        let ready = || engine.shell("e version").code == Some(0);
        assert!(
            eventually(ready),
            "dockerd does not answer: {}",
            engine.log()
        );
        engine.import();
        engine
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn import(&self) {
        let bundle = Bundle::new(&["true"]);
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n";
        std::fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
        let archive = self.path().join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(bundle.rootfs())
            .arg("-cf")
            .arg(&archive)
            .arg(".");
        assert!(tar.status().unwrap().success());
        let imported = self.shell(&format!("e import {} image", archive.display()));
        assert_eq!(imported.code, Some(0), "{imported:?}");
    }

    fn shell(&self, line: &str) -> Outcome {
        let script = format!("e() {{ {} \"$@\"; }}\n{line}", self.client);
        let output = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output();
        output.unwrap().into()
    }

    /// Does what must succeed.
    #[track_caller]
    fn does(&self, line: &str) {
        let outcome = self.shell(line);
        assert_eq!(outcome.code, Some(0), "{line}: {outcome:?}");
    }

    /// What a line prints, which must succeed.
    #[track_caller]
    fn says(&self, line: &str, expected: &str) {
        let outcome = self.shell(line);
        assert_eq!(
            (outcome.code, plain(&outcome.stdout).trim()),
            (Some(0), expected),
            "{line}: {}",
            outcome.stderr
        );
    }

    /// The exit code of a line, and a part of what it prints as an error.
    #[track_caller]
    fn fails(&self, line: &str, code: i32, expected: &str) {
        let outcome = self.shell(line);
        assert!(
            outcome.code == Some(code) && outcome.stderr.contains(expected),
            "{line}: {outcome:?}"
        );
    }

    /// Waits until a line prints what is expected.
    #[track_caller]
    fn comes_to_say(&self, line: &str, expected: &str) {
        assert!(
            eventually(|| plain(&self.shell(line).stdout).trim() == expected),
            "{line}: {:?} is not {expected:?}",
            self.shell(line)
        );
    }

    /// What both engines are asked alike: containers that run a program and are gone.
    fn runs(&self) {
        let run = "e run --rm --net none";
        self.says(&format!("{run} image echo hello"), "hello");
        self.says(&format!("echo in | {run} -i image cat"), "in");
        self.fails(
            &format!("{run} image sh -c 'echo oops >&2; exit 7'"),
            7,
            "oops",
        );
        self.fails(
            &format!("{run} image nope"),
            127,
            "executable file not found in $PATH",
        );
        self.fails(&format!("{run} image /etc"), 126, "is a directory");
        let interactive = self.client.replace('\'', "");
        // On a busy machine podman may attach to a terminal when its program has ended and what it said is gone.
        self.comes_to_say(
            &format!("script -qec '{interactive} run --rm --net none -it image sh -c \"tty; echo \\$TERM\"' /dev/null"),
            "/dev/pts/0\nxterm",
        );
        self.says(
            &format!("{run} --user 33:44 --group-add 55 image sh -c 'id -u; id -G'"),
            "33\n44 55",
        );
        self.says(
            &format!("{run} --user web image sh -c 'id -u; echo $HOME'"),
            "33\n/var/www",
        );
    }

    fn configures(&self) {
        let run = "e run --rm --net none";
        let capabilities = "grep CapEff /proc/self/status | cut -f2";
        self.says(
            &format!("{run} --cap-drop ALL --cap-add KILL image sh -c '{capabilities}'"),
            "0000000000000020",
        );
        self.fails(
            &format!("{run} --read-only image touch /x"),
            1,
            "Read-only file system",
        );
        self.says(
            &format!("{run} -v named:/data image sh -c 'echo kept > /data/file'"),
            "",
        );
        self.says(
            &format!("{run} -v named:/data:ro image cat /data/file"),
            "kept",
        );
        self.says(
            &format!(
                "{run} -v {}:/host image cat /host/secret || echo none",
                self.path().display()
            ),
            "none",
        );
        self.says(&format!("{run} --tmpfs /scratch:size=1m --user 33 image sh -c 'touch /scratch/x && echo made'"), "made");
        self.says(
            &format!("{run} --ulimit nofile=100:200 --ulimit nproc=500:600 image sh -c 'ulimit -n; ulimit -Hn'"),
            "100\n200",
        );
        self.says(&format!("{run} --hostname box --sysctl net.ipv4.ip_forward=1 image sh -c 'hostname; cat /proc/sys/net/ipv4/ip_forward'"), "box\n1");
        self.says(&format!("{run} --security-opt no-new-privileges image sh -c 'grep NoNew /proc/self/status | cut -f2'"), "1");
        self.says(
            &format!("{run} --device /dev/fuse image stat -c %t:%T /dev/fuse"),
            "a:e5",
        );
        let limits = if common::unified() {
            "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
        } else {
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us)"
        };
        self.says(
            &format!("{run} -m 64m --pids-limit 50 --cpus 0.5 image sh -c '{limits}'"),
            "67108864\n50\n50000 100000",
        );
        self.fails(
            &format!("{run} -m 16m --memory-swap 16m image tail /dev/zero"),
            137,
            "",
        );
    }

    /// Containers that stay a while.
    fn lives_and_ends(&self) {
        let handler = r#"trap "exit 3" TERM; echo started; while :; do sleep 0.05; done"#;
        self.does(&format!(
            "e run -d --net none --ipc shareable --name one image sh -c '{handler}'"
        ));
        self.comes_to_say("e logs one", "started");
        self.says(
            "e exec one sh -c 'id -u; head -c 2 /proc/1/cmdline'",
            "0\nsh",
        );
        self.says(
            "e exec --user 33 --workdir /tmp --env X=y one sh -c 'id -u; pwd; echo $X'",
            "33\n/tmp\ny",
        );
        self.says("echo in | e exec -i one cat", "in");
        self.fails("e exec one sh -c 'exit 9'", 9, "");
        // Where an engine says so, and by which exit code, is its own.
        self.says(
            "e exec one nope 2>&1 | grep -o 'executable file not found in $PATH'",
            "executable file not found in $PATH",
        );
        let client = self.client.replace('\'', "");
        self.comes_to_say(
            &format!("script -qec '{client} exec -it one tty' /dev/null"),
            "/dev/pts/0",
        );
        self.says("e exec -d one sleep 1000 > /dev/null; e top one -o pid,args | grep -c 'sleep 1000' || e top one pid args | grep -c 'sleep 1000'", "1");
        self.says(
            "e run --rm --net container:one --pid container:one --ipc container:one image sh -c 'ps -o args | grep -c \"[s]leep 1000\"'",
            "1",
        );
        self.says("e stats --no-stream --format '{{.Name}}' one", "one");
        let status = "e inspect --format '{{.State.Status}}' one";
        self.does("e pause one");
        self.says(status, "paused");
        self.does("e unpause one");
        self.says(status, "running");
        self.says("e stop -t 30 one > /dev/null; e inspect --format '{{.State.Status}} {{.State.ExitCode}}' one", "exited 3");
        self.does("e restart one");
        self.comes_to_say("e logs one", "started\nstarted");
        self.does("e kill -s KILL one");
        self.comes_to_say(
            "e inspect --format '{{.State.Status}} {{.State.ExitCode}}' one",
            "exited 137",
        );
        self.does("e start one");
        self.says("e rm -f one > /dev/null; e ps -aq", "");
        // What systemd in a container stops by.
        let handler = r#"trap "exit 5" 37; : > /ready; while :; do sleep 0.05; done"#;
        self.does(&format!(
            "e run -d --net none --name two --stop-signal SIGRTMIN+3 image sh -c '{handler}'"
        ));
        self.comes_to_say("e exec two sh -c 'test -e /ready && echo ready'", "ready");
        self.says(
            "e stop -t 30 two > /dev/null; e inspect --format '{{.State.ExitCode}}' two",
            "5",
        );
        self.does("e rm -f two");
    }
}

/// What was printed, without what a terminal adds: returns, and the echo of the end of its input.
fn plain(text: &str) -> String {
    text.replace('\r', "").replace("^@", "").replace("^D", "")
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whatever a failed test has left.
        let left = self.shell("e ps -aq").stdout;
        for id in left.lines() {
            drop(self.shell(&format!("e rm -f {id}")));
        }
        if let Some(daemon) = &mut self.daemon {
            let pid = rustix::process::Pid::from_child(daemon);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            daemon.wait().unwrap();
        }
    }
}

#[test]
fn podman_and_conmon_drive_it() {
    let engine = Engine::podman();
    engine.runs();
    engine.configures();
    engine.lives_and_ends();
    engine.says("e run --rm --net none --init --init-path \"$(command -v catatonit)\" image sh -c 'cat /proc/1/comm'", "podman-init");
    engine.says(
        "e run --rm --net none --uidmap 0:100000:5000 image sh -c 'cat /proc/self/uid_map | tr -s \" \"; id -u'",
        "0 100000 5000\n0",
    );
    engine.does("e run -d --net none --name healthy --health-cmd 'test -e /ok' --health-interval disable image sleep 100");
    engine.fails("e healthcheck run healthy", 1, "");
    engine.says("e exec healthy touch /ok; e healthcheck run healthy", "");
    engine.does("e rm -f -t 0 healthy");
}

#[test]
fn dockerd_and_containerd_drive_it() {
    let engine = Engine::dockerd();
    engine.says("e info --format '{{.DefaultRuntime}}'", "hull");
    engine.runs();
    engine.configures();
    engine.lives_and_ends();
    engine.says(
        "e run --rm --net none --init image cat /proc/1/comm",
        "docker-init",
    );
    engine.says(
        "export DOCKER_BUILDKIT=0; printf 'FROM image\\nRUN echo made > /built\\n' | e build -q --network none -t built - > /dev/null; \
         e run --rm --net none built cat /built",
        "made",
    );
    // What cannot be granted is a warning, in the log and not among the container's own words.
    engine.says(
        "e run --rm --net none --privileged image sh -c 'echo alone' 2>&1",
        "alone",
    );
    engine.does("e run -d --net none --name updated -m 64m image sleep 100");
    let limit = if common::unified() {
        "memory.max"
    } else {
        "memory/memory.limit_in_bytes"
    };
    engine.says(
        &format!(
            "e update -m 32m --memory-swap 64m updated > /dev/null; e exec updated cat /sys/fs/cgroup/{limit}"
        ),
        "33554432",
    );
    engine.does("e rm -f updated");
    engine.does("e run -d --net none --name healthy --health-cmd 'test -e /ok' --health-interval 100ms --health-retries 1 image sleep 100");
    let health = "e inspect --format '{{.State.Health.Status}}' healthy";
    engine.comes_to_say(health, "unhealthy");
    engine.does("e exec healthy touch /ok");
    engine.comes_to_say(health, "healthy");
    engine.does("e rm -f healthy");
    engine.does("e run -d --net none --name restarted --restart on-failure:2 image sh -c 'exit 4'");
    engine.comes_to_say(
        "e inspect --format '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' restarted",
        "2 exited 4",
    );
    engine.does("e rm -f restarted");
}
