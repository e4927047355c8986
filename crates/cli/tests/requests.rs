//! The same command line makes the same requests as Docker's client makes.
//!
//! `requests/docker.jsonl` holds what Docker's client (28.2) sent for each command line. It was recorded by this test:
//! with `HULL_RECORD=<path of docker>` in the environment it runs that program for every line of `requests/lines.txt` and
//! writes the file anew. Without, it runs hull and compares.
//!
//! Left out of the comparison: the API version, the order of requests, and questions that make no difference (`is_aside`).
//! `Env` and `Binds` are compared without their order, which Docker's client leaves to chance.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use support::{Answer, Engine, Request};

#[derive(serde::Serialize, serde::Deserialize)]
struct Recorded {
    line: String,
    requests: Vec<Request>,
}

#[test]
fn requests_are_dockers() {
    let fixture = directory().join("docker.jsonl");
    let lines = std::fs::read_to_string(directory().join("lines.txt")).unwrap();
    let lines = lines
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    if let Some(docker) = std::env::var_os("HULL_RECORD") {
        let mut file = std::fs::File::create(&fixture).unwrap();
        for line in lines {
            let requests = requests(Path::new(&docker), line);
            let recorded = Recorded {
                line: line.to_owned(),
                requests,
            };
            writeln!(file, "{}", serde_json::to_string(&recorded).unwrap()).unwrap();
        }
        return;
    }
    let recorded = std::fs::read_to_string(&fixture).unwrap();
    let recorded: Vec<Recorded> = recorded
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.count(),
        recorded.len(),
        "{} is not of lines.txt",
        fixture.display()
    );
    let mut different = String::new();
    for Recorded {
        line,
        requests: expected,
    } in recorded
    {
        let actual = requests(&support::hull(), &line);
        different.push_str(&difference(&line, &expected, &actual));
    }
    assert!(different.is_empty(), "{different}");
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests")
}

/// Credentials: `me:secret` for Docker Hub, `you:geheim` and a token for others.
const CONFIG: &str = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},"host:5000":{"auth":"eW91OmdlaGVpbQ=="},
    "https://old.example/v1/":{"auth":"eW91OmdlaGVpbQ=="},"token.example":{"auth":"eW91Og==","identitytoken":"t"}}}"#;

/// Runs one command line and returns what it asked for.
fn requests(program: &Path, line: &str) -> Vec<Request> {
    let engine = Engine::start(answer);
    let config = tempfile::tempdir().unwrap();
    std::fs::write(config.path().join("config.json"), CONFIG).unwrap();
    let directory = directory().display().to_string();
    let args = words(line)
        .into_iter()
        .map(|word| word.replace("{dir}", &directory));
    let output = support::command(program)
        .args(args)
        .env("DOCKER_HOST", engine.host())
        .env("DOCKER_CONFIG", config.path())
        .env("FROM_ENV", "inherited")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let mut requests: Vec<Request> = engine
        .requests()
        .into_iter()
        .filter(|request| !is_aside(line, request))
        .map(normal)
        .collect();
    // Several objects are asked for at once.
    requests.sort_by(|a, b| (&a.method, &a.path).cmp(&(&b.method, &b.path)));
    assert!(
        !requests.is_empty(),
        "{line}: no request: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    requests
}

/// Splits at spaces, but not between single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
        .into_iter()
        .map(|word| if word == "EMPTY" { String::new() } else { word })
        .collect()
}

/// Whether a request is not compared.
fn is_aside(line: &str, request: &Request) -> bool {
    let get = request.method == "GET";
    let path = request.path.as_str();
    let inspects = path.starts_with("/containers/") && path.ends_with("/json");
    match path {
        "/_ping" | "/info" => true,
        // Docker's client waits for what it does not stay for.
        _ if path.ends_with("/wait") => line.starts_with("run -d"),
        // It looks whether the network is Swarm's.
        _ if get && path.starts_with("/networks/") => line.starts_with("network rm"),
        _ => inspects && request.query.is_empty() && path != "/containers/json",
    }
}

fn normal(mut request: Request) -> Request {
    request.path = request.path.replace("/c0ffee/", "/c/");
    for pointer in ["/Env", "/HostConfig/Binds"] {
        if let Some(serde_json::Value::Array(values)) = request.body.pointer_mut(pointer) {
            values.sort_by_key(ToString::to_string);
        }
    }
    request
}

fn answer(request: &Request) -> Answer {
    let container = r#"{"Id":"c0ffee","Name":"/c","State":{"Running":true,"Status":"running"},"Config":{"Tty":false,"OpenStdin":true},
        "HostConfig":{"AutoRemove":false},"NetworkSettings":{"Ports":{}}}"#;
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/_ping") => Answer::empty(200),
        ("POST", "/containers/create") => Answer::json(201, r#"{"Id":"c0ffee","Warnings":[]}"#),
        ("POST", "/commit") => Answer::json(201, r#"{"Id":"sha256:c0ffee"}"#),
        ("POST", "/volumes/create") => Answer::json(201, r#"{"Name":"v"}"#),
        ("POST", "/networks/create") => Answer::json(201, r#"{"Id":"net","Warning":""}"#),
        ("POST", path) if path.ends_with("/attach") => Answer::Upgrade(Box::new(drop)),
        ("POST", path) if path.ends_with("/wait") => Answer::json(200, r#"{"StatusCode":0}"#),
        ("POST", path) if path.ends_with("/exec") => Answer::json(201, r#"{"Id":"e0"}"#),
        ("POST", "/exec/e0/start") if request.body["Detach"] == true => Answer::empty(200),
        ("POST", "/exec/e0/start") => Answer::Upgrade(Box::new(drop)),
        ("GET", "/exec/e0/json") => Answer::json(200, r#"{"ID":"e0","ExitCode":0}"#),
        ("POST", path) if path.ends_with("/prune") || path.ends_with("/update") => {
            Answer::json(200, "{}")
        }
        ("POST", "/auth") => Answer::json(200, r#"{"Status":"Login Succeeded"}"#),
        ("POST", path) if path.ends_with("/push") => Answer::json(200, "{\"status\":\"x\"}\n"),
        ("POST", "/images/load" | "/images/create") => Answer::json(200, "{\"stream\":\"x\"}\n"),
        ("POST", _) => Answer::empty(204),
        ("DELETE", path) if path.starts_with("/images/") => Answer::json(200, "[]"),
        ("DELETE", _) => Answer::empty(204),
        ("GET", "/containers/json" | "/images/json" | "/images/search" | "/networks") => {
            Answer::json(200, "[]")
        }
        ("GET", "/volumes") => Answer::json(200, r#"{"Volumes":[]}"#),
        ("GET", path) if path.ends_with("/changes") || path.ends_with("/history") => {
            Answer::json(200, "[]")
        }
        ("GET", path) if path.ends_with("/logs") => Answer::empty(200),
        ("GET", "/containers/c/json" | "/containers/c0ffee/json") => Answer::json(200, container),
        ("GET", _) => Answer::json(200, "{}"),
        _ => Answer::empty(404),
    }
}

/// The first place where two lists of requests differ, in words.
fn difference(line: &str, expected: &[Request], actual: &[Request]) -> String {
    for index in 0..expected.len().max(actual.len()) {
        let (docker, hull) = (show(expected.get(index)), show(actual.get(index)));
        if docker != hull {
            return format!("\n{line}\ndocker: {docker}\n  hull: {hull}\n");
        }
    }
    String::new()
}

fn show(request: Option<&Request>) -> String {
    request.map_or_else(
        || "nothing".to_owned(),
        |request| serde_json::to_string(request).unwrap(),
    )
}
