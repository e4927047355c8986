//! What is otherwise on a host with cgroup v2 alone, as `cargo xtask vm-test` has one.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, eventually};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const V2: &str = "/sys/fs/cgroup";

/// A container that may write its own cgroup's files, as one with a service manager in it.
fn with_writable_cgroup(script: &str) -> Bundle {
    let mut bundle = Bundle::shell(script);
    bundle.config["root"]["readonly"] = json!(false);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == V2 {
            mount["options"] = json!(["nosuid", "noexec", "nodev"]);
        }
    }
    bundle
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(V2).join(path)).unwrap()
}

/// The number after a key in one of the container's flat keyed files.
fn keyed(bundle: &Bundle, file: &str, key: &str) -> u64 {
    let text = bundle.cgroup_file(&[file]);
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let value = value.unwrap_or_else(|| panic!("no {key} in {file}: {text}"));
    value.trim().parse().unwrap()
}

/// The number of a disk of the host's: `254:0`.
fn disk() -> String {
    let mut disks = std::fs::read_dir("/sys/block").unwrap();
    // Those that are backed by a device; loops are not.
    let disk = disks.find_map(|entry| {
        let path = entry.unwrap().path();
        path.join("device").exists().then_some(path)
    });
    let number = std::fs::read_to_string(disk.unwrap().join("dev")).unwrap();
    number.trim().to_owned()
}

#[test]
#[ignore = "needs a host with cgroup v2 alone"]
fn exec_follows_an_init_that_has_moved_to_a_group_below() {
    let bundle = with_writable_cgroup(
        "cd /sys/fs/cgroup && mkdir init.scope && echo 1 > init.scope/cgroup.procs && echo +memory +pids > cgroup.subtree_control && touch /tmp/moved; sleep 600",
    );
    bundle.create().ok();
    bundle.start().ok();
    let moved = bundle.rootfs().join("tmp/moved");
    assert!(eventually(|| moved.exists()));
    assert_eq!(
        bundle.exec(&["cat", "/proc/self/cgroup"]).ok(),
        "0::/init.scope\n"
    );
    // What is below counts, freezes and ends with it.
    let pids = bundle.pids();
    assert_eq!(pids, [bundle.pid()]);
    bundle.invoke(&["pause", &bundle.id]).ok();
    assert_eq!(keyed(&bundle, "cgroup.events", "frozen"), 1);
    bundle.invoke(&["resume", &bundle.id]).ok();
    // Not where a group was asked for.
    let asked = bundle.invoke(&["exec", "--cgroup", "/", &bundle.id, "true"]);
    assert!(asked.failed().contains("busy"));
    bundle.delete().ok();
}

#[test]
#[ignore = "needs a host with cgroup v2 alone"]
fn exec_does_not_follow_an_init_that_was_moved_away() {
    let bundle = with_writable_cgroup(
        "cd /sys/fs/cgroup && mkdir x && echo 1 > x/cgroup.procs && echo +memory > cgroup.subtree_control && touch /tmp/moved; sleep 600",
    );
    bundle.create().ok();
    bundle.start().ok();
    let moved = bundle.rootfs().join("tmp/moved");
    assert!(eventually(|| moved.exists()));
    // Its name begins as the container's own does.
    let other = Path::new(V2).join(format!("{}-other", bundle.id));
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("cgroup.procs"), bundle.pid().to_string()).unwrap();
    let told = bundle.exec(&["true"]).failed();
    let back = Path::new(V2).join(&bundle.id).join("x/cgroup.procs");
    std::fs::write(back, bundle.pid().to_string()).unwrap();
    std::fs::remove_dir(other).unwrap();
    bundle.delete().ok();
    assert!(told.contains("has left its cgroup"), "{told}");
}

#[test]
#[ignore = "needs a host with cgroup v2 alone"]
fn controllers_are_handed_down_to_where_the_container_is() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    let disk = disk();
    let (major, minor) = disk.split_once(':').unwrap();
    let [major, minor] = [major, minor].map(|number| number.parse::<u32>().unwrap());
    let parent = format!("hull-test-{}.slice", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{parent}/below/{}", bundle.id));
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20},
        "cpu": {"shares": 1024, "quota": 20_000, "period": 50_000, "burst": 1000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
        "blockIO": {"weight": 505, "throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
        "unified": {"memory.high": "50331648"},
    });
    bundle.create().ok();
    let file = |name: &str| read(&format!("{parent}/below/{}/{name}", bundle.id));
    for (name, expected) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("memory.swap.max", "33554432"),
        ("cpu.weight", "100"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "17"),
        ("io.weight", "default 5000"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
    ] {
        assert_eq!(file(name).trim(), expected, "{name}");
    }
    let throttled = format!("{disk} rbps=max wbps=1048576 riops=max wiops=max\n");
    assert_eq!(file("io.max"), throttled);
    let handed = |path: &str| -> Vec<String> {
        let text = read(&format!("{path}cgroup.subtree_control"));
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    let mut all: Vec<_> = read("cgroup.controllers")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    all.sort();
    for path in [
        "".to_owned(),
        format!("{parent}/"),
        format!("{parent}/below/"),
    ] {
        assert_eq!(handed(&path), all, "{path:?}");
    }
    bundle.delete().ok();
    // Groups above are the caller's.
    for path in [format!("{parent}/below"), parent] {
        std::fs::remove_dir(Path::new(V2).join(path)).unwrap();
    }
}

#[test]
#[ignore = "needs a host with cgroup v2 alone"]
fn limits_bind() {
    let mut bundle = Bundle::new(&["sleep", "600"]);
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 16 << 20, "swap": 16 << 20},
        "cpu": {"quota": 25_000, "period": 50_000}, "pids": {"limit": 3},
    });
    bundle.create().ok();
    bundle.start().ok();
    let forks = bundle.exec(&["sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait"]);
    assert!(forks.stderr.contains("can't fork"), "{forks:?}");
    let eats = bundle.exec(&["tail", "/dev/zero"]);
    assert_eq!(eats.code, Some(137), "{eats:?}");
    assert!(keyed(&bundle, "memory.events", "oom_kill ") >= 1);
    let counts = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    bundle.exec(&["sh", "-c", counts]).ok();
    assert!(keyed(&bundle, "cpu.stat", "nr_throttled ") > 0);
    let stats = bundle.invoke(&["events", "--stats", &bundle.id]).ok();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 16 << 20, "{stats}");
    assert_eq!(data["pids"]["limit"], 3, "{stats}");
    for pointer in [
        "/memory/usage/usage",
        "/memory/usage/max",
        "/cpu/usage/total",
        "/cpu/throttling/throttledPeriods",
        "/pids/current",
    ] {
        // `memory.peak` came with Linux 5.19.
        let value = data.pointer(pointer).and_then(Value::as_u64);
        assert!(value.is_some_and(|value| value > 0), "{pointer}: {stats}");
    }
    bundle.delete().ok();
}

#[test]
#[ignore = "needs a host with systemd and cgroup v2 alone"]
fn systemd_takes_no_controller_away() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    let parent = format!("hull-test-{}-parent", std::process::id());
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{parent}/{}", bundle.id));
    bundle.config["linux"]["resources"] = json!({"cpu": {"quota": 50_000, "cpus": "0"}});
    bundle.create().ok();
    for arguments in [
        &["daemon-reload"][..],
        &[
            "set-property",
            "--runtime",
            "--",
            "-.slice",
            "CPUAccounting=no",
        ],
    ] {
        let status = Command::new("systemctl").args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    }
    let group = format!("{parent}/{}", bundle.id);
    assert_eq!(read(&format!("{group}/cpu.max")), "50000 100000\n");
    assert_eq!(read(&format!("{group}/cpuset.cpus")), "0\n");
    bundle.delete().ok();
    std::fs::remove_dir(Path::new(V2).join(parent)).unwrap();
}

#[test]
#[ignore = "needs a host with cgroup v2 alone"]
fn device_rules_are_replaced_while_the_container_runs() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    bundle.create().ok();
    bundle.start().ok();
    // For reading it takes a capability as well.
    let open = ["sh", "-c", ": > /dev/kmsg"];
    let refused = bundle.exec(&open).failed();
    assert!(refused.contains("Operation not permitted"), "{refused}");
    let resources = bundle.path().join("resources.json");
    let rules =
        json!({"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}]});
    std::fs::write(&resources, rules.to_string()).unwrap();
    let file = resources.to_str().unwrap();
    bundle
        .invoke(&["update", "--resources", file, &bundle.id])
        .ok();
    bundle.exec(&open).ok();
    bundle.delete().ok();
}
