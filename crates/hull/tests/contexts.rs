//! Contexts, which Docker's client and this one read of each other, and engines that are reached by ssh. Needs root, Docker's
//! client and openssl.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use support::certificates::Authority;
use support::{Engine, Said, feed, said};

const HULL: &str = env!("CARGO_BIN_EXE_hull");
const CLIENTS: [&str; 2] = [HULL, "docker"];

/// A client with settings of its own, and nothing in the environment that says where an engine is.
fn client(program: &str, config: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("/usr/bin/timeout");
    command.arg("100").arg(program).args(words);
    for name in [
        "HULL_HOST",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
    ] {
        command.env_remove(name);
    }
    command
        .env("DOCKER_CONFIG", config)
        .current_dir(config)
        .stdin(Stdio::null());
    command
}

fn run(program: &str, config: &Path, words: &[&str]) -> Said {
    said(client(program, config, words).output().unwrap())
}

fn ok(program: &str, config: &Path, words: &[&str]) -> String {
    let said = run(program, config, words);
    assert_eq!(said.code, 0, "{program} {words:?}: {said:?}");
    said.stdout
}

/// What both clients are asked, and say alike.
fn alike(config: &Path, words: &[&str]) -> Said {
    let [ours, theirs] = CLIENTS.map(|program| run(program, config, words));
    let shown = |said: &Said| (said.code, said.stdout.clone(), said.stderr.clone());
    assert_eq!(shown(&ours), shown(&theirs), "{words:?}");
    ours
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn each_client_reads_what_the_other_has_written() {
    let authority = Authority::new();
    authority.issue("ann", "/CN=ann", false);
    let [ca, cert, key] = ["ca.pem", "ann.pem", "ann-key.pem"].map(|name| authority.text(name));
    let by_tls = format!("host=tcp://192.0.2.1:2376,ca={ca},cert={cert},key={key}");
    for writer in CLIENTS {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path();
        let write = |line: &str| ok(writer, config, &words(line));
        write(&format!(
            "context create tls --description keys --docker {by_tls}"
        ));
        write("context create ssh --docker host=ssh://ann@example.com");
        write("context create any --docker host=tcp://192.0.2.1:1,skip-tls-verify=true");
        write("context create copy --from tls");
        write("context update copy --description changed");
        let inspected = alike(config, &words("context inspect tls ssh any copy")).stdout;
        assert!(inspected.contains("key.pem") && inspected.contains("\"SkipTLSVerify\": true"));
        let format = "{{.Name}} {{.Endpoints.docker.Host}}";
        alike(config, &["context", "inspect", "copy", "--format", format]);
        write("context use copy");
        assert_eq!(alike(config, &words("context show")).stdout, "copy\n");
        // All but the default one, whose address is each client's own.
        let format = "{{if ne .Name \"default\"}}{{.Name}} {{.Current}} {{.Description}} {{.DockerEndpoint}}{{end}}";
        alike(config, &["context", "ls", "--format", format]);
        exported_and_imported(writer, config);
        let keys = walk(&config.join("contexts/tls"));
        let is_closed = keys.iter().all(|(_, mode)| mode & 0o077 == 0);
        assert!(keys.len() >= 6 && is_closed, "{writer}: {keys:?}");
        write("context rm -f copy any ssh tls");
        assert_eq!(alike(config, &words("context ls -q")).stdout, "default\n");
        assert_eq!(alike(config, &words("context show")).stdout, "default\n");
    }
}

/// What one client exports, both import.
fn exported_and_imported(writer: &str, config: &Path) {
    ok(writer, config, &words("context export tls exported"));
    for reader in CLIENTS {
        ok(reader, config, &words("context import imported exported"));
        let inspected = alike(config, &words("context inspect imported")).stdout;
        assert!(
            inspected.contains("cert.pem") && inspected.contains("\"keys\""),
            "{inspected}"
        );
        ok(reader, config, &words("context rm imported"));
    }
}

/// Files and directories below a path, with their modes.
fn walk(path: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        found.push((
            entry.path().display().to_string(),
            metadata.permissions().mode(),
        ));
        if metadata.is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[test]
fn what_is_refused_is_refused_in_dockers_words() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path();
    ok(
        HULL,
        config,
        &[
            "context",
            "create",
            "aa",
            "--docker",
            "host=unix:///nowhere",
        ],
    );
    for words in [
        &["context", "create", "a"][..],
        &["context", "create", "a b"],
        &["context", "create", "default"],
        &["context", "create", "aa", "--docker", "host=unix:///x"],
        &["context", "create", "bb", "--docker", "foo=bar"],
        &[
            "context",
            "create",
            "bb",
            "--docker",
            "host=unix:///x",
            "--from",
            "aa",
        ],
        &[
            "context",
            "create",
            "bb",
            "--docker",
            "host=unix:///x,skip-tls-verify=perhaps",
        ],
        &[
            "context",
            "create",
            "bb",
            "--docker",
            "host=tcp://192.0.2.1:1,ca=/no/such/file",
        ],
        &["context", "update", "nope"],
        &["context", "use", "nope"],
        &["context", "inspect", "aa", "nope"],
        &["context", "rm", "default"],
        &["context", "rm", "nope"],
        &["context", "export", "nope"],
        &["context", "import", "aa", "nothing"],
        &["context", "import", "bb", "nothing"],
        &["--context", "aa", "--host", "unix:///x", "ps"],
    ] {
        let said = alike(config, words);
        assert_eq!(said.code, 1, "{words:?}: {said:?}");
    }
    let said = run(HULL, config, &["--context", "nope", "ps"]);
    assert!(
        said.code == 1
            && said
                .stderr
                .contains("unable to resolve docker endpoint: context \"nope\""),
        "{said:?}"
    );
}

#[test]
fn the_flag_goes_before_the_environment_and_that_before_what_is_used() {
    let engine = Engine::empty();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path();
    let host = format!("host={}", engine.socket());
    ok(
        HULL,
        config,
        &["context", "create", "here", "--docker", &host],
    );
    ok(
        HULL,
        config,
        &[
            "context",
            "create",
            "nowhere",
            "--docker",
            "host=unix:///nowhere/sock",
        ],
    );
    for program in CLIENTS {
        let reaches = |environment: &[(&str, &str)], words: &[&str]| {
            let mut command = client(program, config, words);
            said(command.envs(environment.iter().copied()).output().unwrap()).code == 0
        };
        let socket = engine.socket();
        ok(program, config, &["context", "use", "nowhere"]);
        assert!(!reaches(&[], &["ps"]), "{program}");
        assert!(reaches(&[("DOCKER_CONTEXT", "here")], &["ps"]), "{program}");
        assert!(
            reaches(
                &[("DOCKER_HOST", &socket), ("DOCKER_CONTEXT", "nowhere")],
                &["ps"]
            ),
            "{program}"
        );
        assert!(
            reaches(
                &[("DOCKER_HOST", "unix:///nowhere/else")],
                &["--context", "here", "ps"]
            ),
            "{program}"
        );
        assert!(
            !reaches(
                &[("DOCKER_CONTEXT", "here")],
                &["--context", "nowhere", "ps"]
            ),
            "{program}"
        );
        assert!(reaches(&[], &["--host", &socket, "ps"]), "{program}");
        ok(program, config, &["context", "use", "here"]);
        assert!(reaches(&[], &["ps"]), "{program}");
        let mut command = client(program, config, &["context", "use", "nowhere"]);
        let warned = said(command.env("DOCKER_HOST", &socket).output().unwrap()).stderr;
        assert_eq!(
            warned,
            "Current context is now \"nowhere\"\nWarning: DOCKER_HOST environment variable overrides the active context. To use \"nowhere\", either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
        );
    }
}

/// A directory for PATH with an `ssh` that writes down its arguments and runs the words for the other side here, where the
/// programs in `there` are all that is found.
fn fake_ssh(directory: &Path, engine: &Engine, there: &[&str]) {
    let bin = directory.join("bin");
    let remote = directory.join("there");
    for path in [&bin, &remote] {
        let _ = std::fs::remove_dir_all(path);
        std::fs::create_dir(path).unwrap();
    }
    std::os::unix::fs::symlink("/bin/sh", remote.join("sh")).unwrap();
    for name in there {
        // A program by either name, for the engine of this test.
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/env HULL_HOST={} {HULL} \"$@\"\n",
            engine.socket()
        );
        write_program(&remote.join(name), &script);
    }
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {log}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nPATH={remote} exec /bin/sh -c \"$*\"\n",
        log = directory.join("ssh.log").display(),
        remote = remote.display(),
    );
    write_program(&bin.join("ssh"), &script);
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_engine_is_reached_by_ssh() {
    let engine = Engine::new();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path();
    let path = format!(
        "{}:{}",
        config.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let by_ssh = |words: &[&str]| {
        let mut command = client(
            HULL,
            config,
            &[&["-H", "ssh://ann@engine.example:2222"], words].concat(),
        );
        command
            .env("PATH", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    // Where only docker is, docker is asked.
    for there in [&["hull", "docker"][..], &["docker"]] {
        fake_ssh(config, &engine, there);
        let mut child = by_ssh(&[
            "run",
            "-i",
            "--rm",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "cat; echo end; exit 7",
        ]);
        let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
        let large = "x".repeat(300_000);
        feed(&mut child, &large);
        let said = said(child.wait_with_output().unwrap());
        assert_eq!((said.code, said.stderr.as_str()), (7, ""), "{there:?}");
        assert!(
            said.stdout == format!("{large}end\n"),
            "{there:?}: {} bytes",
            said.stdout.len()
        );
    }
    let log = std::fs::read_to_string(config.join("ssh.log")).unwrap();
    assert!(log.contains("-l ann -p 2222 -- engine.example"), "{log}");
    // Where neither is, or no ssh, that is said.
    fake_ssh(config, &engine, &[]);
    let said = said(
        by_ssh(&["ps"])
            .env("PATH", config.join("bin"))
            .output()
            .unwrap(),
    );
    assert!(
        said.code == 1 && said.stderr.contains("ssh has ended with exit status: 127"),
        "{said:?}"
    );
    std::fs::remove_file(config.join("bin/ssh")).unwrap();
    let said = support::said(
        by_ssh(&["ps"])
            .env("PATH", config.join("bin"))
            .output()
            .unwrap(),
    );
    assert!(said.stderr.contains("no program ssh"), "{said:?}");
}

#[test]
fn dockers_client_reaches_it_by_ssh_too() {
    let engine = Engine::new();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path();
    fake_ssh(config, &engine, &["docker"]);
    let path = format!(
        "{}:{}",
        config.join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = client(
        "docker",
        config,
        &[
            "-H",
            "ssh://ann@engine.example",
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "echo",
            "hello",
        ],
    );
    let said = said(command.env("PATH", &path).output().unwrap());
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "hello\n"),
        "{said:?}"
    );
}
