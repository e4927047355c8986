//! Devices of drivers (CDI), and flags of isolation and limits that have no test of their own elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Engine;

#[test]
fn devices_of_a_specification_are_injected() {
    let engine = Engine::new();
    let host = engine.path("driver");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("lib"), "driver").unwrap();
    std::fs::create_dir(engine.path("cdi")).unwrap();
    let spec = format!(
        r#"{{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{{"name":"all","containerEdits":{{
            "env":["GPU=yes"],"deviceNodes":[{{"path":"/dev/gpu0","hostPath":"/dev/zero"}}],
            "mounts":[{{"hostPath":"{}","containerPath":"/opt/driver","options":["ro","rbind"]}}],
            "additionalGids":[4242]}}}}]}}"#,
        host.display()
    );
    std::fs::write(engine.path("cdi/gpu.json"), spec).unwrap();
    let script = "echo $GPU; head -c 3 /dev/gpu0 | wc -c; cat /opt/driver/lib; echo; id -G";
    let expected = "yes\n3\ndriver\n0 4242";
    for flags in [["--device", "nvidia.com/gpu=all"], ["--gpus", "all"]] {
        let run = [
            &["run", "--rm"],
            &flags[..],
            &["busybox", "sh", "-c", script],
        ]
        .concat();
        assert_eq!(engine.ok(&run), expected);
        assert_eq!(engine.docker(&run), expected);
    }
    assert_eq!(
        engine.docker(&["info", "-f", "{{(index .DiscoveredDevices 0).ID}}"]),
        "nvidia.com/gpu=all"
    );
    for (flags, reason) in [
        (
            ["--device", "nvidia.com/gpu=7"],
            "unresolvable CDI devices nvidia.com/gpu=7",
        ),
        (
            ["--gpus", "\"driver=amd\""],
            "could not select device driver",
        ),
    ] {
        let said = engine.run(&["run", "--rm", flags[0], flags[1], "busybox", "true"]);
        assert!(
            said.code == 125 && said.stderr.contains(reason),
            "{flags:?}: {said:?}"
        );
    }
    // Groups count for root as well.
    let groups = ["run", "--rm", "--group-add", "77", "busybox", "id", "-G"];
    assert_eq!(engine.ok(&groups), "0 77");
    engine.assert_nothing_left();
}

/// CVE-2024-0132, CVE-2025-23266: a driver's hook runs on the host, and nothing of an image comes to it but the container's state.
#[test]
fn attack_53_a_hook_has_nothing_of_the_image_in_its_environment() {
    let engine = Engine::new();
    let told = engine.path("told");
    std::fs::create_dir(engine.path("cdi")).unwrap();
    let spec = format!(
        r#"{{"cdiVersion":"0.6.0","kind":"vendor.com/class","devices":[{{"name":"x","containerEdits":{{
            "hooks":[{{"hookName":"createRuntime","path":"/bin/sh","args":["sh","-c","env > {}"],"env":["OWN=1"]}}]}}}}]}}"#,
        told.display()
    );
    std::fs::write(engine.path("cdi/hook.json"), spec).unwrap();
    let run =
        "run --rm -e LD_PRELOAD=/evil.so -e EVIL=1 --device vendor.com/class=x busybox echo runs";
    assert_eq!(engine.words(run), "runs");
    let environment = std::fs::read_to_string(&told).unwrap();
    // The shell adds where it is.
    let names: Vec<&str> = { environment.lines() }
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|name| !matches!(*name, "PWD" | "SHLVL" | "_" | "OLDPWD"))
        .collect();
    assert_eq!(names, ["OWN"], "{environment}");
    engine.assert_nothing_left();
}

#[test]
fn every_flag_of_limits_and_isolation_is_kept() {
    let engine = Engine::new();
    let flags = [
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--oom-score-adj",
        "300",
        "--domainname",
        "example.org",
        "--device-cgroup-rule",
        "c 42:* rmw",
        "--annotation",
        "a=b",
        "--isolation",
        "default",
        "--cgroup-parent",
        "/hull-test-parent",
        "--volume-driver",
        "local",
        "--ulimit",
        "nofile=100:200",
        "--sysctl",
        "net.ipv4.ip_forward=1",
    ];
    let script = "cat /proc/self/oom_score_adj /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; grep Cpus_allowed_list /proc/self/status; ulimit -n";
    let run = [
        &["run", "--name", "cc"],
        &flags[..],
        &["busybox", "sh", "-c", script],
    ]
    .concat();
    let said = engine.docker(&run);
    assert_eq!(said, "300\nexample.org\n1\nCpus_allowed_list:\t0\n100");
    let seen = "{{with .HostConfig}}{{.CpusetMems}} {{.MemoryReservation}} {{.CpuPeriod}} {{.CpuQuota}} {{.DeviceCgroupRules}} {{.Annotations}} {{.CgroupParent}}{{end}}";
    assert_eq!(
        engine.docker(&["inspect", "-f", seen, "cc"]),
        "0 33554432 50000 25000 [c 42:* rmw] map[a:b] /hull-test-parent"
    );
    let empty = ["/sys/fs/cgroup/hull-test-parent".to_owned()]
        .into_iter()
        .chain(
            std::fs::read_dir("/sys/fs/cgroup")
                .unwrap()
                .flatten()
                .map(|entry| format!("{}/hull-test-parent", entry.path().display())),
        );
    for group in empty {
        // A group of that name is this test's own, and empty by now; where there is none there is nothing to remove.
        let _ = std::fs::remove_dir(group);
    }
}

#[test]
fn what_the_host_cannot_limit_is_a_warning() {
    let engine = Engine::new();
    let said = engine.run(&["create", "--name", "cc", "--oom-kill-disable", "busybox"]);
    // cgroup v2 has no such setting; v1 has, which is dangerous without a limit.
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let warning = if v2 {
        "OomKillDisable discarded"
    } else {
        "OOM"
    };
    assert!(said.code == 0 && said.stderr.contains(warning), "{said:?}");
    for (flags, reason) in [
        (["--cpu-count", "2"], "Windows"),
        (["--memory-swappiness", "101"], "swappiness"),
        (["--cpu-period", "5"], "CPU cfs period"),
        (
            ["--device-cgroup-rule", "x 1:1 r"],
            "invalid device cgroup format",
        ),
    ] {
        let said = engine.run(&["create", flags[0], flags[1], "busybox"]);
        assert!(
            said.code != 0 && said.stderr.contains(reason),
            "{flags:?}: {said:?}"
        );
    }
}

#[test]
fn statistics_are_whole() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "cc",
        "-m",
        "64m",
        "--pids-limit",
        "20",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero of=/x bs=1M count=4 conv=fsync 2>/dev/null; sleep 1000",
    ]);
    let get = |query: &str| -> serde_json::Value {
        let path = format!("/containers/cc/stats?{query}");
        let (_, body) = engine.ask("GET", &path, None);
        serde_json::from_slice(&body).unwrap()
    };
    let once = get("stream=0&one-shot=1");
    assert_eq!(once["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(
        (&once["pids_stats"]["limit"], &once["memory_stats"]["limit"]),
        (&20.into(), &(64 << 20).into())
    );
    assert!(
        once["cpu_stats"]["cpu_usage"]["total_usage"]
            .as_u64()
            .unwrap()
            > 0
    );
    assert!(once["networks"]["eth0"]["rx_bytes"].is_u64());
    let twice = get("stream=0");
    assert_ne!(twice["preread"], "0001-01-01T00:00:00Z");
    // The kernel keeps account of stalls where this is; then every container is told of its own.
    if std::path::Path::new("/proc/pressure/cpu").exists() {
        assert!(
            once["pressure_stats"]["memory"]["some"]["total"].is_u64(),
            "{once}"
        );
    }
}

#[test]
fn paths_are_masked_as_the_request_says() {
    let engine = Engine::new();
    engine.ok(&["create", "--name", "plain", "busybox", "true"]);
    assert_eq!(
        engine.docker(&["inspect", "-f", "{{json .HostConfig.MaskedPaths}}", "plain"]),
        "null"
    );
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","cat /proc/uptime | wc -c; echo x >/proc/sys/kernel/hostname; cat /proc/sysrq-trigger 2>&1 | wc -c"],"HostConfig":{"MaskedPaths":["/proc/uptime"],"ReadonlyPaths":["/tmp"]}}"#;
    let (_, told) = engine.ask("POST", "/containers/create?name=own", Some(body));
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("\"Id\""), "{told}");
    let said = engine.run(&["start", "-a", "own"]);
    assert!(said.stdout.starts_with("0\n"), "{said:?}");
    assert_eq!(
        engine.docker(&[
            "inspect",
            "-f",
            "{{.HostConfig.MaskedPaths}} {{.HostConfig.ReadonlyPaths}}",
            "own"
        ]),
        "[/proc/uptime] [/tmp]"
    );
}
