//! An engine that has done something often has no more of anything than before. `cargo xtask soak` does it a hundred thousand times,
//! and looks at memory, too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use support::Engine;

/// How often each thing is done.
const ROUNDS: usize = 12;

/// The engine's descriptors by what they are of, without numbers.
fn descriptors(engine: &Engine) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap() {
        // It may have been closed.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let target = target.display().to_string();
        let kind = target.split(':').next().unwrap_or_default().to_owned();
        *found.entry(kind).or_default() += 1;
    }
    found
}

fn files(directory: &std::path::Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + files(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// One container's life, with a command executed in it, and one of everything that can be asked.
fn round(engine: &Engine, number: usize) {
    let name = format!("life{number}");
    let body = r#"{"Image":"busybox","Cmd":["sleep","600"],"Volumes":{"/data":{}}}"#;
    let asked = |method: &str, path: String, body: Option<&str>, expected: u16| {
        let (status, answer) = engine.ask(method, &path, body);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(status, expected, "{method} {path}: {answer}");
        answer
    };
    asked(
        "POST",
        format!("/containers/create?name={name}"),
        Some(body),
        201,
    );
    asked("POST", format!("/containers/{name}/start"), None, 204);
    let exec = asked(
        "POST",
        format!("/containers/{name}/exec"),
        Some(r#"{"Cmd":["true"]}"#),
        201,
    );
    let exec: serde_json::Value = serde_json::from_str(&exec).unwrap();
    let exec = exec["Id"].as_str().unwrap();
    asked(
        "POST",
        format!("/exec/{exec}/start"),
        Some(r#"{"Detach":true}"#),
        200,
    );
    for path in [
        "json",
        "top",
        "logs?stdout=1",
        "stats?stream=0&one-shot=1",
        "changes",
    ] {
        asked("GET", format!("/containers/{name}/{path}"), None, 200);
    }
    for path in [
        "/info",
        "/containers/json",
        "/images/json",
        "/networks",
        "/events?since=0&until=1",
    ] {
        asked("GET", path.to_owned(), None, 200);
    }
    asked("GET", "/containers/nobody/json".to_owned(), None, 404);
    asked("POST", format!("/containers/{name}/kill"), None, 204);
    asked("POST", format!("/containers/{name}/wait"), None, 200);
    asked("DELETE", format!("/containers/{name}?v=1"), None, 204);
}

#[test]
fn nothing_grows_with_what_was_done() {
    let engine = Engine::new();
    // What is made once is there then.
    round(&engine, 0);
    engine.assert_nothing_left();
    let data = engine.path("data");
    let before = (descriptors(&engine), files(&data));
    for number in 1..=ROUNDS {
        round(&engine, number);
    }
    engine.assert_nothing_left();
    // Connections and processes that end take their moment.
    engine.until(&format!("no more than {before:?}"), || {
        let known = |kind: &String| before.0.get(kind).copied().unwrap_or(0);
        let now = descriptors(&engine);
        now.iter().all(|(kind, count)| *count <= known(kind)) && files(&data) <= before.1
    });
}
