//! The engine's configuration file: its effect, its reload, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;
use support::{Engine, Said, said};

/// What `hull daemon --validate` says of a file.
fn validate(engine: &Engine, file: &str, flags: &[&str]) -> Said {
    let path = engine.path("daemon.json");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    command.args(["daemon", "--validate", "--config-file"]);
    said(command.arg(path).args(flags).output().unwrap())
}

/// An engine with a file, which is written anew.
fn configured(file: &str) -> Engine {
    let mut engine = Engine::new();
    let path = engine.path("daemon.json");
    std::fs::write(&path, file).unwrap();
    engine.restart_with(&["--config-file", path.to_str().unwrap()]);
    engine
}

#[test]
fn containers_have_what_the_file_says_unless_they_say_otherwise() {
    let engine = configured(
        r#"{
            "log-driver": "local",
            "log-opts": {"max-file": "3"},
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 111, "Hard": 222}},
            "dns": ["192.0.2.7"], "dns-search": ["example.org"], "dns-opts": ["ndots:3"],
            "init": true,
            "default-runtime": "runc",
            "labels": ["rack=7"],
            "live-restore": true,
            "userland-proxy": false
        }"#,
    );
    let info = "info -f {{.LoggingDriver}}/{{.DefaultRuntime}}/{{.Labels}}";
    assert_eq!(engine.words(info), "local/runc/[rack=7]");
    engine.words("run --name plain busybox sh -c true");
    let inspect = "inspect -f {{.HostConfig.LogConfig.Type}}/{{.HostConfig.Runtime}}/{{.HostConfig.Init}} plain";
    assert_eq!(engine.words(inspect), "local/runc/true");
    let options = [
        "inspect",
        "-f",
        "{{json .HostConfig.LogConfig.Config}}",
        "plain",
    ];
    assert_eq!(engine.ok(&options), r#"{"max-file":"3"}"#);
    let inside = "ulimit -Sn; ulimit -Hn; cat /etc/resolv.conf; [ $$ = 1 ] || echo reaped";
    let said = engine.ok(&["run", "--rm", "busybox", "sh", "-c", inside]);
    for line in [
        "111",
        "222",
        "nameserver 192.0.2.7",
        "search example.org",
        "options ndots:3",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    assert!(said.ends_with("reaped"), "{said}");
    let own = "run --rm --log-driver json-file --ulimit nofile=50 --dns 192.0.2.9 --init=false --runtime hull";
    let own: Vec<&str> = own
        .split_whitespace()
        .chain(["busybox", "sh", "-c", inside])
        .collect();
    let said = engine.ok(&own);
    assert!(!said.contains("reaped"), "{said}");
    for line in ["50", "nameserver 192.0.2.9"] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    engine.refused(
        "run --runtime kata busybox",
        "unknown or invalid runtime name: kata",
    );
    engine.words("rm plain");
    engine.assert_nothing_left();
}

#[test]
fn sighup_has_labels_and_the_log_level_read_again() {
    let engine = configured(r#"{"labels": ["a=1"]}"#);
    let hang_up = |file: &str| {
        std::fs::write(engine.path("daemon.json"), file).unwrap();
        let kill = Command::new("kill")
            .args(["-HUP", &engine.pid().to_string()])
            .status();
        assert!(kill.unwrap().success());
    };
    let labels = || engine.words("info -f {{.Labels}}");
    assert_eq!(labels(), "[a=1]");
    hang_up(r#"{"labels": ["a=2", "b=3"], "debug": true}"#);
    engine.until("it has read its file", || labels() == "[a=2 b=3]");
    engine.until("it logs more", || engine.log().contains("DEBUG"));
    let event = "events --since 1 --until 0s --filter type=daemon --format {{.Action}}:{{.Actor.Attributes.labels}}";
    assert_eq!(engine.words(event), r#"reload:["a=2","b=3"]"#);
    // What cannot be read changes nothing.
    hang_up("{");
    engine.until("it says so", || {
        engine.log().contains("the configuration stays as it is")
    });
    assert_eq!(labels(), "[a=2 b=3]");
}

#[test]
fn a_file_is_validated() {
    let engine = Engine::empty();
    let fine = validate(&engine, r#"{"bip": "10.1.0.1/24", "mtu": 1400}"#, &[]);
    assert_eq!((fine.code, fine.stderr.as_str()), (0, "configuration OK\n"));
    for (file, flags, why) in [
        ("{", &[][..], "daemon.json: EOF"),
        (r#"{"bip": "x"}"#, &[], "--bip"),
        (r#"{"mtu": 1}"#, &[], "--mtu"),
        (
            r#"{"colour": 1}"#,
            &[],
            "don't match any configuration option: colour",
        ),
        (
            r#"{"log-driver": "fluentd"}"#,
            &[],
            "no log driver named 'fluentd'",
        ),
        (
            r#"{"log-opts": {"color": "red"}}"#,
            &[],
            "unknown log opt 'color'",
        ),
        (r#"{"labels": ["x"]}"#, &[], "bad attribute format: x"),
        (
            r#"{"hosts": ["tcp://0.0.0.0:2375"]}"#,
            &[],
            "have to show a certificate",
        ),
        (
            r#"{"icc": false}"#,
            &["--icc=true"],
            "specified both as a flag and in the configuration file: icc",
        ),
    ] {
        let said = validate(&engine, file, flags);
        assert!(
            said.code == 1 && said.stderr.contains(why),
            "{file}: {said:?}"
        );
    }
    let mut missing = Command::new(env!("CARGO_BIN_EXE_hull"));
    missing.args([
        "daemon",
        "--validate",
        "--config-file",
        "/nonexistent/daemon.json",
    ]);
    let missing = said(missing.output().unwrap());
    assert!(
        missing.code == 1 && missing.stderr.contains("No such file"),
        "{missing:?}"
    );
}

#[test]
fn the_pid_file_is_the_engines() {
    let mut engine = Engine::empty();
    let path = engine.path("engine.pid");
    let text = path.to_str().unwrap().to_owned();
    engine.restart_with(&["--pidfile", &text]);
    let written = || std::fs::read_to_string(&path).unwrap();
    assert_eq!(written(), engine.pid().to_string());
    // A second one does not take it; the next one does, after a kill.
    let second = validate(&engine, "{}", &[]);
    assert_eq!(second.code, 0, "{second:?}");
    let mut other = Command::new(env!("CARGO_BIN_EXE_hull"));
    other.args(["daemon", "--pidfile", &text, "--config-file"]);
    let other = said(other.arg(engine.path("daemon.json")).output().unwrap());
    assert!(other.stderr.contains("is still running"), "{other:?}");
    engine.kill();
    engine.start();
    assert_eq!(written(), engine.pid().to_string());
}
