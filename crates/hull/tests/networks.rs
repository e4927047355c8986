//! Networks through the command line and Docker's client.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};
use support::Engine;

/// Makes a network of IPv4 addresses of its own.
fn create(engine: &Engine, name: &str, number: u8, more: &str) {
    let subnet = engine.subnet(number);
    let id = engine.words(&format!("network create --subnet {subnet} {more} {name}"));
    assert_eq!(id.len(), 64);
}

/// Runs a container that stays.
fn stay(engine: &Engine, name: &str, more: &str) -> String {
    engine.words(&format!("run -d --name {name} {more} busybox sleep 600"))
}

/// What a web server answers at an address; nothing when there is none.
fn fetch(address: &str) -> String {
    let address = address.parse().unwrap();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
        return String::new();
    };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n");
    // What breaks off is tried again.
    let _ = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

/// Has a container serve a page.
fn serve(engine: &Engine, name: &str) {
    let script = "echo hello > /tmp/index.html; httpd -h /tmp";
    engine.ok(&["exec", "-d", name, "sh", "-c", script]);
}

fn is_served(address: &str) -> bool {
    fetch(address).ends_with("\r\n\r\nhello\n")
}

fn inspect(engine: &Engine, format: &str, name: &str) -> String {
    engine.ok(&["inspect", "-f", format, name])
}

/// A container's address on a network.
fn address(engine: &Engine, name: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    inspect(engine, &format, name)
}

fn pings(engine: &Engine, who: &str, whom: &str) -> bool {
    let command = format!("exec {who} ping -c 1 -W 1 {whom}");
    engine.run(&command.split(' ').collect::<Vec<_>>()).code == 0
}

#[test]
fn a_network_is_created_used_and_removed() {
    let engine = Engine::new();
    let at = |host| engine.address(0, host);
    let range = format!(
        "--label a=b --ip-range {}/29 --aux-address x={}",
        at(8),
        at(8)
    );
    create(&engine, "back", 0, &range);
    let listed = [
        "network",
        "ls",
        "--format",
        "{{.Name}} {{.Driver}}",
        "--filter",
        "label=a=b",
    ];
    assert_eq!(engine.ok(&listed), "back bridge");
    engine.refused(
        "network create back",
        "network with name back already exists",
    );
    stay(&engine, "one", "--network back");
    let fixed = format!(
        "--network back --ip {} --mac-address 02:00:00:00:00:05",
        at(5)
    );
    stay(&engine, "two", &fixed);
    assert_eq!(address(&engine, "one", "back"), at(9));
    assert_eq!(address(&engine, "two", "back"), at(5));
    let format = "{{.HostConfig.NetworkMode}} {{.NetworkSettings.Networks.back.MacAddress}}";
    assert_eq!(inspect(&engine, format, "two"), "back 02:00:00:00:00:05");
    assert!(pings(&engine, "one", &at(5)));
    // Docker's client sees the same.
    let format = "{{range .Containers}}{{.Name}} {{.IPv4Address}};{{end}}";
    let members = engine.docker(&["network", "inspect", "-f", format, "back"]);
    assert!(members.contains(&format!("one {}/28;", at(9))), "{members}");
    engine.refused("network rm back", "has active endpoints");
    engine.words("rm -f one two");
    let id = engine.ok(&["network", "inspect", "-f", "{{.Id}}", "back"]);
    assert_eq!(engine.words("network rm back"), "back");
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(!links.contains(&id[..12]), "a bridge is left: {links}");
    engine.refused("network inspect back", "network back not found");
    engine.assert_nothing_left();
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let engine = Engine::new();
    create(&engine, "one", 0, "");
    let subnet = engine.subnet(0);
    let outside = engine.address(1, 1);
    for (words, expected) in [
        (format!("network create --subnet {subnet} two"), "overlaps"),
        ("network create -d overlay two".to_owned(), "overlay"),
        (
            "network create -o com.docker.network.colour=red two".to_owned(),
            "colour",
        ),
        (
            "network create --ipv4=false two".to_owned(),
            "must be enabled",
        ),
        ("network create host".to_owned(), "already exists"),
        ("network rm bridge".to_owned(), "pre-defined network"),
        ("network connect one nobody".to_owned(), "No such container"),
        (
            "run --rm --network nowhere busybox true".to_owned(),
            "network nowhere not found",
        ),
        (
            format!("run --rm --network one --ip {outside} busybox true"),
            "no configured subnet contains",
        ),
        (
            "run --rm --network one --ip6 fd00::5 busybox true".to_owned(),
            "no addresses of its family",
        ),
        (
            format!("run --rm --ip {outside} busybox true"),
            "user defined networks only",
        ),
        (
            "run --rm --network name=one,driver-opt=com.docker.network.colour=red busybox true"
                .to_owned(),
            "driver option",
        ),
    ] {
        engine.refused(&words, expected);
    }
    engine.assert_nothing_left();
}

#[test]
fn a_container_joins_and_leaves_networks_while_it_runs() {
    let engine = Engine::new();
    create(&engine, "front", 0, "");
    create(&engine, "back", 1, "--internal");
    stay(&engine, "web", "--network front");
    stay(&engine, "db", "--network back");
    let db = address(&engine, "db", "back");
    assert!(!pings(&engine, "web", &db));
    let own = engine.address(1, 9);
    engine.words(&format!("network connect --alias www --ip {own} back web"));
    assert!(pings(&engine, "web", &db));
    let interface = engine.words("exec web ip -o -4 addr show eth1");
    assert!(interface.contains(&own), "{interface}");
    // The way out stays the network that leads out.
    let way_out = format!("default via {}", engine.address(0, 1));
    assert!(engine.words("exec web ip route").contains(&way_out));
    assert!(engine.words("exec web cat /etc/hosts").contains(&own));
    engine.docker(&["network", "disconnect", "back", "web"]);
    assert!(!pings(&engine, "web", &db));
    assert!(!engine.words("exec web cat /etc/hosts").contains(&own));
    engine.refused("network disconnect back web", "is not connected");
    // One that does not run is connected when it does.
    engine.words("create --name late --network front busybox ip -o -4 addr");
    engine.words("network connect back late");
    let said = engine.words("start -a late");
    assert!(said.contains("eth0") && said.contains("eth1"), "{said}");
    engine.words("rm -f web db late");
    engine.assert_nothing_left();
}

#[test]
fn published_ports_follow_the_way_out() {
    let engine = Engine::new();
    create(&engine, "front", 0, "");
    create(&engine, "third", 1, "");
    stay(&engine, "web", "--network front -p 127.0.0.1:0:80");
    engine.words("network connect --gw-priority 5 third web");
    let way_out = format!("default via {}", engine.address(1, 1));
    assert!(engine.words("exec web ip route").contains(&way_out));
    let port = engine.words("port web 80");
    serve(&engine, "web");
    engine.until("the published port answers", || is_served(&port));
    engine.words("network disconnect third web");
    engine.until("it answers by the other network", || is_served(&port));
    assert_eq!(engine.words("port web 80"), port);
    engine.words("rm -f web");
    engine.assert_nothing_left();
}

#[test]
fn a_killed_engine_is_followed_by_one_that_knows_its_networks() {
    let mut engine = Engine::new();
    create(&engine, "front", 0, "--ipv6 --subnet fd5d:1::/64");
    create(&engine, "back", 1, "");
    stay(
        &engine,
        "web",
        "--network front --network back -p 127.0.0.1:0:80",
    );
    serve(&engine, "web");
    let networks = "{{json .NetworkSettings.Networks}}";
    let before = inspect(&engine, networks, "web");
    let port = engine.words("port web 80");
    engine.kill();
    assert!(is_served(&port));
    engine.start();
    assert_eq!(inspect(&engine, networks, "web"), before);
    assert!(is_served(&port));
    stay(&engine, "more", "--network back");
    assert_ne!(
        address(&engine, "more", "back"),
        address(&engine, "web", "back")
    );
    engine.words("rm -f web more");
    engine.words("network rm front back");
    engine.assert_nothing_left();
}

#[test]
fn unused_networks_are_pruned() {
    let engine = Engine::new();
    create(&engine, "used", 0, "");
    create(&engine, "kept", 1, "--label keep");
    create(&engine, "gone", 2, "");
    engine.words("create --name stopped --network used busybox");
    let plan = engine.words("network prune --dry-run --filter label!=keep");
    let planned = ["gone", "kept", "used"].map(|name| plan.contains(name));
    assert_eq!(planned, [true, false, false], "{plan}");
    engine.words("network prune -f --filter label!=keep");
    let left = [
        "network",
        "ls",
        "--format",
        "{{.Name}}",
        "--filter",
        "type=custom",
    ];
    assert_eq!(engine.ok(&left), "kept\nused");
}

#[test]
fn ports_are_published_and_taken_back_while_a_container_runs() {
    let mut engine = Engine::new();
    stay(&engine, "web", "");
    serve(&engine, "web");
    engine.words("update --publish-add 127.0.0.1:0:80 web");
    let first = engine.words("port web 80");
    engine.until("the port answers", || is_served(&first));
    let taken = engine.run(&[
        "update",
        "--publish-rm",
        "80",
        "--publish-add",
        &format!("{first}:80"),
        "web",
    ]);
    assert!(
        taken.code != 0 && taken.stderr.contains("already allocated"),
        "{taken:?}"
    );
    assert!(is_served(&first), "nothing has changed");
    engine.words("update --publish-add 127.0.0.1:0:80 web");
    engine.ok(&["update", "--publish-rm", &format!("{first}:80"), "web"]);
    assert!(!is_served(&first));
    let second = engine.words("port web 80");
    assert!(is_served(&second) && second != first);
    engine.refused("update --publish-rm 81 web", "is not published");
    // It is what the container has from now on.
    engine.kill();
    engine.start();
    assert!(is_served(&second));
    engine.words("restart -t 0 web");
    assert!(engine.words("port web").starts_with("80/tcp -> 127.0.0.1:"));
    engine.words("update --publish-rm 80 web");
    assert_eq!(engine.words("port web"), "");
    engine.words("rm -f web");
    engine.assert_nothing_left();
}

/// Echoes in a container's network namespace; who sends [`Echo::BREAK`] is broken off.
struct Echo(std::sync::Arc<TcpListener>);

impl Echo {
    const BREAK: &[u8] = b"break off";

    fn start(engine: &Engine, name: &str, port: u16) -> Self {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let pid = inspect(engine, "{{.State.Pid}}", name);
        let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let listener = std::thread::spawn(move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind(("0.0.0.0", port)).unwrap()
        });
        let listener = std::sync::Arc::new(listener.join().unwrap());
        let served = std::sync::Arc::clone(&listener);
        std::thread::spawn(move || {
            for stream in served.incoming().map_while(Result::ok) {
                std::thread::spawn(move || Self::serve(stream));
            }
        });
        Self(listener)
    }

    fn serve(mut stream: TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if &buffer[..count] == Self::BREAK {
                let linger = Some(Duration::ZERO);
                return rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
            }
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        rustix::net::shutdown(&self.0, rustix::net::Shutdown::Read).unwrap();
    }
}

/// Sends bytes, ends what it sends, and returns what comes back.
fn echoed(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back
    })
}

#[test]
fn localhost_is_served_by_ipv6_too() {
    let mut engine = Engine::new();
    create(&engine, "other", 0, "");
    let networks = ["--network bridge", "--network other"];
    stay(
        &engine,
        "web",
        &format!("{} -p 0:80 -p [::1]:0:81", networks[0]),
    );
    serve(&engine, "web");
    let server = Echo::start(&engine, "web", 81);
    let port = |engine: &Engine, port: &str| {
        let shown = engine.words(&format!("port web {port}"));
        let (_, port) = shown.rsplit_once(':').unwrap();
        format!("[::1]:{port}")
    };
    let (page, echo) = (port(&engine, "80"), port(&engine, "81"));
    assert_eq!(engine.words("port web 81"), echo);
    engine.until("the page is served", || is_served(&page));
    let connect = |echo: &str| TcpStream::connect(echo).unwrap();
    assert!(TcpStream::connect(echo.replace("[::1]", "127.0.0.1")).is_err());
    // More than every buffer on the way, and many at once.
    let bytes: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    assert!(echoed(connect(&echo), &bytes) == bytes);
    let mut open: Vec<_> = (0..40).map(|_| connect(&echo)).collect();
    for (n, stream) in open.iter_mut().enumerate() {
        stream.write_all(&n.to_be_bytes()).unwrap();
    }
    for (n, stream) in open.into_iter().enumerate() {
        assert_eq!(echoed(stream, b"!"), [&n.to_be_bytes()[..], b"!"].concat());
    }
    // What breaks off on one side does so on the other.
    let mut broken = connect(&echo);
    broken.write_all(Echo::BREAK).unwrap();
    let error = broken.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let explained = engine.words("port --explain web 81");
    assert!(explained.contains("map loopback6 has tcp"), "{explained}");
    // Open connections and new ones do not need the engine.
    let open = connect(&echo);
    engine.kill();
    assert_eq!(echoed(open, b"without an engine"), b"without an engine");
    assert!(is_served(&page));
    engine.start();
    assert!(is_served(&page));
    // They follow the way out, and what is published.
    engine.words("network connect --gw-priority 5 other web");
    engine.until("the page is served by the other network", || {
        is_served(&page)
    });
    engine.words("network disconnect other web");
    engine.until("and by the first one", || is_served(&page));
    engine.words("update --publish-rm 80 --publish-add 0:80 web");
    let moved = port(&engine, "80");
    assert!(is_served(&moved) && (moved == page || !is_served(&page)));
    engine.refused("run --rm -p [::1]:0:53/udp busybox true", "TCP alone");
    engine.words("rm -f web");
    drop(server);
    assert!(TcpStream::connect(&echo).is_err());
    engine.assert_nothing_left();
}

#[test]
fn the_default_bridge_has_ipv6_where_it_is_asked_for() {
    let mut engine = Engine::new();
    let id = std::process::id();
    let subnet = format!("fd00:{:x}:{:x}::/64", id >> 16, id & 0xffff);
    // Of a bridge that has had none, with a container that goes on.
    stay(&engine, "old", "");
    let pool = format!("{}/26", engine.subnet(0).split_once('/').unwrap().0);
    engine.kill();
    let flags = [
        "--ipv6",
        "--fixed-cidr-v6",
        &subnet,
        "--default-address-pool",
        &format!("base={pool},size=28"),
        "--icc=false",
        "--ip",
        "127.0.0.1",
    ];
    engine.flags = flags.map(str::to_owned).to_vec();
    engine.start();
    stay(&engine, "web", "-p 0:80");
    let address = |engine: &Engine| {
        let format = "{{.NetworkSettings.GlobalIPv6Address}} {{.NetworkSettings.IPAddress}}";
        engine.ok(&["inspect", "-f", format, "web"])
    };
    let before = address(&engine);
    assert!(
        before.starts_with(subnet.trim_end_matches("/64")),
        "{before}"
    );
    let ports = engine.words("port web");
    assert!(
        ports.contains("127.0.0.1") && !ports.contains("[::]"),
        "{ports}"
    );
    let shown = engine.words("network inspect bridge");
    for word in [
        &subnet,
        "\"EnableIPv6\": true",
        "\"com.docker.network.bridge.enable_icc\": \"false\"",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let default = "{{(index .IPAM.Config 0).Subnet}}";
    engine.words("network create chosen");
    let chosen = engine.ok(&["network", "inspect", "-f", default, "chosen"]);
    assert_eq!(chosen, pool.replace("/26", "/28"));
    let gateway = engine.ok(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "old"]);
    engine.until("the bridge leads to who was on it", || {
        engine
            .run(&["exec", "old", "ping", "-c", "1", "-W", "1", &gateway])
            .code
            == 0
    });
    // Whatever is asked for later, containers keep what they have.
    engine.kill();
    engine.flags = vec!["--ipv6".to_owned()];
    engine.start();
    assert_eq!(address(&engine), before);
    let shown = engine.words("network inspect bridge");
    assert!(shown.contains(&subnet), "{shown}");
    engine.words("restart -t 0 web");
    assert!(address(&engine).starts_with(subnet.trim_end_matches("/64")));
    engine.words("network rm chosen");
    engine.words("rm -f web old");
    engine.assert_nothing_left();
}

#[test]
fn what_a_container_receives_and_sends_is_limited() {
    let mut engine = Engine::new();
    stay(&engine, "web", "--network-rate receive=2m,send=1m");
    let bridge = engine.bridge().to_owned();
    let sending = |rate: &str| {
        let rules = Command::new("nft")
            .args(["list", "table", "netdev", &bridge])
            .output();
        let rules = String::from_utf8(rules.unwrap().stdout).unwrap();
        rules.contains(&format!("limit rate over {rate}/second"))
    };
    let receiving = |rate: u64| {
        let queues = Command::new("tc").args(["-j", "qdisc", "show"]).output();
        let queues: serde_json::Value = serde_json::from_slice(&queues.unwrap().stdout).unwrap();
        let mut queues = queues.as_array().unwrap().iter();
        queues.any(|queue| queue["kind"] == "tbf" && queue["options"]["rate"] == rate)
    };
    assert!(sending("1 mbytes"), "as it was created");
    assert!(receiving(2 << 20), "as it was created");
    let shown = engine.ok(&[
        "inspect",
        "-f",
        "{{.HostConfig.NetworkRate.Receive}}",
        "web",
    ]);
    assert_eq!(shown, "2097152");
    let stats = ["stats", "--no-stream", "--format", "{{.NetRate}}", "web"];
    assert_eq!(engine.ok(&stats), "2MiB/s / 1MiB/s");
    engine.words("update --network-rate 3m web");
    assert!(sending("3 mbytes") && !sending("1 mbytes"));
    // A network that comes later is limited, too; and another engine knows it all.
    create(&engine, "more", 0, "");
    engine.words("network connect more web");
    engine.kill();
    let flushed = Command::new("nft")
        .args(["delete", "table", "netdev", &bridge])
        .status();
    assert!(flushed.unwrap().success());
    engine.start();
    engine.until("the limit is back", || sending("3 mbytes"));
    engine.words("update --network-rate 0 web");
    assert!(!sending("3 mbytes"));
    engine.refused(
        "run --rm --network-rate 1m --network host busybox true",
        "network mode",
    );
    engine.refused("run --rm --network-rate 1 busybox true", "bytes per second");
    engine.words("rm -f web");
    engine.words("network rm more");
    engine.assert_nothing_left();
}

#[test]
fn an_interface_is_set_as_its_connection_says() {
    const OPTION: &str = "com.docker.network.endpoint.sysctls";
    let engine = Engine::new();
    for name in ["own", "more"] {
        engine.words(&format!("network create {name}"));
    }
    let network = |settings: &str| format!("name=own,\"driver-opt={OPTION}={settings}\"");
    let run = |settings: &str| {
        let network = network(settings);
        let words = ["run", "-d", "--name", "web", "--network", &network];
        engine.run(&[&words[..], &["busybox", "sleep", "600"]].concat())
    };
    // The client may have made it lower case.
    let made = run("net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.ifname.rp_filter=2");
    assert_eq!(made.code, 0, "{made:?}");
    let set = |interface: &str, name: &str| {
        engine.words(&format!(
            "exec web cat /proc/sys/net/ipv4/conf/{interface}/{name}"
        ))
    };
    let others = set("lo", "log_martians");
    for _ in 0..2 {
        assert_eq!(set("eth0", "log_martians"), "1");
        assert_eq!(set("eth0", "rp_filter"), "2");
        engine.words("restart -t 0 web");
    }
    assert_eq!(set("lo", "log_martians"), others);
    let connect = format!("network connect --driver-opt {OPTION}");
    engine.words(&format!(
        "{connect}=net.ipv4.conf.IFNAME.proxy_arp=1 more web"
    ));
    assert_eq!(set("eth1", "proxy_arp"), "1");
    assert_eq!(set("eth0", "proxy_arp"), "0");
    engine.words("rm -f web");
    // Neither other interfaces nor other files are reached.
    for bad in [
        "net.ipv4.conf.eth0.log_martians=1",
        "net.core.conf.IFNAME.log_martians=1",
        "net.ipv4.conf.IFNAME.../../all/log_martians=1",
        "net.ipv4.../../kernel.IFNAME.core_pattern=x",
        "net.ipv4.conf.IFNAME.log_martians",
        "",
    ] {
        let words = run(bad).stderr;
        let lower = bad.to_lowercase();
        let expected = format!("unrecognised network interface sysctl '{lower}'");
        assert!(words.contains(&expected), "{bad}: {words}");
    }
    let words = run("net.ipv4.conf.IFNAME.nothing=1").stderr;
    assert!(words.contains("ipv4/conf/eth0/nothing"), "{words}");
    engine.words("rm -f web");
    engine.words("network rm own more");
    engine.assert_nothing_left();
}

#[test]
fn a_network_can_be_of_several_hosts() {
    let mut engine = Engine::new();
    // 24 bits, and nobody else's here.
    let id = std::process::id() & 0xff_ffff;
    let interface = format!("/sys/class/net/vxlan{id}");
    let is_there = || std::path::Path::new(&interface).exists();
    let subnet = engine.subnet(0);
    let make = format!(
        "network create --subnet {subnet} --opt hull.network.vxlan.id={id} --opt hull.network.vxlan.peers=192.0.2.2"
    );
    engine.refused(&format!("{make} shared"), "--ip-range");
    assert!(!is_there());
    let (gateway, range) = (engine.address(0, 1), subnet.replace("/28", "/29"));
    engine.words(&format!(
        "{make} --gateway {gateway} --ip-range {range} shared"
    ));
    assert!(is_there());
    stay(&engine, "web", "--network shared");
    let mtu = engine.ok(&["exec", "web", "cat", "/sys/class/net/eth0/mtu"]);
    assert_eq!(mtu, "1450");
    engine.kill();
    engine.start();
    assert!(is_there());
    engine.words("rm -f web");
    engine.words("network rm shared");
    assert!(!is_there());
    engine.assert_nothing_left();
}

#[test]
fn it_is_said_who_reaches_a_port() {
    let engine = Engine::new();
    stay(&engine, "web", "-p 127.0.0.1:0:80 --expose 81");
    let answers = |text: &str| {
        let answers = text.lines().filter(|line| line.starts_with("  "));
        let answers = answers.filter_map(|line| line.get(18..21).map(str::trim));
        let answers = answers.filter(|answer| !answer.is_empty());
        answers.map(str::to_owned).collect::<Vec<_>>()
    };
    // Whatever chains others have on this host, and whenever.
    let explain = |what: &str| {
        let text = engine.words(&format!("port --explain {what}"));
        let ours = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("and "));
        ours.map(|line| format!("{line}\n")).collect::<String>()
    };
    let said = explain("web 80");
    assert_eq!(answers(&said), ["yes", "no", "yes", "no"], "{said}");
    assert!(said.contains("chain guard"), "{said}");
    engine.words("update --publish-add 0:80 web");
    let said = explain("web 80/tcp");
    assert_eq!(answers(&said)[4..], ["yes"; 4], "{said}");
    let all = explain("web");
    assert!(all.starts_with(&said), "{all}");
    let exposed = all.strip_prefix(&said).unwrap();
    assert!(
        exposed.contains("81/tcp of 1") && exposed.contains("not published"),
        "{all}"
    );
    assert_eq!(answers(exposed), ["yes", "no", "yes", "no"], "{all}");
    engine.refused("port --explain web 80/xyz", "invalid protocol");
    stay(&engine, "host", "--network host");
    engine.refused("port --explain host", "network of the host");
    engine.words("stop -t 0 web");
    engine.refused("port --explain web", "not running");
    engine.words("rm -f web host");
    engine.assert_nothing_left();
}

/// Its wire is a veth pair, whose other end is put on the engine's bridge.
#[test]
fn a_container_has_an_interface_on_one_of_the_hosts() {
    let engine = Engine::new();
    // The names of interfaces are the machine's; the engine's bridge has one that is nobody else's.
    let (parent, other) = (
        format!("{}p", engine.bridge()),
        format!("{}q", engine.bridge()),
    );
    stay(&engine, "far", "");
    let far = inspect(&engine, "{{.NetworkSettings.IPAddress}}", "far");
    let ip = |line: &str| {
        let status = Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(status.success(), "ip {line}");
    };
    ip(&format!("link add {parent} type veth peer name {other}"));
    for (name, rest) in [(&parent, "up"), (&other, "up")] {
        ip(&format!("link set {name} {rest}"));
    }
    ip(&format!("link set {other} master {}", engine.bridge()));
    engine.refused(
        "network create -d macvlan -o parent=nowhere0 wire",
        "no interface",
    );
    let subnet = engine.subnet(0);
    engine.words(&format!(
        "network create -d macvlan -o parent={parent} --subnet {subnet} wire"
    ));
    engine.refused(
        "create --network wire --network-rate 1m busybox",
        "a network rate on wire, a macvlan network",
    );
    // Another address on the same wire is reached by a route to it.
    stay(&engine, "near", "--network wire --cap-add NET_ADMIN");
    engine.words(&format!("exec near ip route add {far} dev eth0"));
    let near = address(&engine, "near", "wire");
    engine
        .words("run -d --name back --cap-add NET_ADMIN --network container:far busybox sleep 600");
    engine.words(&format!("exec back ip route add {near} dev eth0"));
    assert!(pings(&engine, "near", &far));
    assert!(engine.docker(&["network", "inspect", "-f", "{{.Driver}}", "wire"]) == "macvlan");
    engine.words("network disconnect wire near");
    assert!(!engine.words("exec near ip link").contains("eth0"));
    engine.refused(
        "run --rm --network wire -p 80:80 busybox true",
        "cannot publish ports",
    );
    engine.words("rm -f near back far");
    engine.words("network rm wire");
    ip(&format!("link del {parent}"));
    engine.assert_nothing_left();
}

/// The interfaces of the machine that belong to a network of this engine, whose ids begin the names of bridges.
fn bridges_of(ids: &[String]) -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let links = String::from_utf8(output.stdout).unwrap();
    let is_ours = |line: &&str| ids.iter().any(|id| line.contains(&id[..12]));
    links.lines().filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn killed_at_random_moments_it_knows_its_networks() {
    const ROUNDS: u32 = 40;
    let mut engine = Engine::new();
    create(&engine, "kept", 0, "");
    let mut ids = vec![engine.ok(&["network", "inspect", "-f", "{{.Id}}", "kept"])];
    let mut undisturbed = Duration::ZERO;
    for round in 0..ROUNDS {
        let subnet = engine.subnet(1);
        let commands = [
            format!("network create --subnet {subnet} passing"),
            "run -d --name web --network kept -p 127.0.0.1:0:80 busybox sleep 600".to_owned(),
            "network connect passing web".to_owned(),
            "network disconnect kept web".to_owned(),
            "rm -f web".to_owned(),
            "network rm passing".to_owned(),
        ];
        // In the midst of every round but the first, which tells how long one takes.
        let pid = engine.pid().to_string();
        let after = undisturbed * (round * 7919 % 1000) / 1000;
        let killer = (round > 0).then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                let killed = Command::new("kill").args(["-9", &pid]).status();
                assert!(killed.unwrap().success());
            })
        });
        let began = Instant::now();
        for line in &commands {
            let words: Vec<_> = line.split(' ').collect();
            let said = engine.run(&words);
            if said.stdout.len() == 65 && line.starts_with("network create") {
                ids.push(said.stdout.trim().to_owned());
            }
        }
        match killer {
            Some(killer) => killer.join().unwrap(),
            None => undisturbed = began.elapsed(),
        }
        engine.kill();
        engine.start();
        // What is there can be used and removed, whatever it is.
        let known = engine.ok(&[
            "network",
            "ls",
            "-q",
            "--no-trunc",
            "--filter",
            "type=custom",
        ]);
        ids.extend(known.lines().map(str::to_owned));
        let made: Vec<String> = known.lines().map(str::to_owned).collect();
        assert_eq!(bridges_of(&ids).len(), bridges_of(&made).len(), "{known}");
        engine.words("run --rm --network kept busybox true");
        if !engine.words("ps -aq").is_empty() {
            engine.words("rm -f web");
        }
        if made.len() > 1 {
            engine.words("network rm passing");
        }
        engine.assert_nothing_left();
    }
    engine.words("network rm kept");
    assert_eq!(bridges_of(&ids), Vec::<String>::new());
}

#[test]
fn many_containers_come_and_go_on_one_network_at_once() {
    let engine = Engine::new();
    create(&engine, "busy", 0, "");
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let engine = &engine;
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("c{worker}-{round}");
                    stay(engine, &name, "--network busy");
                    let own = address(engine, &name, "busy");
                    let found = engine.run(&["exec", &name, "nslookup", &name]);
                    assert!(found.stdout.contains(&own), "{found:?}");
                    engine.words(&format!("rm -f {name}"));
                }
            });
        }
    });
    engine.words("network rm busy");
    engine.assert_nothing_left();
}

#[test]
fn dockers_client_makes_and_uses_networks() {
    let engine = Engine::new();
    let docker = |line: &str| engine.docker(&line.split_whitespace().collect::<Vec<_>>());
    let (front, back) = (engine.subnet(0), engine.subnet(1));
    let v6 = format!("fd5d:{:x}::/64", std::process::id() & 0xffff);
    docker(&format!(
        "network create --ipv6 --subnet {front} --subnet {v6} -o com.docker.network.driver.mtu=1400 front"
    ));
    docker(&format!(
        "network create --internal --subnet {back} --label tier=back back"
    ));
    let listed =
        docker("network ls --filter type=custom --format {{.Name}}:{{.IPv6}}:{{.Internal}}");
    assert_eq!(listed, "back:false:true\nfront:true:false");
    let own = engine.address(0, 7);
    docker(&format!(
        "run -d --name web --network name=front,alias=www,ip={own},gw-priority=1 --network back busybox sleep 600"
    ));
    docker("run -d --name db --network back --network-alias store busybox sleep 600");
    let link = docker("exec web ip link show eth0");
    assert!(link.contains("mtu 1400"), "{link}");
    let addresses = docker("exec web ip -6 addr show eth0");
    assert!(addresses.contains("fd5d:"), "{addresses}");
    assert!(docker("exec web ping -c 1 -W 5 store").contains("1 packets received"));
    let names = engine.docker(&[
        "inspect",
        "-f",
        "{{json .NetworkSettings.Networks.front.DNSNames}}",
        "web",
    ]);
    assert!(names.starts_with(r#"["web","www",""#), "{names}");
    docker("network connect --alias again front db");
    assert!(docker("exec web ping -c 1 -W 5 again").contains("1 packets received"));
    docker("network disconnect -f front db");
    docker("rm -f web db");
    let pruned = docker("network prune -f --filter label=tier=back");
    assert!(
        pruned.contains("back") && !pruned.contains("front"),
        "{pruned}"
    );
    assert_eq!(docker("network rm front"), "front");
    engine.assert_nothing_left();
}
