//! Known attacks on engines, each tried: what an image, a container or somebody else on the host may make of the engine.
//! Needs root and busybox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use support::Engine;

/// CVE-2019-14271, GHSA-x86f-5xw2-fm2r: what unpacks an archive is never the container's.
#[test]
fn attack_21_and_23_nothing_of_a_container_is_executed_to_copy() {
    let engine = Engine::new();
    engine.words("run -d --network none --name evil busybox sleep 1000");
    // Every program and library that an engine might look for says that it ran.
    let script = "for name in xz unxz gzip gunzip unpigz pigz bzip2 zstd tar; do \
                  rm -f /bin/$name; printf '#!/bin/sh\\ntouch /ran-$0\\n' > /bin/$name; chmod +x /bin/$name; done; \
                  mkdir -p /lib/x86_64-linux-gnu; for name in libnss_files.so.2 libnss_compat.so.2 libnss_dns.so.2; do \
                  echo evil > /lib/x86_64-linux-gnu/$name; done; echo 'passwd: files compat' > /etc/nsswitch.conf; mkdir /into";
    engine.ok(&["exec", "evil", "/bin/busybox", "sh", "-c", script]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "contents").unwrap();
    for (suffix, program) in [
        ("tar", None),
        ("tar.gz", Some("gzip")),
        ("tar.zst", Some("zstd")),
    ] {
        let archive = directory.path().join(suffix);
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(directory.path()).arg("-cf").arg(&archive);
        if let Some(program) = program {
            tar.args(["-I", program]);
        }
        assert!(tar.arg("file").status().unwrap().success());
        let put = std::process::Command::new("curl")
            .args(["-sS", "--max-time", "100", "-X", "PUT", "--unix-socket"])
            .arg(engine.path("run/hull.sock"))
            .arg("--data-binary")
            .arg(format!("@{}", archive.display()))
            .args([
                "-w",
                "%{http_code}",
                "http://localhost/containers/evil/archive?path=/into",
            ])
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&put.stdout).into_owned();
        assert!(answer.ends_with("200"), "{suffix}: {answer}");
        assert_eq!(
            engine.ok(&["exec", "evil", "/bin/busybox", "cat", "/into/file"]),
            "contents"
        );
        engine.ok(&["exec", "evil", "/bin/busybox", "rm", "/into/file"]);
    }
    let out = directory.path().join("out").display().to_string();
    engine.ok(&["cp", "evil:/etc/passwd", &out]);
    let found = engine.ok(&[
        "exec",
        "evil",
        "/bin/busybox",
        "find",
        "/",
        "-xdev",
        "-name",
        "ran-*",
    ]);
    assert_eq!(found, "");
}

/// CVE-2020-15257: a container in the host's network reaches abstract sockets, which no directory guards.
#[test]
fn attack_26_nothing_listens_on_an_abstract_socket() {
    let engine = Engine::new();
    engine.words("run -d --network host --name cc busybox sleep 1000");
    let id = engine.words("inspect -f {{.Id}} cc");
    let root = engine.path("").display().to_string();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let named = |line: &&str| line.contains(root.trim_end_matches('/')) || line.contains(&id);
    let ours: Vec<&str> = sockets.lines().filter(named).collect();
    assert!(
        !ours.is_empty() && ours.iter().all(|line| !line.contains('@')),
        "{ours:?}"
    );
    // The shim's is a file, in a directory that is closed to others.
    let shim = engine.path("run/containers").join(&id).join("shim.sock");
    assert!(shim.exists(), "{shim:?}");
    // From inside, where all of the host's abstract sockets are seen, there is none of them either.
    let inside = engine.words("exec cc cat /proc/net/unix");
    assert!(
        inside
            .lines()
            .filter(|line| line.contains('@'))
            .all(|line| !line.contains("hull")),
        "{inside}"
    );
}

/// CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: others walk into directories of state, to what is setuid in there.
/// CVE-2021-21284: the root of a user namespace owns a directory of the engine.
#[test]
fn attack_27_and_28_nobody_else_enters_or_owns_directories_of_state() {
    use std::os::unix::fs::MetadataExt as _;
    let mut engine = Engine::new();
    engine.words("run -d --network none --userns private --name cc -v vv:/data busybox sleep 1000");
    engine.kill();
    // Somebody has opened them meanwhile: that is seen to at the start.
    for name in ["data", "run"] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(engine.path(name), open).unwrap();
    }
    engine.start();
    for root in ["data", "run"] {
        let root = engine.path(root);
        let mode = std::fs::metadata(&root).unwrap().permissions().mode();
        // The socket's group comes through to it, and sees nothing.
        assert_eq!(mode & 0o067, 0, "{root:?}: {mode:o}");
        for entry in std::fs::read_dir(&root).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            assert_eq!(metadata.uid(), 0, "{entry:?}");
            let mode = metadata.permissions().mode();
            let closed = mode & 0o077 == 0 || root.ends_with("data") && mode & 0o022 == 0;
            assert!(closed || !metadata.is_dir(), "{entry:?}: {mode:o}");
        }
    }
}

/// CVE-2022-36109, CVE-2023-25173: groups that a process should not have, or lacks.
#[test]
fn attack_37_the_groups_of_a_process_are_those_it_was_given() {
    let engine = Engine::new();
    for (flags, expected) in [
        ("", "0"),
        ("--user 1000", "1000 2000"),
        ("--user user", "1000 2000"),
        ("--user 1000:1000", "1000"),
        ("--user 1000:2000", "2000"),
        ("--user 4711", "0"),
        ("--user 4711:4712", "4712"),
        ("--group-add extra --user 1000:1000", "1000 2000"),
        ("--group-add 3000 --user 4711:4712", "4712 3000"),
    ] {
        let line = format!("run --rm --network none {flags} busybox sh -c");
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.push("id -g; grep Groups: /proc/self/status");
        let said = engine.ok(&words);
        let mut groups: Vec<u32> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        groups.sort_unstable();
        groups.dedup();
        let mut expected: Vec<u32> = expected
            .split(' ')
            .map(|word| word.parse().unwrap())
            .collect();
        expected.sort_unstable();
        assert_eq!(groups, expected, "{flags}: {said}");
    }
}

/// CVE-2026-15809: a line of /etc/passwd in the value of HOME.
#[test]
fn attack_43_a_variable_writes_no_line_of_passwd() {
    let engine = Engine::new();
    let home = "HOME=/tmp\nevil:x:0:0::/:/bin/sh";
    let passwd = engine.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "4711",
        "-e",
        home,
        "busybox",
        "cat",
        "/etc/passwd",
    ]);
    assert!(
        !passwd.contains("evil") && passwd.starts_with("root:x:0:0:"),
        "{passwd}"
    );
    assert_eq!(passwd.lines().count(), 2, "{passwd}");
}
