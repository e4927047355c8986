//! Log drivers through the command line: where output goes, what can be read again, what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use support::Engine;

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
