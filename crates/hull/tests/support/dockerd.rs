//! A dockerd of its own, without networks: Debian's, for what images it makes and takes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to serve, and to end.
const WAIT: Duration = Duration::from_secs(120);

/// A running daemon; everything it has goes with it.
pub struct Dockerd {
    directory: tempfile::TempDir,
    child: Child,
}

impl Dockerd {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = std::fs::File::create(at("log")).unwrap();
        let child = Command::new("dockerd")
            .args([
                "--bridge",
                "none",
                "--iptables=false",
                "--storage-driver",
                "vfs",
            ])
            .args(["--host", &format!("unix://{}", at("sock"))])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker.io is installed");
        let mut daemon = Self { directory, child };
        let deadline = Instant::now() + WAIT;
        while !daemon.docker(&["version"]).status().unwrap().success() {
            let ended = daemon.child.try_wait().unwrap();
            let log = std::fs::read_to_string(daemon.path("log")).unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command of Docker's client to it.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["300", "docker", "--host"])
            .arg(format!("unix://{}", self.path("sock").display()))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // It ends the containerd that it has started, which being killed it would not.
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + WAIT;
        while told.is_ok() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
