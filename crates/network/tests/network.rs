//! The default bridge against a real kernel: every test has network namespaces of its own, one that plays the host and
//! one for each container. Needs root and util-linux's unshare.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use network::{BridgeConfig, Endpoint, Network, Protocol, Publish};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A network namespace that lasts as long as the value.
struct Namespace {
    holder: Child,
    netns: File,
}

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", "echo ready; exec sleep 60"])
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

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
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

fn network() -> Network {
    Network::open(BridgeConfig {
        name: "hull0".to_owned(),
        subnet: None,
        mtu: None,
    })
    .unwrap()
}

fn endpoint(network: &Network, name: &str) -> Endpoint {
    let lease = network.reserve(None).unwrap();
    Endpoint {
        host_interface: name.to_owned(),
        address: lease.address,
        prefix: lease.prefix,
        gateway: lease.gateway,
        mac: lease.mac,
        ports: Vec::new(),
    }
}

fn publish(protocol: Protocol, container_port: u16, host_ip: Ipv4Addr, host_port: u16) -> Publish {
    Publish {
        protocol,
        container_port,
        host_ip: host_ip.into(),
        host_ports: (host_port, host_port),
    }
}

/// Serves one connection: tells the client its address.
fn serve_tcp(listener: TcpListener) {
    let (mut stream, peer) = listener.accept().unwrap();
    stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
}

fn ask_tcp(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn links() -> String {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn ruleset() -> String {
    String::from_utf8(
        Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap()
}

fn listen(container: &Namespace, port: u16) -> TcpListener {
    container.inside(|| TcpListener::bind(("0.0.0.0", port)).unwrap())
}

#[test]
fn a_container_reaches_the_host_and_others() {
    let (host, a, b) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.inside(|| {
        let network = network();
        let (first, second) = (endpoint(&network, "vetha"), endpoint(&network, "vethb"));
        network.connect(a.netns.as_fd(), &first).unwrap();
        network.connect(b.netns.as_fd(), &second).unwrap();
        let listener = listen(&b, 80);
        let server = std::thread::spawn(move || serve_tcp(listener));
        let seen = a.inside(|| ask_tcp((second.address, 80).into()).unwrap());
        assert_eq!(seen, first.address.to_string());
        server.join().unwrap();
        let listener = TcpListener::bind((first.gateway, 81)).unwrap();
        let server = std::thread::spawn(move || serve_tcp(listener));
        a.inside(|| ask_tcp((first.gateway, 81).into()).unwrap());
        server.join().unwrap();
        assert!(network.disconnect(&first).is_empty() && network.disconnect(&second).is_empty());
        let gone = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !links().contains("veth")
        });
        assert!(gone, "{}", links());
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere_it_should() {
    let (host, container, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        let network = network();
        let (served, client) = (endpoint(&network, "vetha"), endpoint(&network, "vethb"));
        network.connect(container.netns.as_fd(), &served).unwrap();
        network.connect(other.netns.as_fd(), &client).unwrap();
        let requests = [publish(Protocol::Tcp, 80, Ipv4Addr::UNSPECIFIED, 8080)];
        let ports = network.publish(served.address, &requests).unwrap();
        let addresses = [Ipv4Addr::LOCALHOST, served.gateway];
        for address in addresses {
            let listener = listen(&container, 80);
            let server = std::thread::spawn(move || serve_tcp(listener));
            ask_tcp((address, 8080).into()).unwrap();
            server.join().unwrap();
        }
        // Another container, and the container itself, by way of the host.
        for (who, from) in [("itself", &container), ("other", &other)] {
            let listener = listen(&container, 80);
            let server = std::thread::spawn(move || serve_tcp(listener));
            let asked = from.inside(|| ask_tcp((served.gateway, 8080).into()));
            assert!(asked.is_ok(), "{who}: {asked:?} {}", ruleset());
            server.join().unwrap();
        }
        let gone = Endpoint {
            ports,
            ..served.clone()
        };
        assert!(network.disconnect(&gone).is_empty());
        assert!(ask_tcp((Ipv4Addr::LOCALHOST, 8080).into()).is_err());
        // The port is free again.
        network.publish(client.address, &requests).unwrap();
    });
}

#[test]
fn a_port_published_on_the_loopback_address_is_not_for_containers() {
    let (host, container, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        let network = network();
        let (served, client) = (endpoint(&network, "vetha"), endpoint(&network, "vethb"));
        network.connect(container.netns.as_fd(), &served).unwrap();
        network.connect(other.netns.as_fd(), &client).unwrap();
        network.publish(served.address, &[publish(Protocol::Tcp, 80, Ipv4Addr::LOCALHOST, 8081)]).unwrap();
        let listener = listen(&container, 80);
        let server = std::thread::spawn(move || serve_tcp(listener));
        assert!(other.inside(|| ask_tcp((served.gateway, 8081).into())).is_err());
        // A route to the loopback network by way of the gateway is dropped at the door.
        other.inside(|| {
            let route = format!("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via {}; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet", served.gateway);
            Command::new("sh").args(["-c", &route]).status().unwrap();
            assert!(ask_tcp((Ipv4Addr::LOCALHOST, 8081).into()).is_err());
        });
        ask_tcp((Ipv4Addr::LOCALHOST, 8081).into()).unwrap();
        server.join().unwrap();
    });
}

#[test]
fn udp_is_published_and_answers_come_back() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        let network = network();
        let served = endpoint(&network, "vetha");
        network.connect(container.netns.as_fd(), &served).unwrap();
        network
            .publish(
                served.address,
                &[publish(Protocol::Udp, 53, Ipv4Addr::UNSPECIFIED, 5353)],
            )
            .unwrap();
        let server = container.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            let (count, peer) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..count], peer).unwrap();
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        client.send_to(b"ping", "127.0.0.1:5353").unwrap();
        let mut buffer = [0; 16];
        let (count, _) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"ping");
        thread.join().unwrap();
    });
}

#[test]
fn a_new_engine_restores_what_is_recorded_and_sweeps_the_rest() {
    let (host, container, orphan) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        let first = network();
        let mut served = endpoint(&first, "vetha");
        first.connect(container.netns.as_fd(), &served).unwrap();
        served.ports = first
            .publish(
                served.address,
                &[publish(Protocol::Tcp, 80, Ipv4Addr::UNSPECIFIED, 8082)],
            )
            .unwrap();
        let lost = endpoint(&first, "vethb");
        first.connect(orphan.netns.as_fd(), &lost).unwrap();
        first
            .publish(
                lost.address,
                &[publish(Protocol::Tcp, 80, Ipv4Addr::UNSPECIFIED, 8083)],
            )
            .unwrap();
        drop(first);
        let second = network();
        second.adopt(std::slice::from_ref(&served)).unwrap();
        assert!(
            links().contains("vetha") && !links().contains("vethb"),
            "{}",
            links()
        );
        let listener = listen(&container, 80);
        let server = std::thread::spawn(move || serve_tcp(listener));
        ask_tcp((Ipv4Addr::LOCALHOST, 8082).into()).unwrap();
        server.join().unwrap();
        assert_ne!(second.reserve(None).unwrap().address, served.address);
        // The lost one's port can be had again, the kept one's cannot.
        let unspecified = Ipv4Addr::UNSPECIFIED;
        second
            .publish(
                lost.address,
                &[publish(Protocol::Tcp, 80, unspecified, 8083)],
            )
            .unwrap();
        assert!(
            second
                .publish(
                    lost.address,
                    &[publish(Protocol::Tcp, 80, unspecified, 8082)]
                )
                .is_err()
        );
    });
}

#[test]
fn ten_thousand_ports_are_two_map_operations() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.inside(|| {
        network::loopback_up(host.netns.as_fd()).unwrap();
        let network = network();
        let mut served = endpoint(&network, "vetha");
        network.connect(container.netns.as_fd(), &served).unwrap();
        let requests: Vec<_> = (20000..30000)
            .map(|port| publish(Protocol::Tcp, port, Ipv4Addr::UNSPECIFIED, port))
            .collect();
        served.ports = network.publish(served.address, &requests).unwrap();
        let listener = listen(&container, 29999);
        let server = std::thread::spawn(move || serve_tcp(listener));
        ask_tcp((Ipv4Addr::LOCALHOST, 29999).into()).unwrap();
        server.join().unwrap();
        assert!(network.disconnect(&served).is_empty());
    });
}

#[test]
fn ipv6_host_addresses_are_an_error_that_says_so() {
    let host = Namespace::new();
    host.inside(|| {
        let network = network();
        let served = endpoint(&network, "vetha");
        let request = Publish {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            host_ports: (8084, 8084),
        };
        let failure = network.publish(served.address, &[request]).unwrap_err();
        assert!(failure.to_string().contains("not supported"), "{failure}");
    });
}
