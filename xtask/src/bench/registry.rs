//! Pull and push of a large image, from and to Debian's docker-registry on loopback.
//!
//! CPU time is that of the engine and of all processes below it, without the registry's.

use super::engines::{Engine, TemporaryDirectory};
use super::{bytes_to_mb, image, print_table};
use crate::{Result, shell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// How often each is timed: it takes seconds.
const ROUNDS: usize = 5;

/// How long the registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Measures engines in turns.
pub(super) fn run(root: &Path, engines: &[&Engine]) -> Result<()> {
    if !shell::is_installed("docker-registry") {
        shell::print("pull and push: docker-registry is not installed");
        return Ok(());
    }
    let archive = image::cached(&root.join("target/bench"))?;
    let registry = Registry::start()?;
    let name = format!("{}/bench:latest", registry.address);
    for engine in engines {
        engine.docker(&["load", "-q", "-i", &archive.display().to_string()])?;
        engine.docker(&["tag", image::NAME, &name])?;
        engine.docker(&["push", &name])?;
        engine.docker(&["rmi", image::NAME, &name])?;
    }
    let mut pulls = Rows::new(engines);
    let mut pushes = Rows::new(engines);
    for round in 1..=ROUNDS {
        shell::say(&format!("registry: round {round} of {ROUNDS}"));
        for (index, engine) in engines.iter().enumerate() {
            pulls.time(index, engine, &["pull", "-q", &name])?;
            let other = format!("{}/{}-{round}:latest", registry.address, engine.name());
            engine.docker(&["tag", &name, &other])?;
            pushes.time(index, engine, &["push", "-q", &other])?;
            engine.docker(&["rmi", &name, &other])?;
        }
    }
    pulls.print("pull of 6 layers");
    pushes.print("push of 6 layers that the registry has in another repository");
    for engine in engines {
        if let Some(peak) = peak_bytes(engine.pid()) {
            shell::print(&format!(
                "  {}: at most {:.1} MB resident",
                engine.name(),
                bytes_to_mb(peak)
            ));
        }
    }
    Ok(())
}

/// Times of one kind, by engine.
struct Rows<'a> {
    names: Vec<&'a str>,
    wall: Vec<Vec<Duration>>,
    cpu: Vec<Vec<Duration>>,
}

impl<'a> Rows<'a> {
    fn new(engines: &[&'a Engine]) -> Self {
        Self {
            names: engines.iter().map(|engine| engine.name()).collect(),
            wall: vec![Vec::new(); engines.len()],
            cpu: vec![Vec::new(); engines.len()],
        }
    }

    fn time(&mut self, index: usize, engine: &Engine, arguments: &[&str]) -> Result<()> {
        // What was left to be written is not this one's to wait for.
        rustix::fs::sync();
        let (before, start) = (cpu_time(engine.pid()), Instant::now());
        engine.docker(arguments)?;
        self.wall[index].push(start.elapsed());
        self.cpu[index].push(cpu_time(engine.pid()).saturating_sub(before));
        Ok(())
    }

    fn print(self, title: &str) {
        print_table(title, self.names.iter().copied().zip(self.wall));
        print_table(
            "  of that, on a CPU",
            self.names.iter().copied().zip(self.cpu),
        );
    }
}

/// CPU time of a process, of its descendants, and of those of them that have ended: proc_pid_stat(5).
fn cpu_time(root: u32) -> Duration {
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

/// The most memory that a process has had: `VmHWM` of proc_pid_status(5).
fn peak_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Debian's registry.
struct Registry {
    process: Child,
    address: SocketAddr,
    _directory: TemporaryDirectory,
}

impl Registry {
    fn start() -> Result<Self> {
        let directory = TemporaryDirectory::new("registry-bench")?;
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let config = directory.path.join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            directory.path.join("data").display()
        );
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut command = shell::quiet("docker-registry");
        let process = command
            .arg("serve")
            .arg(&config)
            .spawn()
            .map_err(|error| error.to_string())?;
        let registry = Self {
            process,
            address,
            _directory: directory,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("docker-registry does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self
            .process
            .kill()
            .and_then(|()| self.process.wait())
            .is_err()
        {
            shell::say("docker-registry cannot be ended");
        }
    }
}
