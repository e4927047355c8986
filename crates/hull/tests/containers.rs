//! Containers through the command line: what goes in, what comes out, with what code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;
use support::Engine;

#[test]
fn output_and_exit_codes_are_dockers() {
    let engine = Engine::new();
    let cases: [(&[&str], i32, &str, &str); 7] = [
        (&["true"], 0, "", ""),
        (
            &["sh", "-c", "echo out; echo err >&2; exit 7"],
            7,
            "out\n",
            "err\n",
        ),
        (&["sh", "-c", "kill -TERM $$; sleep 5"], 143, "", ""),
        (&["nope"], 127, "", "executable file not found in $PATH"),
        (&["/bin/nope"], 127, "", "no such file or directory"),
        (&["/etc/passwd"], 126, "", "permission denied"),
        (&["/etc"], 126, "", "is a directory"),
    ];
    for (command, code, stdout, stderr) in cases {
        // PID 1 ignores signals it has no handler for; with an init the command is not PID 1.
        let said = engine.run(
            &[
                &["run", "--rm", "--init", "--network", "none", "busybox"],
                command,
            ]
            .concat(),
        );
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (code, stdout),
            "{command:?}: {said:?}"
        );
        assert!(said.stderr.contains(stderr), "{command:?}: {said:?}");
    }
    let said = engine.run(&["run", "--rm", "no-such-image", "true"]);
    assert_eq!(said.code, 125, "{said:?}");
    engine.assert_nothing_left();
}

#[test]
fn the_docker_client_gets_the_same() {
    let engine = Engine::new();
    assert_eq!(
        engine.docker(&["run", "--rm", "busybox", "echo", "hello"]),
        "hello"
    );
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:0:80",
        "busybox",
        "sleep",
        "600",
    ]);
    assert_eq!(
        engine.docker(&[
            "exec",
            "-u",
            "user",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            "web",
            "sh",
            "-c",
            "id -u; pwd; echo $A"
        ]),
        "1000\n/tmp\nb"
    );
    assert!(
        engine
            .docker(&["port", "web"])
            .starts_with("80/tcp -> 127.0.0.1:")
    );
    assert!(engine.docker(&["ps"]).contains("web"));
    assert!(engine.docker(&["top", "web"]).contains("sleep 600"));
    assert!(engine.docker(&["stats", "--no-stream"]).contains("web"));
    assert!(engine.docker(&["info", "-f", "{{.Driver}}"]) == "overlayfs");
    engine.docker(&["pause", "web"]);
    assert!(engine.docker(&["ps"]).contains("(Paused)"));
    engine.docker(&["unpause", "web"]);
    engine.docker(&["rename", "web", "www"]);
    engine.docker(&["stop", "-t", "0", "www"]);
    assert_eq!(
        engine.docker(&["inspect", "-f", "{{.State.ExitCode}}", "www"]),
        "137"
    );
    engine.docker(&["commit", "www", "copy:1"]);
    assert!(engine.docker(&["images", "-q", "copy:1"]).len() == 12);
    engine.docker(&["rm", "www"]);
    engine.docker(&["rmi", "copy:1"]);
    engine.assert_nothing_left();
}

#[test]
fn standard_input_goes_in_and_ends() {
    let engine = Engine::new();
    let big = vec![b'x'; 3 << 20];
    let out = engine.ok_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &big);
    assert_eq!(out, big.len().to_string());
    engine.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "600"]
        .map(|word| if word == "c" { "cc" } else { word }));
    let out = engine.ok_with_input(&["exec", "-i", "cc", "wc", "-c"], &big);
    assert_eq!(out, big.len().to_string());
}

#[test]
fn all_output_arrives_and_is_logged() {
    let engine = Engine::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let said = engine.run(&["run", "--name", "many", "busybox", "sh", "-c", script]);
    let expected: String = (0..20000).map(|n| format!("line {n}\n")).collect();
    assert!(
        said.stdout == expected,
        "{} bytes of {}",
        said.stdout.len(),
        expected.len()
    );
    assert!(engine.ok(&["logs", "many"]) == expected.trim_end());
    assert_eq!(
        engine.ok(&["logs", "--tail", "2", "many"]),
        "line 19998\nline 19999"
    );
    let stamped = engine.ok(&["logs", "--tail", "1", "-t", "many"]);
    let (time, line) = stamped.split_once(' ').unwrap();
    assert!(time.ends_with('Z') && line == "line 19999", "{stamped}");
    assert_eq!(
        engine.ok(&["logs", "--since", time, "--tail", "1", "many"]),
        "line 19999"
    );
}

#[test]
fn following_a_log_ends_with_the_container() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        "busybox",
        "sh",
        "-c",
        "echo a; sleep 0.5; echo b",
    ]);
    assert_eq!(engine.ok(&["logs", "-f", "slow"]), "a\nb");
}

#[test]
fn signals_are_forwarded_and_stop_waits() {
    let engine = Engine::new();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.05; done";
    let mut child = engine
        .hull(&["run", "--rm", "busybox", "sh", "-c", script])
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    out.read_exact(&mut ready).unwrap();
    // `timeout` passes the signal on to the client.
    std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    assert_eq!(rest, "got\n");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "stubborn",
        "busybox",
        "sh",
        "-c",
        "trap '' TERM; while true; do sleep 1; done",
    ]);
    engine.ok(&["stop", "-t", "1", "stubborn"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", "stubborn"]),
        "137"
    );
}

#[test]
fn a_client_that_hangs_holds_up_nobody_else() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "noisy",
        "busybox",
        "sh",
        "-c",
        "while true; do echo noise; done",
    ]);
    let stuck: Vec<_> = (0..8)
        .map(|_| engine.hull(&["attach", "noisy"]).spawn().unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        engine.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "echo",
            "fine"
        ]),
        "fine"
    );
    engine.ok(&["ps"]);
    engine.ok(&["kill", "noisy"]);
    for mut client in stuck {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn restart_policies_restart_and_give_up() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "fails",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ]);
    engine.until("two restarts", || {
        engine.ok(&[
            "inspect",
            "-f",
            "{{.RestartCount}} {{.State.Status}}",
            "fails",
        ]) == "2 exited"
    });
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "always",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "0.1",
    ]);
    engine.until("a restart", || {
        engine.ok(&["inspect", "-f", "{{.RestartCount}}", "always"]) != "0"
    });
    engine.ok(&["stop", "always"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}}", "always"]),
        "exited"
    );
}

#[test]
fn files_are_copied_in_and_out() {
    let engine = Engine::new();
    engine.ok(&["run", "-d", "--name", "files", "busybox", "sleep", "600"]);
    std::fs::create_dir_all(engine.path("dir/sub")).unwrap();
    std::fs::write(engine.path("dir/sub/file"), "content").unwrap();
    engine.ok(&["cp", "dir", "files:/tmp"]);
    assert_eq!(
        engine.ok(&["exec", "files", "cat", "/tmp/dir/sub/file"]),
        "content"
    );
    engine.ok(&["cp", "files:/tmp/dir", "back"]);
    assert_eq!(
        std::fs::read_to_string(engine.path("back/sub/file")).unwrap(),
        "content"
    );
    assert_eq!(
        engine.ok(&["diff", "files"]),
        "C /tmp\nA /tmp/dir\nA /tmp/dir/sub\nA /tmp/dir/sub/file"
    );
    engine.ok(&["kill", "files"]);
    engine.ok(&["cp", "files:/tmp/dir/sub/file", "stopped"]);
    assert_eq!(
        std::fs::read_to_string(engine.path("stopped")).unwrap(),
        "content"
    );
    engine.ok(&[
        "commit",
        "--change",
        "CMD [\"cat\", \"/tmp/dir/sub/file\"]",
        "files",
        "with-file",
    ]);
    assert_eq!(engine.ok(&["run", "--rm", "with-file"]), "content");
}

#[test]
fn attack_20_copying_follows_no_link_out_of_the_container() {
    let engine = Engine::new();
    std::fs::write(engine.path("secret"), "outside").unwrap();
    let link = format!(
        "ln -s {} /tmp/link; ln -s / /tmp/root; sleep 600",
        engine.path("secret").display()
    );
    engine.ok(&["run", "-d", "--name", "evil", "busybox", "sh", "-c", &link]);
    std::thread::sleep(Duration::from_millis(300));
    let said = engine.run(&["cp", "-L", "evil:/tmp/link", "stolen"]);
    assert_ne!(said.code, 0, "{said:?}");
    std::fs::write(engine.path("in"), "harmless").unwrap();
    engine.ok(&["cp", "in", "evil:/tmp/root/planted"]);
    assert!(!std::path::Path::new("/planted").exists());
    assert_eq!(engine.ok(&["exec", "evil", "cat", "/planted"]), "harmless");
}

#[test]
fn volumes_keep_what_is_in_them_and_begin_with_the_images_files() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/etc",
        "busybox",
        "sh",
        "-c",
        "echo kept > /etc/more",
    ]);
    assert_eq!(
        engine.ok(&[
            "run",
            "--rm",
            "-v",
            "data:/d:ro",
            "busybox",
            "sh",
            "-c",
            "cat /d/more; head -c 4 /d/passwd"
        ]),
        "kept\nroot"
    );
    let said = engine.run(&[
        "run",
        "--rm",
        "-v",
        "data:/d:ro",
        "busybox",
        "touch",
        "/d/x",
    ]);
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    engine.ok(&[
        "run", "-d", "--name", "user", "-v", "data:/d", "busybox", "sleep", "600",
    ]);
    assert_ne!(engine.run(&["volume", "rm", "data"]).code, 0);
    engine.ok(&["rm", "-f", "user"]);
    engine.ok(&["volume", "rm", "data"]);
    // Anonymous volumes go with their container.
    engine.ok(&["run", "--rm", "-v", "/anonymous", "busybox", "true"]);
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn a_directory_is_an_image() {
    let engine = Engine::empty();
    let out = engine.ok(&[
        "run",
        "--name",
        "host",
        "--network",
        "none",
        "/",
        "sh",
        "-c",
        "touch /made-inside; head -c 12 /etc/os-release",
    ]);
    assert_eq!(
        out,
        std::fs::read_to_string("/etc/os-release").unwrap()[..12]
    );
    assert!(!std::path::Path::new("/made-inside").exists());
    assert!(engine.ok(&["diff", "host"]).contains("A /made-inside"));
    // The engine's own files do not show.
    let data = engine.path("data");
    let listed = engine.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "/",
        "ls",
        "-A",
        &data.display().to_string(),
    ]);
    assert_eq!(listed.stdout, "", "{listed:?}");
}

#[test]
fn a_terminal_is_a_terminal() {
    let engine = Engine::new();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &format!("stty rows 33 cols 77; {} run --rm -it busybox sh -c 'stty size; tty; read line; echo got $line; exit 9'", env!("CARGO_BIN_EXE_hull")), "/dev/null"]);
    script
        .env("HULL_HOST", engine.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("33 77") && text.contains("/dev/pts/") && text.contains("got typed"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(9), "{text}");
}

#[test]
fn flags_that_are_not_supported_are_refused() {
    let engine = Engine::new();
    let said = engine.run(&["swarm", "x"]);
    assert!(
        said.code != 0 && said.stderr.contains("not supported"),
        "{said:?}"
    );
}
