//! What keeps networks apart, and containers from speaking in others' names. Every attack is tried where it is let through, too:
//! a test that would pass without the defence is none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{Addressing, BridgeConfig, GatewayMode, Networks, Protocol};
use rustix::net::{AddressFamily, SocketType, ipproto, sendto, socket, sockopt};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::{Command, Stdio};
use support::{
    KEY, Member, add, ask_tcp, links, listen, networks, on_host, publish, reaches, ruleset, run,
    until, world,
};

fn dual(interface: &str) -> BridgeConfig {
    BridgeConfig {
        ipv6: Addressing::Choose,
        ..BridgeConfig::new(interface)
    }
}

fn unchecked(interface: &str) -> BridgeConfig {
    BridgeConfig {
        checks_senders: false,
        ..dual(interface)
    }
}

/// Whether one container gets an answer of another's server.
fn gets_through(from: &Member, to: &Member, is_ipv6: bool) -> bool {
    let listener = listen(&to.namespace, 80);
    let reached = from.reaches((to.address(is_ipv6), 80).into());
    drop(listener);
    reached
}

#[test]
fn networks_do_not_reach_each_other() {
    on_host(|| {
        let networks = networks(dual("hull0"));
        add(&networks, "other", dual("hull1"));
        let (a, b) = (
            Member::new(&networks, KEY, "vetha"),
            Member::new(&networks, KEY, "vethb"),
        );
        let c = Member::new(&networks, "other", "vethc");
        for is_ipv6 in [false, true] {
            until("it is reached", || gets_through(&a, &b, is_ipv6));
            assert!(!gets_through(&a, &c, is_ipv6) && !gets_through(&c, &a, is_ipv6));
        }
    });
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    on_host(|| {
        let world = world();
        let networks = networks(BridgeConfig {
            internal: true,
            ..dual("hull0")
        });
        add(&networks, "other", dual("hull1"));
        let (a, b) = (
            Member::new(&networks, KEY, "vetha"),
            Member::new(&networks, KEY, "vethb"),
        );
        let mut c = Member::new(&networks, "other", "vethc");
        c.publish(
            &networks,
            "other",
            &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
        );
        for is_ipv6 in [false, true] {
            until("it is reached", || gets_through(&a, &b, is_ipv6));
        }
        // Though it has a route, to the world or by a published port of another network.
        let route = "ip route add default via $(ip -o -4 addr show eth0 | sed 's/.* inet \\([0-9.]*\\)[.][0-9]*[/].*/\\1.1/')";
        a.namespace.inside(|| run(route));
        let listener = listen(&world, 90);
        assert!(!a.reaches("192.0.2.2:90".parse().unwrap()));
        until("the world is reached", || {
            c.reaches("192.0.2.2:90".parse().unwrap())
        });
        drop(listener);
        c.serves(80, || {
            assert!(!a.reaches("192.0.2.1:8080".parse().unwrap()));
            ask_tcp("192.0.2.1:8080".parse().unwrap())
        });
        let listener = listen(&a.namespace, 80);
        let direct: SocketAddr = (a.address(false), 80).into();
        assert!(!world.inside(|| reaches(direct)));
        drop(listener);
    });
}

#[test]
fn without_icc_containers_reach_published_ports_alone() {
    on_host(|| {
        // Where bridges call the firewall of packets, a packet that is translated to the same bridge is not routed but
        // bridged, from one isolated port to another, which is refused.
        run("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true");
        let networks = networks(BridgeConfig {
            icc: false,
            ..dual("hull0")
        });
        let mut a = Member::new(&networks, KEY, "vetha");
        let b = Member::new(&networks, KEY, "vethb");
        a.publish(
            &networks,
            KEY,
            &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
        );
        assert!(!gets_through(&b, &a, false) && !gets_through(&b, &a, true));
        // Not by way of the gateway either.
        let by_gateway = format!(
            "ip route add {}/32 via {}",
            a.address(false),
            b.gateway(false)
        );
        b.namespace.inside(|| run(&by_gateway));
        assert!(!gets_through(&b, &a, false));
        a.serves(80, || b.ask((b.gateway(false), 8080).into()));
    });
}

#[test]
fn routed_containers_are_reached_at_their_published_ports() {
    on_host(|| {
        let world = world();
        let networks = networks(BridgeConfig {
            gateway_mode4: GatewayMode::Routed,
            ..BridgeConfig::new("hull0")
        });
        let mut a = Member::new(&networks, KEY, "vetha");
        let ports = a.publish(
            &networks,
            KEY,
            &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
        );
        assert_eq!(ports[0].host_port, 0);
        let address = a.address(false);
        assert_eq!(
            a.serves(80, || world.inside(|| ask_tcp((address, 80).into()))),
            "192.0.2.2"
        );
        let listener = listen(&a.namespace, 81);
        assert!(!world.inside(|| reaches((address, 81).into())));
        drop(listener);
        // Outwards it shows its own address.
        let listener = listen(&world, 90);
        let server = std::thread::spawn(move || support::serve_tcp(listener));
        let seen = a.ask("192.0.2.2:90".parse().unwrap()).unwrap();
        assert!(seen.ends_with(&address.to_string()), "{seen}");
        server.join().unwrap();
    });
}

/// docs/adr/0013: what the host's firewall does not forward is not forwarded, published or not.
#[test]
fn the_hosts_firewall_has_the_last_word() {
    on_host(|| {
        let world = world();
        let networks = networks(BridgeConfig::new("hull0"));
        let mut a = Member::new(&networks, KEY, "vetha");
        let requests = [8080, 8081].map(|port| publish(Protocol::Tcp, 80, "0.0.0.0", port));
        a.publish(&networks, KEY, &requests);
        let asks = |port: u16| world.inside(|| ask_tcp(([192, 0, 2, 1], port).into()));
        a.serves(80, || asks(8081));
        // As ufw has it unless told otherwise: nothing is forwarded; then one published port is let in, and containers out.
        run(
            "nft 'add table inet host; add chain inet host forward { type filter hook forward priority 0; policy drop; }; add rule inet host forward ct state established,related accept'",
        );
        let reached = |port: u16| world.inside(|| reaches(([192, 0, 2, 1], port).into()));
        let listener = listen(&a.namespace, 80);
        assert!(!reached(8080) && !reached(8081));
        drop(listener);
        run(
            "nft add rule inet host forward ct status dnat meta l4proto tcp ct original proto-dst 8080 accept",
        );
        a.serves(80, || asks(8080));
        assert!(!reached(8081));
        let listener = listen(&world, 90);
        let outside = "192.0.2.2:90".parse().unwrap();
        assert!(!a.reaches(outside));
        run("nft add rule inet host forward iifname hull0 accept");
        until("the world is reached", || a.reaches(outside));
        drop(listener);
    });
}

/// A router advertisement for a prefix: RFC 4861 section 4.2.
fn advertise(router: &Member) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    message.extend([
        0x20, 0x01, 0x0d, 0xb8, 0x66, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    router.namespace.inside(|| {
        let raw = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_multicast_hops(&raw, 255).unwrap();
        let index = run("ip -o link show eth0 | cut -d: -f1");
        let everybody = SocketAddrV6::new(
            "ff02::1".parse().unwrap(),
            0,
            0,
            index.trim().parse().unwrap(),
        );
        sendto(&raw, &message, rustix::net::SendFlags::empty(), &everybody).unwrap();
    });
}

/// CVE-2020-13401: what a container advertises concerns nobody, even who would listen.
#[test]
fn attack_32_a_container_is_nobodys_router() {
    on_host(|| {
        let open = networks(unchecked("hull0"));
        add(&open, "checked", dual("hull1"));
        let mut learned = Vec::new();
        for (key, names) in [(KEY, ["vetha", "vethb"]), ("checked", ["vethc", "vethd"])] {
            let (attacker, victim) = (
                Member::new(&open, key, names[0]),
                Member::new(&open, key, names[1]),
            );
            let addresses = |who: &Member| who.namespace.inside(|| run("ip -6 addr show eth0"));
            // As it is, nobody listens.
            advertise(&attacker);
            victim
                .namespace
                .inside(|| run("echo 2 > /proc/sys/net/ipv6/conf/eth0/accept_ra"));
            for who in [&attacker, &victim] {
                until("it has an address for the link", || {
                    let found = addresses(who);
                    found.contains("fe80::") && !found.contains("tentative")
                });
            }
            let is_fooled = || {
                advertise(&attacker);
                std::thread::sleep(std::time::Duration::from_millis(20));
                addresses(&victim).contains("2001:db8:6666")
            };
            if key == KEY {
                until("who is not protected is fooled", is_fooled);
            }
            learned.push((0..25).any(|_| is_fooled()));
        }
        assert_eq!(learned, [true, false], "{}", ruleset());
        let host = run("ip -6 addr; ip -6 route");
        assert!(!host.contains("2001:db8:6666"), "{host}");
    });
}

/// The hardware address that a container knows for another address.
fn neighbour(who: &Member, address: IpAddr) -> String {
    who.namespace
        .inside(|| run(&format!("ip neigh show {address} dev eth0")))
}

/// Raw ARP and neighbour discovery: a container that takes another's address for its own is not heard.
#[test]
fn attack_32_a_container_cannot_take_anothers_place() {
    on_host(|| {
        let open = networks(unchecked("hull0"));
        add(&open, "checked", dual("hull1"));
        for is_ipv6 in [false, true] {
            let mut fooled = Vec::new();
            for (key, letter) in [(KEY, "a"), ("checked", "b")] {
                let name = |n: u8| format!("veth{letter}{n}{}", u8::from(is_ipv6));
                let [attacker, victim, observer] =
                    [1, 2, 3].map(|n| Member::new(&open, key, &name(n)));
                until("it is reached", || {
                    gets_through(&observer, &victim, is_ipv6)
                });
                let stolen = victim.address(is_ipv6);
                let mac = attacker
                    .endpoint
                    .mac
                    .map(|byte| format!("{byte:02x}"))
                    .join(":");
                attacker.namespace.inside(|| {
                    let prefix = if is_ipv6 { "64 nodad" } else { "16" };
                    run(&format!("ip addr add {stolen}/{prefix} dev eth0"));
                    let socket = UdpSocket::bind((stolen, 0)).unwrap();
                    socket
                        .send_to(b"hello", (observer.address(is_ipv6), 9))
                        .unwrap();
                });
                let found = (0..40).any(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    neighbour(&observer, stolen).contains(&mac)
                });
                fooled.push(found);
            }
            assert_eq!(fooled, [true, false], "IPv6: {is_ipv6} {}", ruleset());
        }
    });
}

/// CVE-2023-28840 and its like: a network whose rules cannot be set does not come up at all.
#[test]
fn attack_33_there_is_no_network_before_its_rules() {
    on_host(|| {
        // Somebody else owns the table, so that it cannot be changed.
        let mut owner = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = owner.stdin.take().unwrap();
        writeln!(
            input,
            "add table inet hull0 {{ flags owner; }}\nlist tables"
        )
        .unwrap();
        let mut output = BufReader::new(owner.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("table inet hull0") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "nft has ended");
        }
        let networks = Networks::open("hull0");
        networks.plan(KEY, dual("hull0")).unwrap();
        assert!(networks.raise(KEY).is_err());
        assert!(!links().contains("hull0"), "{}", links());
        owner.kill().unwrap();
        owner.wait().unwrap();
        networks.raise(KEY).unwrap();
        assert!(links().contains("hull0"));
    });
}

/// What a ruleset says, in whatever order nft lists elements and breaks lines.
fn words(ruleset: &str) -> Vec<String> {
    let words = ruleset.split_whitespace();
    let mut words: Vec<_> = words
        .map(|word| word.trim_end_matches(',').to_owned())
        .collect();
    words.sort_unstable();
    words
}

/// CVE-2025-54388, CVE-2025-54410: what flushes the ruleset takes neither isolation nor ports away.
#[test]
fn attack_35_rules_that_are_flushed_come_back() {
    on_host(|| {
        let world = world();
        let networks = networks(dual("hull0"));
        add(&networks, "other", dual("hull1"));
        let mut a = Member::new(&networks, KEY, "vetha");
        let c = Member::new(&networks, "other", "vethc");
        let requests = [
            publish(Protocol::Tcp, 80, "0.0.0.0", 8080),
            publish(Protocol::Tcp, 80, "127.0.0.1", 8081),
        ];
        a.publish(&networks, KEY, &requests);
        let before = words(&ruleset());
        for command in [
            "flush ruleset",
            "delete table netdev hull0",
            "flush chain inet hull0 forward",
            "flush chain netdev hull0 vetha",
            "delete chain netdev hull0 vetha",
        ] {
            run(&format!("nft '{command}'"));
            until(command, || words(&ruleset()) == before);
        }
        assert!(!gets_through(&c, &a, false));
        a.serves(80, || {
            world.inside(|| ask_tcp("192.0.2.1:8080".parse().unwrap()))
        });
        // What is published for the host alone is not for its neighbours, whatever the host routes.
        run("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
        world.inside(|| run("ip addr del 127.0.0.1/8 dev lo 2>/dev/null; ip route add 127.0.0.1/32 via 192.0.2.1; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"));
        a.serves(80, || {
            assert!(!world.inside(|| reaches("127.0.0.1:8081".parse().unwrap())));
            ask_tcp("127.0.0.1:8081".parse().unwrap())
        });
        assert!(networks.disconnect(KEY, &a.endpoint, true).is_empty());
    });
}
