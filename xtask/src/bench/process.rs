//! What processes use, and registries as processes.

use super::engines::TemporaryDirectory;
use crate::{Result, shell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// CPU time of a process, of its descendants, and of those of them that have ended: proc_pid_stat(5).
pub(super) fn cpu_time(root: u32) -> Duration {
    let mut parents = HashMap::new();
    let mut ticks = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // It may have ended.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<u64>().ok())
        };
        parents.insert(pid, number(1).unwrap_or(0));
        ticks.insert(pid, (11..=14).filter_map(number).sum::<u64>());
    }
    let below = |mut pid: u32| {
        while pid != root {
            match parents
                .get(&pid)
                .and_then(|parent| u32::try_from(*parent).ok())
            {
                Some(parent) if parent > 1 => pid = parent,
                _ => return false,
            }
        }
        true
    };
    let total: u64 = ticks
        .iter()
        .filter(|(pid, _)| below(**pid))
        .map(|(_, ticks)| ticks)
        .sum();
    Duration::from_millis(total * 1000 / rustix::param::clock_ticks_per_second())
}

/// CPU time of one process: utime and stime of proc_pid_stat(5).
pub(super) fn own_cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// The most memory that a process has had: `VmHWM` of proc_pid_status(5).
pub(super) fn peak_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// A registry's process; its storage goes with it.
pub(super) struct Registry {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    process: Child,
    _directory: TemporaryDirectory,
}

impl Registry {
    /// Debian's.
    pub(super) fn docker() -> Result<Self> {
        Self::start("docker-registry", |directory, address| {
            let config = directory.join("config.yml");
            let text = format!(
                "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                directory.join("data").display()
            );
            std::fs::write(&config, text).map_err(|error| error.to_string())?;
            let mut command = shell::quiet("docker-registry");
            command.arg("serve").arg(&config);
            Ok(command)
        })
    }

    /// hull's.
    pub(super) fn hull(binary: &Path) -> Result<Self> {
        Self::start("hull registry", |directory, address| {
            let mut command = shell::quiet(&binary.display().to_string());
            command.args(["registry", "serve", "--listen", &address.to_string()]);
            command.arg("--storage").arg(directory.join("data"));
            Ok(command)
        })
    }

    fn start(
        name: &'static str,
        command: impl FnOnce(&Path, SocketAddr) -> Result<Command>,
    ) -> Result<Self> {
        let directory = TemporaryDirectory::new(&format!("{}-bench", name.replace(' ', "-")))?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let process = command(&directory.path, address)?.spawn();
        let registry = Self {
            name,
            address,
            process: process.map_err(|error| error.to_string())?,
            _directory: directory,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("{name} does not listen"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if ended.is_err() {
            shell::say(&format!("{} cannot be ended", self.name));
        }
    }
}
