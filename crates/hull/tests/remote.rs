//! The engine from elsewhere: TCP with certificates on both sides, sockets that are given, who may do what. Needs root, busybox
//! and openssl.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use support::certificates::{Authority, port};
use support::{Engine, Said, feed, said};

/// An engine on TCP, besides its own socket, and who vouches for its clients.
fn engine_on_tcp(mut engine: Engine) -> (Engine, Authority, String) {
    let authority = Authority::new();
    authority.issue("server", "/CN=engine", true);
    authority.issue("ann", "/O=Example/CN=ann", false);
    let socket = engine.socket();
    engine.restart_with(&[
        "-H",
        "tcp://127.0.0.1:0",
        "-H",
        &socket,
        "--tlsverify",
        "--tlscacert",
        &authority.text("ca.pem"),
        "--tlscert",
        &authority.text("server.pem"),
        "--tlskey",
        &authority.text("server-key.pem"),
    ]);
    let host = format!("tcp://127.0.0.1:{}", port(&engine.log()));
    (engine, authority, host)
}

fn over(
    engine: &Engine,
    program: &str,
    host: &str,
    certificates: &std::path::Path,
    words: &[&str],
) -> Command {
    let mut command = engine.client(program, words);
    command.env("HULL_HOST", host).env("DOCKER_HOST", host);
    command
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", certificates);
    command
}

fn run(mut command: Command) -> Said {
    said(command.output().unwrap())
}

const HULL: &str = env!("CARGO_BIN_EXE_hull");

#[test]
fn a_certificate_opens_the_engine_to_both_clients() {
    let (engine, authority, host) = engine_on_tcp(Engine::new());
    let directory = authority.client_directory("ann");
    for program in [HULL, "docker"] {
        let ask = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let said = run(over(&engine, program, &host, &directory, &words));
            assert_eq!(said.code, 0, "{program} {line}: {said:?} {}", engine.log());
            said.stdout
        };
        assert_eq!(ask("run --rm --network none busybox echo hello"), "hello\n");
        ask("run -d --network none --name cc busybox sleep 1000");
        // Input that ends, output that comes after it, both kinds of it, and the exit code.
        let script = ["exec", "-i", "cc", "sh", "-c", "cat; echo done >&2; exit 7"];
        let mut child = over(&engine, program, &host, &directory, &script);
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        let large = "x".repeat(1 << 20);
        feed(&mut child, &large);
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(
            (said.code, said.stderr.as_str()),
            (7, "done\n"),
            "{program}"
        );
        let length = said.stdout.len();
        assert!(said.stdout == large, "{program}: {length} bytes");
        ask("rm -f cc");
    }
    // The operator sees who it was: by certificate, or by user and process.
    engine.ok(&["volume", "create", "by-socket"]);
    let log = engine.log();
    let line_of = |path: &str| log.lines().find(|line| line.contains(path)).unwrap();
    let line = line_of("/containers/create");
    for part in ["INFO", "127.0.0.1:", "CN=ann", "O=Example"] {
        assert!(line.contains(part), "{line}");
    }
    let line = line_of("/volumes/create");
    assert!(line.contains("uid 0, pid "), "{line}");
}

#[test]
fn attack_36_nobody_comes_in_by_tcp_without_a_certificate_of_the_authority() {
    let (engine, authority, host) = engine_on_tcp(Engine::empty());
    let stranger = Authority::new();
    stranger.issue("ann", "/O=Example/CN=ann", false);
    let foreign = stranger.client_directory("ann");
    // Trusted is whoever the engine's own authority vouches for; the stranger's client trusts the engine, so that it is the
    // engine that refuses.
    std::fs::copy(authority.path("ca.pem"), foreign.join("ca.pem")).unwrap();
    let without = authority.path("without");
    std::fs::create_dir(&without).unwrap();
    std::fs::copy(authority.path("ca.pem"), without.join("ca.pem")).unwrap();
    // A server's certificate is none for a client.
    let server = authority.client_directory("server");
    for (what, directory) in [
        ("a stranger", &foreign),
        ("nobody", &without),
        ("a server", &server),
    ] {
        for program in [HULL, "docker"] {
            let said = run(over(&engine, program, &host, directory, &["ps"]));
            assert_ne!(said.code, 0, "{what} by {program}: {said:?}");
        }
    }
    // Nor without TLS.
    let address = host.strip_prefix("tcp://").unwrap();
    let plain = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            &format!("http://{address}/version"),
        ])
        .output();
    let plain = plain.unwrap();
    assert!(
        !String::from_utf8_lossy(&plain.stdout).contains("ApiVersion"),
        "{plain:?}"
    );
    // A client does not speak to an engine that somebody else vouches for.
    let own = authority.client_directory("ann");
    std::fs::copy(stranger.path("ca.pem"), own.join("ca.pem")).unwrap();
    let said = run(over(&engine, HULL, &host, &own, &["ps"]));
    assert!(
        said.code != 0 && said.stderr.contains("certificate"),
        "{said:?}"
    );
    // And one that is not to look who answers has to be told so.
    let mut command = over(
        &engine,
        HULL,
        &host,
        &own,
        &["--tls", "--tlsverify=false", "ps", "-q"],
    );
    command.env_remove("DOCKER_TLS_VERIFY");
    assert_eq!(run(command).code, 0);
}

#[test]
fn attack_36_tcp_without_certificates_of_clients_is_never_listened_on() {
    let authority = Authority::new();
    authority.issue("server", "/CN=engine", true);
    let (certificate, key) = (
        authority.text("server.pem"),
        authority.text("server-key.pem"),
    );
    for flags in [
        &["-H", "tcp://127.0.0.1:0"][..],
        &[
            "-H",
            "tcp://127.0.0.1:0",
            "--tls",
            "--tlscert",
            &certificate,
            "--tlskey",
            &key,
        ],
        &["-H", "tcp://127.0.0.1:0", "--tlsverify=false"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(HULL)
            .arg("daemon")
            .args(flags)
            .arg("--run-root")
            .arg(directory.path())
            .output();
        let said = said(output.unwrap());
        assert_eq!(said.code, 1, "{flags:?}: {said:?}");
        for words in [
            "clients have to show a certificate",
            "hint:",
            "--tlscacert",
            "ssh://",
        ] {
            assert!(said.stderr.contains(words), "{flags:?}: {said:?}");
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "{flags:?}"
        );
    }
}

#[test]
fn a_changed_certificate_is_shown_to_who_comes_next() {
    let (engine, authority, host) = engine_on_tcp(Engine::empty());
    let directory = authority.client_directory("ann");
    let serial = || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", host.strip_prefix("tcp://").unwrap()])
            .stdin(Stdio::null())
            .output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        text.split("-----BEGIN").nth(1).map(str::to_owned)
    };
    let before = serial();
    assert!(before.is_some());
    authority.issue("server", "/CN=engine", true);
    engine.until("the new certificate is shown", || serial() != before);
    assert_eq!(run(over(&engine, HULL, &host, &directory, &["ps"])).code, 0);
}

#[test]
fn a_socket_is_for_root_and_its_group_alone() {
    let mut engine = Engine::empty();
    engine.restart_with(&["--group", "4242"]);
    let socket = std::fs::metadata(engine.path("run/hull.sock")).unwrap();
    assert_eq!(
        (
            socket.uid(),
            socket.gid(),
            socket.permissions().mode() & 0o777
        ),
        (0, 4242, 0o660)
    );
    let asks = |group: u32, path: &str| {
        let output = Command::new("setpriv")
            .args([
                "--reuid",
                "4243",
                "--regid",
                &group.to_string(),
                "--clear-groups",
            ])
            .args(["curl", "-sS", "--max-time", "100", "--unix-socket"])
            .arg(engine.path(path))
            .arg("http://localhost/_ping")
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout) == "OK"
    };
    // The directory of the test is closed to all others.
    std::fs::set_permissions(engine.path(""), std::fs::Permissions::from_mode(0o711)).unwrap();
    assert!(asks(4242, "run/hull.sock") && !asks(4243, "run/hull.sock"));
}

#[test]
fn sockets_that_are_given_are_listened_on_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let socket = std::os::unix::net::UnixListener::bind(at("given.sock")).unwrap();
    // The shell stands for systemd: descriptor 3 is the socket, and the number is that of the process it becomes.
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let daemon = |host: &str| {
        let mut command = Command::new("sh");
        command.args([
            "-c", script, "sh", HULL, "daemon", "-H", host, "--bridge", "htgiven0",
        ]);
        for (flag, name) in [
            ("--data-root", "data"),
            ("--run-root", "run"),
            ("--policy", "none"),
            ("--cdi-spec-dir", "none"),
        ] {
            command.arg(flag).arg(at(name));
        }
        command.stdin(socket.try_clone().map(std::os::fd::OwnedFd::from).unwrap());
        command.stderr(std::fs::File::create(at("log")).unwrap());
        command
    };
    let ask = || {
        let mut command = Command::new("timeout");
        command.args([
            "100",
            HULL,
            "-H",
            &format!("unix://{}", at("given.sock").display()),
            "ps",
            "-q",
        ]);
        said(command.output().unwrap())
    };
    for host in ["fd://", "fd://3"] {
        let mut child = daemon(host).spawn().unwrap();
        // It waits in the socket's queue until the engine is ready.
        let said = ask();
        assert_eq!(
            said.code,
            0,
            "{host}: {said:?} {}",
            std::fs::read_to_string(at("log")).unwrap()
        );
        Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap();
        child.wait().unwrap();
        // It is somebody else's, who goes on to listen.
        assert!(
            at("given.sock").exists() && !at("run/hull.sock").exists(),
            "{host}"
        );
    }
    let output = daemon("fd://7").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        std::fs::read_to_string(at("log"))
            .unwrap()
            .contains("no such socket was given")
    );
}

#[test]
fn a_given_socket_of_tcp_needs_certificates_too() {
    let directory = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args([
        "-c", script, "sh", HULL, "daemon", "-H", "fd://", "--bridge", "htgiven1",
    ]);
    for (flag, name) in [
        ("--data-root", "data"),
        ("--run-root", "run"),
        ("--policy", "none"),
        ("--cdi-spec-dir", "none"),
    ] {
        command.arg(flag).arg(directory.path().join(name));
    }
    let said = said(
        command
            .stdin(std::os::fd::OwnedFd::from(socket))
            .output()
            .unwrap(),
    );
    assert!(
        said.code == 1 && said.stderr.contains("clients have to show a certificate"),
        "{said:?}"
    );
}

/// Attaches, and neither reads nor says anything from then on.
fn stuck_attach(engine: &Engine, container: &str) -> UnixStream {
    let mut socket = UnixStream::connect(engine.path("run/hull.sock")).unwrap();
    let request = format!(
        "POST /containers/{container}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    socket
}

#[test]
fn stuck_attaches_and_a_hung_container_keep_nobody_waiting() {
    let engine = Engine::new();
    engine.words("run -di --network none --name noisy busybox yes");
    engine.words("run -di --network none --name hung busybox sleep 1000");
    let stuck: Vec<UnixStream> = (0..200).map(|_| stuck_attach(&engine, "noisy")).collect();
    let init = engine.words("inspect -f {{.State.Pid}} hung");
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap();
    let signal = |name: &str| Command::new("kill").args([name, shim]).status().unwrap();
    assert!(signal("-STOP").success());
    // These wait for the container, and nobody waits for them.
    let waiting: Vec<_> = [&["exec", "hung", "true"][..], &["stop", "-t", "1", "hung"]]
        .into_iter()
        .map(|words| engine.hull(words).spawn().unwrap())
        .collect();
    for line in [
        "ps -q",
        "version",
        "inspect hung",
        "inspect noisy",
        "images",
        "run --rm --network none busybox true",
    ] {
        engine.words(line);
    }
    assert!(signal("-CONT").success());
    drop(stuck);
    for child in waiting {
        child.wait_with_output().unwrap();
    }
    engine.words("rm -f noisy hung");
    engine.assert_nothing_left();
}

/// What a request to the read-only socket is answered: the status, and the body.
fn read_only(engine: &Engine, arguments: &[&str], path: &str) -> (String, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "100", "-w", "%{http_code}"])
        .arg("--unix-socket")
        .arg(engine.path("read.sock"))
        .args(arguments)
        .arg(format!("http://localhost{path}"))
        .output();
    let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    let (body, status) = text.split_at(text.len() - 3);
    (status.to_owned(), body.to_owned())
}

#[test]
fn attack_31_a_read_only_socket_tells_of_objects_and_of_nothing_in_them() {
    let mut engine = Engine::new();
    let socket = engine.path("read.sock");
    let path = socket.display().to_string();
    engine.restart_with(&["--read-only-socket", &path, "--read-only-group", "4244"]);
    assert_eq!(std::fs::metadata(&socket).unwrap().gid(), 4244);
    engine.words("run -d --name cc --network none -e PASSWORD=secret busybox sleep 1000");
    for path in TOLD {
        assert_eq!(read_only(&engine, &[], path).0, "200", "{path}");
    }
    let (status, body) = read_only(&engine, &[], "/containers/cc/json");
    assert_eq!(status, "200");
    assert!(
        body.contains("PASSWORD=(hidden)") && !body.contains("PASSWORD=secret"),
        "{body}"
    );
    for (method, path) in REFUSED {
        let arguments: &[&str] = if *method == "HEAD" {
            &["--head"]
        } else {
            &["-X", method]
        };
        let (status, body) = read_only(&engine, arguments, path);
        assert_eq!(status, "403", "{method} {path}: {body}");
        assert!(
            *method == "HEAD" || body.contains("this socket is read-only"),
            "{body}"
        );
    }
    assert_eq!(engine.words("ps -q --filter name=cc").len(), 12);
    // Who has tried is told.
    let log = engine.log();
    let line = log
        .lines()
        .find(|line| line.contains("/containers/cc/stop"));
    assert!(line.unwrap().contains("status=403"), "{line:?}");
}

const TOLD: &[&str] = &[
    "/_ping",
    "/version",
    "/info",
    "/containers/json",
    "/v1.41/containers/cc/top",
    "/containers/cc/stats?stream=0&one-shot=1",
    "/images/json",
    "/images/busybox/json",
    "/volumes",
    "/networks",
    "/system/df",
    "/events?until=1",
];

const REFUSED: &[(&str, &str)] = &[
    ("POST", "/containers/cc/stop"),
    ("POST", "/v1.51/containers/create"),
    ("DELETE", "/containers/cc?force=1"),
    ("PUT", "/containers/cc/archive?path=/"),
    ("POST", "/containers/cc/attach?stream=1&stdin=1"),
    ("GET", "/containers/cc/attach/ws?stream=1"),
    ("GET", "/containers/cc/logs?stdout=1"),
    ("GET", "/containers/cc/archive?path=/etc"),
    ("HEAD", "/containers/cc/archive?path=/etc"),
    ("GET", "/containers/cc/export"),
    ("GET", "/images/busybox/get"),
    ("GET", "/images/get?names=busybox"),
    ("GET", "//containers//cc//export"),
    ("GET", "/containers/cc/%65xport"),
    ("GET", "/distribution/example.com/a/json"),
];
