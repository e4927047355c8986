//! What a new engine makes of the networks, ports and interfaces of containers that run. Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use network::{Endpoint, Failure, Networks, Protocol};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use support::{
    KEY, Member, Namespace, WAIT, ask_tcp, bridge, links, networks, on_host, publish, request, run,
};

#[test]
fn a_new_engine_restores_what_is_recorded_and_sweeps_the_rest() {
    on_host(|| {
        let first = networks(bridge());
        let mut served = Member::new(&first, KEY, "vetha");
        served.publish(&first, KEY, &[publish(Protocol::Tcp, 80, "0.0.0.0", 8082)]);
        let mut lost = Member::new(&first, KEY, "vethb");
        lost.publish(&first, KEY, &[publish(Protocol::Tcp, 80, "0.0.0.0", 8083)]);
        let config = first.config(KEY).unwrap();
        drop(first);
        let second = Networks::open("hull0");
        second.declare(KEY, config).unwrap();
        let recorded: [(String, Endpoint); 1] = [(KEY.to_owned(), served.endpoint.clone())];
        second.adopt(&[], &recorded).unwrap();
        assert!(
            links().contains("vetha") && !links().contains("vethb"),
            "{}",
            links()
        );
        served.serves(80, || ask_tcp((Ipv4Addr::LOCALHOST, 8082).into()));
        let next = second.reserve(KEY, request("vethc")).unwrap();
        assert_ne!(next.addresses, served.endpoint.addresses);
        // The lost one's port can be had again, the kept one's cannot.
        let wanted = |port| [publish(Protocol::Tcp, 80, "0.0.0.0", port)];
        second.publish(KEY, &next, &wanted(8083)).unwrap();
        let refused = second.publish(KEY, &next, &wanted(8082));
        assert!(matches!(refused, Err(Failure::PortTaken(_))), "{refused:?}");
        assert!(matches!(second.remove(KEY), Err(Failure::InUse)));
    });
}

#[test]
fn questions_for_names_are_led_anew_only_where_they_go_elsewhere() {
    let container = Namespace::new();
    let lead = |ports: &[(Protocol, u16)]| {
        let address = Ipv4Addr::new(127, 0, 0, 11);
        network::redirect_names(container.netns.as_fd(), address, ports).unwrap();
    };
    let rules = || run("nft list table netdev hull_names");
    container.inside(|| {
        run("ip link set lo up");
        let server = UdpSocket::bind("127.0.0.11:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            let (count, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..count], peer).unwrap();
        });
        lead(&[(Protocol::Udp, port), (Protocol::Tcp, 1000)]);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        client.send_to(b"who", "127.0.0.11:53").unwrap();
        let mut buffer = [0; 16];
        let (count, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from.port()), (&b"who"[..], 53));
        thread.join().unwrap();

        let name = format!("udp_{port}_tcp_1000");
        run(&format!(
            "nft add rule netdev hull_names {name} ip saddr 192.0.2.7 drop"
        ));
        lead(&[(Protocol::Udp, port), (Protocol::Tcp, 1000)]);
        assert!(rules().contains("192.0.2.7"), "{}", rules());
        lead(&[(Protocol::Udp, port), (Protocol::Tcp, 1001)]);
        let led = rules();
        assert!(!led.contains("192.0.2.7") && !led.contains(&name), "{led}");
        assert!(led.contains(&format!("udp_{port}_tcp_1001")), "{led}");
    });
}

#[test]
fn a_new_engine_guards_the_interfaces_of_a_hundred_containers() {
    on_host(|| {
        let first = networks(bridge());
        let member = Member::new(&first, KEY, "vetha");
        let names: Vec<String> = (0..100).map(|number| format!("vethx{number}")).collect();
        for name in &names {
            run(&format!(
                "ip link add {name} type veth peer name peer{name}"
            ));
        }
        let recorded: Vec<(String, Endpoint)> = { names.iter() }
            .map(|name| {
                let host_interface = name.clone();
                let endpoint = Endpoint {
                    settings: Vec::new(),
                    host_interface,
                    ..member.endpoint.clone()
                };
                (KEY.to_owned(), endpoint)
            })
            .collect();
        let config = first.config(KEY).unwrap();
        drop(first);
        let second = Networks::open("hull0");
        second.declare(KEY, config).unwrap();
        second.adopt(&[], &recorded).unwrap();
        let guards = run("nft list table netdev hull0");
        for name in &names {
            assert!(guards.contains(&format!("chain {name} {{")), "{guards}");
        }
    });
}
