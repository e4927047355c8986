//! An engine that may die at any moment: containers go on, the next engine finds them, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};
use support::Engine;

#[test]
fn containers_outlive_the_engine() {
    let mut engine = Engine::new();
    let script = "trap 'exit 4' TERM; n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done";
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "counter",
        "-p",
        "127.0.0.1:0:80",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "short",
        "busybox",
        "sh",
        "-c",
        "sleep 1; exit 9",
    ]);
    let port = engine.ok(&["port", "counter", "80"]);
    engine.kill();
    std::thread::sleep(Duration::from_millis(1500));
    engine.start();
    assert_eq!(
        engine.ok(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "short"
        ]),
        "exited 9"
    );
    assert_eq!(engine.ok(&["wait", "short"]), "9");
    assert_eq!(engine.ok(&["port", "counter", "80"]), port);
    assert_eq!(engine.ok(&["exec", "counter", "echo", "in"]), "in");
    let follow = engine.hull(&["logs", "-f", "counter"]).spawn().unwrap();
    let wait = engine.hull(&["wait", "counter"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    engine.ok(&["stop", "counter"]);
    let waited = wait.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), "4");
    let log = String::from_utf8(follow.wait_with_output().unwrap().stdout).unwrap();
    let numbers: Vec<u32> = log.lines().map(|line| line.parse().unwrap()).collect();
    // Without an engine nothing was lost either: every number is there, in order.
    assert!(
        numbers.len() > 20 && numbers.iter().zip(0..).all(|(a, b)| *a == b),
        "{numbers:?}"
    );
    engine.ok(&["rm", "counter", "short"]);
    engine.assert_nothing_left();
}

#[test]
fn a_killed_shim_takes_its_container_with_it() {
    let engine = Engine::new();
    let id = engine.ok(&["run", "-d", "--name", "lost", "busybox", "sleep", "600"]);
    let pid: u32 = engine
        .ok(&["inspect", "-f", "{{.State.Pid}}", "lost"])
        .parse()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &shim])
            .status()
            .unwrap()
            .success()
    );
    engine.until("the end of the container", || {
        engine.ok(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "lost",
        ]) == "exited 137"
    });
    // Whoever adopted it may not have reaped it yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    assert!(Engine::cgroups(&[id]).is_empty());
    engine.ok(&["rm", "lost"]);
    engine.assert_nothing_left();
}

#[test]
fn killed_at_random_moments_it_leaves_no_orphan() {
    const ROUNDS: std::ops::RangeInclusive<u32> = 50..=200;
    // Where rounds are slow, fewer have to do.
    const ENOUGH: Duration = Duration::from_secs(60);
    let mut engine = Engine::new();
    let mut ids = Vec::new();
    let mut undisturbed = Duration::ZERO;
    let first = Instant::now();
    for round in 0..=*ROUNDS.end() {
        if ROUNDS.contains(&round) && first.elapsed() > ENOUGH {
            break;
        }
        let name = format!("round{round}");
        let commands: [Vec<&str>; 4] = [
            vec![
                "create",
                "--name",
                &name,
                "-p",
                "127.0.0.1:0:80",
                "busybox",
                "sleep",
                "600",
            ],
            vec!["start", &name],
            vec!["stop", "-t", "0", &name],
            vec!["rm", "-f", &name],
        ];
        // The engine is killed in the midst of every round but the first, which tells how long one takes.
        let pid = engine.pid().to_string();
        let after = undisturbed * (round * 7919 % 1000) / 1000;
        let killer = (round > 0).then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                std::process::Command::new("kill")
                    .args(["-9", &pid])
                    .status()
                    .unwrap();
            })
        });
        let began = Instant::now();
        for command in &commands {
            let output = engine.hull(command).stderr(Stdio::null()).output().unwrap();
            if command[0] == "create" && output.status.success() {
                ids.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
            }
        }
        match killer {
            Some(killer) => killer.join().unwrap(),
            None => undisturbed = began.elapsed(),
        }
        engine.kill();
        engine.start();
        // What has been acknowledged is there; whatever it is, it can be removed.
        let left = engine.ok(&["ps", "-aq", "--no-trunc"]);
        ids.extend(left.lines().map(str::to_owned));
        for id in left.lines() {
            engine.ok(&["rm", "-f", id]);
        }
        engine.assert_nothing_left();
    }
    let cgroups = Engine::cgroups(&ids);
    assert!(cgroups.is_empty(), "{cgroups:?}");
    let table = std::process::Command::new("nft")
        .args(["list", "map", "inet", engine.bridge(), "published4"])
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(
        table.contains("published4") && !table.contains("elements"),
        "{table}"
    );
}

#[test]
fn a_second_engine_on_the_same_directories_is_refused() {
    let engine = Engine::empty();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hull"))
        .args(["daemon", "--data-root"])
        .arg(engine.path("data"))
        .arg("--run-root")
        .arg(engine.path("run"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another engine"));
    engine.ok(&["ps"]);
}

#[test]
fn a_start_that_fails_at_any_step_leaves_nothing() {
    let mut engine = Engine::new();
    let steps = [
        "Layer", "Mounts", "Endpoint", "Bundle", "Shim", "Connect", "Ports", "Attach", "Go",
    ];
    let subnet = engine.subnet(0);
    engine.words(&format!("network create --subnet {subnet} other"));
    for step in steps {
        engine.kill();
        engine.fail_at = Some(step.to_owned());
        engine.start();
        let flags = [
            "--rm",
            "--network",
            "other",
            "--ipc",
            "shareable",
            "-p",
            "127.0.0.1:18432:80",
            "-v",
            "/data",
        ];
        let command = [&["run"], &flags[..], &["busybox", "true"]].concat();
        let said = engine.run(&command);
        assert!(
            said.code == 125 && said.stderr.contains("made to fail"),
            "{step}: {said:?}"
        );
        engine.assert_nothing_left();
        assert_eq!(engine.ok(&["ps", "-aq"]), "", "{step}");
        assert_eq!(engine.ok(&["volume", "ls", "-q"]), "", "{step}");
        // Without the fault the same command works, with the same port: nothing holds it.
        engine.kill();
        engine.fail_at = None;
        engine.start();
        engine.ok(&command);
    }
    engine.words("network rm other");
    engine.assert_nothing_left();
}
