//! The physical floor: the kernel's work for one container and nothing else. No engine, no configuration, no log: a clone
//! with all namespaces, an overlay, cgroups, `/bin/true`; and with a network, a veth pair on a bridge.

use crate::Result;
use network::{BridgeConfig, Endpoint, EndpointRequest, Networks};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Pid, WaitOptions};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sys::process::{Namespaces, Spawn};

/// The bridge, its network and its firewall.
const NETWORK: &str = "hullfloor0";

/// What one run needs that is not its own work.
pub(crate) struct Floor {
    work: PathBuf,
    rootfs: PathBuf,
    network: Networks,
    runs: u32,
}

impl Floor {
    pub(crate) fn new(work: &Path, rootfs: &Path) -> Result<Self> {
        let network = Networks::open(NETWORK);
        network
            .declare(NETWORK, BridgeConfig::new(NETWORK))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            work: work.to_owned(),
            rootfs: rootfs.to_owned(),
            network,
            runs: 0,
        })
    }

    /// Runs `/bin/true` once and says how long that took.
    pub(crate) fn run(&mut self, with_network: bool) -> Result<Duration> {
        self.runs += 1;
        let name = format!("hullfloor-{}-{}", std::process::id(), self.runs);
        let start = Instant::now();
        let layers =
            ["upper", "work", "merged"].map(|part| self.work.join(format!("{name}-{part}")));
        for layer in &layers {
            std::fs::create_dir(layer).map_err(|error| format!("{}: {error}", layer.display()))?;
        }
        let (gate, open) = std::io::pipe().map_err(|error| error.to_string())?;
        let namespaces = [
            Namespaces::PID,
            Namespaces::MOUNT,
            Namespaces::IPC,
            Namespaces::UTS,
            Namespaces::NET,
        ];
        let how = Spawn {
            namespaces: namespaces
                .into_iter()
                .fold(Namespaces::CGROUP, Namespaces::with),
            ..Spawn::default()
        };
        let rootfs = &self.rootfs;
        let child = sys::process::spawn(how, || inside(&gate, rootfs, &layers))
            .map_err(|error| error.to_string())?;
        let cgroups = enter_cgroups(&name, child.pid)?;
        let endpoint = if with_network {
            Some(self.connect(child.pid, self.runs)?)
        } else {
            None
        };
        rustix::io::write(&open, b"x").map_err(|error| error.to_string())?;
        let status = rustix::process::waitpid(Some(child.pid), WaitOptions::empty());
        let status = status
            .map_err(|error| error.to_string())?
            .map(|(_, status)| status.exit_status());
        for cgroup in cgroups {
            std::fs::remove_dir(&cgroup)
                .map_err(|error| format!("{}: {error}", cgroup.display()))?;
        }
        let took = start.elapsed();
        if let Some(endpoint) = endpoint {
            self.network.disconnect(NETWORK, &endpoint, false);
        }
        for layer in &layers {
            std::fs::remove_dir_all(layer)
                .map_err(|error| format!("{}: {error}", layer.display()))?;
        }
        match status {
            Some(Some(0)) => Ok(took),
            other => Err(format!("the floor's child ended with {other:?}")),
        }
    }

    fn connect(&self, pid: Pid, run: u32) -> Result<Endpoint> {
        let request = EndpointRequest {
            host_interface: format!("vethfl{run}"),
            interface: "eth0".to_owned(),
            addresses: Vec::new(),
            link_local: Vec::new(),
            mac: None,
        };
        let endpoint = self
            .network
            .reserve(NETWORK, request)
            .map_err(|error| error.to_string())?;
        let path = format!("/proc/{}/ns/net", pid.as_raw_pid());
        let netns = std::fs::File::open(path).map_err(|error| error.to_string())?;
        self.network
            .connect(NETWORK, netns.as_fd(), &endpoint, true)
            .map_err(|error| error.to_string())?;
        Ok(endpoint)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for command in [
            "ip link del hullfloor0",
            "nft delete table inet hullfloor0",
            "nft delete table bridge hullfloor0",
        ] {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            // Neither is there when no run had a network.
            let _ = crate::shell::quiet(program).args(words).status();
        }
    }
}

/// The child's side, up to the exec.
fn inside(gate: &std::io::PipeReader, rootfs: &Path, layers: &[PathBuf; 3]) -> Infallible {
    let code = match enter(gate, rootfs, layers) {
        Ok(()) => {
            let program = CString::from(c"/bin/true");
            drop(sys::process::exec(
                &program,
                std::slice::from_ref(&program),
                &[],
            ));
            127
        }
        Err(_) => 126,
    };
    sys::process::exit(code)
}

fn enter(
    gate: &std::io::PipeReader,
    rootfs: &Path,
    [upper, work, merged]: &[PathBuf; 3],
) -> rustix::io::Result<()> {
    rustix::io::read(gate, &mut [0; 1])?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.display(),
        upper.display(),
        work.display()
    );
    let options = CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount(
        "overlay",
        merged,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )?;
    rustix::process::chdir(merged)?;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "proc", "proc", closed, None)?;
    rustix::mount::mount("tmpfs", "dev", "tmpfs", MountFlags::NOSUID, c"mode=755")?;
    rustix::mount::mount("sysfs", "sys", "sysfs", closed | MountFlags::RDONLY, None)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Makes a cgroup in every hierarchy, v1 or v2, and puts the process in it. Returns the directories.
fn enter_cgroups(name: &str, pid: Pid) -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    if !root.join("cgroup.procs").exists() {
        let entries = std::fs::read_dir(root).map_err(|error| error.to_string())?;
        hierarchies = entries.flatten().map(|entry| entry.path()).collect();
        // Links such as cpu,cpuacct name a hierarchy twice; the empty ones control nothing.
        hierarchies.retain(|path| path.join("cgroup.procs").exists() && !path.is_symlink());
        hierarchies.retain(|path| !path.ends_with("unified") && !path.ends_with("systemd"));
    }
    let mut made = Vec::new();
    for hierarchy in hierarchies {
        let directory = hierarchy.join(name);
        std::fs::create_dir(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        for setting in ["cpuset.cpus", "cpuset.mems"]
            .into_iter()
            .filter(|_| hierarchy.ends_with("cpuset"))
        {
            let value =
                std::fs::read(hierarchy.join(setting)).map_err(|error| error.to_string())?;
            std::fs::write(directory.join(setting), value).map_err(|error| error.to_string())?;
        }
        let procs = rustix::fs::openat(
            CWD,
            directory.join("cgroup.procs"),
            OFlags::WRONLY,
            Mode::empty(),
        );
        let procs = procs.map_err(|error| error.to_string())?;
        let text = pid.as_raw_pid().to_string();
        rustix::io::write(procs, text.as_bytes()).map_err(|error| error.to_string())?;
        made.push(directory);
    }
    Ok(made)
}
