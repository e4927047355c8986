//! From creation to deletion, and everything in between, by the command line.

mod common;

use common::{Bundle, Outcome, eventually, receive, receive_fd, unified};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

#[test]
fn a_container_is_created_then_started_then_stopped_then_deleted() {
    let bundle = Bundle::shell("echo started > /dev/shm/x; exec sleep 60");
    bundle.create().ok();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(
        state["bundle"],
        bundle.path().canonicalize().unwrap().to_str().unwrap()
    );
    assert_eq!(state["ociVersion"], "1.3.0");
    let root = format!("/proc/{}/root", bundle.pid());
    assert!(!std::fs::exists(format!("{root}/dev/shm/x")).unwrap());
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
    assert!(eventually(
        || std::fs::exists(format!("{root}/dev/shm/x")).unwrap()
    ));
    assert!(bundle.start().failed().contains("already running"));
    assert!(
        bundle
            .invoke(&["delete", &bundle.id])
            .failed()
            .contains("running")
    );
    bundle.invoke(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_status("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    assert!(bundle.start().failed().contains("stopped"));
    assert!(
        bundle
            .invoke(&["kill", &bundle.id])
            .failed()
            .contains("not running")
    );
    bundle.invoke(&["delete", &bundle.id]).ok();
    assert!(
        bundle
            .invoke(&["state", &bundle.id])
            .failed()
            .contains("does not exist")
    );
}

#[test]
fn an_id_is_taken_once_and_forced_deletion_is_idempotent() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    assert!(bundle.create().failed().contains("exists already"));
    assert_eq!(bundle.status(), "created");
    bundle.delete().ok();
    bundle.delete().ok();
    assert!(
        bundle
            .invoke(&["delete", &bundle.id])
            .failed()
            .contains("does not exist")
    );
}

#[test]
fn exit_codes_are_the_programs() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -TERM $$; kill -KILL $$; sleep 1; exit 3", 3),
        ("exec 3>&-; exit 255", 255),
    ] {
        assert_eq!(Bundle::shell(script).run().code, Some(code), "{script}");
    }
}

#[test]
fn standard_streams_are_the_callers() {
    let bundle = Bundle::shell("cat; echo error >&2");
    let mut child = bundle
        .command(&["run", &bundle.id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("through\n", "error\n")
    );
}

#[test]
fn signals_reach_a_container_in_the_foreground() {
    let bundle =
        Bundle::shell("trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    let mut child = bundle
        .command(&["run", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut text = [0; 6];
    output.read_exact(&mut text).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn exec_runs_beside_with_its_own_settings() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.add_namespace(json!({"type": "time"}));
    bundle.create().ok();
    bundle.start().ok();
    let script = "id -u; id -g; pwd; echo $A; cat /proc/self/cgroup; grep Cap /proc/self/status; ls -l /proc/self/ns; ps";
    let inside = bundle
        .invoke(&[
            "exec",
            "--cwd",
            "/tmp",
            "-e",
            "A=b",
            "-u",
            "7:8",
            "--cap",
            "CAP_SYS_NICE",
            &bundle.id,
            "/bin/sh",
            "-c",
            script,
        ])
        .ok();
    assert!(inside.starts_with("7\n8\n/tmp\nb\n"), "{inside}");
    // On v2 the container has a cgroup namespace, whose root its cgroup is.
    let cgroup = if unified() { "0::/\n" } else { &bundle.id };
    assert!(inside.contains(cgroup), "{inside}");
    assert!(
        inside.contains("CapBnd:\t0000000020800420")
            && inside.contains("CapInh:\t0000000000000000"),
        "{inside}"
    );
    assert!(inside.contains("sleep 60"), "{inside}");
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"] {
        let link = std::fs::read_link(format!("/proc/{}/ns/{name}", bundle.pid())).unwrap();
        assert!(inside.contains(link.to_str().unwrap()), "{name}: {inside}");
    }
    assert_eq!(bundle.exec(&["sh", "-c", "exit 17"]).code, Some(17));
    assert_eq!(bundle.exec(&["sh", "-c", "kill -9 $$"]).code, Some(137));
    bundle.delete().ok();
}

#[test]
fn a_process_runs_on_the_cpus_that_its_document_says() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.start().ok();
    let document = bundle.path().join("process.json");
    for affinity in [
        json!({"initial": "0"}),
        json!({"final": "0"}),
        json!({"initial": "0", "final": "0"}),
    ] {
        let process = json!({"cwd": "/", "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
            "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "execCPUAffinity": affinity});
        std::fs::write(&document, process.to_string()).unwrap();
        let exec = ["exec", "--process", document.to_str().unwrap(), &bundle.id];
        let line = bundle.invoke(&exec).ok();
        // A CPU set of v1 gives whoever enters it all of its CPUs.
        let kept = affinity.get("final").is_some() || unified();
        assert!(!kept || line.ends_with("\t0\n"), "{affinity}: {line}");
    }
    bundle.delete().ok();
}

#[test]
fn exec_takes_a_process_document_and_enters_a_user_namespace() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.add_namespace(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": 300_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mapping.clone();
    bundle.config["linux"]["gidMappings"] = mapping;
    bundle.create().ok();
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/oom_score_adj; ulimit -n"],
        "user": {"uid": 5, "gid": 5}, "oomScoreAdj": 300, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]});
    let path = bundle.path().join("process.json");
    std::fs::write(&path, process.to_string()).unwrap();
    let inside = bundle
        .invoke(&["exec", "--process", path.to_str().unwrap(), &bundle.id])
        .ok();
    assert_eq!(
        inside.split_whitespace().collect::<Vec<_>>(),
        ["5", "0", "300000", "65536", "300", "99"]
    );
    bundle.delete().ok();
}

#[test]
fn errors_about_programs_read_as_dockers_and_leave_nothing() {
    let cases = [
        (
            "nope",
            r#"exec: \"nope\": executable file not found in $PATH"#,
        ),
        ("/etc/passwd", r#"exec: \"/etc/passwd\": permission denied"#),
        (
            "/nope",
            r#"exec: \"/nope\": stat /nope: no such file or directory"#,
        ),
        ("/etc", r#"exec: \"/etc\": is a directory"#),
    ];
    for (program, text) in cases {
        let bundle = Bundle::new(&[program]);
        std::fs::write(bundle.rootfs().join("etc/passwd"), "").unwrap();
        assert!(bundle.run().failed().contains(text));
        bundle.assert_gone();
        assert!(bundle.create().failed().contains(text));
        bundle.assert_gone();
    }
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    let outcome = bundle.exec(&["nope"]);
    assert_eq!(outcome.code, Some(255));
    assert!(outcome.stderr.contains(cases[0].1), "{outcome:?}");
    assert_eq!(bundle.pids().len(), 1);
    bundle.delete().ok();
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_start() {
    use std::os::unix::fs::PermissionsExt;
    for (content, text) in [
        ("\0nonsense", "exec format error"),
        ("#!/no/interpreter\n", "no such file or directory"),
    ] {
        let bundle = Bundle::new(&["/program"]);
        let program = bundle.rootfs().join("program");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        bundle.create().ok();
        assert!(bundle.start().failed().contains(text));
        bundle.await_status("stopped");
        bundle.invoke(&["delete", &bundle.id]).ok();
    }
}

#[test]
fn real_time_signals_arrive() {
    for arguments in [&["kill"][..], &["kill", "--all"]] {
        for signal in ["37", "SIGRTMIN+3"] {
            let bundle =
                Bundle::shell("trap 'exit 5' 37; : > /dev/shm/ready; while :; do sleep 0.01; done");
            bundle.create().ok();
            bundle.start().ok();
            let ready = format!("/proc/{}/root/dev/shm/ready", bundle.pid());
            assert!(eventually(|| std::fs::exists(&ready).unwrap()));
            bundle
                .invoke(&[arguments, &[bundle.id.as_str(), signal]].concat())
                .ok();
            bundle.await_status("stopped");
            bundle.delete().ok();
        }
    }
}

#[test]
fn a_paused_container_stands_still() {
    let bundle =
        Bundle::shell("i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.01; done");
    bundle.create().ok();
    bundle.start().ok();
    let count = format!("/proc/{}/root/dev/shm/count", bundle.pid());
    assert!(eventually(|| std::fs::exists(&count).unwrap()));
    bundle.invoke(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.status(), "paused");
    let before = std::fs::read_to_string(&count).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(std::fs::read_to_string(&count).unwrap(), before);
    assert!(bundle.exec(&["true"]).failed().contains("paused"));
    bundle.invoke(&["resume", &bundle.id]).ok();
    assert!(eventually(
        || std::fs::read_to_string(&count).unwrap() != before
    ));
    assert!(
        bundle
            .invoke(&["resume", &bundle.id])
            .failed()
            .contains("running")
    );
    bundle.invoke(&["pause", &bundle.id]).ok();
    bundle.delete().ok();
}

#[test]
fn limits_are_changed_while_it_runs() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 32 << 20, "swap": 64 << 20});
    bundle.create().ok();
    bundle
        .invoke(&[
            "update",
            "--memory",
            "128m",
            "--memory-swap",
            "256m",
            "--pids-limit",
            "9",
            "--cpuset-cpus",
            "0",
            &bundle.id,
        ])
        .ok();
    assert_eq!(
        bundle.cgroup_file(&["memory.limit_in_bytes", "memory.max"]),
        "134217728"
    );
    assert_eq!(bundle.cgroup_file(&["pids.max"]), "9");
    let resources = bundle.path().join("resources.json");
    std::fs::write(
        &resources,
        r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"quota":20000,"period":50000}}"#,
    )
    .unwrap();
    bundle
        .invoke(&[
            "update",
            "--resources",
            resources.to_str().unwrap(),
            &bundle.id,
        ])
        .ok();
    assert_eq!(
        bundle.cgroup_file(&["memory.limit_in_bytes", "memory.max"]),
        "67108864"
    );
    if !unified() {
        assert_eq!(
            bundle.cgroup_file(&["memory.memsw.limit_in_bytes"]),
            "67108864"
        );
        assert_eq!(bundle.cgroup_file(&["cpu.cfs_period_us"]), "50000");
    }
    assert!(
        bundle
            .invoke(&["update", "--pids-limit", "x", &bundle.id])
            .failed()
            .contains("invalid value")
    );
    bundle.delete().ok();
}

#[test]
fn usage_is_told_and_running_out_of_memory_is_an_event() {
    let mut bundle = Bundle::shell("read go < /tmp/go; tail /dev/zero");
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    let go = bundle.rootfs().join("tmp/go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    bundle.create().ok();
    bundle.start().ok();
    let stats: Value =
        serde_json::from_str(&bundle.invoke(&["events", "--stats", &bundle.id]).ok()).unwrap();
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 16 << 20);
    assert_eq!(stats["data"]["pids"]["current"], 1);
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    let events = bundle
        .command(&["events", "--interval", "10ms", &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::fs::write(&go, "go\n").unwrap();
    let lines = Outcome::from(events.wait_with_output().unwrap()).ok();
    assert!(
        lines.lines().any(|line| line.contains(r#""type":"oom""#)),
        "{lines}"
    );
    bundle.await_status("stopped");
    bundle.delete().ok();
}

#[test]
fn containers_and_processes_are_listed() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.start().ok();
    let list: Value =
        serde_json::from_str(&bundle.invoke(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!(
        (&list[0]["id"], &list[0]["status"]),
        (&json!(bundle.id), &json!("running"))
    );
    assert_eq!(
        bundle.invoke(&["list", "-q"]).ok(),
        format!("{}\n", bundle.id)
    );
    assert!(bundle.invoke(&["list"]).ok().contains("STATUS"));
    assert_eq!(bundle.pids(), [bundle.pid()]);
    assert!(bundle.invoke(&["ps", &bundle.id]).ok().contains("sleep 60"));
    bundle.delete().ok();
}

#[test]
fn all_hooks_run_in_order_and_place_and_a_failing_one_undoes() {
    let mut bundle = Bundle::shell("echo program >> /log");
    let log = bundle.rootfs().join("log");
    bundle.config["root"]["readonly"] = json!(false);
    let outside = |name: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c",
        format!("printf '{name} ' >> {0}; grep -o '\"status\":\"[a-z]*\"' >> {0}", log.display())]}])
    };
    bundle.config["hooks"] = json!({
        "prestart": outside("prestart"),
        "createRuntime": outside("createRuntime"),
        "createContainer": outside("createContainer"),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo startContainer >> /log"]}],
        "poststart": outside("poststart"),
        "poststop": outside("poststop"),
    });
    bundle.create().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    let expected = ["prestart", "createRuntime", "createContainer"]
        .map(|name| format!("{name} \"status\":\"creating\""));
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    bundle.start().ok();
    bundle.await_status("stopped");
    bundle.delete().ok();
    let text = std::fs::read_to_string(&log).unwrap();
    for line in [
        "startContainer",
        "program",
        "poststart",
        "poststop \"status\":\"stopped\"",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        bundle.config["hooks"] =
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 7"]}]});
        assert!(bundle.create().failed().contains("exited with 7"), "{kind}");
        bundle.assert_gone();
    }
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
    assert!(bundle.run().failed().contains("exited with 1"));
}

#[test]
fn hooks_after_the_end_undo_what_those_of_a_failed_creation_did() {
    let mut bundle = Bundle::new(&["true"]);
    let log = bundle.path().join("log");
    let note = |word: &str| {
        let script = format!("echo {word} >> {}", log.display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    bundle.config["hooks"] = json!({
        "createRuntime": [note("made"), {"path": "/bin/false"}],
        "poststop": [note("undone")],
    });
    assert!(bundle.create().failed().contains("createRuntime hook"));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "made\nundone\n");
    bundle.assert_gone();
}

#[test]
fn a_hook_finds_the_container_where_the_configuration_says() {
    let mut bundle = Bundle::new(&["cat", "/tmp/prepared"]);
    let root = bundle.rootfs();
    let script = format!(
        "pid=$(grep -o '\"pid\":[0-9]*' | cut -d: -f2); nsenter -t $pid -m sh -c 'mount -t tmpfs x {0}/tmp; echo by hook > {0}/tmp/prepared'",
        root.display()
    );
    bundle.config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]});
    assert_eq!(bundle.run().ok(), "by hook\n");
}

#[test]
fn a_terminal_is_handed_over_by_a_socket() {
    let mut bundle = Bundle::shell(
        "tty; stty size; ls -l /dev/console; echo x > /dev/tty; read line; echo got $line",
    );
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    assert!(bundle.create().failed().contains("console socket"));
    let path = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = bundle.command(&[
        "create",
        "--console-socket",
        path.to_str().unwrap(),
        &bundle.id,
    ]);
    assert!(command.status().unwrap().success());
    let (socket, _) = listener.accept().unwrap();
    let mut master = std::fs::File::from(receive_fd(socket.as_fd()));
    bundle.start().ok();
    master.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // The terminal reports an error once the last process is gone.
    drop(master.read_to_end(&mut text));
    let text = String::from_utf8(text).unwrap();
    for expected in ["/dev/pts/0", "33 99", "/dev/console", "x\r\n", "got hello"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    bundle.await_status("stopped");
    bundle.delete().ok();
}

#[test]
fn pid_files_and_pidfds_are_handed_out() {
    let bundle = Bundle::new(&["sleep", "60"]);
    let path = bundle.path().join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = bundle.command(&[
        "create",
        "--pid-file",
        "pid",
        "--pidfd-socket",
        path.to_str().unwrap(),
        &bundle.id,
    ]);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        std::fs::read_to_string(bundle.path().join("pid")).unwrap(),
        bundle.pid().to_string()
    );
    let (socket, _) = listener.accept().unwrap();
    let pidfd = receive_fd(socket.as_fd());
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    bundle.await_status("stopped");
    bundle.delete().ok();
}

#[test]
fn a_detached_run_returns_at_once() {
    let bundle = Bundle::new(&["sleep", "60"]);
    let mut command = bundle.command(&["run", "--detach", "--pid-file", "pid", &bundle.id]);
    assert!(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(bundle.status(), "running");
    bundle.delete().ok();
}

#[test]
fn a_seccomp_listener_gets_its_descriptor() {
    let mut bundle = Bundle::new(&["mkdir", "/tmp/x"]);
    let path = bundle.path().join("seccomp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let child = bundle
        .command(&["run", &bundle.id])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    let (notify, text) = receive(socket.as_fd());
    let state: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&state["fds"][0], &state["metadata"], &state["state"]["id"]),
        (&json!("seccompFd"), &json!("meta"), &json!(bundle.id))
    );
    assert!(state["pid"].as_i64().unwrap() > 1);
    // Nobody answers: the call fails with ENOSYS.
    drop(notify);
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    assert!(
        outcome.stderr.contains("Function not implemented"),
        "{outcome:?}"
    );
}

#[test]
fn what_is_not_supported_says_so() {
    let bundle = Bundle::new(&["true"]);
    if !std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .contains(" - resctrl ")
    {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["linux"]["intelRdt"] = json!({});
        assert!(bundle.run().failed().contains("no resctrl is mounted"));
    }
    assert!(
        bundle
            .invoke(&["features"])
            .ok()
            .contains("SCMP_ACT_NOTIFY")
    );
    assert!(bundle.invoke(&["--help"]).ok().contains("checkpoint"));
    assert!(bundle.invoke(&["--version"]).ok().contains("spec: 1.3.0"));
}

#[test]
fn the_configuration_has_the_name_it_is_given() {
    let bundle = Bundle::new(&["true"]);
    let other = bundle.config.to_string().replace("\"true\"", "\"false\"");
    std::fs::write(bundle.path().join("other.json"), other).unwrap();
    let run = ["run", "--config", "other.json", &bundle.id];
    assert_eq!(bundle.invoke(&run).code, Some(1));
    bundle.run().ok();
}

#[test]
fn debugging_says_what_was_asked_for() {
    let bundle = Bundle::new(&["true"]);
    let outcome = bundle.invoke(&["--debug", "run", &bundle.id]);
    assert!(outcome.stderr.contains("level=debug"), "{outcome:?}");
    assert!(outcome.stderr.contains(&bundle.id), "{outcome:?}");
    assert!(
        bundle
            .invoke(&["help", "exec"])
            .ok()
            .contains("--ignore-paused")
    );
}

#[test]
fn a_log_is_what_runcs_callers_read() {
    let bundle = Bundle::new(&["nope"]);
    let log = bundle.path().join("log.json");
    let outcome = bundle.invoke(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "run",
        &bundle.id,
    ]);
    assert_eq!(outcome.code, Some(1));
    let line: Value = serde_json::from_str(std::fs::read_to_string(log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(
        line["msg"],
        "exec: \"nope\": executable file not found in $PATH"
    );
}

#[test]
fn many_at_once_get_along() {
    let bundles: Vec<_> = (0..30).map(|_| Bundle::shell("echo done")).collect();
    let children: Vec<_> = bundles
        .iter()
        .map(|bundle| {
            bundle
                .command(&["run", &bundle.id])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        assert_eq!(
            Outcome::from(child.wait_with_output().unwrap()).ok(),
            "done\n"
        );
    }
}
