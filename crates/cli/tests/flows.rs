//! Commands against an engine that is a script: the order of requests, streams, signals, exit codes.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Answer, Engine, Request};

/// How long an engine waits for a client before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

fn frame(kind: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload.as_bytes());
    frame
}

/// An engine with one container `c`, whose attached streams `io` plays and which ends with `code` after that.
fn container(code: i64, io: impl Fn(&mut UnixStream) + Send + Sync + 'static) -> Engine {
    let (ended, end) = mpsc::channel::<()>();
    let (ended, end) = (Mutex::new(Some(ended)), Arc::new(Mutex::new(end)));
    let io = Arc::new(io);
    Engine::start(
        move |request| match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/containers/create") => {
                Answer::json(201, r#"{"Id":"c","Warnings":["careful"]}"#)
            }
            ("POST", "/containers/c/attach") => {
                let (io, ended) = (io.clone(), ended.lock().unwrap().take());
                Answer::Upgrade(Box::new(move |mut stream| {
                    io(&mut stream);
                    drop((stream, ended));
                }))
            }
            ("POST", "/containers/c/wait") => {
                // Disconnected is the end.
                let _ = end.lock().unwrap().recv_timeout(PATIENCE);
                Answer::json(200, &format!(r#"{{"StatusCode":{code}}}"#))
            }
            ("POST", "/containers/c/start" | "/containers/c/kill" | "/containers/c/resize") => {
                Answer::empty(204)
            }
            (_, "/_ping") => Answer::empty(200),
            _ => Answer::json(404, r#"{"message":"no such thing"}"#),
        },
    )
}

fn spawn(engine: &Engine, args: &[&str]) -> Child {
    support::command(&support::hull())
        .args(args)
        .env("DOCKER_HOST", engine.host())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(engine: &Engine, args: &[&str], stdin: &str) -> Output {
    let mut child = spawn(engine, args);
    // A command that does not read its input may have ended.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn run_attaches_and_waits_before_it_starts() {
    let engine = container(7, |stream| {
        stream
            .write_all(&[frame(1, "out\n"), frame(2, "err\n"), frame(1, "more\n")].concat())
            .unwrap();
    });
    let output = run(&engine, &["run", "--rm", "--name", "n", "img", "cmd"], "");
    assert_eq!(
        texts(&output),
        (
            Some(7),
            "out\nmore\n".into(),
            "WARNING: careful\nerr\n".into()
        )
    );
    assert_eq!(
        engine.summary(),
        [
            "POST /containers/create?name=n",
            "POST /containers/c/attach?stderr=1&stdout=1&stream=1",
            "POST /containers/c/wait?condition=removed",
            "POST /containers/c/start",
        ]
    );
}

#[test]
fn stdin_is_half_closed_and_output_goes_on() {
    let engine = container(0, |stream| {
        let mut input = String::new();
        stream.read_to_string(&mut input).unwrap();
        stream.write_all(&frame(1, &input.to_uppercase())).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(&frame(1, "after\n")).unwrap();
    });
    let large = "x".repeat(300_000) + "\n";
    let output = run(&engine, &["run", "-i", "img"], &large);
    assert_eq!(
        texts(&output),
        (
            Some(0),
            large.to_uppercase() + "after\n",
            "WARNING: careful\n".into()
        )
    );
}

#[test]
fn an_older_engine_is_asked_for_its_version_once() {
    let engine = Engine::start(
        |request| match (request.path.as_str(), request.version.as_str()) {
            ("/_ping", _) => Answer::Whole(200, vec![("Api-Version", "1.40".into())], vec![]),
            (_, "1.40") => Answer::json(201, r#"{"Id":"old","Warnings":[]}"#),
            _ => Answer::json(400, r#"{"message":"client version 1.51 is too new"}"#),
        },
    );
    let output = run(&engine, &["run", "-d", "img"], "");
    assert_eq!(texts(&output).0, Some(0), "{output:?}");
    let versions: Vec<String> = engine
        .requests()
        .into_iter()
        .map(|r| format!("{} {}", r.path, r.version))
        .collect();
    assert_eq!(
        versions,
        [
            "/containers/create 1.51",
            "/_ping ",
            "/containers/create 1.40",
            "/containers/old/start 1.40"
        ]
    );
}

#[test]
fn a_failed_start_has_dockers_exit_codes() {
    for (status, message, code) in [
        (404, "exec: \"x\": executable file not found in $PATH", 127),
        (400, "exec: \"/etc\": permission denied", 126),
        (500, "no space left on device", 125),
    ] {
        let engine = Engine::start(move |request| match request.path.as_str() {
            "/containers/create" => Answer::json(201, r#"{"Id":"c","Warnings":[]}"#),
            "/containers/c/attach" => Answer::Upgrade(Box::new(|mut stream| {
                // The engine keeps the stream until the client goes away.
                let _ = stream.read(&mut [0]);
            })),
            "/containers/c/start" => Answer::Whole(
                status,
                vec![("Content-Type", "application/json".into())],
                serde_json::json!({"message": message}).to_string().into(),
            ),
            "/containers/c/wait" => Answer::json(200, r#"{"StatusCode":0}"#),
            _ => Answer::empty(500),
        });
        let (actual, stdout, stderr) = texts(&run(&engine, &["run", "--rm", "img"], ""));
        assert_eq!((actual, stdout.as_str()), (Some(code), ""));
        assert_eq!(
            stderr,
            format!(
                "hull: Error response from daemon: {message}\n\nRun 'hull run --help' for more information\n"
            )
        );
    }
}

#[test]
fn a_missing_image_is_named_with_its_tag() {
    let engine = Engine::start(|_| Answer::json(404, r#"{"message":"No such image: img:latest"}"#));
    let (code, _, stderr) = texts(&run(&engine, &["run", "img"], ""));
    assert_eq!(code, Some(125));
    assert!(stderr.starts_with(
        "Unable to find image 'img:latest' locally\nhull: Error response from daemon: No such image"
    ));
    let (code, _, stderr) = texts(&run(&engine, &["create", "--pull", "never", "img"], ""));
    assert_eq!(
        (code, stderr.as_str()),
        (
            Some(1),
            "Error response from daemon: No such image: img:latest\n"
        )
    );
}

#[test]
fn a_wait_that_fails_is_no_success() {
    let engine = Engine::start(|request| match request.path.as_str() {
        "/containers/create" => Answer::json(201, r#"{"Id":"c","Warnings":[]}"#),
        "/containers/c/attach" => Answer::Upgrade(Box::new(drop)),
        "/containers/c/wait" => {
            Answer::json(200, r#"{"StatusCode":0,"Error":{"Message":"lost it"}}"#)
        }
        _ => Answer::empty(204),
    });
    let (code, _, stderr) = texts(&run(&engine, &["run", "img"], ""));
    assert_eq!(
        (code, stderr.as_str()),
        (Some(125), "error waiting for container: lost it\n")
    );
}

#[test]
fn signals_reach_the_container() {
    let (interrupted, interrupt) = mpsc::channel();
    let interrupt = Arc::new(Mutex::new(interrupt));
    let engine = Engine::start(move |request| match request.path.as_str() {
        "/containers/create" => Answer::json(201, r#"{"Id":"c","Warnings":[]}"#),
        "/containers/c/attach" => {
            let interrupt = interrupt.clone();
            Answer::Upgrade(Box::new(move |mut stream| {
                stream.write_all(&frame(1, "ready\n")).unwrap();
                let _ = interrupt.lock().unwrap().recv_timeout(PATIENCE);
                stream.write_all(&frame(1, "interrupted\n")).unwrap();
            }))
        }
        "/containers/c/kill" => {
            interrupted.send(()).unwrap();
            Answer::empty(204)
        }
        "/containers/c/wait" => Answer::json(200, r#"{"StatusCode":130}"#),
        _ => Answer::empty(204),
    });
    let mut child = spawn(&engine, &["run", "img"]);
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        texts(&output),
        (Some(130), "interrupted\n".into(), String::new())
    );
    assert!(
        engine
            .summary()
            .contains(&"POST /containers/c/kill?signal=INT".to_owned())
    );
}

#[test]
fn detach_keys_end_the_command_and_not_the_container() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let (typed, keys) = mpsc::channel();
    let engine = Engine::start(move |request| match request.path.as_str() {
        "/containers/create" => Answer::json(201, r#"{"Id":"c","Warnings":[]}"#),
        "/containers/c/attach" => {
            let typed = typed.clone();
            Answer::Upgrade(Box::new(move |mut stream| {
                stream.write_all(b"prompt# ").unwrap();
                let mut bytes = [0; 2];
                stream.read_exact(&mut bytes).unwrap();
                typed.send(bytes).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
            }))
        }
        "/containers/c/wait" => {
            std::thread::sleep(PATIENCE);
            Answer::json(200, r#"{"StatusCode":9}"#)
        }
        _ => Answer::empty(204),
    });
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new())
        .unwrap()
        .into_string()
        .unwrap();
    let slave = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let mut child = support::command(&support::hull())
        .args(["run", "-it", "--detach-keys", "ctrl-a,b", "img"])
        .env("DOCKER_HOST", engine.host())
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut terminal = std::fs::File::from(terminal);
    let mut prompt = [0; 8];
    terminal.read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"prompt# ");
    terminal.write_all(b"\x01b").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(keys.recv().unwrap(), *b"\x01b");
    let attach = "POST /containers/c/attach?detachKeys=ctrl-a,b&stderr=1&stdin=1&stdout=1&stream=1";
    assert!(
        engine.summary().contains(&attach.to_owned()),
        "{:?}",
        engine.summary()
    );
    let restored = rustix::termios::tcgetattr(&slave).unwrap();
    assert!(
        restored
            .local_modes
            .contains(rustix::termios::LocalModes::ICANON)
    );
}

#[test]
fn exec_returns_the_commands_exit_code() {
    let engine = Engine::start(|request| match request.path.as_str() {
        "/containers/c/exec" => Answer::json(201, r#"{"Id":"e"}"#),
        "/exec/e/start" => Answer::Upgrade(Box::new(|mut stream| {
            let mut input = String::new();
            stream.read_to_string(&mut input).unwrap();
            stream.write_all(&frame(2, &input)).unwrap();
        })),
        "/exec/e/json" => Answer::json(200, r#"{"ID":"e","Running":false,"ExitCode":42}"#),
        _ => Answer::empty(404),
    });
    let output = run(&engine, &["exec", "-i", "c", "cat"], "hello");
    assert_eq!(texts(&output), (Some(42), String::new(), "hello".into()));
}

#[test]
fn logs_that_break_off_are_an_error() {
    let inspect = r#"{"Id":"c","Config":{"Tty":false}}"#;
    let engine = Engine::start(move |request| match request.path.as_str() {
        "/containers/c/json" => Answer::json(200, inspect),
        _ => {
            let mut cut = frame(1, "whole\n");
            cut.extend(&frame(1, "half\n")[..10]);
            Answer::Whole(200, vec![], cut)
        }
    });
    let (code, stdout, stderr) = texts(&run(&engine, &["logs", "--tail", "2", "c"], ""));
    assert_eq!((code, stdout.as_str()), (Some(1), "whole\nha"));
    assert!(stderr.contains("stream broke"), "{stderr}");
}

fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        let directory = name.ends_with('/');
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if directory { 0o755 } else { 0o644 });
        header.set_size(content.len().try_into().unwrap());
        builder
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

/// `X-Docker-Container-Path-Stat` of a directory.
const DIRECTORY_STAT: &str =
    "eyJuYW1lIjoiZCIsInNpemUiOjAsIm1vZGUiOjIxNDc0ODQxNDEsIm10aW1lIjoiIiwibGlua1RhcmdldCI6IiJ9";

#[test]
fn cp_places_files_as_cp_does() {
    let engine = Engine::start(|request| {
        let stat = || vec![("X-Docker-Container-Path-Stat", DIRECTORY_STAT.to_owned())];
        let path = request
            .query
            .get("path")
            .map_or("", |path| path[0].as_str());
        match (request.method.as_str(), path) {
            ("GET", "/d") => Answer::Whole(200, stat(), archive(&[("d/", ""), ("d/f", "content")])),
            ("HEAD", "/there") => Answer::Whole(200, stat(), vec![]),
            ("HEAD", _) => Answer::empty(404),
            _ => Answer::empty(200),
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let cp = |from: &str, to: &str| {
        let output = run(&engine, &["cp", from, to], "");
        assert_eq!(
            texts(&output),
            (Some(0), String::new(), String::new()),
            "{from} {to}"
        );
    };
    cp("c:/d", &path("new"));
    assert_eq!(std::fs::read_to_string(path("new/f")).unwrap(), "content");
    cp("c:/d", &path(""));
    assert_eq!(std::fs::read_to_string(path("d/f")).unwrap(), "content");
    cp(&path("new"), "c:/there");
    cp(&path("new"), "c:/missing/renamed");
    cp(&(path("new") + "/."), "c:/there");
    let puts: Vec<Request> = engine
        .requests()
        .into_iter()
        .filter(|request| request.method == "PUT")
        .collect();
    let puts: Vec<(String, Vec<String>)> = puts
        .iter()
        .map(|put| (put.query["path"][0].clone(), names(&put.bytes)))
        .collect();
    let expected = [
        ("/there", vec!["new", "new/f"]),
        ("/missing", vec!["renamed", "renamed/f"]),
        ("/there", vec!["f"]),
    ];
    let expected = expected.map(|(path, names)| {
        (
            path.to_owned(),
            names.into_iter().map(str::to_owned).collect(),
        )
    });
    assert_eq!(puts, expected);
}

#[test]
fn load_takes_a_directory_and_tells_of_failures() {
    let engine = Engine::start(|request| match names(&request.bytes).len() {
        2 => Answer::json(
            200,
            "{\"status\":\"Loading\",\"id\":\"a\",\"progressDetail\":{\"current\":1,\"total\":2}}\n{\"stream\":\"Loaded image: x\\n\"}\r\n",
        ),
        _ => Answer::json(
            200,
            "{\"stream\":\"a bit\\n\"}\n{\"errorDetail\":{\"message\":\"broken\"},\"error\":\"broken\"}\n",
        ),
    });
    let layout = tempfile::tempdir().unwrap();
    std::fs::write(layout.path().join("oci-layout"), "{}").unwrap();
    let load =
        |path: &std::path::Path| texts(&run(&engine, &["load", "-i", path.to_str().unwrap()], ""));
    let (code, stdout, stderr) = load(layout.path());
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (Some(1), "a bit\n", "broken\n")
    );
    std::fs::write(layout.path().join("index.json"), "{}").unwrap();
    assert_eq!(
        load(layout.path()),
        (Some(0), "Loaded image: x\n".into(), String::new())
    );
}

#[test]
fn an_archive_that_breaks_off_leaves_no_file() {
    let engine = Engine::start(|_| {
        Answer::Cut(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart".to_vec())
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.tar");
    let (code, _, stderr) = texts(&run(
        &engine,
        &["save", "-o", path.to_str().unwrap(), "x"],
        "",
    ));
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("read the engine's archive"), "{stderr}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn several_objects_are_asked_at_once_and_told_in_order() {
    let engine = Engine::start(|request| match request.path.as_str() {
        "/containers/slow/stop" => {
            std::thread::sleep(Duration::from_millis(200));
            Answer::empty(204)
        }
        "/containers/missing/stop" => {
            Answer::json(404, r#"{"message":"No such container: missing"}"#)
        }
        _ => Answer::empty(304),
    });
    let begin = std::time::Instant::now();
    let (code, stdout, stderr) = texts(&run(
        &engine,
        &["stop", "slow", "missing", "slow", "slow", "last"],
        "",
    ));
    assert_eq!(
        (code, stdout.as_str()),
        (Some(1), "slow\nslow\nslow\nlast\n")
    );
    assert_eq!(
        stderr,
        "Error response from daemon: No such container: missing\n"
    );
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn nobody_at_the_socket_is_said_so() {
    let directory = tempfile::tempdir().unwrap();
    let host = format!("unix://{}/none.sock", directory.path().display());
    let run = |args: &[&str]| {
        let output = support::command(&support::hull())
            .args(args)
            .env("DOCKER_HOST", &host)
            .output()
            .unwrap();
        texts(&output)
    };
    let message = format!(
        "cannot connect to the engine at {host}: is it running?: no such file or directory"
    );
    assert_eq!(
        run(&["ps"]),
        (Some(1), String::new(), format!("{message}\n"))
    );
    let help = "Run 'hull run --help' for more information";
    assert_eq!(
        run(&["run", "x"]),
        (
            Some(125),
            String::new(),
            format!("hull: {message}\n\n{help}\n")
        )
    );
}

#[test]
fn waits_are_told_in_order_and_as_soon_as_they_can() {
    let engine = Engine::start(|request| {
        let (delay, code) = match request.path.as_str() {
            "/containers/slow/wait" => (300, 1),
            "/containers/slowest/wait" => (5000, 2),
            _ => (0, 3),
        };
        std::thread::sleep(Duration::from_millis(delay));
        Answer::json(200, &format!(r#"{{"StatusCode":{code}}}"#))
    });
    let mut child = spawn(&engine, &["wait", "slow", "fast", "slowest"]);
    let mut codes = [0; 4];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut codes)
        .unwrap();
    assert_eq!(&codes, b"1\n3\n");
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn flags_win_over_the_environment_and_hulls_variable_over_dockers() {
    let (flag, hull) = (
        Engine::start(|_| Answer::json(200, "[]")),
        Engine::start(|_| Answer::json(200, "[]")),
    );
    let run = |args: &[&str]| {
        let output = support::command(&support::hull())
            .args(args)
            .env("HULL_HOST", hull.host())
            .env("DOCKER_HOST", "unix:///nonexistent")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["ps"]);
    assert_eq!((flag.requests().len(), hull.requests().len()), (0, 1));
    run(&["-H", &flag.host(), "ps"]);
    assert_eq!((flag.requests().len(), hull.requests().len()), (1, 1));
}
