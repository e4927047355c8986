//! What is measured against each other: two containers on a network, made by each engine in a network namespace of its own as its
//! host; and two namespaces on a bare bridge, which is what no engine can be faster than.
//!
//! The programs that talk are the host's, run in the containers' network namespaces: what is compared is the network alone.

use super::namespace::Namespace;
use crate::bench::engines::{Engine, TemporaryDirectory, write_busybox};
use crate::{Result, shell};
use std::path::Path;
use std::process::Command;

/// The address of each host that is not on a bridge.
const HOST_ADDRESS: &str = "10.77.0.1";

/// The ports that the first container publishes, each under its own number: iperf3's and a web server's.
pub(super) const PORTS: [u16; 2] = [5201, 8080];

/// From where the first container is reached, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the second, by its address.
    Container,
    /// From the host, by its address.
    Host,
    /// From the host, by the port published on another address of the host.
    Published,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Container, Self::Host, Self::Published];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Container => "container to container",
            Self::Host => "host to container",
            Self::Published => "host to published port",
        }
    }
}

/// podman with directories of its own; there is no process of it.
struct Podman {
    directory: TemporaryDirectory,
}

/// Who makes containers.
enum Maker {
    Engine(Engine),
    Podman(Podman),
}

impl Maker {
    fn podman() -> Result<Self> {
        let directory = TemporaryDirectory::new("podman-bench")?;
        let rootfs = directory.path.join("rootfs");
        write_busybox(&rootfs)?;
        let archive = directory.path.join("busybox.tar").display().to_string();
        shell::run(
            "tar",
            &["-C", &rootfs.display().to_string(), "-cf", &archive, "."],
        )?;
        // Its own default is more than may be set without CAP_SYS_RESOURCE; and crun takes no hybrid hierarchy of cgroups.
        let settings =
            "[containers]\ndefault_ulimits = [\"nofile=512:1024\", \"nproc=1024:2048\"]\n";
        std::fs::write(directory.path.join("containers.conf"), settings)
            .map_err(|error| format!("containers.conf: {error}"))?;
        let podman = Self::Podman(Podman { directory });
        let status = podman.command(&["import", &archive, "busybox"]).status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(podman);
        }
        Err("podman: the image cannot be imported".to_owned())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        match self {
            Self::Engine(engine) => engine.command(arguments),
            Self::Podman(podman) => {
                let mut command = shell::quiet("podman");
                for (flag, name) in [
                    ("--root", "root"),
                    ("--runroot", "run"),
                    ("--tmpdir", "tmp"),
                    ("--network-config-dir", "networks"),
                ] {
                    command.arg(flag).arg(podman.directory.path.join(name));
                }
                let settings = podman.directory.path.join("containers.conf");
                command.env("CONTAINERS_CONF", settings);
                command
                    .args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"])
                    .args(arguments);
                command
            }
        }
    }
}

/// A host with two containers.
pub(super) struct Site {
    pub(super) name: &'static str,
    // Before the host: what ends here ends there.
    maker: Option<Maker>,
    host: Namespace,
    pub(super) server: Namespace,
    client: Namespace,
    address: String,
}

impl Site {
    /// Two namespaces on a bridge, and nothing else.
    pub(super) fn bare() -> Result<Self> {
        let [host, server, client] = [new_host()?, Namespace::new()?, Namespace::new()?];
        host.sh(
            "ip link add br0 type bridge; ip addr add 10.9.0.254/24 dev br0; ip link set br0 up",
        )?;
        for (name, end, address) in [
            ("port0", &server, "10.9.0.1"),
            ("port1", &client, "10.9.0.2"),
        ] {
            let path = end.path();
            host.sh(&format!(
                "ip link add {name} type veth peer name eth0 netns {path}; ip link set {name} master br0 up"
            ))?;
            end.sh(&format!(
                "ip addr add {address}/24 dev eth0; ip link set eth0 up"
            ))?;
        }
        Ok(Self {
            name: "bare veth and bridge",
            maker: None,
            host,
            server,
            client,
            address: "10.9.0.1".to_owned(),
        })
    }

    pub(super) fn hull(binary: &Path) -> Result<Self> {
        Self::of("hull", || Engine::hull(binary).map(Maker::Engine))
    }

    pub(super) fn dockerd() -> Result<Self> {
        Self::of("dockerd", || Engine::dockerd().map(Maker::Engine))
    }

    pub(super) fn podman() -> Result<Self> {
        Self::of("podman", Maker::podman)
    }

    /// Two containers on a network that was made for them.
    fn of(name: &'static str, maker: impl FnOnce() -> Result<Maker> + Send) -> Result<Self> {
        let host = new_host()?;
        let maker = host.inside(maker)?;
        // What the others are until they are there.
        let [server, client] = [
            Namespace::of(std::process::id())?,
            Namespace::of(std::process::id())?,
        ];
        let mut site = Self {
            name,
            maker: Some(maker),
            host,
            server,
            client,
            address: String::new(),
        };
        site.run(&["network", "create", "measured"])?;
        let ports = PORTS.map(|port| format!("-p{port}:{port}"));
        let on = ["run", "-d", "--network", "measured"];
        for (name, published) in [("server", &ports[..]), ("client", &[])] {
            let mut arguments = on.to_vec();
            arguments.extend(published.iter().map(String::as_str));
            arguments.extend(["--name", name, "busybox", "sleep", "3600"]);
            site.run(&arguments)?;
        }
        (site.server, site.address) = site.find("server")?;
        (site.client, _) = site.find("client")?;
        Ok(site)
    }

    /// The namespace and the address of a container.
    fn find(&self, container: &str) -> Result<(Namespace, String)> {
        let format = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let text = self.run(&["inspect", "-f", format, container])?;
        let (pid, address) = text.trim().split_once(' ').ok_or("inspect says nothing")?;
        let pid = pid.parse().map_err(|_| format!("{pid:?} is no process"))?;
        Ok((Namespace::of(pid)?, address.to_owned()))
    }

    /// Whether an engine has made it.
    pub(super) fn is_bare(&self) -> bool {
        self.maker.is_none()
    }

    /// A client's command that has to succeed; returns its output.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        let maker = self.maker.as_ref().ok_or("nobody makes containers here")?;
        let mut command = maker.command(arguments);
        let failed = |text: &str| format!("{}: {}: {text}", self.name, arguments.join(" "));
        let output = self.host.inside(|| {
            command.stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped());
            command.output().map_err(|error| failed(&error.to_string()))
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Where who talks to the server is, and by which address. A bare host publishes nothing: it is reached as it is.
    pub(super) fn by(&self, way: Way) -> (&Namespace, &str) {
        match way {
            Way::Container => (&self.client, &self.address),
            Way::Published if !self.is_bare() => (&self.host, HOST_ADDRESS),
            Way::Host | Way::Published => (&self.host, &self.address),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.is_bare()
            && let Err(error) = self.run(&["rm", "-f", "server", "client"])
        {
            shell::say(&error);
        }
    }
}

/// A host as most are: `br_netfilter`, which shows what a bridge switches to the firewall of packets, is not there. A kernel that has
/// it built in has it on in each new namespace.
fn new_host() -> Result<Namespace> {
    let host = Namespace::new()?;
    host.sh(
        "for f in /proc/sys/net/bridge/bridge-nf-call-*tables; do [ ! -e $f ] || echo 0 > $f; done",
    )?;
    host.sh(&format!("ip addr add {HOST_ADDRESS}/32 dev lo"))?;
    Ok(host)
}
