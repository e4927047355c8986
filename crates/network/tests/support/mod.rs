//! Network namespaces: one that plays the host, and one for each container. Needs root and util-linux's unshare.

#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test's own support"
)]

use network::{BridgeConfig, Endpoint, EndpointRequest, Networks, PortMapping, Protocol, Publish};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub const WAIT: Duration = Duration::from_secs(60);

/// How long something is tried that must not succeed.
const IN_VAIN: Duration = Duration::from_millis(700);

/// The key of the network in most tests.
pub const KEY: &str = "net";

/// A network namespace that lasts as long as the value.
pub struct Namespace {
    holder: Child,
    pub netns: File,
}

impl Namespace {
    #[allow(clippy::new_without_default, reason = "it makes something")]
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped());
        let mut holder = command.spawn().expect("unshare, as root");
        let mut ready = [0; 6];
        holder
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .expect("a network namespace, as root");
        let netns = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        Self { holder, netns }
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.netns.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

/// Serves one connection: tells the client its address.
pub fn serve_tcp(listener: TcpListener) {
    let (mut stream, peer) = listener.accept().unwrap();
    stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
}

pub fn ask_tcp(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn links() -> String {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub fn ruleset() -> String {
    String::from_utf8(
        Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap()
}

pub fn listen(container: &Namespace, port: u16) -> TcpListener {
    let deadline = Instant::now() + WAIT;
    container.inside(|| {
        loop {
            let bound =
                TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
            match bound {
                // A program that another test is starting has the listener that was here before until it is executed.
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                bound => return bound.unwrap(),
            }
        }
    })
}

/// Whether an address can be reached, where it is expected that it cannot.
pub fn reaches(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, IN_VAIN).is_ok()
}

/// Runs a command that has to succeed.
pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs on a machine of its own, which has its loopback interface.
pub fn on_host(test: impl FnOnce() + Send) {
    let host = Namespace::new();
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        test();
    });
}

/// Another machine: 192.0.2.2, and the host is 192.0.2.1 to it and its way out.
pub fn world() -> Namespace {
    let world = Namespace::new();
    run(&format!(
        "ip link add up0 type veth peer name eth0 netns /proc/{}/ns/net; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up",
        world.pid()
    ));
    world.inside(|| {
        run("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip link set lo up; ip route add default via 192.0.2.1")
    });
    world
}

/// A bridge as most tests have it.
pub fn bridge() -> BridgeConfig {
    BridgeConfig::new("hull0")
}

/// A host with one network.
pub fn networks(config: BridgeConfig) -> Networks {
    let networks = Networks::open("hull0");
    add(&networks, KEY, config);
    networks
}

/// A further network.
pub fn add(networks: &Networks, key: &str, config: BridgeConfig) {
    networks.plan(key, config).unwrap();
    networks.raise(key).unwrap();
}

pub fn request(name: &str) -> EndpointRequest {
    EndpointRequest {
        host_interface: name.to_owned(),
        interface: "eth0".to_owned(),
        addresses: Vec::new(),
        link_local: Vec::new(),
        mac: None,
    }
}

/// A container on a network.
pub struct Member {
    pub namespace: Namespace,
    pub endpoint: Endpoint,
}

impl Member {
    pub fn new(networks: &Networks, key: &str, name: &str) -> Self {
        let namespace = Namespace::new();
        let endpoint = networks.reserve(key, request(name)).unwrap();
        networks
            .connect(key, namespace.netns.as_fd(), &endpoint, true)
            .unwrap();
        Self {
            namespace,
            endpoint,
        }
    }

    pub fn address(&self, is_ipv6: bool) -> IpAddr {
        self.endpoint.address(is_ipv6).unwrap().address
    }

    pub fn gateway(&self, is_ipv6: bool) -> IpAddr {
        self.endpoint.address(is_ipv6).unwrap().gateway.unwrap()
    }

    pub fn ask(&self, address: SocketAddr) -> std::io::Result<String> {
        self.namespace.inside(|| ask_tcp(address))
    }

    pub fn reaches(&self, address: SocketAddr) -> bool {
        self.namespace.inside(|| reaches(address))
    }

    /// Serves one connection; what the client was told it is.
    pub fn serves(&self, port: u16, ask: impl FnOnce() -> std::io::Result<String>) -> String {
        let listener = listen(&self.namespace, port);
        let server = std::thread::spawn(move || serve_tcp(listener));
        let answer = ask();
        assert!(answer.is_ok(), "{answer:?} {}", ruleset());
        server.join().unwrap();
        let answer = answer.unwrap();
        answer.strip_prefix("::ffff:").unwrap_or(&answer).to_owned()
    }

    pub fn publish(
        &mut self,
        networks: &Networks,
        key: &str,
        requests: &[Publish],
    ) -> Vec<PortMapping> {
        let ports = networks.publish(key, &self.endpoint, requests).unwrap();
        self.endpoint.ports.extend(&ports);
        ports
    }
}

pub fn publish(protocol: Protocol, container_port: u16, host_ip: &str, host_port: u16) -> Publish {
    Publish {
        protocol,
        container_port,
        host_ips: vec![host_ip.parse().unwrap()],
        host_ports: (host_port, host_port),
    }
}
