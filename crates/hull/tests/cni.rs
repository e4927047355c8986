//! Networks that plugins of the Container Network Interface make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::Engine;

/// A plugin that passes on what it is given, and writes down what that is.
const RECORDER: &str = r#"#!/bin/sh
set -e
dir=$(dirname "$0")
cat > "$dir/input"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME ${CNI_NETNS:-none}" >> "$dir/calls"
cp "$dir/input" "$dir/$CNI_COMMAND.json"
if [ -e "$dir/fail" ]; then
    echo '{"code": 7, "msg": "not today", "details": "the recorder is broken"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || jq -c .prevResult "$dir/input"
"#;

/// Debian's bridge plugin and its addresses, and the recorder behind them.
struct Plugins {
    engine: Engine,
    directory: PathBuf,
}

impl Plugins {
    fn new() -> Self {
        let engine = Engine::new();
        let directory = engine.path("plugins");
        std::fs::create_dir(&directory).unwrap();
        let recorder = directory.join("recorder");
        std::fs::write(&recorder, RECORDER).unwrap();
        std::fs::set_permissions(&recorder, PermissionsExt::from_mode(0o755)).unwrap();
        let configuration = json!({
            "cniVersion": "1.0.0",
            "name": "plugged",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": format!("{}c", engine.bridge()),
                    "isGateway": true,
                    "capabilities": {"ips": true},
                    "ipam": {
                        "type": "host-local",
                        "dataDir": directory.join("addresses"),
                        "ranges": [[{"subnet": engine.subnet(0)}]],
                        "routes": [{"dst": "0.0.0.0/0"}]
                    }
                },
                {"type": "recorder", "capabilities": {"portMappings": true}}
            ]
        });
        let this = Self { engine, directory };
        this.write("net.conflist", &configuration.to_string());
        this
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).unwrap();
    }

    /// The options of a network.
    fn options(&self) -> String {
        format!(
            "-d cni --opt hull.network.cni.config={} --opt hull.network.cni.path={}:/usr/lib/cni",
            self.path("net.conflist"),
            self.directory.display()
        )
    }

    /// What the recorder was given last with a command.
    fn input(&self, command: &str) -> Value {
        let text = std::fs::read_to_string(self.directory.join(format!("{command}.json")));
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("calls")).unwrap_or_default();
        let words = text
            .lines()
            .map(|line| line.split(' ').next().unwrap().to_owned());
        words.collect()
    }

    /// How many addresses are taken.
    fn taken(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.directory.join("addresses/plugged")) else {
            return 0;
        };
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| {
                name.to_string_lossy()
                    .starts_with(|c: char| c.is_ascii_digit())
            })
            .count()
    }

    fn stay(&self, name: &str, more: &str) {
        self.engine
            .words(&format!("run -d --name {name} {more} busybox sleep 600"));
    }

    fn address(&self, name: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        self.engine
            .ok(&["inspect", "-f", format, name])
            .trim()
            .to_owned()
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        // The plugin leaves its bridge. Where the test has failed before there was one that is no error.
        let _ = std::process::Command::new("ip")
            .args(["link", "del", &format!("{}c", self.engine.bridge())])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

#[test]
fn plugins_make_and_undo_a_containers_interface() {
    let mut plugins = Plugins::new();
    plugins
        .engine
        .words(&format!("network create {} plugged", plugins.options()));
    plugins.stay("web", "--network plugged");
    plugins.stay(
        "client",
        &format!("--network plugged --ip {}", plugins.engine.address(0, 9)),
    );
    assert_eq!(plugins.address("client"), plugins.engine.address(0, 9));
    let engine = &plugins.engine;
    // Names are the engine's, addresses the plugins'.
    engine.until("the name is known", || {
        engine
            .run(&["exec", "client", "ping", "-c", "1", "-W", "1", "web"])
            .code
            == 0
    });
    let hosts = engine.words("exec web cat /etc/hosts");
    assert!(hosts.contains(&plugins.address("web")), "{hosts}");
    let way = engine.words("exec web ip route");
    assert!(
        way.contains(&format!("default via {}", engine.address(0, 1))),
        "{way}"
    );
    let added = plugins.input("ADD");
    assert_eq!(added["name"], "plugged");
    assert_eq!(added["prevResult"]["ips"].as_array().unwrap().len(), 1);
    engine.refused("network rm plugged", "active endpoints");
    engine.refused("port --explain web 80", "not known here");
    // A new engine undoes what an old one has had made, whatever the configuration says by then.
    plugins.engine.kill();
    plugins.write("net.conflist", "{}");
    plugins.engine.start();
    assert_eq!(plugins.taken(), 2);
    plugins.engine.words("rm -f web client");
    plugins
        .engine
        .until("the addresses are free", || plugins.taken() == 0);
    let undone = plugins.input("DEL");
    assert_eq!(undone["prevResult"]["ips"].as_array().unwrap().len(), 1);
    assert_eq!(plugins.calls(), ["ADD", "ADD", "DEL", "DEL"]);
    plugins.engine.words("network rm plugged");
    plugins.engine.assert_nothing_left();
}

#[test]
fn plugins_publish_ports_and_connect_what_runs() {
    let plugins = Plugins::new();
    let engine = &plugins.engine;
    engine.words(&format!("network create {} plugged", plugins.options()));
    plugins.stay(
        "web",
        "--network plugged -p 127.0.0.1:18080:80 -p 18081:81/udp",
    );
    let expected = json!([
        {"hostPort": 18080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
        {"hostPort": 18081, "containerPort": 81, "protocol": "udp", "hostIP": ""}
    ]);
    assert_eq!(
        plugins.input("ADD")["runtimeConfig"]["portMappings"],
        expected
    );
    assert!(
        engine
            .words("port web")
            .contains("80/tcp -> 127.0.0.1:18080")
    );
    engine.refused("update --publish-add 1:1 web", "cannot be changed while");
    engine.refused(
        "run --rm --network plugged -p 80 busybox true",
        "a port of the host that is said",
    );
    // Another network comes and goes while the container runs.
    plugins.stay("late", "");
    engine.words("network connect plugged late");
    assert!(engine.words("exec late ip addr").contains("eth1"));
    engine.words("network disconnect plugged late");
    let option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    engine.words(&format!(
        "network connect --driver-opt {option} plugged late"
    ));
    let set = engine.words("exec late cat /proc/sys/net/ipv4/conf/eth1/log_martians");
    assert_eq!(set, "1");
    assert_eq!(plugins.taken(), 2);
    engine.words("network disconnect plugged late");
    assert!(!engine.words("exec late ip addr").contains("eth1"));
    assert_eq!(plugins.taken(), 1);
    engine.refused(
        "run --rm --network plugged --network-rate 1m busybox true",
        "a network rate on plugged, a cni network",
    );
    engine.words("rm -f web late");
    engine.assert_nothing_left();
    assert_eq!(plugins.taken(), 0);
}

#[test]
fn what_plugins_refuse_is_told_and_undone() {
    let plugins = Plugins::new();
    let engine = &plugins.engine;
    let create = |more: &str, why: &str| {
        engine.refused(&format!("network create -d cni {more} refused"), why);
    };
    create("", "needs a configuration");
    create(
        "--opt hull.network.cni.config=/nowhere.conflist",
        "No such file",
    );
    create(
        &format!("{} --subnet 10.1.0.0/24", plugins.options()),
        "what its configuration says",
    );
    create(
        &format!("{} --opt other=1", plugins.options()),
        "\"other\" of the cni driver",
    );
    plugins.write(
        "missing.conf",
        r#"{"cniVersion": "1.0.0", "name": "n", "type": "nobody"}"#,
    );
    let config = format!(
        "--opt hull.network.cni.config={}",
        plugins.path("missing.conf")
    );
    create(&config, "there is no CNI plugin nobody");
    engine.words(&format!("network create {} plugged", plugins.options()));
    plugins.write("fail", "");
    engine.refused(
        "run --rm --network plugged busybox true",
        "not today: the recorder is broken",
    );
    assert_eq!(plugins.taken(), 0);
    engine.refused(
        "run --rm --network plugged --mac-address 02:00:00:00:00:01 busybox true",
        "no plugin of the network takes",
    );
    std::fs::remove_file(plugins.directory.join("fail")).unwrap();
    engine.words("run --rm --network plugged busybox true");
    engine.until("the address is free", || plugins.taken() == 0);
    engine.assert_nothing_left();
}
