//! Bundles made of busybox, and the runtime's own program to run them with. Needs root, and a kernel of its own to ask.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hull-runtime");
const BUSYBOX: &str = "/bin/busybox";
/// What is awaited comes sooner, under emulation on a loaded machine, too.
pub(crate) const WAIT: Duration = Duration::from_secs(100);

/// A bundle, and a state directory for it alone. Everything that is left of it fails the test when it is dropped.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
}

/// What an invocation gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The output of an invocation that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The error of one that must have failed.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        self.stderr
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Bundle {
    /// A container that runs a shell script.
    pub(crate) fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// A container that runs a program.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root"
        );
        Self::of_anybody(arguments)
    }

    /// The same for whoever runs the tests.
    pub(crate) fn of_anybody(arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path();
        let bin = bundle.join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["proc", "sys", "dev", "tmp", "etc"] {
            std::fs::create_dir(bundle.join("rootfs").join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, bin.join("busybox")).expect("busybox-static is installed");
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines() {
            if applet != "busybox" {
                std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
            }
        }
        let made = Command::new(PROGRAM)
            .arg("spec")
            .current_dir(bundle)
            .status()
            .unwrap();
        assert!(made.success());
        let config = std::fs::read(bundle.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        let id = format!("hull-test-{}-{number}", std::process::id());
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(arguments);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        Self {
            directory,
            id,
            config,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The namespaces a configuration lists, with another one.
    pub(crate) fn add_namespace(&mut self, namespace: Value) {
        self.config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(namespace);
    }

    pub(crate) fn remove_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|n| n["type"] != kind);
    }

    pub(crate) fn add_mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    fn write_config(&self) {
        std::fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
    }

    /// An invocation about this container, its standard input empty.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.write_config();
        let mut command = Command::new(PROGRAM);
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .args(arguments);
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Invokes the runtime.
    pub(crate) fn invoke(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    /// Creates, starts, waits and deletes.
    pub(crate) fn run(&self) -> Outcome {
        self.invoke(&["run", &self.id])
    }

    /// Creates, with output that nobody reads: what a pipe would be held open by, init holds.
    pub(crate) fn create(&self) -> Outcome {
        let mut command = self.command(&["create", &self.id]);
        let errors = self.path().join("errors");
        let file = std::fs::File::create(&errors).unwrap();
        let status = command.stdout(Stdio::null()).stderr(file).status().unwrap();
        let stderr = std::fs::read_to_string(errors).unwrap();
        Outcome {
            code: status.code(),
            stdout: String::new(),
            stderr,
        }
    }

    pub(crate) fn start(&self) -> Outcome {
        self.invoke(&["start", &self.id])
    }

    pub(crate) fn exec(&self, arguments: &[&str]) -> Outcome {
        self.invoke(&[&["exec", self.id.as_str()], arguments].concat())
    }

    pub(crate) fn delete(&self) -> Outcome {
        self.invoke(&["delete", "--force", &self.id])
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.invoke(&["state", &self.id]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        serde_json::from_str(&self.invoke(&["ps", "--format", "json", &self.id]).ok()).unwrap()
    }

    /// Waits for a status.
    #[track_caller]
    pub(crate) fn await_status(&self, expected: &str) {
        assert!(
            eventually(|| self.status() == expected),
            "not {expected} but {}",
            self.status()
        );
    }

    /// The directories of its cgroup that are there.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let own = std::iter::once(base.to_owned());
        let below = std::fs::read_dir(base)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        own.chain(below)
            .map(|path| path.join(&self.id))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// A file of its cgroup, by the names it has in both versions.
    pub(crate) fn cgroup_file(&self, names: &[&str]) -> String {
        let files = self.cgroups().into_iter().flat_map(|group| {
            names
                .iter()
                .map(move |name| group.join(name))
                .collect::<Vec<_>>()
        });
        let file = files
            .into_iter()
            .find(|file| file.exists())
            .expect("the cgroup has the file");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// Nothing may be left of it.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        assert!(
            self.cgroups().is_empty(),
            "cgroups are left: {:?}",
            self.cgroups()
        );
        let state = self.path().join("state");
        let left: Vec<_> = std::fs::read_dir(&state).into_iter().flatten().collect();
        assert!(left.is_empty(), "state is left: {left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.path().to_str().unwrap()),
            "mounts are left: {mounts}"
        );
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_gone();
        } else {
            drop(self.delete());
        }
    }
}

/// Asks until the answer is yes or time is up.
pub(crate) fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + WAIT;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Whether the host has all controllers in one tree.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Receives a descriptor.
pub(crate) fn receive_fd(socket: std::os::fd::BorrowedFd<'_>) -> OwnedFd {
    receive(socket).0
}

/// Receives a descriptor and what came with it.
pub(crate) fn receive(socket: std::os::fd::BorrowedFd<'_>) -> (OwnedFd, Vec<u8>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = vec![0; 65536];
    let received = recvmsg(
        socket,
        &mut [std::io::IoSliceMut::new(&mut data)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    data.truncate(received.bytes);
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (fd.expect("a descriptor was sent"), data)
}
