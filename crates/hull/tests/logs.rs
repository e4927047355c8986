//! Log drivers through the command line: where output goes, what can be read again, what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use support::Engine;
use support::certificates::Authority;

#[test]
fn local_logs_are_compressed_and_read_whole() {
    let engine = Engine::new();
    // Much more than is read at once: what was read together is written to one file.
    let script =
        "i=0; while [ $i -lt 12000 ]; do echo line $i is as long as it has to be; i=$((i+1)); done";
    let size = [
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=40",
    ];
    engine.ok(&[
        &["run", "--name", "cc"],
        &size[..],
        &["busybox", "sh", "-c", script],
    ]
    .concat());
    let all: Vec<String> = (0..12000)
        .map(|n| format!("line {n} is as long as it has to be"))
        .collect();
    assert!(engine.docker(&["logs", "cc"]) == all.join("\n"));
    assert_eq!(
        engine.ok(&["logs", "--tail", "1500", "cc"]),
        all[10500..].join("\n")
    );
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", "cc"]);
    let directory = engine.path(&format!("data/containers/{id}/local-logs"));
    let names = std::fs::read_dir(directory).unwrap().flatten();
    let packed = names.filter(|entry| entry.path().extension().is_some_and(|end| end == "gz"));
    assert!(packed.count() > 2);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.LogPath}}", "cc"]), "");
}

#[test]
fn lines_tell_of_their_container_where_that_is_asked_for() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "--name",
        "cc",
        "--label",
        "tier=1 a",
        "--label",
        "other=x",
        "-e",
        "WHO=me",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "env-regex=^WH",
        "--log-opt",
        "tag={{.ImageName}}/{{.Name}}",
        "busybox",
        "echo",
        "hello",
    ]);
    let details = "WHO=me,tag=busybox%2Fcc,tier=1+a hello";
    assert_eq!(engine.ok(&["logs", "--details", "cc"]), details);
    assert_eq!(engine.docker(&["logs", "--details", "cc"]), details);
    assert_eq!(engine.docker(&["logs", "cc"]), "hello");
}

#[test]
fn syslog_gets_output_by_datagrams_and_connections() {
    let engine = Engine::new();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(100)))
        .unwrap();
    let address = format!("syslog-address=udp://{}", udp.local_addr().unwrap());
    let run = |name: &str, options: &[&str]| {
        let options: Vec<&str> = options
            .iter()
            .flat_map(|option| ["--log-opt", option])
            .collect();
        let start = ["run", "--name", name, "--log-driver", "syslog"];
        let command = ["busybox", "sh", "-c", "echo out; echo err >&2"];
        engine.ok(&[&start[..], &options, &command].concat())
    };
    run(
        "udp",
        &[
            &address,
            "syslog-format=rfc5424",
            "tag=app/{{.Name}}",
            "syslog-facility=local0",
        ],
    );
    let mut buffer = [0; 2000];
    let mut got = Vec::new();
    for _ in 0..2 {
        let length = udp.recv(&mut buffer).unwrap();
        got.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    got.sort();
    assert!(
        got[0].starts_with("<131>1 ") && got[0].contains(" app/udp ") && got[0].ends_with("err\n"),
        "{got:?}"
    );
    assert!(
        got[1].starts_with("<134>1 ") && got[1].ends_with("out\n"),
        "{got:?}"
    );
    // What was sent away can be read all the same, unless that is switched off.
    assert_eq!(engine.docker(&["logs", "udp"]), "out");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("syslog-address=tcp://{}", tcp.local_addr().unwrap());
    run(
        "tcp",
        &[&address, "cache-disabled=true", "mode=non-blocking"],
    );
    let lines = BufReader::new(tcp.accept().unwrap().0).lines();
    let mut lines: Vec<String> = lines.map(Result::unwrap).collect();
    lines.sort();
    assert!(
        lines.len() == 2 && lines[0].starts_with("<27>") && lines[1].starts_with("<30>"),
        "{lines:?}"
    );
    let said = engine.run(&["logs", "tcp"]);
    assert!(
        said.stderr
            .contains("configured logging driver does not support reading"),
        "{said:?}"
    );
    let socket = engine.path("log.sock");
    let server = UnixDatagram::bind(&socket).unwrap();
    run(
        "unix",
        &[&format!("syslog-address=unixgram://{}", socket.display())],
    );
    let length = server.recv(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"<"));
}

/// A server of TLS that takes one connection, and says what comes.
struct TlsServer {
    child: Child,
    said: BufReader<ChildStdout>,
    address: String,
}

impl TlsServer {
    fn start(authority: &Authority, options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-naccept",
                "1",
                "-cert",
            ])
            .arg(authority.path("server.pem"))
            .arg("-key")
            .arg(authority.path("server-key.pem"))
            .args(options)
            // It ends with its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT ") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it has ended");
        }
        let address = format!(
            "syslog-address=tcp+tls://{}",
            line["ACCEPT ".len()..].trim()
        );
        Self {
            child,
            said,
            address,
        }
    }

    /// An address where what the client says after its first words comes late: the server's words after the handshake meet a client
    /// that has said all it had to say.
    fn late(&self) -> String {
        let (_, server) = self.address.rsplit_once('/').unwrap();
        let mut server = TcpStream::connect(server).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let answers = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            // Its first words, and those with which the handshake is over for the server.
            for _ in 0..2 {
                let mut words = [0; 4096];
                let length = client.read(&mut words).unwrap();
                server.write_all(&words[..length]).unwrap();
                std::thread::sleep(Duration::from_millis(300));
            }
            // A client that resets the connection is what the caller finds by what is missing.
            let _ = std::io::copy(&mut client, &mut server);
            let _ = server.shutdown(Shutdown::Write);
            let _ = answers.join().unwrap();
            let _ = client.shutdown(Shutdown::Both);
        });
        format!("syslog-address=tcp+tls://{address}")
    }

    /// Everything that it has said when the connection has ended.
    fn end(mut self) -> String {
        let mut text = Vec::new();
        self.said.read_to_end(&mut text).unwrap();
        self.child.wait().unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[test]
fn syslog_gets_output_by_tls() {
    let engine = Engine::new();
    let authority = Authority::new();
    authority.issue("server", "/CN=logs", true);
    authority.issue("client", "/CN=machine", false);
    let file = |option: &str, name: &str| format!("syslog-tls-{option}={}", authority.text(name));
    let run = |options: &[&str]| {
        let options = options.iter().flat_map(|option| ["--log-opt", option]);
        let start = ["run", "--rm", "--log-driver", "syslog"].into_iter();
        let command = ["busybox", "sh", "-c", "seq 3000; echo last"];
        let line: Vec<&str> = start.chain(options).chain(command).collect();
        engine.run(&line)
    };
    let (ca, cert, key) = (
        file("ca-cert", "ca.pem"),
        file("cert", "client.pem"),
        file("key", "client-key.pem"),
    );
    // Each of the two makes sure of the other; a message stands behind its length.
    let ca_path = authority.text("ca.pem");
    let asks = ["-CAfile", &ca_path, "-Verify", "1", "-verify_return_error"];
    let server = TlsServer::start(&authority, &asks);
    let ran = run(&[&server.late(), &ca, &cert, &key, "syslog-format=rfc5424"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = server.end();
    let messages: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(" <30>1 "))
        .collect();
    assert_eq!(messages.len(), 3001, "{said}");
    for message in [messages[0], messages[3000]] {
        let (length, rest) = message.split_once(' ').unwrap();
        assert_eq!(
            length.parse::<usize>().unwrap(),
            rest.len() + 1,
            "{message}"
        );
    }
    assert!(messages[3000].ends_with(" last"), "{}", messages[3000]);
    // Nobody vouches for the server.
    let server = TlsServer::start(&authority, &[]);
    let refused = run(&[&server.address]);
    assert!(
        refused.code != 0 && refused.stderr.contains("UnknownIssuer"),
        "{refused:?}"
    );
    server.end();
    let server = TlsServer::start(&authority, &[]);
    let address = server.address.clone();
    assert_eq!(run(&[&address, "syslog-tls-skip-verify=true"]).code, 0);
    let said = server.end();
    assert!(said.contains("<30>") && said.contains("]: last"), "{said}");
    let refused = run(&[&address, &file("ca-cert", "none.pem")]);
    assert!(
        refused.code != 0 && refused.stderr.contains("none.pem"),
        "{refused:?}"
    );
}

#[test]
fn a_service_that_is_not_there_is_an_error_of_the_start() {
    let engine = Engine::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let address = format!("syslog-address=tcp://{closed}");
    let said = engine.run(&[
        "run",
        "--name",
        "cc",
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "busybox",
        "true",
    ]);
    assert!(
        said.code == 125 && said.stderr.contains("failed to initialize logging driver"),
        "{said:?}"
    );
    let unknown = engine.run(&["create", "--log-driver", "fluentd", "busybox"]);
    assert!(
        unknown.stderr.contains("no log driver named"),
        "{unknown:?}"
    );
    engine.ok(&["rm", "cc"]);
    engine.assert_nothing_left();
}
