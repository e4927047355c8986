//! The engines that are measured, each in directories of its own.

use super::{Contender, bytes_to_mb};
use crate::{Result, shell};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an engine may take to serve.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A directory that is removed with the value.
pub(crate) struct TemporaryDirectory {
    pub(crate) path: PathBuf,
}

impl TemporaryDirectory {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            shell::say(&format!("{} stays: {error}", self.path.display()));
        }
    }
}

/// A root filesystem of busybox.
pub(crate) fn write_busybox(root: &Path) -> Result<()> {
    let error = |error: std::io::Error| format!("{}: {error}", root.display());
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(name)).map_err(error)?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    std::fs::copy(
        busybox.ok_or("busybox-static is not installed")?,
        root.join("bin/busybox"),
    )
    .map_err(error)?;
    for applet in ["sh", "true", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).map_err(error)?;
    }
    Ok(())
}

/// A running engine with the image `busybox`.
pub(crate) struct Engine {
    name: &'static str,
    client: String,
    socket: PathBuf,
    process: Child,
    directory: TemporaryDirectory,
}

impl Engine {
    pub(crate) fn hull(binary: &Path) -> Result<Self> {
        let directory = TemporaryDirectory::new("hull-bench")?;
        // As installed: what runs is on tmpfs.
        let run = PathBuf::from(format!("/run/hull-bench-{}", std::process::id()));
        let mut command = shell::quiet(&binary.display().to_string());
        command
            .args(["daemon", "--bridge", "hullbench0", "--run-root"])
            .arg(&run);
        command.arg("--data-root").arg(directory.path.join("data"));
        let socket = run.join("hull.sock");
        Self::start(
            "hull",
            binary.display().to_string(),
            command,
            socket,
            directory,
        )
    }

    pub(crate) fn dockerd() -> Result<Self> {
        let directory = TemporaryDirectory::new("dockerd-bench")?;
        let at = |name: &str| directory.path.join(name).display().to_string();
        let socket = directory.path.join("docker.sock");
        let mut command = shell::quiet("dockerd");
        command.args(["--host", &format!("unix://{}", socket.display())]);
        command.args([
            "--data-root",
            &at("data"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &at("pid"),
        ]);
        Self::start("dockerd", "docker".to_owned(), command, socket, directory)
    }

    fn start(
        name: &'static str,
        client: String,
        mut command: Command,
        socket: PathBuf,
        directory: TemporaryDirectory,
    ) -> Result<Self> {
        let process = command
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let engine = Self {
            name,
            client,
            socket,
            process,
            directory,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while engine.client(&["version"]).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{name} does not serve"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        engine.import_busybox()?;
        Ok(engine)
    }

    fn import_busybox(&self) -> Result<()> {
        let rootfs = TemporaryDirectory::new("hull-bench-rootfs")?;
        write_busybox(&rootfs.path)?;
        let tar = Command::new("tar")
            .arg("-C")
            .arg(&rootfs.path)
            .args(["-c", "."])
            .output();
        let tar = tar.map_err(|error| format!("tar: {error}"))?.stdout;
        let mut import = self.command(&["import", "-", "busybox"]);
        let mut child = import
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().ok_or("no pipe")?;
        stdin.write_all(&tar).map_err(|error| error.to_string())?;
        drop(stdin);
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{}: the image cannot be imported", self.name)),
        }
    }

    /// The directory of its socket, and in hull's case of its containers.
    pub(crate) fn run_root(&self) -> &Path {
        self.socket.parent().unwrap_or(Path::new("/"))
    }

    /// The engine's process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command of a client of this engine, to be timed.
    pub(crate) fn contender(&self, name: &str, program: &str, arguments: &[&str]) -> Contender {
        let (program, host) = (program.to_owned(), self.host());
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let command = move || {
            let mut command = shell::quiet(&program);
            command
                .args(&arguments)
                .env("DOCKER_HOST", &host)
                .env("HULL_HOST", &host);
            command
        };
        Contender {
            name: name.to_owned(),
            command: Box::new(command),
        }
    }

    /// A client's command.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = shell::quiet(&self.client);
        command
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .env("HULL_HOST", self.host());
        command
    }

    /// A client's command that has to succeed.
    pub(crate) fn client(&self, arguments: &[&str]) -> Result<()> {
        match self.command(arguments).status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{}: {} failed", self.name, arguments.join(" "))),
        }
    }

    /// As [`Self::client`], with the same client for every engine.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Result<()> {
        let status = shell::quiet("docker")
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!(
                "{}: docker {} failed",
                self.name,
                arguments.join(" ")
            )),
        }
    }

    /// The engine's process, those that it has started, and those that name its directories: all but the containers' own.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let parent = format!("PPid:\t{}\n", self.process.id());
        let names = [self.run_root(), &self.directory.path].map(|path| path.display().to_string());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| {
            // It may have ended.
            let read = |name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let words = String::from_utf8_lossy(&read("cmdline")).into_owned();
            *pid == self.process.id()
                || String::from_utf8_lossy(&read("status")).contains(&parent)
                || names.iter().any(|name| words.contains(name))
        };
        pids.filter(ours).collect()
    }

    /// Where its images and records are.
    pub(crate) fn data_root(&self) -> PathBuf {
        self.directory.path.join("data")
    }

    /// The anonymous memory of the engine's process alone: what its program is mapped from comes and goes.
    pub(crate) fn own_anonymous_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = { text.lines() }.find_map(|line| line.strip_prefix("Anonymous:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) << 10
    }

    /// The private memory of all of [`Self::processes`].
    pub(crate) fn private_bytes(&self) -> u64 {
        { self.processes().into_iter() }
            .filter_map(private_bytes)
            .sum()
    }

    /// Prints the private memory of each of [`Self::processes`].
    pub(crate) fn print_memory(&self) {
        shell::print(&format!("\n{}: private memory", self.name));
        for pid in self.processes() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if let Some(bytes) = private_bytes(pid) {
                let name = name.trim_end();
                shell::print(&format!("  {name} {:.2} MB", bytes_to_mb(bytes)));
            }
        }
    }
}

/// `Private_Clean` and `Private_Dirty` of a process: proc_pid_smaps(5).
fn private_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let private = text
        .lines()
        .filter(|line| line.starts_with("Private_Clean") || line.starts_with("Private_Dirty"));
    let kilobytes = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Some(kilobytes.sum::<u64>() << 10)
}

impl Drop for Engine {
    fn drop(&mut self) {
        // There is a container only after some of the measurements.
        let _ = self.client(&["rm", "-f", "target"]);
        let terminated = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        if terminated.is_err() || self.process.wait().is_err() {
            shell::say(&format!("{} cannot be ended", self.name));
        }
        if self.name == "hull" {
            let _ = shell::quiet("ip")
                .args(["link", "del", "hullbench0"])
                .status();
            let _ = shell::quiet("nft")
                .args(["delete", "table", "ip", "hullbench0"])
                .status();
            let _ = std::fs::remove_dir_all(self.run_root());
        }
    }
}
