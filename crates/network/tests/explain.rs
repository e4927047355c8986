//! What is said of who reaches a port, held against who does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{BridgeConfig, Explanation, GatewayMode, Networks, Origin, Protocol};
use std::net::SocketAddr;
use support::{
    KEY, Member, Namespace, add, listen, networks, on_host, publish, reaches, run, until, world,
};

const PORT: u16 = 80;
const PUBLISHED: &str = "192.0.2.1:8080";

fn explain(networks: &Networks, member: &Member) -> Explanation {
    let port = (Protocol::Tcp, PORT);
    let mut explained = networks.explain(KEY, &member.endpoint, port).unwrap();
    assert_eq!(explained.len(), 1, "{explained:?}");
    explained.remove(0)
}

/// Checks that what is said is so, for everybody.
fn compare(networks: &Networks, server: &Member, others: [(&Namespace, Origin); 3]) {
    let said = explain(networks, server);
    let direct: SocketAddr = (server.address(false), PORT).into();
    let by_host: SocketAddr = PUBLISHED.parse().unwrap();
    let _listener = listen(&server.namespace, PORT);
    let reached = || reaches(direct) || reaches(by_host);
    let origins: Vec<Origin> = said.reaches.iter().map(|reach| reach.from).collect();
    let expected = [
        Origin::Host,
        Origin::World,
        Origin::Network,
        Origin::OtherNetworks,
    ];
    assert_eq!(origins, expected);
    for reach in &said.reaches {
        let namespace = others.iter().find(|(_, from)| *from == reach.from);
        let is_reached = || match namespace {
            Some((namespace, _)) => namespace.inside(reached),
            None => reached(),
        };
        if reach.reached {
            until("it is reached as it is said", is_reached);
        } else {
            assert!(!is_reached(), "{reach:?}");
        }
        // Within the host and the network no rule needs to let anybody through.
        let is_free = matches!(reach.from, Origin::Host | Origin::Network) && reach.reached;
        assert!(is_free || !reach.rule.is_empty(), "{reach:?}");
    }
}

/// One network as `change` has it, its port published so or not at all.
fn case(change: impl FnOnce(&mut BridgeConfig) + Send, host_ip: Option<&str>) {
    on_host(|| {
        run("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true");
        let world = world();
        let mut config = BridgeConfig::new("hull0");
        change(&mut config);
        let networks = networks(config);
        add(&networks, "other", BridgeConfig::new("hull1"));
        let mut server = Member::new(&networks, KEY, "vetha");
        let same = Member::new(&networks, KEY, "vethb");
        let other = Member::new(&networks, "other", "vethc");
        if let Some(host_ip) = host_ip {
            let request = publish(Protocol::Tcp, PORT, host_ip, 8080);
            server.publish(&networks, KEY, &[request]);
        }
        let others = [
            (&world, Origin::World),
            (&same.namespace, Origin::Network),
            (&other.namespace, Origin::OtherNetworks),
        ];
        compare(&networks, &server, others);
    });
}

#[test]
fn who_reaches_what_is_published() {
    case(|_| {}, Some("0.0.0.0"));
}

#[test]
fn who_reaches_what_is_published_on_one_address() {
    case(|_| {}, Some("192.0.2.1"));
}

#[test]
fn who_reaches_what_is_published_for_the_host_alone() {
    case(|_| {}, Some("127.0.0.1"));
}

#[test]
fn who_reaches_what_is_not_published() {
    case(|_| {}, None);
}

#[test]
fn who_reaches_a_network_whose_containers_do_not_reach_each_other() {
    case(|config| config.icc = false, Some("0.0.0.0"));
    case(|config| config.icc = false, None);
}

#[test]
fn who_reaches_networks_that_are_routed_or_open() {
    let routed = |config: &mut BridgeConfig| config.gateway_mode4 = GatewayMode::Routed;
    case(routed, Some("0.0.0.0"));
    case(routed, None);
    case(
        |config| config.gateway_mode4 = GatewayMode::NatUnprotected,
        None,
    );
}

#[test]
fn the_chains_of_others_are_named() {
    on_host(|| {
        let networks = networks(BridgeConfig::new("hull0"));
        let mut server = Member::new(&networks, KEY, "vetha");
        let request = publish(Protocol::Tcp, PORT, "0.0.0.0", 8080);
        server.publish(&networks, KEY, &[request]);
        let others = |explained: Explanation| {
            let mut reaches = explained.reaches.into_iter();
            reaches.find(|r| r.from == Origin::World).unwrap().others
        };
        assert_eq!(others(explain(&networks, &server)), Vec::<String>::new());
        run(
            "nft 'add table inet mine; add chain inet mine gate { type filter hook forward priority 0; policy drop; }'",
        );
        let said = others(explain(&networks, &server));
        assert_eq!(said, ["chain gate of table inet mine drops everything"]);
        run("nft 'add rule inet mine gate tcp dport 80 accept'");
        let said = others(explain(&networks, &server));
        let expected =
            "chain gate of table inet mine drops what none of its rules lets through (it has 1)";
        assert_eq!(said, [expected]);
    });
}
