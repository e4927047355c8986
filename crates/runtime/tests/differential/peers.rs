//! The runtimes that are compared, and how each is made to run the same bundle.

use crate::cases::{Case, PROBE};
use crate::common::{self, Bundle, eventually, receive_fd};
use crate::probe::Report;
use rustix::fs::{CWD, Mode};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// A runtime with runc's command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: &'static str,
}

/// Ours is the first.
pub(crate) const PEERS: [Peer; 3] = [
    Peer {
        name: "hull",
        program: env!("CARGO_BIN_EXE_hull-runtime"),
    },
    Peer {
        name: "runc",
        program: "runc",
    },
    Peer {
        name: "crun",
        program: "crun",
    },
];

/// The v2 hierarchy of the hybrid layout, which crun refuses to see.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// Files of the container's cgroup that its configuration sets, in both versions.
const CGROUP_FILES: [&str; 34] = [
    "blkio.bfq.weight",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_iops_device",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.rt_runtime_us",
    "cpu.shares",
    "cpu.weight",
    "cpuset.cpu_exclusive",
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "freezer.state",
    "hugetlb.2MB.limit_in_bytes",
    "hugetlb.2MB.max",
    "io.max",
    "io.weight",
    "memory.high",
    "memory.kmem.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.limit_in_bytes",
    "memory.low",
    "memory.max",
    "memory.memsw.limit_in_bytes",
    "memory.oom_control",
    "memory.soft_limit_in_bytes",
    "memory.swap.max",
    "memory.swappiness",
    "memory.use_hierarchy",
    "notify_on_release",
    "pids.max",
];

/// Leaves no container behind when a test fails; the bundle's own way is that of our runtime.
struct Undo<'a> {
    peer: Peer,
    bundle: &'a Bundle,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let id = &self.bundle.id;
            drop(
                self.peer
                    .command(self.bundle, &["delete", "--force", id])
                    .status(),
            );
        }
    }
}

impl Peer {
    fn command(self, bundle: &Bundle, words: &[&str]) -> Command {
        // No device: crun gives that to the container's user, and there is one null device for all of the host.
        let input = bundle.path().join("input");
        let input = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(input)
            .unwrap();
        let mut command = if self.name == "crun" && Path::new(UNIFIED).exists() {
            let mut command = Command::new("unshare");
            let script = format!("umount {UNIFIED} && exec \"$0\" \"$@\"");
            command.args(["--mount", "sh", "-c", &script, self.program]);
            command
        } else {
            Command::new(self.program)
        };
        command
            .arg("--root")
            .arg(bundle.path().join("state"))
            .args(words);
        command.current_dir(bundle.path()).stdin(input);
        command
    }

    /// The output of an invocation that must succeed.
    #[track_caller]
    fn invoke(self, bundle: &Bundle, words: &[&str]) -> String {
        let output = self.command(bundle, words).output();
        let outcome = common::Outcome::from(
            output.unwrap_or_else(|error| panic!("{}: {error}", self.program)),
        );
        assert_eq!(
            outcome.code,
            Some(0),
            "{} {words:?}: {outcome:?}",
            self.name
        );
        outcome.stdout
    }

    fn state(self, bundle: &Bundle) -> Value {
        serde_json::from_str(&self.invoke(bundle, &["state", &bundle.id])).unwrap()
    }

    /// Runs a bundle whose program is the probe, and gathers what is seen from inside and outside.
    pub(crate) fn observe(self, case: &Case) -> Report {
        let bundle = &case.bundle();
        let _undo = Undo { peer: self, bundle };
        std::fs::write(bundle.path().join("config.json"), bundle.config.to_string()).unwrap();
        let mut report = Report::new();
        let text = if bundle.config["process"]["terminal"] == true {
            self.run_with_terminal(bundle, &mut report)
        } else {
            self.run_with_file(bundle, case.exec, &mut report)
        };
        let line = text.lines().find(|line| line.starts_with('{'));
        let line = line.unwrap_or_else(|| panic!("{}: no report but {text:?}", self.name));
        let inside: Report = serde_json::from_str(line).unwrap();
        report.extend(inside);
        assert!(
            eventually(|| self.state(bundle)["status"] == "stopped"),
            "{}: it does not stop",
            self.name
        );
        self.invoke(bundle, &["delete", &bundle.id]);
        hooks(bundle, &mut report);
        normalise(bundle, report)
    }

    fn run_with_file(self, bundle: &Bundle, exec: Option<&[&str]>, report: &mut Report) -> String {
        let path = bundle.path().join("report");
        let file = File::create(&path).unwrap();
        let errors = File::create(bundle.path().join("errors")).unwrap();
        let mut create = self.command(bundle, &["create", &bundle.id]);
        let status = create.stdout(file).stderr(errors).status().unwrap();
        let said = std::fs::read_to_string(bundle.path().join("errors")).unwrap();
        assert!(status.success(), "{}: {said}", self.name);
        self.look_from_outside(bundle, report);
        self.invoke(bundle, &["start", &bundle.id]);
        if let Some(flags) = exec {
            let words = [&["exec"], flags, &[bundle.id.as_str()]].concat();
            let words = if flags.contains(&"--process") {
                words
            } else {
                [&words[..], &PROBE].concat()
            };
            let text = self.invoke(bundle, &words);
            self.invoke(bundle, &["kill", &bundle.id, "KILL"]);
            return text;
        }
        assert!(
            eventually(|| self.state(bundle)["status"] == "stopped"),
            "{}: the probe does not end",
            self.name
        );
        std::fs::read_to_string(path).unwrap()
    }

    fn run_with_terminal(self, bundle: &Bundle, report: &mut Report) -> String {
        let path = bundle.path().join("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let words = [
            "create",
            "--console-socket",
            path.to_str().unwrap(),
            &bundle.id,
        ];
        let errors = File::create(bundle.path().join("errors")).unwrap();
        let mut create = self.command(bundle, &words);
        let status = create
            .stdout(Stdio::null())
            .stderr(errors)
            .status()
            .unwrap();
        let said = std::fs::read_to_string(bundle.path().join("errors")).unwrap();
        assert!(status.success(), "{}: {said}", self.name);
        let (socket, _) = listener.accept().unwrap();
        let mut master = File::from(receive_fd(socket.as_fd()));
        self.look_from_outside(bundle, report);
        self.invoke(bundle, &["start", &bundle.id]);
        let mut text = Vec::new();
        // The terminal reports an error once the last process is gone.
        drop(master.read_to_end(&mut text));
        String::from_utf8(text).unwrap()
    }

    /// The created container as its caller sees it.
    fn look_from_outside(self, bundle: &Bundle, report: &mut Report) {
        let state = self.state(bundle);
        for key in ["status", "bundle", "annotations"] {
            report.insert(format!("state {key}"), state[key].to_string());
        }
        let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
        for line in cgroups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
            report.insert(format!("cgroup of {controllers:?}"), path.to_owned());
            let directory = controllers.strip_prefix("name=").unwrap_or(controllers);
            let base = Path::new("/sys/fs/cgroup");
            let hybrid = directory.is_empty() && Path::new(UNIFIED).exists();
            let directory = base.join(if hybrid { "unified" } else { directory });
            let group = directory.join(path.trim_start_matches('/'));
            for file in CGROUP_FILES {
                if let Ok(text) = std::fs::read_to_string(group.join(file)) {
                    // Of lists the order says nothing.
                    let mut lines: Vec<_> = text.lines().collect();
                    lines.sort_unstable();
                    report.insert(format!("cgroup file {file}"), lines.join("\n"));
                }
            }
        }
    }
}

/// What the hooks have written, and in which order.
fn hooks(bundle: &Bundle, report: &mut Report) {
    for (name, path) in [
        ("host", bundle.path().join("hooks")),
        ("container", bundle.rootfs().join("hooks")),
    ] {
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let (kind, state) = line.split_once(' ').unwrap();
            let mut state: Value =
                serde_json::from_str(state).unwrap_or_else(|error| panic!("{error}: {state}"));
            state["pid"] = (state["pid"].as_i64() > Some(0)).into();
            for key in ["pid", "status", "bundle", "id"] {
                report.insert(
                    format!("hook of the {name} {number} {kind} {key}"),
                    state[key].to_string(),
                );
            }
        }
    }
}

/// Leaves out what differs from bundle to bundle.
fn normalise(bundle: &Bundle, report: Report) -> Report {
    let path = bundle.path().to_str().unwrap();
    let plain = |text: &str| text.replace(path, "BUNDLE").replace(&bundle.id, "ID");
    let host = |value: &str| match value.split_once(":[") {
        Some((kind, _)) => {
            let kind = kind.trim_end_matches("_for_children");
            let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
            if link.to_str() == Some(value) {
                "the host's"
            } else {
                "its own"
            }
            .to_owned()
        }
        None => value.to_owned(),
    };
    let normal = report.into_iter().map(|(field, value)| {
        let value = if field.starts_with("ns ") {
            host(&value)
        } else {
            plain(&value)
        };
        (field, value)
    });
    normal.collect()
}

/// Gives a bundle the probe as its program.
pub(crate) fn install_probe(bundle: &Bundle) {
    let own = std::env::current_exe().unwrap();
    let probe = bundle.rootfs().join("probe");
    // A link where it can be one: the copy is large.
    if rustix::fs::linkat(CWD, &own, CWD, &probe, rustix::fs::AtFlags::empty()).is_err() {
        std::fs::copy(&own, &probe).unwrap();
    }
    rustix::fs::chmod(&probe, Mode::from_raw_mode(0o755)).unwrap();
}
