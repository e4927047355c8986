//! `cargo xtask bench network`: what the network itself costs, without an engine around it: throughput between two containers beside a
//! bare veth pair and bridge, and how long networks, endpoints and published ports take to make.
//!
//! Everything is in network namespaces that are gone afterwards. Throughput needs iperf3, and says when it is missing.

use crate::{Result, shell};
use network::{BridgeConfig, Endpoint, EndpointRequest, Networks, Protocol, Publish};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often each thing is done.
const ROUNDS: usize = 20;

/// How often throughput is measured each way, in turns.
const STREAM_ROUNDS: usize = 3;

/// Seconds of each measurement.
const STREAM_S: &str = "3";

/// How long iperf3 may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How many ports one container publishes.
const PORTS: u16 = 10_000;

/// The first of them.
const FIRST_PORT: u16 = 20_000;

/// A network namespace that lasts as long as the value.
struct Namespace {
    holder: Child,
    netns: File,
}

impl Namespace {
    fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; echo ready; exec sleep 600",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut ready = [0; 6];
        let output = holder.stdout.as_mut().ok_or("unshare has no output")?;
        output
            .read_exact(&mut ready)
            .map_err(|error| format!("unshare: {error}"))?;
        let path = format!("/proc/{}/ns/net", holder.id());
        let netns = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { holder, netns })
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.netns.as_fd(), kind)
                    .map_err(|error| error.to_string())?;
                work()
            });
            thread.join().map_err(|_| "a measurement panicked")?
        })
    }

    fn sh(&self, script: &str) -> Result<()> {
        self.inside(|| shell::run("sh", &["-ec", script]))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It ends by itself, some minutes later, if it cannot be ended now.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Measures everything.
pub(super) fn run() -> Result<()> {
    let host = Namespace::new()?;
    host.inside(set_up_times)?;
    if shell::is_installed("iperf3") {
        throughput()
    } else {
        shell::print("throughput: iperf3 is not installed");
        Ok(())
    }
}

/// How long it takes to make what a network is made of.
fn set_up_times() -> Result<()> {
    let networks = Networks::open("hullbench0");
    let mut created = Vec::new();
    let mut attached = Vec::new();
    for round in 0..ROUNDS {
        let key = format!("net{round}");
        let started = Instant::now();
        raise(&networks, &key, &format!("hullbench{round}"))?;
        created.push(started.elapsed());
        let container = Namespace::new()?;
        let started = Instant::now();
        connect(&networks, &key, &container, &format!("vethb{round}"))?;
        attached.push(started.elapsed());
    }
    let container = Namespace::new()?;
    let endpoint = connect(&networks, "net0", &container, "vethports")?;
    let requests: Vec<Publish> = (FIRST_PORT..FIRST_PORT + PORTS)
        .map(|port| Publish {
            protocol: Protocol::Tcp,
            container_port: port,
            host_ips: vec![IpAddr::from([0, 0, 0, 0])],
            host_ports: (port, port),
        })
        .collect();
    let mut published = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let ports = networks.publish("net0", &endpoint, &requests);
        published.push(started.elapsed());
        let taken_back = networks.unpublish("net0", &endpoint, &ports.map_err(|e| e.to_string())?);
        taken_back.map_err(|error| error.to_string())?;
    }
    let ports = format!("publish {PORTS} ports");
    let rows: [(&str, Vec<Duration>); 3] = [
        ("create a network", created),
        ("attach a container", attached),
        (&ports, published),
    ];
    shell::print("\nnetworks, in one process");
    for (title, mut times) in rows {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1e3;
        let least = times[0].as_secs_f64() * 1e3;
        shell::print(&format!(
            "  {title:24} median {median:8.2} ms   min {least:8.2} ms"
        ));
    }
    Ok(())
}

fn raise(networks: &Networks, key: &str, interface: &str) -> Result<()> {
    let planned = networks.plan(key, BridgeConfig::new(interface));
    planned.map_err(|error| error.to_string())?;
    networks.raise(key).map_err(|error| error.to_string())
}

fn connect(networks: &Networks, key: &str, container: &Namespace, name: &str) -> Result<Endpoint> {
    let request = EndpointRequest {
        host_interface: name.to_owned(),
        interface: "eth0".to_owned(),
        addresses: Vec::new(),
        link_local: Vec::new(),
        mac: None,
    };
    let endpoint = networks
        .reserve(key, request)
        .map_err(|error| error.to_string())?;
    let connected = networks.connect(key, container.netns.as_fd(), &endpoint, true);
    connected.map_err(|error| error.to_string())?;
    Ok(endpoint)
}

/// Two containers, and the address of the first, where iperf3 serves.
struct Pair {
    name: &'static str,
    _host: Namespace,
    _server: Namespace,
    iperf3: Child,
    client: Namespace,
    address: String,
}

impl Pair {
    fn bare() -> Result<Self> {
        let [host, server, client] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        host.sh("ip link add br0 type bridge; ip link set br0 up")?;
        for (name, end, address) in [
            ("port0", &server, "10.9.0.1"),
            ("port1", &client, "10.9.0.2"),
        ] {
            let pid = end.holder.id();
            host.sh(&format!(
                "ip link add {name} type veth peer name eth0 netns /proc/{pid}/ns/net; ip link set {name} master br0 up"
            ))?;
            end.sh(&format!(
                "ip addr add {address}/24 dev eth0; ip link set eth0 up"
            ))?;
        }
        Ok(Self {
            name: "bare veth and bridge",
            _host: host,
            iperf3: serve(&server)?,
            _server: server,
            client,
            address: "10.9.0.1".to_owned(),
        })
    }

    fn hull() -> Result<Self> {
        let [host, server, client] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let address = host.inside(|| {
            let networks = Networks::open("hullbench0");
            raise(&networks, "net", "hullbench0")?;
            let endpoint = connect(&networks, "net", &server, "vetha")?;
            connect(&networks, "net", &client, "vethb")?;
            Ok(endpoint
                .address(false)
                .ok_or("no address")?
                .address
                .to_string())
        })?;
        Ok(Self {
            name: "hull",
            _host: host,
            iperf3: serve(&server)?,
            _server: server,
            client,
            address,
        })
    }

    /// Bits per second from the second to the first.
    fn measure(&self, streams: &str) -> Result<f64> {
        let failed = |error: std::io::Error| format!("iperf3: {error}");
        let output = self.client.inside(|| {
            let deadline = Instant::now() + START_TIMEOUT;
            let mut client = Command::new("iperf3");
            client.args(["-J", "-c", &self.address, "-t", STREAM_S, "-P", streams]);
            loop {
                let output = client.output().map_err(failed)?;
                // The server needs a moment until it listens.
                if output.status.success() || Instant::now() > deadline {
                    return Ok(output);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let result: serde_json::Value =
            serde_json::from_slice(&output?.stdout).map_err(|error| format!("iperf3: {error}"))?;
        let received = result["end"]["sum_received"]["bits_per_second"].as_f64();
        received.ok_or_else(|| format!("iperf3, {}: {}", self.name, result["error"]))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // As with namespaces.
        let _ = self.iperf3.kill();
        let _ = self.iperf3.wait();
    }
}

fn serve(namespace: &Namespace) -> Result<Child> {
    namespace.inside(|| {
        let server = shell::quiet("iperf3").arg("-s").spawn();
        server.map_err(|error| format!("iperf3: {error}"))
    })
}

fn throughput() -> Result<()> {
    let pairs = [Pair::bare()?, Pair::hull()?];
    for streams in ["1", "8"] {
        let mut best = [0.0_f64; 2];
        for _ in 0..STREAM_ROUNDS {
            for (pair, best) in pairs.iter().zip(&mut best) {
                *best = best.max(pair.measure(streams)?);
            }
        }
        shell::print(&format!("\ncontainer to container, {streams} streams"));
        for (pair, rate) in pairs.iter().zip(best) {
            let ratio = rate / best[0];
            shell::print(&format!(
                "  {:24} {:6.1} Gbit/s  {ratio:.2}",
                pair.name,
                rate / 1e9
            ));
        }
    }
    Ok(())
}
