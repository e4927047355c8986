//! One network on two hosts, each a network namespace.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{Addressing, BridgeConfig, Networks, Range, Tunnel, VXLAN_PORT};
use std::os::fd::AsFd;
use support::{KEY, Member, Namespace, add, links, run, until};

/// A host's side of the network: its own part of the addresses, and the other host.
fn side(number: u8, peer: &str) -> BridgeConfig {
    let range = Range {
        gateway: Some(format!("10.50.{number}.1").parse().unwrap()),
        pool: Some(format!("10.50.{number}.0/24").parse().unwrap()),
        ..Range::new("10.50.0.0/16".parse().unwrap())
    };
    let tunnel = Tunnel {
        id: 42,
        peers: vec![peer.parse().unwrap()],
        local: None,
        port: VXLAN_PORT,
    };
    BridgeConfig {
        ipv4: Addressing::Fixed(range),
        mtu: Some(tunnel.mtu()),
        tunnel: Some(tunnel),
        ..BridgeConfig::new("hull0")
    }
}

/// Two hosts on a wire, and the network that both have.
fn compare(first: &str, second: &str, prefix: u8) {
    let hosts = [Namespace::new(), Namespace::new()];
    for host in &hosts {
        network::loopback_up(host.netns.as_fd()).unwrap();
    }
    let other = hosts[1].pid();
    hosts[0].inside(|| {
        run(&format!(
            "ip link add wire type veth peer name wire netns /proc/{other}/ns/net"
        ))
    });
    let sides = [(first, second, 1), (second, first, 2)];
    let made: Vec<(Networks, Member)> = hosts
        .iter()
        .zip(sides)
        .map(|(host, (own, peer, number))| {
            host.inside(|| {
                let nodad = if own.contains(':') { "nodad" } else { "" };
                run(&format!(
                    "ip addr add {own}/{prefix} dev wire {nodad}; ip link set wire up"
                ));
                let networks = Networks::open("hull0");
                add(&networks, KEY, side(number, peer));
                let member = Member::new(&networks, KEY, "vetha");
                (networks, member)
            })
        })
        .collect();
    for (from, to) in [(0, 1), (1, 0)] {
        let server = &made[to].1;
        let _listener = support::listen(&server.namespace, 80);
        let address = (server.address(false), 80).into();
        until("the other host's container is reached", || {
            made[from].1.reaches(address)
        });
    }
    for (host, (networks, member)) in hosts.iter().zip(&made) {
        host.inside(|| {
            assert!(links().contains("vxlan42"));
            let taken = networks.plan("more", side(9, first));
            assert!(taken.unwrap_err().to_string().contains("interface"));
            assert!(networks.disconnect(KEY, &member.endpoint, true).is_empty());
            networks.remove(KEY).unwrap();
            assert!(!links().contains("vxlan42"));
        });
    }
}

#[test]
fn two_hosts_have_one_network() {
    compare("192.0.2.1", "192.0.2.2", 24);
}

#[test]
fn the_hosts_may_have_ipv6_alone() {
    compare("fd00:7::1", "fd00:7::2", 64);
}
