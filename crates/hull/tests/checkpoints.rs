//! Checkpoints of the engine's containers, where criu works; what is refused, everywhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write;
use std::process::Command;
use support::Engine;

/// Counts in its memory, and tells by a file.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; mv /dev/shm/new /dev/shm/n; echo line $i; sleep 0.05; done";

/// Whether there is a criu that works with this kernel; the tests that need it say why they do nothing.
fn has_criu() -> bool {
    let why = match Command::new("criu").arg("check").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let text = format!("{name}: skipped, criu does not work here: {why}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    false
}

fn count(engine: &Engine, name: &str, more: &[&str]) {
    let first = ["run", "-d", "--name", name];
    let last = ["busybox", "sh", "-c", COUNT];
    engine.ok(&[&first, more, &last].concat());
    engine.until("it counts", || number(engine, name) > 3);
}

/// Where it is; 0 when it does not run.
fn number(engine: &Engine, name: &str) -> u64 {
    let said = engine.run(&["exec", name, "cat", "/dev/shm/n"]);
    said.stdout.trim().parse().unwrap_or_default()
}

fn status(engine: &Engine, name: &str) -> String {
    engine.ok(&["inspect", "-f", "{{.State.Status}}", name])
}

/// It counts on from at least `from`.
fn goes_on(engine: &Engine, name: &str, from: u64) {
    let now = number(engine, name);
    assert!(now >= from, "{now} after {from}");
    engine.until("it goes on", || number(engine, name) > now);
}

#[test]
fn a_container_ends_and_goes_on_from_its_checkpoint() {
    if !has_criu() {
        return;
    }
    let mut engine = Engine::new();
    let script = format!("httpd -p 80 -h /data; echo kept > /data/index.html; {COUNT}");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:0:80",
        "-v",
        "vol:/data",
        "--tmpfs",
        "/t",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        &script,
    ]);
    engine.until("it counts", || number(&engine, "web") > 3);
    let before = number(&engine, "web");
    assert_eq!(engine.words("checkpoint create web one"), "one");
    // No policy brings it back.
    assert_eq!(status(&engine, "web"), "exited");
    assert_eq!(engine.words("ps -q"), "");
    assert_eq!(engine.words("checkpoint ls web"), "CHECKPOINT NAME\none");
    assert_eq!(engine.words("start --checkpoint one web"), "");
    goes_on(&engine, "web", before);
    let port = engine.words("port web 80");
    let page = Command::new("curl")
        .args(["-sS", "--max-time", "100", &port])
        .output()
        .unwrap();
    assert_eq!(page.stdout, b"kept\n", "{page:?}");
    // One log, in which no line is lost or twice.
    let log = engine.words("logs web");
    let lines: Vec<String> = (1..=log.lines().count())
        .map(|n| format!("line {n}"))
        .collect();
    assert!(log.lines().eq(&lines), "{log}");
    // The next engine finds what was restored; its shim has its end.
    let now = number(&engine, "web");
    engine.kill();
    engine.start();
    goes_on(&engine, "web", now);
    engine.words("stop -t 0 web");
    assert_eq!(engine.words("inspect -f {{.State.ExitCode}} web"), "137");
    engine.words("start --checkpoint one web");
    goes_on(&engine, "web", before);
    engine.words("checkpoint rm web one");
    assert_eq!(engine.words("checkpoint ls web"), "CHECKPOINT NAME");
    engine.words("rm -f -v web");
    engine.words("volume rm vol");
    engine.assert_nothing_left();
}

#[test]
fn dockers_client_checkpoints_to_a_directory_and_leaves_the_container_running() {
    if !has_criu() {
        return;
    }
    let engine = Engine::new();
    let directory = engine.path("checkpoints");
    let directory = directory.to_str().unwrap();
    let docker = |command: &str, rest: &[&str]| {
        let first = ["checkpoint", command, "--checkpoint-dir", directory];
        engine.docker(&[&first, rest].concat())
    };
    count(&engine, "one", &["--network", "none", "--read-only", "-i"]);
    let before = number(&engine, "one");
    assert_eq!(
        docker("create", &["--leave-running", "one", "first"]),
        "first"
    );
    goes_on(&engine, "one", before);
    assert_eq!(docker("ls", &["one"]), "CHECKPOINT NAME\nfirst");
    assert_eq!(
        engine.docker(&["checkpoint", "ls", "one"]),
        "CHECKPOINT NAME"
    );
    // What it says from now on is lost with it.
    engine.words("kill one");
    let start = [
        "start",
        "--checkpoint",
        "first",
        "--checkpoint-dir",
        directory,
    ];
    engine.docker(&[&start[..], &["one"]].concat());
    goes_on(&engine, "one", before);
    engine.words("rm -f one");
    // It is its own files that it removes, not others.
    count(&engine, "two", &["--network", "none"]);
    std::fs::create_dir(engine.path("checkpoints/other")).unwrap();
    let rm = format!("checkpoint rm --checkpoint-dir {directory} two");
    engine.refused(&format!("{rm} other"), "has no checkpoint in it");
    engine.words(&format!("{rm} first"));
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let events = "events --since 1 --until 0s --filter event=checkpoint --format {{.Action}}:{{.Actor.Attributes.name}}";
    assert_eq!(engine.words(events), "checkpoint:one");
    engine.words("rm -f two");
    engine.assert_nothing_left();
}

#[test]
fn a_checkpoint_that_cannot_be_made_leaves_the_container_as_it_is() {
    if !has_criu() {
        return;
    }
    let engine = Engine::new();
    count(&engine, "busy", &["--network", "none"]);
    // A connection that is open, of processes that are the container's own.
    let connect = "sleep 600 | nc -l -p 5000 >/dev/null & until grep -q ':1388 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done; \
        sleep 600 | nc 127.0.0.1 5000 &";
    let open = format!("{connect} {COUNT}");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "open",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        &open,
    ]);
    let connected = || {
        let grep = ["exec", "open", "grep", "-q", ":1388 01 ", "/proc/net/tcp"];
        engine.run(&grep).code == 0
    };
    engine.until("it is connected", connected);
    engine.refused(
        "checkpoint create open one",
        "Cannot checkpoint container open",
    );
    let now = number(&engine, "open");
    goes_on(&engine, "open", now);
    assert_eq!(engine.words("checkpoint ls open"), "CHECKPOINT NAME");
    // Its policy counts as before.
    engine.ok(&["exec", "open", "sh", "-c", "kill -9 -1; true"]);
    // A further process, which is nobody's child there.
    let mut exec = engine
        .hull(&["exec", "busy", "sh", "-c", "echo > /in; sleep 600"])
        .spawn()
        .unwrap();
    engine.until("it is in", || {
        engine.run(&["exec", "busy", "test", "-e", "/in"]).code == 0
    });
    engine.refused(
        "checkpoint create busy one",
        "commands of exec run in the container",
    );
    engine.words("rm -f busy open");
    exec.wait().unwrap();
    engine.assert_nothing_left();
}

#[test]
fn a_restore_that_fails_leaves_nothing_but_the_checkpoint() {
    if !has_criu() {
        return;
    }
    let engine = Engine::new();
    count(&engine, "broken", &["-p", "127.0.0.1:0:80"]);
    engine.words("checkpoint create broken one");
    let id = engine.words("inspect -f {{.Id}} broken");
    let images = engine.path(&format!("data/containers/{id}/checkpoints/one"));
    let inventory = images.join("inventory.img");
    let kept = std::fs::read(&inventory).unwrap();
    std::fs::write(&inventory, "nothing").unwrap();
    engine.refused(
        "start --checkpoint one broken",
        "the restore with criu failed",
    );
    assert_eq!(status(&engine, "broken"), "exited");
    let only_files = |trace: &String| trace.starts_with("directory") && trace.contains("/data/");
    assert!(
        engine.traces().iter().all(only_files),
        "{:?}",
        engine.traces()
    );
    assert!(Engine::cgroups(&[id]).is_empty());
    // Mended, it is restored; and without it the container starts anew.
    std::fs::write(&inventory, kept).unwrap();
    engine.words("start --checkpoint one broken");
    goes_on(&engine, "broken", 3);
    engine.words("rm -f broken");
    engine.assert_nothing_left();
}

#[test]
fn what_cannot_be_checkpointed_is_refused() {
    let mut engine = Engine::new();
    engine.search_path = Some(engine.path("no-programs"));
    engine.restart_with(&[]);
    let run = |more: &str| engine.words(&format!("run -d --network none {more} busybox sleep 600"));
    run("--name plain");
    run("--name terminal -t");
    run("--name reaped --init");
    run("--name mapped --userns private");
    run("--name passing --rm");
    run("--name paused");
    engine.words("pause paused");
    engine.words("create --name new busybox");
    for (name, why) in [
        ("none", "No such container: none"),
        ("new", "is not running"),
        ("paused", "unpause"),
        ("terminal", "checkpoint not support on containers with tty"),
        ("reaped", "--init"),
        ("mapped", "--userns private"),
        ("passing", "leave it running"),
        ("plain", "apt-get install criu"),
    ] {
        engine.refused(&format!("checkpoint create {name} one"), why);
    }
    for bad in ["../one", "..", "a/b", "-x", "x"] {
        let escaped = bad.replace('/', "%2F").replace('.', "%2E");
        let path = format!("/containers/plain/checkpoints/{escaped}");
        assert_eq!(engine.ask("DELETE", &path, None).0, 400, "{bad}");
        let body = format!("{{\"CheckpointID\":{bad:?}}}");
        assert_eq!(
            engine
                .ask("POST", "/containers/plain/checkpoints", Some(&body))
                .0,
            400,
            "{bad}"
        );
        let path = format!("/containers/new/start?checkpoint={escaped}");
        assert_eq!(engine.ask("POST", &path, None).0, 400, "{bad}");
    }
    engine.refused(
        "checkpoint create --checkpoint-dir relative plain one",
        "no absolute path",
    );
    engine.refused("checkpoint rm plain one", "checkpoint one does not exist");
    engine.refused(
        "start --checkpoint one new",
        "checkpoint one does not exist",
    );
    engine.refused("start --checkpoint one new plain", "multiple containers");
    assert_eq!(
        engine.ask("GET", "/containers/plain/checkpoints", None),
        (200, b"[]\n".to_vec())
    );
    engine.words("rm -f plain terminal reaped mapped passing paused new");
    engine.assert_nothing_left();
}
