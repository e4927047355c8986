//! Attach and exec as other clients than docker's speak them: in plain responses, with frames or without, and a container's
//! files when it does not run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::process::Command;
use support::Engine;

fn ask_json(engine: &Engine, method: &str, path: &str, body: Option<&Value>) -> Value {
    let body = body.map(Value::to_string);
    let path = format!("/v1.51{path}");
    let (status, body) = engine.ask(method, &path, body.as_deref());
    assert!(
        (200..300).contains(&status),
        "{status}: {}",
        String::from_utf8_lossy(&body)
    );
    serde_json::from_slice(&body).unwrap()
}

/// An archive of one file.
fn tar_of(name: &str, text: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    let tar = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .args(["-c", name])
        .output();
    tar.unwrap().stdout
}

/// A frame of multiplexed output.
fn frame(source: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![source, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn a_start_says_whether_there_are_frames() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "busybox",
        "sleep",
        "1000",
    ]);
    let exec = |terminal: bool, command: &[&str]| {
        let config =
            json!({"AttachStdout": true, "AttachStderr": true, "Tty": terminal, "Cmd": command});
        let made = ask_json(&engine, "POST", "/containers/box/exec", Some(&config));
        made["Id"].as_str().unwrap().to_owned()
    };
    let start = |id: &str, terminal: bool| {
        let body = json!({"Detach": false, "Tty": terminal});
        engine.ask(
            "POST",
            &format!("/v1.51/exec/{id}/start"),
            Some(&body.to_string()),
        )
    };
    for (process, client, expected) in [
        (false, false, frame(1, "said\n")),
        (true, true, b"said\r\n".to_vec()),
        (true, false, frame(1, "said\r\n")),
        (false, true, b"said\n".to_vec()),
    ] {
        let id = exec(process, &["echo", "said"]);
        assert_eq!(start(&id, client), (200, expected), "{process} {client}");
        assert_eq!(start(&id, client).0, 409);
    }
    let id = exec(false, &["nope"]);
    let (status, said) = start(&id, true);
    let said = String::from_utf8(said).unwrap();
    assert_eq!(status, 200);
    assert!(
        said.contains("OCI runtime exec failed") && said.contains("executable file not found"),
        "{said}"
    );
    let state = ask_json(&engine, "GET", &format!("/exec/{id}/json"), None);
    assert_eq!(
        (&state["Running"], &state["ExitCode"]),
        (&json!(false), &json!(127))
    );
    engine.ok(&["rm", "-f", "box"]);
    engine.assert_nothing_left();
}

#[test]
fn an_attach_need_not_ask_for_an_upgrade() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "--name",
        "box",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    let attach = |query: &str| {
        let path = format!("/v1.51/containers/box/attach?{query}");
        engine.ask("POST", &path, None)
    };
    assert_eq!(attach("logs=1&stdout=1"), (200, frame(1, "out\n")));
    assert_eq!(attach("logs=1&stderr=1"), (200, frame(2, "err\n")));
    engine.ok(&["rm", "box"]);
    engine.assert_nothing_left();
}

#[test]
fn a_container_that_does_not_run_has_its_mounts() {
    let engine = Engine::new();
    let host = engine.path("shown");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "the host's\n").unwrap();
    let bind = format!("{}:/shown:ro", host.display());
    engine.ok(&[
        "create",
        "--name",
        "box",
        "-v",
        "/made",
        "-v",
        "named:/deep/down",
        "-v",
        &bind,
        "busybox",
        "cat",
        "/made/new",
    ]);
    engine.ok_with_input(&["cp", "-", "box:/made"], &tar_of("new", b"new\n"));
    engine.ok_with_input(&["cp", "-", "box:/deep/down"], &tar_of("below", b"below\n"));
    assert_eq!(
        engine.ok(&[
            "run", "--rm", "-v", "named:/n", "busybox", "cat", "/n/below"
        ]),
        "below"
    );
    let copy = engine.path("copy");
    engine.ok(&["cp", "box:/shown/file", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "the host's\n");
    let refused = engine.run(&["cp", "/etc/hostname", "box:/shown/"]);
    assert!(
        refused.code != 0 && refused.stderr.to_lowercase().contains("read-only"),
        "{refused:?}"
    );
    assert_eq!(engine.ok(&["start", "-a", "box"]), "new");
    engine.ok(&["rm", "-v", "box"]);
    engine.ok(&["volume", "rm", "named"]);
    engine.assert_nothing_left();
}
