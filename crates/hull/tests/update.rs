//! `update`: limits and restart policy of containers that exist, and what the host cannot limit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Engine;

/// What a limit of the container's cgroup says, on v1 or v2.
fn limit(engine: &Engine, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", name]);
    let v1 = format!("/sys/fs/cgroup/{controller}/hull/{id}/{v1}");
    let v2 = format!("/sys/fs/cgroup/hull/{id}/{v2}");
    let text = std::fs::read_to_string(&v1).or_else(|_| std::fs::read_to_string(&v2));
    text.unwrap_or_else(|error| panic!("{v1}, {v2}: {error}"))
        .trim()
        .to_owned()
}

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn limits_of_a_running_container_change_at_once_and_last() {
    let mut engine = Engine::new();
    let create = [
        "-d",
        "--name",
        "cc",
        "-m",
        "64m",
        "--memory-swap",
        "-1",
        "busybox",
        "sleep",
        "1000",
    ];
    engine.ok(&[&["run"], &create[..]].concat());
    let memory = |engine: &Engine| {
        limit(
            engine,
            "cc",
            "memory",
            "memory.limit_in_bytes",
            "memory.max",
        )
    };
    let pids = |engine: &Engine| limit(engine, "cc", "pids", "pids.max", "pids.max");
    assert_eq!(memory(&engine), (64 << 20).to_string());
    engine.ok(&[
        "update",
        "-m",
        "96m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
        "cc",
    ]);
    assert_eq!(
        (memory(&engine), pids(&engine)),
        ((96 << 20).to_string(), "50".to_owned())
    );
    let quota = limit(&engine, "cc", "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota, if is_v2() { "50000 100000" } else { "50000" });
    engine.docker(&[
        "update",
        "--pids-limit",
        "-1",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "cc",
    ]);
    assert_eq!(pids(&engine), "max");
    let shares = limit(&engine, "cc", "cpu", "cpu.shares", "cpu.weight");
    assert_eq!(shares, if is_v2() { "59" } else { "512" });
    assert_eq!(
        limit(&engine, "cc", "cpuset", "cpuset.cpus", "cpuset.cpus"),
        "0"
    );
    engine.ok(&["update", "--restart", "on-failure:3", "cc"]);
    let seen = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    let expected = "100663296 500000000 512 on-failure:3";
    assert_eq!(engine.docker(&["inspect", "-f", seen, "cc"]), expected);
    engine.kill();
    engine.start();
    assert_eq!(engine.ok(&["inspect", "-f", seen, "cc"]), expected);
    // Of a stopped container they count from the next start.
    engine.ok(&["stop", "-t", "0", "cc"]);
    engine.ok(&["update", "-m", "128m", "cc"]);
    engine.ok(&["start", "cc"]);
    assert_eq!(memory(&engine), (128 << 20).to_string());
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let engine = Engine::new();
    engine.ok(&[
        "run", "-d", "--name", "cc", "-m", "64m", "--cpus", "1", "--rm", "busybox", "sleep", "1000",
    ]);
    for (flags, reason) in [
        (
            &["-m", "200m"][..],
            "update the memoryswap at the same time",
        ),
        (&["-m", "1m"], "Minimum memory limit allowed is 6MB"),
        (
            &["--cpu-quota", "5000"],
            "CPU Quota cannot be updated as NanoCPUs has already been set",
        ),
        (
            &["--cpuset-cpus", "4000"],
            "Requested CPUs are not available",
        ),
        (&["--cpuset-cpus", "x"], "Invalid value x for cpuset cpus"),
        (
            &["--blkio-weight", "5"],
            "Range of blkio weight is from 10 to 1000",
        ),
        (&["--restart", "always"], "AutoRemove is enabled"),
        (
            &["-m", "70m", "--memory-reservation", "80m"],
            "less than memory reservation",
        ),
    ] {
        let said = engine.run(&[&["update"], flags, &["cc"]].concat());
        assert!(
            said.code == 1 && said.stderr.contains(reason),
            "{flags:?}: {said:?}"
        );
    }
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.HostConfig.Memory}}", "cc"]),
        (64 << 20).to_string()
    );
    let said = engine.run(&["update", "-m", "64m", "nobody"]);
    assert!(said.stderr.contains("No such container"), "{said:?}");
}

#[test]
fn a_policy_given_later_counts() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "busybox",
        "sh",
        "-c",
        "sleep 1000; true",
    ]);
    engine.ok(&["update", "--restart", "always", "cc"]);
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "cc"]);
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    engine.until("it runs again", || {
        engine.ok(&[
            "inspect",
            "-f",
            "{{.RestartCount}} {{.State.Running}}",
            "cc",
        ]) == "1 true"
    });
}

#[test]
fn rates_and_weights_of_devices_reach_the_cgroup() {
    let engine = Engine::new();
    let device = std::fs::read_dir("/dev")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            use std::os::unix::fs::FileTypeExt;
            let path = entry.path();
            let whole = path.file_name()?.to_str()?.starts_with("vda") || path.ends_with("sda");
            (entry.file_type().ok()?.is_block_device() && whole).then_some(path)
        });
    let device = device.expect("a disk to limit");
    let rate = format!("{}:1mb", device.display());
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "--device-read-bps",
        &rate,
        "busybox",
        "sleep",
        "1000",
    ]);
    let set = limit(
        &engine,
        "cc",
        "blkio",
        "blkio.throttle.read_bps_device",
        "io.max",
    );
    assert!(set.contains("1048576"), "{set}");
    let said = engine.run(&[
        "run",
        "--rm",
        "--device-write-iops",
        "/dev/null:3",
        "busybox",
        "true",
    ]);
    assert!(said.stderr.contains("no block device"), "{said:?}");
}
