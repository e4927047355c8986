//! Attaching by websocket, as dockerd 20.10 was seen to answer. Needs root and busybox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::net::UnixStream;
use std::time::Duration;
use support::Engine;
use tungstenite::{Error, Message, WebSocket};

/// No message takes as long.
const WAIT: Duration = Duration::from_secs(100);

fn open(engine: &Engine, path: &str) -> Result<WebSocket<UnixStream>, u16> {
    let socket = UnixStream::connect(engine.path("run/hull.sock")).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    match tungstenite::client(format!("ws://localhost{path}"), socket) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Everything that is said until the end, and whether all of it was of one kind: text, or binary.
fn rest(socket: &mut WebSocket<UnixStream>) -> (String, bool, bool) {
    let (mut said, mut text, mut binary) = (Vec::new(), false, false);
    loop {
        match socket.read() {
            Ok(Message::Text(part)) => {
                text = true;
                said.extend_from_slice(part.as_bytes());
            }
            Ok(Message::Binary(part)) => {
                binary = true;
                said.extend_from_slice(&part);
            }
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => break,
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    (String::from_utf8(said).unwrap(), text, binary)
}

#[test]
fn streams_go_both_ways_without_frames_of_their_own() {
    let engine = Engine::new();
    let script = "echo out; echo err >&2; read x; echo got $x";
    for (version, query, is_text) in [
        // Older versions take all three streams.
        ("1.27", "stream=1&stdin=0&stdout=0&stderr=0", true),
        ("1.41", "stream=1", false),
        ("1.51", "stream=1&stdin=1&stdout=1&stderr=1", false),
    ] {
        for terminal in [false, true] {
            let flags: &[&str] = if terminal { &["-it"] } else { &["-i"] };
            engine.ok(&[
                &["create"][..],
                flags,
                &[
                    "--network",
                    "none",
                    "--name",
                    "ws",
                    "busybox",
                    "sh",
                    "-c",
                    script,
                ],
            ]
            .concat());
            let mut socket = open(
                &engine,
                &format!("/v{version}/containers/ws/attach/ws?{query}"),
            )
            .unwrap();
            engine.words("start ws");
            socket.send(Message::text("hel")).unwrap();
            socket.send(Message::binary(&b"lo\n"[..])).unwrap();
            let (said, text, binary) = rest(&mut socket);
            let said = said.replace("\r\n", "\n");
            // A terminal shows what is typed; the order of the two outputs is nobody's promise.
            for part in ["out\n", "err\n", "got hello\n"] {
                assert!(said.contains(part), "{version} {terminal}: {said:?}");
            }
            let length = "out\nerr\ngot hello\n".len() + if terminal { "hello\n".len() } else { 0 };
            assert_eq!(said.len(), length, "{version} {terminal}: {said:?}");
            assert_eq!((text, binary), (is_text, !is_text), "{version} {terminal}");
            // What was said before, without the streams.
            engine.words("wait ws");
            let mut socket = open(
                &engine,
                &format!("/v{version}/containers/ws/attach/ws?logs=1&stdout=1&stderr=1"),
            )
            .unwrap();
            let (logs, _, _) = rest(&mut socket);
            assert!(logs.contains("got hello"), "{version} {terminal}: {logs:?}");
            engine.words("rm ws");
        }
    }
}

#[test]
fn only_the_streams_that_are_asked_for_come() {
    let engine = Engine::new();
    engine.ok(&[
        "create",
        "--network",
        "none",
        "--name",
        "ws",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    let mut socket = open(&engine, "/v1.51/containers/ws/attach/ws?stream=1&stderr=1").unwrap();
    engine.words("start ws");
    assert_eq!(rest(&mut socket).0, "err\n");
}

#[test]
fn keys_detach_pings_are_answered_and_a_goodbye_ends_it() {
    let engine = Engine::new();
    engine.words("run -dit --network none --name ws busybox cat");
    let path = "/v1.41/containers/ws/attach/ws?stream=1";
    let mut socket = open(&engine, &format!("{path}&detachKeys=a,b")).unwrap();
    socket.send(Message::binary(&b"ab"[..])).unwrap();
    assert_eq!(rest(&mut socket).0, "");
    let mut socket = open(&engine, path).unwrap();
    socket.send(Message::Ping(b"p"[..].into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"p"[..].into()));
    socket.close(None).unwrap();
    rest(&mut socket);
    assert_eq!(engine.words("inspect -f {{.State.Running}} ws"), "true");
    assert_eq!(
        open(&engine, "/containers/nope/attach/ws?stream=1").unwrap_err(),
        404
    );
    assert_eq!(
        open(&engine, &format!("{path}&detachKeys=bad")).unwrap_err(),
        400
    );
    // One that has no handshake in it.
    assert_eq!(engine.ask("GET", path, None).0, 400);
    // A message without end is refused.
    let mut socket = open(&engine, path).unwrap();
    let huge = vec![b'x'; 2 << 20];
    let sent = socket.send(Message::binary(huge));
    assert!(sent.is_err() || socket.read().is_err());
}
