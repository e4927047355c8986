//! Requests as they should not be: bodies too large, of wrong types, with more than is known, or that are no JSON; times that
//! contradict each other; and who listens to events without reading them. Needs root and busybox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use support::Engine;

/// No answer takes as long.
const WAIT: Duration = Duration::from_secs(100);

/// Every route that takes a JSON body.
const ROUTES: [&str; 12] = [
    "/containers/create",
    "/containers/box/update",
    "/containers/box/exec",
    "/containers/box/ports",
    "/exec/none/start",
    "/commit?container=box",
    "/networks/create",
    "/networks/none/connect",
    "/networks/none/disconnect",
    "/volumes/create",
    "/auth",
    "/containers/box/checkpoints",
];

fn connect(engine: &Engine) -> UnixStream {
    let socket = UnixStream::connect(engine.path("run/hull.sock")).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

/// Sends a body of this type, and gives the status and what is said.
fn post(engine: &Engine, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
    let mut socket = connect(engine);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: hull\r\nConnection: close\r\n{content_type}Content-Length: {}\r\n\r\n",
        body.len()
    );
    // An engine that has read enough may close the connection.
    let _ = socket
        .write_all(head.as_bytes())
        .and_then(|()| socket.write_all(body));
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    (status.unwrap_or(0), body.unwrap_or_default())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn bodies_are_bounded_and_have_to_be_json() {
    let engine = Engine::new();
    engine.words("create --name box --network none busybox");
    let large = format!("{{\"Image\":\"{}\"}}", "x".repeat(9 << 20));
    for path in ROUTES {
        let refused = |content_type: &str, body: &[u8], why: &str| {
            let (status, said) = post(&engine, path, content_type, body);
            assert!(
                status == 400 && said.contains(why),
                "{path}: {status} {said}"
            );
        };
        refused(JSON, large.as_bytes(), "at most 8388608 bytes");
        refused(JSON, b"{", "invalid JSON: ");
        refused(JSON, b"[]", "invalid JSON: ");
        refused(JSON, b"{} {}", "invalid JSON: ");
        refused(
            JSON,
            b" ",
            "invalid JSON: got EOF while reading request body",
        );
        // What a web page can have a browser send.
        let form = "Content-Type: text/plain\r\n";
        refused(
            form,
            b"{}",
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        );
        refused("", b"{}", "malformed Content-Type header");
    }
    let create = |body: Value| {
        post(
            &engine,
            "/containers/create",
            JSON,
            body.to_string().as_bytes(),
        )
    };
    let (status, said) =
        create(json!({"Image": "busybox", "Unknown": {"a": 1}, "HostConfig": {"More": [null]}}));
    assert_eq!(status, 201, "{said}");
    for (body, why) in [
        (json!({"Image": 1}), "Image: invalid type: integer"),
        (
            json!({"Image": "busybox", "HostConfig": {"Memory": "1g"}}),
            "HostConfig.Memory: invalid type: string",
        ),
        (
            json!({"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}),
            "HostPort: invalid type: integer",
        ),
        (
            json!({"Image": "busybox", "Env": "A=1"}),
            "Env: invalid type: string",
        ),
    ] {
        let (status, said) = create(body);
        assert!(status == 400 && said.contains(why), "{status} {said}");
    }
    assert_eq!(post(&engine, "/containers/create", "", b"").0, 400);
}

#[test]
fn a_commit_takes_a_configuration() {
    let engine = Engine::new();
    engine.words("create --name box --network none -e A=1 -l one=1 busybox true");
    let body = json!({"Cmd": ["echo", "a $b"], "Env": ["B=x \"y\" $z"], "Labels": {"two": "2"}, "Tty": true});
    let path = "/commit?container=box&repo=made&changes=USER%20user";
    let (status, said) = post(&engine, path, JSON, body.to_string().as_bytes());
    assert_eq!(status, 201, "{said}");
    let config = engine.ok(&["inspect", "-f", "{{json .Config}}", "made"]);
    let config: Value = serde_json::from_str(&config).unwrap();
    let shown = |name: &str| config[name].to_string();
    assert_eq!(shown("Cmd"), r#"["echo","a $b"]"#);
    assert!(
        shown("Env").contains(r#""A=1""#) && shown("Env").contains(r#""B=x \"y\" $z""#),
        "{config}"
    );
    assert_eq!(shown("Labels"), r#"{"one":"1","two":"2"}"#);
    assert_eq!(shown("User"), r#""user""#);
}

/// Asks for events; the reader stands behind the head of the answer.
fn events(engine: &Engine, query: &str) -> (u16, BufReader<UnixStream>) {
    let mut socket = connect(engine);
    let request = format!("GET /events?{query} HTTP/1.0\r\nHost: hull\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(socket);
    let mut status = None;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no answer");
        status = status.or_else(|| line.split(' ').nth(1)?.parse().ok());
        if line == "\r\n" {
            return (status.unwrap(), reader);
        }
    }
}

fn actions(reader: BufReader<UnixStream>) -> Vec<String> {
    let action = |line: String| {
        let event: Value = serde_json::from_str(&line).unwrap();
        format!(
            "{} {}",
            event["Action"].as_str().unwrap(),
            event["Actor"]["ID"].as_str().unwrap()
        )
    };
    reader.lines().map(|line| action(line.unwrap())).collect()
}

#[test]
fn since_and_until_bound_what_is_told() {
    let engine = Engine::empty();
    for name in ["one", "two", "three"] {
        engine.words(&format!("volume create {name}"));
    }
    let told = |query: &str| {
        let (status, reader) = events(
            &engine,
            &format!("{query}&filters=%7B%22type%22%3A%5B%22volume%22%5D%7D"),
        );
        assert_eq!(status, 200, "{query}");
        actions(reader)
    };
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs()
        + 1;
    let all = ["create one", "create two", "create three"];
    assert_eq!(told(&format!("since=1&until={now}")), all);
    // Whoever names an end alone is told of all before it.
    assert_eq!(told(&format!("until={now}")), all);
    assert_eq!(told("since=1&until=2"), [""; 0]);
    assert_eq!(events(&engine, "since=2&until=1").0, 400);
    assert_eq!(events(&engine, "since=yesterday").0, 400);
}

#[test]
fn a_listener_that_does_not_read_holds_up_nobody_and_is_told_what_is_new() {
    /// More than the engine, the connection and the kernel keep for one listener together.
    const EVENTS: usize = 3000;
    let engine = Engine::empty();
    let filter = "filters=%7B%22type%22%3A%5B%22volume%22%5D%7D";
    let (status, idle) = events(&engine, filter);
    assert_eq!(status, 200);
    let mut socket = connect(&engine);
    let body = r#"{"Name":"many"}"#;
    let length = body.len();
    for _ in 0..EVENTS / 2 {
        let request = format!(
            "POST /volumes/create HTTP/1.1\r\nHost: hull\r\n{JSON}Content-Length: {length}\r\n\r\n{body}DELETE /volumes/many HTTP/1.1\r\nHost: hull\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 1];
        let mut seen = Vec::new();
        // Two answers: the second has no body.
        while seen.windows(4).filter(|end| end == b"\r\n\r\n").count() < 2 {
            socket.read_exact(&mut head).unwrap();
            seen.push(head[0]);
        }
    }
    engine.words("volume create last");
    let mut received = 0;
    for line in idle.lines() {
        received += 1;
        if line.unwrap().contains("\"last\"") {
            break;
        }
    }
    assert!(received < EVENTS, "{received}");
}
