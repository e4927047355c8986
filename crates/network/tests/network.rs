//! Bridge networks against a real kernel: every test has network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{
    Addressing, BridgeConfig, Endpoint, Failure, IpvlanFlag, IpvlanMode, MacvlanMode, Networks,
    Parent, Protocol, Range, Uplink, UplinkMode,
};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsFd;
use support::{
    KEY, Member, WAIT, add, ask_tcp, bridge, links, networks, on_host, publish, reaches, request,
    run, serve_tcp, until, world,
};

/// IPv4 and IPv6.
fn dual(interface: &str) -> BridgeConfig {
    BridgeConfig {
        ipv6: Addressing::Choose,
        ..BridgeConfig::new(interface)
    }
}

#[test]
fn a_container_reaches_the_host_and_others() {
    on_host(|| {
        let networks = networks(dual("hull0"));
        let (a, b) = (
            Member::new(&networks, KEY, "vetha"),
            Member::new(&networks, KEY, "vethb"),
        );
        for is_ipv6 in [false, true] {
            let seen = b.serves(80, || a.ask((b.address(is_ipv6), 80).into()));
            assert_eq!(seen, a.address(is_ipv6).to_string());
            let listener = TcpListener::bind((a.gateway(is_ipv6), 81)).unwrap();
            let server = std::thread::spawn(move || serve_tcp(listener));
            a.ask((a.gateway(is_ipv6), 81).into()).unwrap();
            server.join().unwrap();
        }
        assert!(networks.disconnect(KEY, &a.endpoint, false).is_empty());
        assert!(networks.disconnect(KEY, &b.endpoint, true).is_empty());
        until("no veth is left", || !links().contains("veth"));
        networks.remove(KEY).unwrap();
        assert!(!links().contains("hull0"), "{}", links());
        assert!(
            !support::ruleset().contains("hull0_"),
            "{}",
            support::ruleset()
        );
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere_it_should() {
    on_host(|| {
        let networks = networks(dual("hull0"));
        add(&networks, "other", dual("hull1"));
        let mut served = Member::new(&networks, KEY, "vetha");
        let (near, far) = (
            Member::new(&networks, KEY, "vethb"),
            Member::new(&networks, "other", "vethc"),
        );
        let requests = [
            publish(Protocol::Tcp, 80, "0.0.0.0", 8080),
            publish(Protocol::Tcp, 80, "::", 8080),
        ];
        served.publish(&networks, KEY, &requests);
        let (v4, v6) = (served.gateway(false), served.gateway(true));
        for address in [Ipv4Addr::LOCALHOST.into(), v4, v6] {
            served.serves(80, || ask_tcp((address, 8080).into()));
        }
        // Another container of the network and the container itself, by way of the host.
        for gateway in [v4, v6] {
            served.serves(80, || near.ask((gateway, 8080).into()));
            served.serves(80, || served.ask((gateway, 8080).into()));
        }
        // One of another network shows its own address.
        for is_ipv6 in [false, true] {
            let seen = served.serves(80, || far.ask((far.gateway(is_ipv6), 8080).into()));
            assert_eq!(seen, far.address(is_ipv6).to_string());
        }
        assert!(networks.disconnect(KEY, &served.endpoint, true).is_empty());
        assert!(!reaches((Ipv4Addr::LOCALHOST, 8080).into()));
        // The ports are free again.
        networks.publish(KEY, &near.endpoint, &requests).unwrap();
    });
}

#[test]
fn connections_from_the_loopback_address_of_ipv6_come_to_who_hands_them_on() {
    on_host(|| {
        let networks = networks(bridge());
        let mut served = Member::new(&networks, KEY, "vetha");
        let requests = [
            publish(Protocol::Tcp, 80, "0.0.0.0", 8080),
            publish(Protocol::Tcp, 80, "::1", 8081),
            publish(Protocol::Tcp, 80, "127.0.0.1", 8082),
        ];
        served.publish(&networks, KEY, &requests);
        let refused = |port: u16| {
            let refused = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        };
        // Nobody does yet, and it is said at once.
        for port in [8080, 8081, 8082] {
            refused(port);
        }
        let relay = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let port = relay.local_addr().unwrap().port();
        networks.relay(KEY, &served.endpoint, Some(port)).unwrap();
        let asked_for = |port: u16| {
            let client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            let (connection, _) = relay.accept().unwrap();
            drop(client);
            rustix::net::sockopt::ipv6_original_dst(&connection).unwrap()
        };
        for port in [8080, 8081] {
            assert_eq!(
                asked_for(port),
                SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)
            );
        }
        refused(8082);
        let mapping = |port: u16| {
            let mut ports = served.endpoint.ports.iter().copied();
            ports.find(|mapping| mapping.host_port == port).unwrap()
        };
        let gone = [mapping(8081)];
        networks.unpublish(KEY, &served.endpoint, &gone).unwrap();
        refused(8081);
        asked_for(8080);
        // It is put back with everything else.
        run("nft flush ruleset");
        until("the firewall is back", || {
            TcpStream::connect((Ipv6Addr::LOCALHOST, 8080)).is_ok()
        });
        relay.accept().unwrap();
        networks.relay(KEY, &served.endpoint, None).unwrap();
        refused(8080);
        networks.relay(KEY, &served.endpoint, Some(port)).unwrap();
        assert!(networks.disconnect(KEY, &served.endpoint, true).is_empty());
        refused(8080);
        let datagrams = publish(Protocol::Udp, 53, "::1", 5353);
        let near = Member::new(&networks, KEY, "vethb");
        let failure = networks
            .publish(KEY, &near.endpoint, &[datagrams])
            .unwrap_err();
        assert!(failure.to_string().contains("TCP alone"), "{failure}");
    });
}

#[test]
fn a_client_of_the_world_shows_its_address() {
    on_host(|| {
        let world = world();
        let networks = networks(bridge());
        let mut served = Member::new(&networks, KEY, "vetha");
        served.publish(
            &networks,
            KEY,
            &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
        );
        let asked = || world.inside(|| ask_tcp("192.0.2.1:8080".parse().unwrap()));
        assert_eq!(served.serves(80, asked), "192.0.2.2");
        // What was not published is not reached, though there is a route to it.
        let listener = support::listen(&served.namespace, 81);
        let direct: SocketAddr = (served.address(false), 81).into();
        assert!(!world.inside(|| reaches(direct)));
        drop(listener);
        // And outwards the host's address is shown.
        let listener = support::listen(&world, 90);
        let server = std::thread::spawn(move || serve_tcp(listener));
        let seen = served.ask("192.0.2.2:90".parse().unwrap()).unwrap();
        assert!(seen.ends_with("192.0.2.1"), "{seen}");
        server.join().unwrap();
    });
}

#[test]
fn a_port_published_on_the_loopback_address_is_not_for_containers() {
    on_host(|| {
        let networks = networks(bridge());
        let mut served = Member::new(&networks, KEY, "vetha");
        let other = Member::new(&networks, KEY, "vethb");
        served.publish(
            &networks,
            KEY,
            &[publish(Protocol::Tcp, 80, "127.0.0.1", 8081)],
        );
        let gateway = served.gateway(false);
        served.serves(80, || {
            assert!(!other.reaches((gateway, 8081).into()));
            // A route to the loopback network by way of the gateway is dropped at the door.
            other.namespace.inside(|| {
                run(&format!("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via {gateway}; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"));
                assert!(!reaches((Ipv4Addr::LOCALHOST, 8081).into()));
            });
            ask_tcp((Ipv4Addr::LOCALHOST, 8081).into())
        });
    });
}

#[test]
fn udp_is_published_and_answers_come_back() {
    on_host(|| {
        let networks = networks(bridge());
        let mut served = Member::new(&networks, KEY, "vetha");
        served.publish(
            &networks,
            KEY,
            &[publish(Protocol::Udp, 53, "0.0.0.0", 5353)],
        );
        let server = served
            .namespace
            .inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            let (count, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..count], peer).unwrap();
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        client.send_to(b"ping", "127.0.0.1:5353").unwrap();
        let mut buffer = [0; 16];
        let (count, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"ping");
        thread.join().unwrap();
    });
}

#[test]
fn ten_thousand_ports_are_map_operations() {
    on_host(|| {
        let networks = networks(bridge());
        let mut served = Member::new(&networks, KEY, "vetha");
        let requests: Vec<_> = (20000..30000)
            .map(|port| publish(Protocol::Tcp, port, "0.0.0.0", port))
            .collect();
        served.publish(&networks, KEY, &requests);
        served.serves(29999, || ask_tcp((Ipv4Addr::LOCALHOST, 29999).into()));
        assert!(networks.disconnect(KEY, &served.endpoint, false).is_empty());
    });
}

#[test]
fn addresses_are_asked_for_and_chosen_beside_what_there_is() {
    on_host(|| {
        run("ip link add up0 type veth; ip addr add 172.17.9.9/24 dev up0; ip link set up0 up");
        let networks = networks(bridge());
        let config = networks.config(KEY).unwrap();
        let subnet = |config: &BridgeConfig| match &config.ipv4 {
            Addressing::Fixed(range) => range.subnet.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(subnet(&config), "172.18.0.0/16");
        let wanted = network::EndpointRequest {
            addresses: vec!["172.18.7.7".parse().unwrap()],
            mac: Some([2, 0, 0, 0, 0, 1]),
            ..request("vetha")
        };
        let endpoint = networks.reserve(KEY, wanted.clone()).unwrap();
        assert_eq!(
            (endpoint.addresses[0].address, endpoint.mac),
            (wanted.addresses[0], [2, 0, 0, 0, 0, 1])
        );
        assert!(matches!(
            networks.reserve(KEY, wanted),
            Err(Failure::AddressTaken(_))
        ));
        // Neither the same network nor the same interface again.
        let overlapping = BridgeConfig {
            ipv4: Addressing::Fixed(Range::new("172.18.5.0/24".parse().unwrap())),
            ..BridgeConfig::new("hull1")
        };
        assert!(matches!(
            networks.plan("b", overlapping),
            Err(Failure::Invalid(_))
        ));
        for taken in ["hull0", "up0", "a/b", ""] {
            assert!(
                matches!(
                    networks.plan("c", BridgeConfig::new(taken)),
                    Err(Failure::Invalid(_))
                ),
                "{taken}"
            );
        }
    });
}

#[test]
fn ipv6_ports_need_an_ipv6_address_of_the_container() {
    on_host(|| {
        let networks = networks(bridge());
        let served = Member::new(&networks, KEY, "vetha");
        let failure = networks.publish(
            KEY,
            &served.endpoint,
            &[publish(Protocol::Tcp, 80, "fd00::1", 8084)],
        );
        assert!(
            failure
                .unwrap_err()
                .to_string()
                .contains("no address of its family")
        );
    });
}

#[test]
fn containers_on_an_interface_of_the_host_are_machines_on_its_wire() {
    on_host(|| {
        let world = world();
        let uplink = |mode| BridgeConfig {
            uplink: Some(Uplink {
                parent: Parent::Host("up0".to_owned()),
                mode,
            }),
            ipv4: Addressing::Fixed(Range {
                gateway: Some("192.0.2.2".parse().unwrap()),
                pool: Some("192.0.2.128/25".parse().unwrap()),
                ..Range::new("192.0.2.0/24".parse().unwrap())
            }),
            ..BridgeConfig::new("br-unused")
        };
        for (mode, each_other) in [(MacvlanMode::Bridge, true), (MacvlanMode::Private, false)] {
            let networks = networks(uplink(UplinkMode::Macvlan(mode)));
            let a = Member::new(&networks, KEY, "vetha");
            let b = Member::new(&networks, KEY, "vethb");
            let listener = support::listen(&a.namespace, 80);
            let reached = || b.reaches((a.address(false), 80).into());
            if each_other {
                until("it is reached", reached);
            } else {
                assert!(!reached());
            }
            drop(listener);
            let asked = || world.inside(|| ask_tcp((a.address(false), 80).into()));
            assert_eq!(a.serves(80, asked), "192.0.2.2");
            let refused = networks.publish(
                KEY,
                &a.endpoint,
                &[publish(Protocol::Tcp, 80, "0.0.0.0", 8080)],
            );
            assert!(matches!(refused, Err(Failure::Invalid(_))), "{refused:?}");
            networks
                .withdraw(a.namespace.netns.as_fd(), &a.endpoint)
                .unwrap();
            assert!(!a.namespace.inside(links).contains("eth0"));
            for member in [&a, &b] {
                assert!(networks.disconnect(KEY, &member.endpoint, true).is_empty());
            }
            networks.remove(KEY).unwrap();
        }
        let networks = Networks::open("hull0");
        let nowhere = BridgeConfig {
            uplink: Some(Uplink {
                parent: Parent::Host("nowhere0".to_owned()),
                mode: UplinkMode::Macvlan(MacvlanMode::Bridge),
            }),
            ..BridgeConfig::new("br-unused")
        };
        networks.plan(KEY, nowhere).unwrap();
        let refused = networks.raise(KEY).unwrap_err();
        assert!(refused.to_string().contains("no interface"), "{refused}");
    });
}

/// Connects a container, and says whether the kernel has what that takes.
fn connects(
    config: BridgeConfig,
    module: &str,
    check: impl FnOnce(&support::Namespace, &Endpoint),
) {
    let networks = Networks::open("hull0");
    networks.plan(KEY, config).unwrap();
    let connected = networks.raise(KEY).and_then(|()| {
        let endpoint = networks.reserve(KEY, request("vetha"))?;
        let container = support::Namespace::new();
        networks.connect(KEY, container.netns.as_fd(), &endpoint, true)?;
        check(&container, &endpoint);
        networks.withdraw(container.netns.as_fd(), &endpoint)?;
        assert!(networks.disconnect(KEY, &endpoint, true).is_empty());
        networks.remove(KEY)
    });
    if let Err(error) = connected {
        let missing = format!("the module {module} is needed");
        assert!(error.to_string().contains(&missing), "{error}");
    }
}

#[test]
fn ipvlan_has_a_wire_or_routes() {
    on_host(|| {
        let _world = world();
        for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
            let config = BridgeConfig {
                uplink: Some(Uplink {
                    parent: Parent::Host("up0".to_owned()),
                    mode: UplinkMode::Ipvlan(mode, IpvlanFlag::Bridge),
                }),
                ..BridgeConfig::new("br-unused")
            };
            connects(config, "ipvlan", |container, endpoint| {
                let routes = container.inside(|| run("ip route"));
                let by_interface = routes.contains("default dev eth0");
                assert_eq!(by_interface, mode != IpvlanMode::L2, "{routes}");
                let gateway = endpoint.addresses[0].gateway.unwrap();
                assert_eq!(gateway.is_unspecified(), by_interface);
            });
        }
    });
}

#[test]
fn an_interface_that_is_missing_is_made_and_goes_with_the_network() {
    on_host(|| {
        let _world = world();
        let on = |parent: Parent| BridgeConfig {
            uplink: Some(Uplink {
                parent,
                mode: UplinkMode::Macvlan(MacvlanMode::Bridge),
            }),
            ..BridgeConfig::new("br-unused")
        };
        for (parent, module) in [
            (Parent::Host("up0.50".to_owned()), "8021q"),
            (Parent::Nowhere("dm-network".to_owned()), "dummy"),
        ] {
            let name = parent.name().to_owned();
            connects(on(parent), module, |container, _| {
                assert!(links().contains(&name));
                assert!(container.inside(links).contains("eth0"));
            });
            assert!(!links().contains(&name), "{}", links());
        }
        // What the host has stays.
        let networks = networks(on(Parent::Host("up0".to_owned())));
        networks.raise(KEY).unwrap();
        networks.remove(KEY).unwrap();
        assert!(links().contains("up0"));
    });
}
