//! An engine of its own for each test: own directories, own bridge, own network. Needs root and busybox.
//!
//! Invariant: when a test ends, well or not, its engine and its containers are gone, and [`Engine::assert_nothing_left`]
//! can say so at any time before.

#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test's own support"
)]

pub mod agent;
pub mod buildx;
pub mod cases;
pub mod certificates;
pub mod dockerd;
pub mod registry;
pub mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long any command may take, under emulation on a loaded machine, too.
const COMMAND_TIMEOUT_S: &str = "300";
/// How long anything else may take that is waited for.
const WAIT: Duration = Duration::from_secs(100);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running engine.
pub struct Engine {
    root: tempfile::TempDir,
    bridge: String,
    bip: String,
    subnets: String,
    child: Option<Child>,
    /// The step of a start that the engine's process is to fail.
    pub fail_at: Option<String>,
    /// Flags that the engine's process has beside its own.
    pub flags: Vec<String>,
    /// Where the engine's process finds programs, if not where this one does.
    pub search_path: Option<PathBuf>,
}

/// What a command has said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Engine {
    /// Starts an engine without images.
    pub fn empty() -> Self {
        assert!(
            rustix::process::getuid().is_root(),
            "these tests make containers: run them as root"
        );
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = std::process::id() % 250;
        let mut engine = Self {
            root: tempfile::Builder::new()
                .prefix("hull-test")
                .tempdir()
                .unwrap(),
            bridge: format!("ht{:x}x{n}", std::process::id()),
            bip: format!("10.{}.{n}.1/24", unique + 1),
            // Sixteen small networks for each engine, of the upper half.
            subnets: format!("10.{}.{}", unique + 1, 128 + n % 128),
            child: None,
            fail_at: None,
            flags: Vec::new(),
            search_path: None,
        };
        engine.start();
        engine
    }

    /// Starts an engine with the image `busybox`.
    pub fn new() -> Self {
        let engine = Self::empty();
        let tar = busybox_tar();
        engine.ok_with_input(
            &["import", "--change", "CMD [\"sh\"]", "-", "busybox"],
            &tar,
        );
        engine
    }

    /// Starts the engine's process, and waits until it serves.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hull"))
            .args([
                "daemon",
                "--bridge",
                &self.bridge,
                "--bip",
                &self.bip,
                "--data-root",
            ])
            .arg(self.path("data"))
            .arg("--run-root")
            .arg(self.path("run"))
            .arg("--policy")
            .arg(self.path("policy.toml"))
            .arg("--cdi-spec-dir")
            .arg(self.path("cdi"))
            .args(&self.flags)
            .envs(self.fail_at.iter().map(|step| ("HULL_FAIL_AT", step)))
            .envs(self.search_path.iter().map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + WAIT;
        while self.answers().is_err() {
            assert!(
                Instant::now() < deadline,
                "the engine does not serve: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the engine whether it is there: it answers when everything that it listens on is open.
    fn answers(&self) -> std::io::Result<()> {
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("run/hull.sock"))?;
        socket.set_read_timeout(Some(WAIT))?;
        std::io::Write::write_all(&mut socket, b"GET /_ping HTTP/1.1\r\nHost: hull\r\n\r\n")?;
        std::io::Read::read_exact(&mut socket, &mut [0])
    }

    /// Starts the engine's process again, with more flags.
    pub fn restart_with(&mut self, flags: &[&str]) {
        self.kill();
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start();
    }

    /// Ends the engine's process as kill -9 does; its containers go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// A network of sixteen addresses that no other engine has, by a number below 16, and the beginning of its addresses.
    pub fn subnet(&self, number: u8) -> String {
        format!("{}.{}/28", self.subnets, number * 16)
    }

    /// An address of [`Engine::subnet`].
    pub fn address(&self, number: u8, host: u8) -> String {
        format!("{}.{}", self.subnets, number * 16 + host)
    }

    /// What the engine has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.path("run/hull.sock").display())
    }

    /// What the API answers to a request of no version or of one, with a JSON body or without: the status, and the body.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Vec<u8>) {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "100", "-X", method])
            .args(["-w", "%{http_code}", "--unix-socket"])
            .arg(self.path("run/hull.sock"))
            .arg(format!("http://localhost{path}"));
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", body]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (body, status) = output.stdout.split_at(output.stdout.len() - 3);
        let status = std::str::from_utf8(status).unwrap().parse().unwrap();
        (status, body.to_vec())
    }

    /// A client's command, `hull` or another.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_TIMEOUT_S).arg(program).args(arguments);
        command
            .env("HULL_HOST", self.socket())
            .env("DOCKER_HOST", self.socket())
            .current_dir(self.root.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn hull(&self, arguments: &[&str]) -> Command {
        self.client(env!("CARGO_BIN_EXE_hull"), arguments)
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        said(self.hull(arguments).output().unwrap())
    }

    /// A command that has to succeed; its output without the last newline.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(
            said.code,
            0,
            "hull {arguments:?}: {said:?}\nengine: {}",
            self.log()
        );
        said.stdout.trim_end().to_owned()
    }

    /// As [`Engine::ok`], of a line whose words are separated by spaces.
    pub fn words(&self, line: &str) -> String {
        self.ok(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// A command that has to fail, and to say why.
    pub fn refused(&self, line: &str, why: &str) {
        let said = self.run(&line.split_whitespace().collect::<Vec<_>>());
        assert!(
            said.code != 0 && said.stderr.contains(why),
            "hull {line}: {said:?}"
        );
    }

    /// As [`Engine::ok`], by Docker's client.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let said = said(self.client("docker", arguments).output().unwrap());
        assert_eq!(
            said.code,
            0,
            "docker {arguments:?}: {said:?}\nengine: {}",
            self.log()
        );
        said.stdout.trim_end().to_owned()
    }

    pub fn ok_with_input(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = self.hull(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that ends before it has read everything breaks the pipe; its own code tells why.
        let _ = child.stdin.take().unwrap().write_all(input);
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(
            said.code,
            0,
            "hull {arguments:?}: {said:?}\nengine: {}",
            self.log()
        );
        said.stdout.trim_end().to_owned()
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + WAIT;
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "in vain: {what}\nengine: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything of containers that exists outside of the database: processes, mounts, links, cgroups, directories.
    pub fn traces(&self) -> Vec<String> {
        let root = self.root.path().display().to_string();
        let mut traces = Vec::new();
        for dir in ["run/containers", "data/containers", "data/snapshots"] {
            let entries = std::fs::read_dir(self.path(dir))
                .into_iter()
                .flatten()
                .flatten();
            traces.extend(entries.map(|entry| format!("directory {}", entry.path().display())));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&root))
                .map(|line| format!("mount {line}")),
        );
        let links = Command::new("ip")
            .args(["-o", "link", "show", "master", &self.bridge])
            .output()
            .unwrap();
        traces.extend(
            String::from_utf8_lossy(&links.stdout)
                .lines()
                .map(|line| format!("link {line}")),
        );
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if cmdline.starts_with(b"hull-shim") && cwd.starts_with(self.root.path()) {
                traces.push(format!("shim {}", entry.path().display()));
            }
        }
        traces
    }

    /// The cgroups of containers with these ids.
    pub fn cgroups(ids: &[String]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
        for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            directories.push(entry.path());
        }
        for directory in directories {
            found.extend(
                ids.iter()
                    .map(|id| directory.join("hull").join(id))
                    .filter(|path| path.exists()),
            );
        }
        found
    }

    /// Fails when anything of a container is left.
    pub fn assert_nothing_left(&self) {
        let deadline = Instant::now() + WAIT;
        loop {
            let traces = self.traces();
            if traces.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left: {traces:#?}\nengine: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.child.is_none() {
            self.start();
        }
        let ids = self.run(&["ps", "-aq", "--no-trunc"]).stdout;
        let mut arguments = vec!["rm", "-f", "-v"];
        arguments.extend(ids.lines());
        if arguments.len() > 3 {
            self.run(&arguments);
        }
        let made = self
            .run(&["network", "ls", "-q", "--filter", "type=custom"])
            .stdout;
        for network in made.lines() {
            self.run(&["network", "rm", network]);
        }
        self.kill();
        let _ = Command::new("ip")
            .args(["link", "del", &self.bridge])
            .stderr(Stdio::null())
            .status();
        for family in ["inet", "bridge", "netdev"] {
            let _ = Command::new("nft")
                .args(["delete", "table", family, &self.bridge])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Writes a text to a child's standard input, and ends that, while its output is read: neither waits for the other.
pub fn feed(child: &mut Child, text: &str) {
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_owned();
    // A child that ends before it has read everything breaks the pipe; its own code tells why.
    std::thread::spawn(move || stdin.write_all(text.as_bytes()));
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A root filesystem of busybox and its applets.
pub fn busybox_tar() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is installed");
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    // Not the copy: another test's fork may still hold it open for writing.
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout)
        .unwrap()
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    )
    .unwrap();
    Command::new("tar")
        .arg("-C")
        .arg(root)
        // The same layer for every engine.
        .args(["--sort=name", "--mtime=@1000000000", "-c", "."])
        .output()
        .unwrap()
        .stdout
}
