//! `cargo xtask bench network`: what the network costs. Without an engine around it: how long networks, endpoints and published ports
//! take to make. With it, beside the other engines and a bare veth pair and bridge: what gets through, and the same times.
//!
//! Everything is in network namespaces that are gone afterwards. `bench network 5`: five rounds of what gets through.

mod lives;
mod namespace;
mod site;
mod traffic;

use crate::{Result, shell};
use namespace::Namespace;
use network::{BridgeConfig, Endpoint, EndpointRequest, Networks, Protocol, Publish};
use site::Site;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often each thing is done.
const ROUNDS: usize = 20;

/// How often what gets through is measured, unless it is said.
const TRAFFIC_ROUNDS: usize = 3;

/// How many ports one container publishes.
const PORTS: u16 = 10_000;

/// The first of them.
const FIRST_PORT: u16 = 20_000;

/// Measures everything.
pub(super) fn run(hull: &Path) -> Result<()> {
    let host = Namespace::new()?;
    host.inside(set_up_times)?;
    let mut sites = vec![Site::bare()?, Site::hull(hull)?];
    for (program, make) in [
        ("dockerd", Site::dockerd as fn() -> Result<Site>),
        ("podman", Site::podman),
    ] {
        if shell::is_installed(program) {
            sites.push(make()?);
        } else {
            shell::print(&format!("{program}: not installed"));
        }
    }
    traffic::run(&sites, super::rounds(TRAFFIC_ROUNDS)?)?;
    lives::run(&sites)?;
    lives::many(&sites[1])
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
    let connected = networks.connect(key, container.netns().as_fd(), &endpoint, true);
    connected.map_err(|error| error.to_string())?;
    Ok(endpoint)
}
