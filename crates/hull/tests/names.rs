//! Names on networks: who is found by whom, also while there is no engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::UdpSocket;
use std::sync::mpsc;
use support::Engine;

fn create(engine: &Engine, name: &str, number: u8, more: &str) {
    let subnet = engine.subnet(number);
    engine.words(&format!("network create --subnet {subnet} {more} {name}"));
}

fn stay(engine: &Engine, name: &str, more: &str) {
    engine.words(&format!("run -d --name {name} {more} busybox sleep 600"));
}

/// What a container finds under a name.
fn look_up(engine: &Engine, who: &str, name: &str) -> String {
    let said = engine.run(&["exec", who, "nslookup", name]);
    // What the server is comes first.
    let (_, found) = said.stdout.split_once("\n\n").unwrap_or_default();
    found.to_owned()
}

fn finds(engine: &Engine, who: &str, name: &str, address: &str) -> bool {
    let found = look_up(engine, who, name);
    found
        .lines()
        .any(|line| line == format!("Address: {address}"))
}

/// A name server on a loopback address of its own, and what it is asked. It says that there is no such name.
fn name_server(engine: &Engine) -> (String, mpsc::Receiver<Vec<u8>>) {
    let address = engine.address(15, 3).replacen("10.", "127.", 1);
    let socket = UdpSocket::bind((address.as_str(), 53)).expect("port 53, as root");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..count].to_vec();
            answer[2] |= 0x80;
            answer[3] = 0x83;
            socket.send_to(&answer, client).unwrap();
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

fn is_about(query: &[u8], label: &str) -> bool {
    query
        .windows(label.len())
        .any(|part| part.eq_ignore_ascii_case(label.as_bytes()))
}

#[test]
fn containers_find_each_other_by_name_alias_and_id() {
    let engine = Engine::new();
    let (dns, asked) = name_server(&engine);
    create(&engine, "front", 0, "");
    create(&engine, "back", 1, "");
    stay(&engine, "web", &format!("--network front --dns {dns}"));
    let at = |number, host| engine.address(number, host);
    stay(
        &engine,
        "db1",
        &format!(
            "--network back --network-alias db --ip {} --hostname store",
            at(1, 5)
        ),
    );
    stay(
        &engine,
        "db2",
        &format!("--network back --network-alias db --ip {}", at(1, 6)),
    );
    let settings = "run --rm --network front --dns-search example.org busybox cat /etc/resolv.conf";
    let expected = "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0";
    assert_eq!(engine.words(settings), expected);
    // Of another network nobody is found.
    assert!(look_up(&engine, "web", "db1").contains("NXDOMAIN"));
    assert!(
        asked
            .try_iter()
            .filter(|query| is_about(query, "db1"))
            .count()
            > 0
    );
    engine.words("network connect back web");
    let id = engine.words("ps -q --filter name=db1");
    for name in ["db1", "DB1", "store", "db", "db1.back", &id] {
        assert!(finds(&engine, "web", name, &at(1, 5)), "{name}");
    }
    assert!(finds(&engine, "web", "db", &at(1, 6)));
    assert!(look_up(&engine, "web", &at(1, 6)).contains("name = db2.back"));
    assert!(asked.try_iter().all(|query| !is_about(&query, "db")));
    // Who comes, goes, or is called otherwise now.
    engine.words("rename db2 db3");
    assert!(finds(&engine, "web", "db3", &at(1, 6)) && !finds(&engine, "web", "db2", &at(1, 6)));
    engine.words("rm -f db1");
    assert!(!finds(&engine, "web", "db", &at(1, 5)) && finds(&engine, "web", "db", &at(1, 6)));
    engine.words("rm -f web db3");
    engine.assert_nothing_left();
}

#[test]
fn names_go_on_while_there_is_no_engine() {
    let mut engine = Engine::new();
    create(&engine, "front", 0, "--internal");
    stay(
        &engine,
        "db",
        &format!("--network front --ip {}", engine.address(0, 5)),
    );
    // It asks again and again, and says what it has found.
    let script = "while :; do nslookup db > /tmp/new; mv /tmp/new /tmp/found; sleep 0.1; done";
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "-v",
        &format!("{}:/tmp", engine.path("shared").display()),
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let found = || std::fs::read_to_string(engine.path("shared/found")).unwrap_or_default();
    let expected = format!("Address: {}", engine.address(0, 5));
    engine.until("the name is found", || found().contains(&expected));
    engine.kill();
    for _ in 0..3 {
        let file = engine.path("shared/found");
        std::fs::remove_file(&file).unwrap();
        engine.until("the name is found without an engine", || {
            std::fs::read_to_string(&file)
                .unwrap_or_default()
                .contains(&expected)
        });
    }
    engine.start();
    stay(
        &engine,
        "late",
        &format!("--network front --ip {}", engine.address(0, 6)),
    );
    assert!(finds(&engine, "late", "db", &engine.address(0, 5)));
    engine.words("rm -f web db late");
    engine.assert_nothing_left();
}

#[test]
fn a_container_of_the_default_bridge_gets_a_resolver_with_its_first_network() {
    let engine = Engine::new();
    create(&engine, "front", 0, "");
    stay(
        &engine,
        "db",
        &format!("--network front --ip {}", engine.address(0, 5)),
    );
    stay(&engine, "web", "");
    assert!(
        !engine
            .words("exec web cat /etc/resolv.conf")
            .contains("127.0.0.11")
    );
    engine.words("network connect --link db:store front web");
    assert!(finds(&engine, "web", "db", &engine.address(0, 5)));
    // A name of its own.
    assert!(finds(&engine, "web", "store", &engine.address(0, 5)));
    stay(&engine, "other", "--network front --dns 127.0.0.1");
    assert!(!finds(&engine, "other", "store", &engine.address(0, 5)));
    // Another server on port 53 is not in the way of it.
    engine.words("exec web httpd -p 53");
    engine.until("the container's own server listens", || {
        engine.words("exec web netstat -ltn").contains(":53 ")
    });
    assert!(finds(&engine, "web", "db", &engine.address(0, 5)));
    engine.words("rm -f web db other");
    engine.assert_nothing_left();
}

/// CVE-2024-29018: what an internal network does not know is asked of nobody.
#[test]
fn attack_34_an_internal_network_leaks_no_questions() {
    let engine = Engine::new();
    let (dns, asked) = name_server(&engine);
    create(&engine, "inner", 0, "--internal");
    create(&engine, "outer", 1, "");
    stay(&engine, "spy", &format!("--network inner --dns {dns}"));
    assert!(look_up(&engine, "spy", "secret.example.org").contains("NXDOMAIN"));
    assert!(asked.try_iter().next().is_none());
    // The same question is asked as soon as a network leads out, and not any more when it does not.
    engine.words("network connect outer spy");
    look_up(&engine, "spy", "public.example.org");
    assert!(asked.try_iter().any(|query| is_about(&query, "public")));
    engine.words("network disconnect outer spy");
    look_up(&engine, "spy", "secret.example.org");
    assert!(asked.try_iter().all(|query| !is_about(&query, "secret")));
    // And IPv6, which the network has not, is off (CVE-2024-32473).
    let disabled = engine.words("exec spy cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    assert_eq!(disabled, "1");
    engine.words("rm -f spy");
    engine.assert_nothing_left();
}

#[test]
fn a_link_gives_a_container_of_the_default_bridge_a_name_and_an_environment() {
    let engine = Engine::new();
    stay(&engine, "db", "-e COLOUR=red --expose 5432");
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "--link",
        "db:my-store",
        "busybox",
        "sleep",
        "600",
    ]);
    let address =
        |name: &str| engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]);
    let db = address("db");
    let id = engine.words("ps -q --filter name=db");
    let hosts = engine.words("exec web cat /etc/hosts");
    assert!(
        hosts.contains(&format!("{db}\tmy-store {id} db\n")),
        "{hosts}"
    );
    let environment = engine.words("inspect -f {{.Config.Env}} web");
    assert!(!environment.contains("MY_STORE"), "{environment}");
    let environment = engine
        .ok(&["exec", "web", "cat", "/proc/1/environ"])
        .replace('\0', "\n");
    for line in [
        "MY_STORE_NAME=/web/my-store".to_owned(),
        format!("MY_STORE_PORT=tcp://{db}:5432"),
        format!("MY_STORE_PORT_5432_TCP_ADDR={db}"),
        "MY_STORE_ENV_COLOUR=red".to_owned(),
    ] {
        assert!(
            environment.lines().any(|present| present == line),
            "{line}: {environment}"
        );
    }
    // It follows to another address.
    engine.words("stop -t 0 db");
    engine.words("run -d --name other busybox sleep 600");
    engine.words("start db");
    let moved = address("db");
    assert_ne!(moved, db);
    let hosts = engine.words("exec web cat /etc/hosts");
    assert!(
        hosts.contains(&format!("{moved}\tmy-store {id} db"))
            && !hosts.contains(&format!("{db}\tmy-store")),
        "{hosts}"
    );
    engine.words("stop -t 0 db");
    engine.refused(
        "run --rm --link db busybox true",
        "Cannot link to a non running container",
    );
    engine.refused(
        "run --rm --link nobody busybox true",
        "could not get container",
    );
    engine.words("rm -f web db other");
    engine.assert_nothing_left();
}

#[test]
fn a_link_is_removed_by_its_two_names() {
    let engine = Engine::new();
    engine.words("run -d --name db busybox sleep 1000");
    engine.words("run -d --name other busybox sleep 1000");
    engine.words("run -d --name web --link db:store --link other busybox sleep 1000");
    let names =
        |engine: &Engine| engine.words("ps --no-trunc --filter name=db --format {{.Names}}");
    let hosts = |engine: &Engine| engine.words("exec web cat /etc/hosts");
    assert_eq!(names(&engine), "db,web/store");
    engine.refused(
        "rm --link db",
        "cannot remove the default link name of the container",
    );
    engine.refused("rm --link web/nothing", "No such container: web/nothing");
    engine.docker(&["rm", "--link", "/web/store"]);
    assert_eq!(names(&engine), "db");
    assert!(!hosts(&engine).contains("store") && hosts(&engine).contains("other"));
    engine.refused("rm --link web/store", "No such container: web/store");
    let links =
        |engine: &Engine| engine.ok(&["inspect", "-f", "{{json .HostConfig.Links}}", "web"]);
    assert_eq!(links(&engine), r#"["/other:/web/other"]"#);
    // It stays so, for the next run and the next engine.
    engine.words("restart -t 0 web");
    assert!(!hosts(&engine).contains("store"));
    let mut engine = engine;
    engine.kill();
    engine.start();
    assert_eq!(links(&engine), r#"["/other:/web/other"]"#);
    assert_eq!(names(&engine), "db");
    engine.words("rm -f web db other");
    engine.assert_nothing_left();
}
