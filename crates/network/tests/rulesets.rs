//! The firewall of each scenario, as docs/networks shows it: a change of a rule is a change of a document that people read.
//! `HULL_WRITE_RULESETS=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{Addressing, BridgeConfig, GatewayMode, Networks, Protocol, Range};
use std::path::Path;
use support::{Member, add, on_host, publish, run};

fn fixed(subnet: &str) -> Addressing {
    Addressing::Fixed(Range::new(subnet.parse().unwrap()))
}

fn bridge(interface: &str) -> BridgeConfig {
    BridgeConfig {
        ipv4: fixed("172.20.0.0/16"),
        ..BridgeConfig::new(interface)
    }
}

/// The rules as nft lists them. In which order it lists elements is chance.
fn listing() -> String {
    let text = run("nft -s list ruleset");
    let mut sorted = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("elements = {") {
        let (elements, after) = after.split_once('}').unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        sorted += &format!("{before}elements = {{ {} }}", elements.join(", "));
        rest = after;
    }
    sorted + rest
}

fn check(name: &str, about: &str, make: impl FnOnce(&Networks) -> Vec<Member> + Send) {
    on_host(|| {
        let networks = Networks::open("hull0");
        let members = make(&networks);
        let found = format!("# {about}\n\n{}", listing());
        drop(members);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/networks");
        let path = root.join(format!("{name}.nft"));
        if std::env::var_os("HULL_WRITE_RULESETS").is_some() {
            std::fs::create_dir_all(&root).unwrap();
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is otherwise now:\n{found}",
            path.display()
        );
    });
}

#[test]
fn a_bridge_with_published_ports() {
    check(
        "bridge",
        "The default: a bridge with IPv4, a container with port 80 on 8080 of every address, and 53/udp on one.",
        |networks| {
            add(networks, "net", bridge("br-web"));
            let mut member = Member::new(networks, "net", "veth1");
            member.publish(
                networks,
                "net",
                &[
                    publish(Protocol::Tcp, 80, "0.0.0.0", 8080),
                    publish(Protocol::Udp, 53, "127.0.0.1", 5353),
                ],
            );
            vec![member]
        },
    );
}

#[test]
fn both_families() {
    check(
        "ipv6",
        "IPv4 and IPv6: port 80 on 8080 of every address.",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    ipv6: fixed("fd20::/64"),
                    ..bridge("br-web")
                },
            );
            let mut member = Member::new(networks, "net", "veth1");
            member.publish(
                networks,
                "net",
                &[
                    publish(Protocol::Tcp, 80, "0.0.0.0", 8080),
                    publish(Protocol::Tcp, 80, "::", 8080),
                ],
            );
            vec![member]
        },
    );
}

#[test]
fn internal() {
    check(
        "internal",
        "An internal network beside an ordinary one.",
        |networks| {
            add(networks, "web", bridge("br-web"));
            add(
                networks,
                "db",
                BridgeConfig {
                    ipv4: fixed("172.21.0.0/16"),
                    internal: true,
                    ..bridge("br-db")
                },
            );
            Vec::new()
        },
    );
}

#[test]
fn without_icc() {
    check(
        "no-icc",
        "Containers that do not reach each other (enable_icc=false).",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    icc: false,
                    ..bridge("br-web")
                },
            );
            Vec::new()
        },
    );
}

#[test]
fn without_masquerading() {
    check(
        "no-masquerade",
        "Containers that show their own addresses (enable_ip_masquerade=false).",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    masquerade: false,
                    ..bridge("br-web")
                },
            );
            Vec::new()
        },
    );
}

#[test]
fn routed() {
    check(
        "routed",
        "Containers that are reached at their own addresses (gateway_mode_ipv4=routed): port 80 is published.",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    gateway_mode4: GatewayMode::Routed,
                    ..bridge("br-web")
                },
            );
            let mut member = Member::new(networks, "net", "veth1");
            member.publish(
                networks,
                "net",
                &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
            );
            vec![member]
        },
    );
}

#[test]
fn unprotected() {
    check(
        "nat-unprotected",
        "Containers whose every port is reached by who has a route (gateway_mode_ipv4=nat-unprotected).",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    gateway_mode4: GatewayMode::NatUnprotected,
                    ..bridge("br-web")
                },
            );
            Vec::new()
        },
    );
}

#[test]
fn without_checks() {
    check(
        "no-check-senders",
        "Containers that may speak in any name (hull.network.bridge.check_senders=false).",
        |networks| {
            add(
                networks,
                "net",
                BridgeConfig {
                    checks_senders: false,
                    ..bridge("br-web")
                },
            );
            vec![Member::new(networks, "net", "veth1")]
        },
    );
}
