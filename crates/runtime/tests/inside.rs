//! What a container's process sees: each part of the configuration, looked at from inside.

mod common;

use common::{Bundle, unified};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// The fields of `/proc/self/status`.
fn status(bundle: &mut Bundle) -> BTreeMap<String, String> {
    bundle.config["process"]["args"] = json!(["cat", "/proc/self/status"]);
    let text = bundle.run().ok();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn every_listed_namespace_is_its_own_and_no_other() {
    let mut bundle = Bundle::shell("for ns in /proc/self/ns/*; do readlink $ns; done");
    bundle.add_namespace(json!({"type": "time"}));
    if !unified() {
        bundle.add_namespace(json!({"type": "cgroup"}));
    }
    let inside = bundle.run().ok();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(
            !inside.contains(host.to_str().unwrap()),
            "{name} is the host's: {inside}"
        );
    }
    let user = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert!(inside.contains(user.to_str().unwrap()));
}

#[test]
fn a_namespace_is_joined_by_path() {
    let holder = Bundle::new(&["sleep", "60"]);
    holder.create().ok();
    let pid = holder.pid();
    let mut bundle = Bundle::shell(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; hostname; ps -o pid,args",
    );
    for (kind, file) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
    ] {
        bundle.remove_namespace(kind);
        bundle.add_namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    }
    bundle.config.as_object_mut().unwrap().remove("hostname");
    let inside = bundle.run().ok();
    for file in ["net", "ipc"] {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert!(inside.contains(link.to_str().unwrap()), "{inside}");
    }
    assert!(inside.contains("\nhull\n"), "{inside}");
    // The holder's init is there, as number 1.
    assert!(
        inside
            .lines()
            .any(|line| line.trim_start().starts_with("1 ")),
        "{inside}"
    );
    holder.delete().ok();
}

#[test]
fn ids_are_mapped_in_a_user_namespace() {
    let mut bundle = Bundle::shell(
        "id -u; cat /proc/self/uid_map; touch /tmp/made; ls -n /dev/null; cat /proc/self/setgroups",
    );
    bundle.add_namespace(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.config["root"]["readonly"] = json!(false);
    for path in [bundle.path().to_owned(), bundle.rootfs()] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    for path in [bundle.rootfs(), bundle.rootfs().join("tmp")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    let inside = bundle.run().ok();
    let words: Vec<_> = inside.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "0", "100000", "65536"], "{inside}");
    // A bound node of the host's, whose owner has no number inside.
    assert!(inside.contains("65534"), "{inside}");
    assert_eq!(
        std::fs::metadata(bundle.rootfs().join("tmp/made"))
            .unwrap()
            .uid(),
        100_000
    );
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let mut holder = Bundle::new(&["sleep", "60"]);
    holder.add_namespace(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
    holder.config["linux"]["uidMappings"] = mapping.clone();
    holder.config["linux"]["gidMappings"] = mapping;
    holder.create().ok();
    let pid = holder.pid();
    let mut bundle = Bundle::shell("cat /proc/self/uid_map; id -u; hostname");
    bundle.add_namespace(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    let inside = bundle.run().ok();
    assert_eq!(
        inside.split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "1000", "0", "hull"]
    );
    holder.delete().ok();
}

#[test]
fn clocks_have_their_offsets() {
    let mut bundle = Bundle::new(&["cat", "/proc/uptime"]);
    bundle.add_namespace(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 10_000_000, "nanosecs": 0}});
    let inside = bundle.run().ok();
    let uptime: f64 = inside.split_whitespace().next().unwrap().parse().unwrap();
    assert!(uptime > 10_000_000.0, "{inside}");
}

#[test]
fn mounts_have_the_options_asked_for() {
    let mut bundle = Bundle::new(&["cat", "/proc/self/mountinfo"]);
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    bundle.add_mount(
        json!({"destination": "/bound", "type": "bind", "source": source,
        "options": ["rbind", "ro", "nosuid", "nodev", "noexec", "noatime"]}),
    );
    bundle.add_mount(
        json!({"destination": "/deep/scratch", "type": "tmpfs", "source": "tmpfs",
        "options": ["size=64k", "mode=700", "nosymfollow"]}),
    );
    bundle.config["root"]["readonly"] = json!(false);
    let inside = bundle.run().ok();
    let line = |place: &str| {
        let found = inside
            .lines()
            .find(|line| line.split(' ').nth(4) == Some(place));
        found.unwrap_or_else(|| panic!("{place} is not mounted:\n{inside}"))
    };
    assert!(
        line("/bound").contains("ro,nosuid,nodev,noexec,noatime"),
        "{inside}"
    );
    assert!(
        line("/bound").contains("master:") || !line("/bound").contains("shared:"),
        "{inside}"
    );
    assert!(line("/deep/scratch").contains("size=64k"), "{inside}");
    assert!(line("/deep/scratch").contains("nosymfollow"), "{inside}");
    assert!(line("/sys").contains("ro,"), "{inside}");
}

#[test]
fn recursive_options_reach_mounts_below() {
    let mut bundle = Bundle::shell(
        "touch /bound/below/x 2>/dev/null && echo written; touch /bound/x 2>/dev/null && echo above",
    );
    let source = bundle.path().join("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        source.join("below"),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    );
    mounted.unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.add_mount(json!({"destination": "/bound", "type": "bind", "source": source, "options": ["rbind", "ro"]}));
    let plain = bundle.run().stdout;
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .last_mut()
        .unwrap()["options"] = json!(["rbind", "rro"]);
    let recursive = bundle.run().stdout;
    rustix::mount::unmount(source.join("below"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!((plain.as_str(), recursive.as_str()), ("written\n", ""));
}

#[test]
fn an_idmapped_mount_shows_ids_of_the_container() {
    let mut bundle = Bundle::shell("ls -n /bound/file; touch /bound/new");
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "").unwrap();
    let mapping = json!([{"containerID": 0, "hostID": 7000, "size": 1}]);
    bundle.add_mount(
        json!({"destination": "/bound", "type": "bind", "source": source,
        "options": ["bind", "idmap"], "uidMappings": mapping, "gidMappings": mapping}),
    );
    bundle.config["root"]["readonly"] = json!(false);
    // 0 on disk is 7000 in the mount: the container's root may not write as itself, and sees the number.
    let outcome = bundle.run();
    assert!(outcome.stdout.contains(" 7000 "), "{outcome:?}");
}

#[test]
fn a_tmpfs_can_start_with_what_it_hides() {
    let mut bundle = Bundle::shell("cat /data/file; echo changed > /data/file; stat -c %a /data");
    std::fs::create_dir(bundle.rootfs().join("data")).unwrap();
    std::fs::write(bundle.rootfs().join("data/file"), "kept\n").unwrap();
    std::fs::set_permissions(
        bundle.rootfs().join("data"),
        PermissionsExt::from_mode(0o750),
    )
    .unwrap();
    bundle.add_mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(bundle.run().ok(), "kept\n750\n");
    assert_eq!(
        std::fs::read_to_string(bundle.rootfs().join("data/file")).unwrap(),
        "kept\n"
    );
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_hides_and_is_everybodys_where_nothing_was() {
    let mut bundle = Bundle::shell("stat -c %a /there /new /given /copied");
    std::fs::create_dir(bundle.rootfs().join("there")).unwrap();
    std::fs::set_permissions(
        bundle.rootfs().join("there"),
        PermissionsExt::from_mode(0o710),
    )
    .unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    for (place, options) in [
        ("/there", json!([])),
        ("/new", json!([])),
        ("/given", json!(["mode=700"])),
        ("/copied", json!(["tmpcopyup"])),
    ] {
        bundle.add_mount(
            json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}),
        );
    }
    assert_eq!(bundle.run().ok(), "710\n1777\n700\n1777\n");
}

#[test]
fn devices_are_the_default_ones_and_those_asked_for() {
    let mut bundle = Bundle::shell(
        "cd /dev; ls; stat -c '%n %t:%T %a %u' null tty fuse; readlink fd; readlink ptmx; echo x > /dev/null; head -c 1 /dev/zero | wc -c",
    );
    bundle.config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}]);
    let inside = bundle.run().ok();
    for expected in [
        "null 1:3 666 0",
        "tty 5:0 666 0",
        "fuse a:e5 640 5",
        "/proc/self/fd\npts/ptmx\n1\n",
    ] {
        assert!(inside.contains(expected), "{expected:?} in {inside}");
    }
}

#[test]
fn masked_and_readonly_paths_are() {
    let mut bundle = Bundle::shell(
        "wc -c < /secret; ls -A /hidden; touch /fixed/x 2>/dev/null || echo fixed; echo x 2>/dev/null > /proc/sys/kernel/shmmax || echo sys",
    );
    bundle.config["root"]["readonly"] = json!(false);
    std::fs::write(bundle.rootfs().join("secret"), "secret").unwrap();
    for name in ["hidden", "fixed"] {
        std::fs::create_dir(bundle.rootfs().join(name)).unwrap();
    }
    std::fs::write(bundle.rootfs().join("hidden/file"), "").unwrap();
    let linux = &mut bundle.config["linux"];
    linux["maskedPaths"] = json!(["/secret", "/hidden", "/not/there"]);
    linux["readonlyPaths"]
        .as_array_mut()
        .unwrap()
        .push(json!("/fixed"));
    assert_eq!(bundle.run().ok(), "0\nfixed\nsys\n");
}

#[test]
fn the_root_is_read_only_when_asked_for() {
    let mut bundle = Bundle::shell("touch /x 2>/dev/null && echo written");
    assert_eq!(bundle.run().stdout, "");
    bundle.config["root"]["readonly"] = json!(false);
    assert_eq!(bundle.run().ok(), "written\n");
}

#[test]
fn capabilities_and_new_privileges_are_as_configured() {
    let mut bundle = Bundle::new(&[]);
    let names = json!(["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": names, "permitted": names, "effective": names, "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]});
    bundle.config["process"]["user"] =
        json!({"uid": 1000, "gid": 100, "additionalGids": [7, 8], "umask": 0o077});
    let status = status(&mut bundle);
    assert_eq!(status["CapBnd"], "0000000000000401");
    // Executed by an ordinary user: what is ambient survives, the rest does not.
    assert_eq!(
        (status["CapEff"].as_str(), status["CapAmb"].as_str()),
        ("0000000000000001", "0000000000000001")
    );
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(
        status["Uid"].split_whitespace().collect::<Vec<_>>(),
        ["1000"; 4]
    );
    assert_eq!(
        (status["Groups"].as_str(), status["Umask"].as_str()),
        ("7 8", "0077")
    );
}

#[test]
fn attack_09_no_capability_is_inheritable_by_default() {
    let mut bundle = Bundle::new(&[]);
    let status = status(&mut bundle);
    assert_eq!(
        (status["CapInh"].as_str(), status["CapAmb"].as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(status["CapEff"], status["CapBnd"]);
}

#[test]
fn limits_and_scores_are_as_configured() {
    let mut bundle =
        Bundle::shell("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; uname -m");
    bundle.config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    let inside = bundle.run().ok();
    let machine = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    assert_eq!(inside, format!("64\n128\n0\n500\n{machine}\n"));
}

#[test]
fn the_scheduler_and_priorities_are_as_configured() {
    let mut bundle = Bundle::shell("cut -d' ' -f19,41 /proc/self/stat; ionice -p $$");
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    let inside = bundle.run().ok();
    assert!(
        inside.starts_with("5 3\n") && inside.contains("idle"),
        "{inside}"
    );
}

#[test]
fn every_scheduling_policy_and_flag_reaches_the_kernel() {
    // Policy, nice value and real-time priority of the shell.
    let run = |scheduler: serde_json::Value| {
        let mut bundle = Bundle::shell("cut -d' ' -f19,40,41 /proc/$$/stat");
        bundle.config["process"]["scheduler"] = scheduler;
        bundle.run()
    };
    let stat = |scheduler| run(scheduler).ok().trim().to_owned();
    assert_eq!(stat(json!({"policy": "SCHED_OTHER", "nice": 7})), "7 0 0");
    // All but the ordinary policies keep the nice value there was.
    assert!(stat(json!({"policy": "SCHED_IDLE"})).ends_with(" 0 5"));
    // What real-time policies take, cgroups of v1 may not have: the kernel is asked, not this.
    for (policy, number) in [("SCHED_FIFO", 1), ("SCHED_RR", 2)] {
        let outcome =
            run(json!({"policy": policy, "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}));
        let refused =
            outcome.stderr.contains("sched_setattr") && outcome.stderr.contains("not permitted");
        assert!(
            refused || outcome.stdout.ends_with(&format!(" 3 {number}\n")),
            "{outcome:?}"
        );
    }
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000,
        "period": 10_000_000, "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]});
    let outcome = run(deadline);
    let refused = outcome.stderr.contains("sched_setattr");
    assert!(refused || outcome.stdout.ends_with(" 0 6\n"), "{outcome:?}");
    // A kernel without the bounds says that it has none, not that the structure is wrong.
    let bounds = ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"];
    let outcome = run(json!({"policy": "SCHED_OTHER", "flags": bounds}));
    assert!(
        outcome.code == Some(0) || outcome.stderr.contains("not supported"),
        "{outcome:?}"
    );
}

#[test]
fn the_memory_policy_is_the_kernels_to_see() {
    let run = |policy: serde_json::Value| {
        let mut bundle = Bundle::shell("head -n1 /proc/self/numa_maps | cut -d' ' -f2");
        bundle.config["linux"]["memoryPolicy"] = policy;
        bundle.run()
    };
    let policy = |policy| run(policy).ok().trim().to_owned();
    assert_eq!(policy(json!({"mode": "MPOL_BIND", "nodes": "0"})), "bind:0");
    let interleaved =
        json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(policy(interleaved), "interleave=static:0");
    assert_eq!(policy(json!({"mode": "MPOL_DEFAULT"})), "default");
    let error = run(json!({"mode": "MPOL_BIND"})).failed();
    assert!(error.contains("set_mempolicy"), "{error}");
}

#[test]
fn mounts_below_an_idmapped_one_are_mapped_when_asked_for() {
    for (option, there, below) in [("idmap", "7000", "0"), ("ridmap", "7000", "7000")] {
        let mut bundle = Bundle::shell("stat -c %u /bound/file /bound/inner/file");
        let source = bundle.path().join("source");
        // Not a tmpfs, which takes no mapping before Linux 6.3.
        let other = bundle.path().join("other");
        std::fs::create_dir_all(source.join("inner")).unwrap();
        std::fs::create_dir(&other).unwrap();
        for directory in [&source, &other] {
            std::fs::write(directory.join("file"), "").unwrap();
        }
        let mapping = json!([{"containerID": 0, "hostID": 7000, "size": 1}]);
        bundle.add_mount(
            json!({"destination": "/bound", "type": "bind", "source": source,
            "options": ["rbind", option], "uidMappings": mapping, "gidMappings": mapping}),
        );
        bundle.config["root"]["readonly"] = json!(false);
        let runtime = bundle.command(&["run", &bundle.id]);
        let script = "mount --bind other source/inner && exec \"$@\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        let output = command.current_dir(bundle.path()).output().unwrap();
        let outcome = common::Outcome::from(output);
        assert_eq!(
            outcome.stdout,
            format!("{there}\n{below}\n"),
            "{option}: {outcome:?}"
        );
    }
}

#[test]
fn names_parameters_and_directory_are_as_configured() {
    let mut bundle = Bundle::shell(
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward; pwd; ip link show lo",
    );
    bundle.config["hostname"] = json!("inner");
    bundle.config["domainname"] = json!("example");
    bundle.config["linux"]["sysctl"] = json!({"kernel.shmmni": "77", "net.ipv4.ip_forward": "1"});
    bundle.config["process"]["cwd"] = json!("/made/on/demand");
    bundle.config["root"]["readonly"] = json!(false);
    let inside = bundle.run().ok();
    assert!(
        inside.starts_with("inner\nexample\n77\n1\n/made/on/demand\n"),
        "{inside}"
    );
    assert!(inside.contains("LOOPBACK,UP"), "{inside}");
}

#[test]
fn the_environment_is_the_configurations_with_a_home() {
    let mut bundle = Bundle::new(&["env"]);
    std::fs::write(
        bundle.rootfs().join("etc/passwd"),
        "web:x:33:33::/var/www:/bin/sh\n",
    )
    .unwrap();
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=b c"]);
    bundle.config["process"]["user"] = json!({"uid": 33, "gid": 33});
    assert_eq!(bundle.run().ok(), "PATH=/bin\nA=b c\nHOME=/var/www\n");
    bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME=/mine"]);
    assert_eq!(bundle.run().ok(), "PATH=/bin\nHOME=/mine\n");
}

#[test]
fn a_filter_answers_calls_as_configured() {
    let mut bundle = Bundle::shell("mkdir /tmp/x; chmod 700 /tmp; grep Seccomp: /proc/self/status");
    bundle.config["root"]["readonly"] = json!(false);
    for no_new_privileges in [true, false] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 1, "value": 0o777, "valueTwo": 0o700, "op": "SCMP_CMP_MASKED_EQ"}]},
            ],
        });
        let outcome = bundle.run();
        assert!(
            outcome
                .stderr
                .contains("mkdir: can't create directory '/tmp/x': No space left"),
            "{outcome:?}"
        );
        assert!(outcome.stdout.contains("Seccomp:\t2"), "{outcome:?}");
    }
}

#[test]
fn a_call_can_kill() {
    let mut bundle = Bundle::new(&["mkdir", "/tmp/x"]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    assert_eq!(bundle.run().code, Some(128 + 31));
}

#[test]
fn limits_of_the_cgroup_are_in_force() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 64 << 20}, "pids": {"limit": 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
    });
    bundle.create().ok();
    assert_eq!(
        bundle.cgroup_file(&["memory.limit_in_bytes", "memory.max"]),
        "67108864"
    );
    assert_eq!(bundle.cgroup_file(&["pids.max"]), "20");
    assert_eq!(bundle.cgroup_file(&["cpuset.cpus"]), "0");
    if unified() {
        assert_eq!(bundle.cgroup_file(&["cpu.max"]), "50000 100000");
    } else {
        assert_eq!(bundle.cgroup_file(&["cpu.shares"]), "512");
        assert_eq!(bundle.cgroup_file(&["cpu.cfs_quota_us"]), "50000");
        let devices = bundle.cgroup_file(&["devices.list"]);
        assert!(
            devices.contains("c 10:229 rw") && !devices.contains("a *:*"),
            "{devices}"
        );
    }
    bundle.delete().ok();
}

#[test]
fn device_rules_bind() {
    let mut bundle = Bundle::shell(
        "head -c 1 /dev/zero >/dev/null && echo zero; head -c 1 /dev/disk 2>&1; mknod /dev/other b 254 0 && head -c 1 /dev/other 2>&1",
    );
    let capabilities = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": capabilities, "permitted": capabilities, "effective": capabilities});
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/disk", "type": "b", "major": 254, "minor": 0}]);
    let inside = bundle.run().stdout;
    assert!(inside.starts_with("zero\n"), "{inside}");
    assert_eq!(
        inside.matches("Operation not permitted").count(),
        2,
        "{inside}"
    );
}

#[test]
fn the_container_sees_its_own_cgroup_as_the_root() {
    let mut bundle = Bundle::shell(
        "cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null",
    );
    if !unified() {
        bundle.add_namespace(json!({"type": "cgroup"}));
    }
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 33});
    let inside = bundle.run().stdout;
    assert!(!inside.contains(&bundle.id), "{inside}");
    assert!(inside.trim_end().ends_with("33"), "{inside}");
}

#[test]
fn without_a_cgroup_namespace_v1_shows_the_own_group() {
    if unified() {
        return;
    }
    let mut bundle = Bundle::new(&["cat", "/sys/fs/cgroup/pids/pids.max"]);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 34});
    assert_eq!(bundle.run().ok(), "34\n");
}

#[test]
fn only_the_preserved_descriptors_arrive() {
    let bundle =
        Bundle::shell("for fd in 0 1 2 3 4; do [ -e /proc/self/fd/$fd ] && echo $fd; done; true");
    for (flag, expected) in [("0", "0\n1\n2\n"), ("1", "0\n1\n2\n3\n")] {
        // The shell that executes the runtime opens 3 and 4 for it to inherit.
        let runtime = bundle.command(&["run", "--preserve-fds", flag, &bundle.id]);
        let words: Vec<_> = std::iter::once(runtime.get_program())
            .chain(runtime.get_args())
            .collect();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", "exec \"$@\" 3</dev/null 4</dev/null", "sh"])
            .args(&words)
            .current_dir(bundle.path())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{output:?}"
        );
    }
}
