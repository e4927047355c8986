//! Checkpoint and restore, where criu is installed; how its absence is told, everywhere.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, Outcome, eventually};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/n; sleep 0.05; done";

/// Whether there is a criu that works with this kernel; the tests that need it say why they do nothing.
fn has_criu() -> bool {
    let why = match std::process::Command::new("criu").arg("check").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let text = format!("{name}: skipped, criu does not work here: {why}\n");
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
    false
}

/// Invokes the runtime with standard streams that nobody holds.
fn quiet(bundle: &Bundle, arguments: &[&str]) -> Outcome {
    let mut command = bundle.command(arguments);
    let path = bundle.path().join("errors");
    let errors = std::fs::File::create(&path).unwrap();
    // Those of the container are the runtime's: none but the null device can be followed.
    let keeps = arguments.contains(&"--detach");
    command.stdout(Stdio::null());
    command.stderr(if keeps { Stdio::null() } else { errors.into() });
    let status = command.status().unwrap();
    Outcome {
        code: status.code(),
        stdout: String::new(),
        stderr: std::fs::read_to_string(path).unwrap(),
    }
}

fn number(bundle: &Bundle) -> u64 {
    let text = bundle.exec(&["cat", "/dev/shm/n"]).ok();
    text.trim().parse().unwrap_or_default()
}

fn goes_on(bundle: &mut Bundle) {
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap().to_owned();
    let run = ["run", "--detach", &bundle.id.clone()];
    assert_eq!(quiet(bundle, &run).code, Some(0));
    assert!(eventually(|| number(bundle) > 2));
    let dump = ["checkpoint", "--image-path", &images, &bundle.id.clone()];
    quiet(bundle, &dump).ok();
    // It is gone until it is restored.
    bundle.assert_gone();
    let restore = [
        "restore",
        "--detach",
        "--image-path",
        &images,
        &bundle.id.clone(),
    ];
    let outcome = quiet(bundle, &restore);
    let log = || std::fs::read_to_string(Path::new(&images).join("restore.log"));
    assert_eq!(outcome.code, Some(0), "{}", log().unwrap_or_default());
    assert_eq!(bundle.status(), "running");
    let before = number(bundle);
    assert!(before > 2);
    assert!(eventually(|| number(bundle) > before));
    assert!(!bundle.cgroups().is_empty());
    let pid = bundle.pid().to_string();
    let groups = bundle.cgroup_file(&["cgroup.procs"]);
    assert!(groups.lines().any(|line| line == pid), "{groups}");
    bundle.delete().ok();
}

#[test]
fn a_container_goes_on_where_its_images_were_made() {
    if !has_criu() {
        return;
    }
    let mut bundle = Bundle::shell(COUNT);
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.add_mount(
        json!({"destination": "/data", "type": "bind", "source": source, "options": ["bind"]}),
    );
    goes_on(&mut bundle);
}

#[test]
fn a_container_with_a_cgroup_namespace_goes_on_too() {
    if !has_criu() {
        return;
    }
    let mut bundle = Bundle::shell(COUNT);
    bundle.remove_namespace("cgroup");
    bundle.add_namespace(json!({"type": "cgroup"}));
    goes_on(&mut bundle);
}

#[test]
fn a_container_is_left_running_and_its_pipes_become_the_restorers() {
    if !has_criu() {
        return;
    }
    let bundle = Bundle::shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done");
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut first = command.spawn().unwrap();
    let mut output = BufReader::new(first.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "1");
    let dump = [
        "checkpoint",
        "--leave-running",
        "--shell-job",
        "--image-path",
        images,
        &bundle.id,
    ];
    quiet(&bundle, &dump).ok();
    assert_eq!(bundle.status(), "running");
    bundle.invoke(&["kill", &bundle.id, "KILL"]).ok();
    drop(output);
    assert_eq!(first.wait().unwrap().code(), Some(137));
    let restore = ["restore", "--shell-job", "--image-path", images, &bundle.id];
    let mut command = bundle.command(&restore);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut second = command.spawn().unwrap();
    let mut output = BufReader::new(second.stdout.take().unwrap()).lines();
    let next = output.next().unwrap().unwrap();
    assert!(next.parse::<u64>().unwrap() > 1, "{next}");
    // It runs a moment before it is on record.
    let kill = || bundle.invoke(&["kill", &bundle.id, "KILL"]).code == Some(0);
    assert!(eventually(kill));
    drop(output);
    assert_eq!(second.wait().unwrap().code(), Some(137));
}

#[test]
fn images_that_are_none_leave_nothing() {
    if !has_criu() {
        return;
    }
    let bundle = Bundle::shell(COUNT);
    let restore = |images: &Path| {
        let images = images.to_str().unwrap();
        quiet(&bundle, &["restore", "--image-path", images, &bundle.id]).failed()
    };
    let empty = bundle.path().join("empty");
    assert!(restore(&empty).contains("empty"));
    std::fs::create_dir(&empty).unwrap();
    assert!(restore(&empty).contains("there are no images"));
    std::fs::write(empty.join("descriptors.json"), "[]").unwrap();
    let error = restore(&empty);
    assert!(error.contains("the restore with criu failed"), "{error}");
    bundle.assert_gone();
}

#[test]
fn only_what_runs_is_checkpointed() {
    let bundle = Bundle::shell(COUNT);
    bundle.create().ok();
    let error = bundle.invoke(&["checkpoint", &bundle.id]).failed();
    assert!(
        error.contains("cannot checkpoint a container that is created"),
        "{error}"
    );
    bundle.delete().ok();
}

#[test]
fn without_criu_the_error_says_how_to_get_it() {
    let bundle = Bundle::shell(COUNT);
    bundle.create().ok();
    bundle.start().ok();
    for command in [&["checkpoint", &bundle.id][..], &["restore", "other"]] {
        let arguments = [&["--criu", "/nonexistent/criu"], command].concat();
        let error = bundle.invoke(&arguments).failed();
        assert!(error.contains("/nonexistent/criu"), "{error}");
        assert!(error.contains("apt-get install criu"), "{error}");
    }
    assert_eq!(bundle.status(), "running");
    bundle.delete().ok();
}
