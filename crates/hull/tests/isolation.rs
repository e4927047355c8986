//! Isolation, seen from inside and from outside; limits that really bind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Engine;

fn inside(engine: &Engine, flags: &[&str], script: &str) -> String {
    engine.ok(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
}

#[test]
fn every_namespace_is_its_own_unless_asked_otherwise() {
    let engine = Engine::new();
    let own = |name: &str| {
        std::fs::read_link(format!("/proc/self/ns/{name}"))
            .unwrap()
            .display()
            .to_string()
    };
    let script = "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    for (line, name) in inside(&engine, &[], script)
        .lines()
        .zip(["pid", "mnt", "net", "ipc", "uts", "cgroup"])
    {
        assert_ne!(line, own(name), "{name}");
    }
    for (flags, name) in [
        (["--pid", "host"], "pid"),
        (["--network", "host"], "net"),
        (["--ipc", "host"], "ipc"),
        (["--uts", "host"], "uts"),
        (["--cgroupns", "host"], "cgroup"),
    ] {
        let line = inside(&engine, &flags, &format!("readlink /proc/self/ns/{name}"));
        assert_eq!(line, own(name), "{name}");
    }
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "peer",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "echo shared > /dev/shm/x; sleep 600",
    ]);
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "peer"]);
    let flags = [
        "--pid",
        "container:peer",
        "--network",
        "container:peer",
        "--ipc",
        "container:peer",
    ];
    let out = inside(
        &engine,
        &flags,
        "for n in pid net ipc; do readlink /proc/self/ns/$n; done; cat /dev/shm/x",
    );
    let expected = ["pid", "net", "ipc"].map(|name| {
        std::fs::read_link(format!("/proc/{pid}/ns/{name}"))
            .unwrap()
            .display()
            .to_string()
    });
    assert_eq!(out, format!("{}\nshared", expected.join("\n")));
    engine.ok(&["rm", "-f", "peer"]);
    engine.assert_nothing_left();
}

#[test]
fn a_user_namespace_hides_root() {
    let engine = Engine::new();
    let out = inside(
        &engine,
        &["--userns", "private"],
        "cat /proc/self/uid_map; id -u; touch /x; stat -c %u /x /bin/busybox",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("0", "65536"), "{out}");
    assert_ne!(words[1], "0", "{out}");
    assert_eq!(words[3..], ["0", "0", "0"], "{out}");
    let id = engine.ok(&[
        "run", "-d", "--userns", "private", "busybox", "sleep", "600",
    ]);
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", &id]);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert!(!uid.split_whitespace().any(|word| word == "0"), "{uid}");
}

#[test]
fn capabilities_and_filters_are_at_least_as_strict_as_dockers() {
    let engine = Engine::new();
    let out = inside(
        &engine,
        &[],
        "grep -E 'Cap(Inh|Eff|Bnd)|Seccomp:' /proc/self/status",
    );
    let values: Vec<&str> = out
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(
        values,
        [
            "0000000000000000",
            "00000000a80425fb",
            "00000000a80425fb",
            "2"
        ]
    );
    for refused in [
        "unshare -m true",
        "mount -t tmpfs x /tmp",
        "chroot /proc/1/root mount -o remount,rw /proc/sys",
        "echo 1 > /proc/sys/kernel/domainname",
        "cat /proc/kcore | head -c 1 | grep -q .",
    ] {
        let said = engine.run(&["run", "--rm", "busybox", "sh", "-c", refused]);
        assert_ne!(said.code, 0, "{refused}: {said:?}");
    }
    let out = inside(
        &engine,
        &[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "chown",
            "--security-opt",
            "no-new-privileges",
        ],
        "grep -E 'CapEff|NoNew' /proc/self/status",
    );
    assert!(
        out.contains("0000000000000001") && out.ends_with('1'),
        "{out}"
    );
    let out = inside(
        &engine,
        &["--privileged"],
        "grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted",
    );
    assert!(out.contains("\t0") && out.ends_with("mounted"), "{out}");
}

#[test]
fn dev_is_like_dockers() {
    let engine = Engine::new();
    let out = inside(
        &engine,
        &[],
        "ls /dev; stat -c %t:%T /dev/null; readlink /dev/ptmx",
    );
    for name in [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ] {
        assert!(out.lines().any(|line| line == name), "{name}: {out}");
    }
    assert!(out.contains("1:3") && out.ends_with("pts/ptmx"), "{out}");
    let said = engine.run(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "mknod /x b 8 0 && head -c 1 /x",
    ]);
    assert!(said.code != 0, "{said:?}");
    assert_eq!(
        inside(
            &engine,
            &["--device", "/dev/loop-control:/dev/mine:r"],
            "stat -c %t:%T /dev/mine"
        ),
        "a:ed"
    );
}

#[test]
fn running_out_of_memory_is_told() {
    let engine = Engine::new();
    let said = engine.run(&[
        "run",
        "--name",
        "hungry",
        "-m",
        "24m",
        "busybox",
        "sh",
        "-c",
        "x=a; while true; do x=$x$x; done",
    ]);
    assert_eq!(said.code, 137, "{said:?}");
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "hungry"]),
        "true"
    );
    let events = engine.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=oom",
    ]);
    assert!(events.contains("oom"), "{events}");
}

#[test]
fn limits_bind() {
    let engine = Engine::new();
    let said = engine.run(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait",
    ]);
    assert!(said.stderr.contains("can't fork"), "{said:?}");
    assert_eq!(
        inside(
            &engine,
            &["--cpuset-cpus", "0"],
            "grep Cpus_allowed_list /proc/self/status | cut -f 2"
        ),
        "0"
    );
    assert_eq!(
        inside(
            &engine,
            &["--ulimit", "nofile=99:100", "--shm-size", "1m"],
            "ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'"
        ),
        "99\n1024"
    );
    assert_eq!(
        inside(
            &engine,
            &["--sysctl", "net.ipv4.ip_default_ttl=77"],
            "cat /proc/sys/net/ipv4/ip_default_ttl"
        ),
        "77"
    );
    let id = engine.ok(&[
        "run",
        "-d",
        "--cpus",
        "0.2",
        "busybox",
        "sh",
        "-c",
        "while true; do :; done",
    ]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let pid = engine.ok(&["inspect", "-f", "{{.State.Pid}}", &id]);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(11)
        .unwrap()
        .parse()
        .unwrap();
    assert!(ticks < 60, "{ticks} ticks of 100 a second");
}

#[test]
fn tmpfs_and_a_read_only_root() {
    let engine = Engine::new();
    let said = engine.run(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/t:size=64k",
        "busybox",
        "sh",
        "-c",
        "touch /x; touch /t/x && echo ok; head -c 1000000 /dev/zero > /t/y",
    ]);
    assert!(
        said.stdout.contains("ok") && said.stderr.contains("Read-only") && said.code != 0,
        "{said:?}"
    );
}

#[test]
fn attack_2_a_user_is_read_strictly() {
    let engine = Engine::new();
    for user in ["4294967296", "-1", "99999999999", "nobody-here", "0x0"] {
        let said = engine.run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-u",
            user,
            "busybox",
            "id",
        ]);
        assert!(said.code != 0 && said.stdout.is_empty(), "{user}: {said:?}");
    }
    assert_eq!(
        inside(
            &engine,
            &["-u", "user", "--group-add", "extra"],
            "id -u; id -G"
        ),
        "1000\n1000 2000"
    );
    assert_eq!(
        inside(&engine, &["-u", "1234:5678"], "id -u; id -g"),
        "1234\n5678"
    );
}

#[test]
fn attack_3_the_engines_binary_cannot_be_overwritten_from_inside() {
    let engine = Engine::new();
    let before = std::fs::read(env!("CARGO_BIN_EXE_hull")).unwrap().len();
    // PID 1 of a container with an init runs from the engine's binary. Even with every capability over it, the file it
    // shows is on a mount that nobody can write to.
    let script = "cat /proc/1/exe > /dev/null && echo readable; echo broken > /proc/1/exe";
    let said = engine.run(&[
        "run",
        "--rm",
        "--init",
        "--cap-add",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
        // Under the engine's profile the file cannot even be opened.
        "--security-opt",
        "apparmor=unconfined",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert!(said.stdout.contains("readable"), "{said:?}");
    assert!(
        said.code != 0 && said.stderr.contains("Read-only file system"),
        "{said:?}"
    );
    assert_eq!(
        std::fs::read(env!("CARGO_BIN_EXE_hull")).unwrap().len(),
        before
    );
}

#[test]
#[ignore = "needs a host with AppArmor"]
fn containers_have_a_profile_of_the_engines_unless_asked_otherwise() {
    let engine = Engine::new();
    let current = "cat /proc/self/attr/current";
    let confined = "hull-default (enforce)";
    assert_eq!(inside(&engine, &[], current), confined);
    assert_eq!(inside(&engine, &["--init"], current), confined);
    for flags in [
        &["--privileged"][..],
        &["--security-opt", "apparmor=unconfined"],
    ] {
        assert_eq!(inside(&engine, flags, current), "unconfined");
    }
    // With the right to mount, and no mount that hides anything, it is the profile that denies.
    let open = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    ];
    let denied = inside(
        &engine,
        &open,
        "mount -t tmpfs none /tmp 2>/dev/null || echo mount; echo 1 2>/dev/null >/proc/sys/vm/drop_caches || echo write; head -c 1 /proc/kcore 2>/dev/null || echo read",
    );
    assert_eq!(denied, "mount\nwrite\nread");
    engine.ok(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]);
    assert_eq!(
        engine.ok(&["exec", "cc", "cat", "/proc/self/attr/current"]),
        confined
    );
    assert_eq!(
        engine.ok(&[
            "exec",
            "--privileged",
            "cc",
            "cat",
            "/proc/self/attr/current"
        ]),
        "unconfined"
    );
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.AppArmorProfile}}", "cc"]),
        "hull-default"
    );
    engine.ok(&[
        "exec",
        "cc",
        "sh",
        "-c",
        "kill -0 1 && ls /proc/1/fd >/dev/null",
    ]);
    engine.ok(&["stop", "-t", "1", "cc"]);
    assert!(
        engine
            .ok(&["info", "-f", "{{.SecurityOptions}}"])
            .contains("name=apparmor")
    );
}
