//! Where `login` keeps credentials, and where the other commands find them: config.json, helpers, and the terminal.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

mod support;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{Answer, Engine, Request};

/// A helper that keeps one file for each registry, and writes down what it was asked.
const HELPER: &str = r#"#!/bin/sh
input=$(cat)
echo "$1 $input" >> "$KEPT/log"
case $1 in
get) cat "$KEPT/$(echo "$input" | tr '/:' '__')" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
store) url=$(echo "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); echo "$input" > "$KEPT/$(echo "$url" | tr '/:' '__')" ;;
erase) [ "$input" != broken:1 ] || { echo "the keychain is locked"; exit 1; }; rm -f "$KEPT/$(echo "$input" | tr '/:' '__')" ;;
esac
"#;

fn engine() -> Engine {
    Engine::start(|request: &Request| match request.path.as_str() {
        "/auth" if request.body["password"] == "wrong" => Answer::json(
            401,
            r#"{"message":"unauthorized: incorrect username or password"}"#,
        ),
        "/auth" if request.body["serveraddress"] == "token:1" => {
            Answer::json(200, r#"{"Status":"Login Succeeded","IdentityToken":"t0"}"#)
        }
        "/auth" => Answer::json(200, r#"{"Status":"Login Succeeded"}"#),
        "/images/create" => Answer::json(200, "{}"),
        _ => Answer::empty(200),
    })
}

struct User {
    home: tempfile::TempDir,
    engine: Engine,
}

impl User {
    fn new(config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        for directory in [".docker", "bin", "kept"] {
            std::fs::create_dir(home.path().join(directory)).unwrap();
        }
        std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
        let helper = home.path().join("bin/docker-credential-fake");
        std::fs::write(&helper, HELPER).unwrap();
        std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
        let engine = engine();
        Self { home, engine }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = support::command(program);
        let path = format!("{}/bin:/usr/bin:/bin", self.home.path().display());
        command
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("KEPT", self.home.path().join("kept"))
            .env("DOCKER_HOST", self.engine.host());
        command
    }

    fn run(&self, line: &str, input: &str) -> Output {
        let mut child = self
            .command(&support::hull())
            .args(line.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read breaks the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    /// The credentials that the last request came with.
    fn shown(&self) -> serde_json::Value {
        self.engine.requests().last().unwrap().auth.clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_helper_keeps_them_in_the_files_place() {
    let user =
        User::new(r#"{"credsStore":"none","credHelpers":{"h:1":"fake","token:1":"fake"},"x":1}"#);
    let said = user.run("login -u me --password-stdin h:1", "geheim\r\n");
    assert_eq!(
        (said.status.code(), text(&said.stderr)),
        (Some(0), String::new())
    );
    assert_eq!(text(&said.stdout), "Login Succeeded\n");
    assert!(
        user.file("kept/h_1")
            .contains(r#""Username":"me","Secret":"geheim""#)
    );
    let config: serde_json::Value =
        serde_json::from_str(&user.file(".docker/config.json")).unwrap();
    assert_eq!(config["auths"]["h:1"], serde_json::json!({}));
    assert_eq!(config["x"], 1);

    user.run("pull -q h:1/a", "");
    assert_eq!(
        (&user.shown()["username"], &user.shown()["password"]),
        (&"me".into(), &"geheim".into())
    );

    // A token takes the password's place, which is kept nowhere.
    assert!(
        user.run("login -u me --password-stdin token:1", "geheim2")
            .status
            .success()
    );
    assert!(
        user.file("kept/token_1")
            .contains(r#""Username":"<token>","Secret":"t0""#)
    );
    user.run("pull -q token:1/a", "");
    assert_eq!(user.shown()["identitytoken"], "t0");
    assert!(!user.file(".docker/config.json").contains("geheim"));

    assert!(user.run("logout h:1", "").status.success());
    assert_eq!(user.file("kept/h_1"), "");
    let said = user.run("pull -q h:1/a", "");
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(user.shown(), serde_json::json!({}));
}

#[test]
fn a_helper_that_fails_is_named() {
    let user = User::new(
        r#"{"credsStore":"nonexistent","credHelpers":{"broken:1":"fake","path:1":"../fake"}}"#,
    );
    let said = user.run("pull h:1/a", "");
    assert_eq!(said.status.code(), Some(1));
    assert!(
        text(&said.stderr).contains("docker-credential-nonexistent"),
        "{}",
        text(&said.stderr)
    );
    let said = user.run("pull path:1/a", "");
    assert!(
        text(&said.stderr).contains("no name of a program"),
        "{}",
        text(&said.stderr)
    );
    assert!(
        !user
            .engine
            .requests()
            .iter()
            .any(|request| request.path == "/images/create")
    );
}

#[test]
fn what_is_refused_is_not_kept() {
    let user = User::new("{}");
    let said = user.run("login -u me --password-stdin h:1", "wrong");
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("incorrect username or password"));
    assert_eq!(user.file(".docker/config.json"), "{}");
    // Nor is a file overwritten that is not understood.
    let user = User::new("{ not json");
    assert_eq!(
        user.run("login -u me --password-stdin h:1", "x")
            .status
            .code(),
        Some(1)
    );
    assert_eq!(user.file(".docker/config.json"), "{ not json");
}

#[test]
fn what_was_kept_is_tried_first_and_asked_for_anew_when_it_is_wrong() {
    let user = User::new(r#"{"auths":{"h:1":{"auth":"bWU6d3Jvbmc="}}}"#);
    let said = user.run("login h:1", "");
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(complaint.contains("[Username: me]"), "{complaint}");
    assert!(
        complaint.contains("Stored credentials invalid or expired"),
        "{complaint}"
    );
    assert!(complaint.contains("non TTY device"), "{complaint}");
}

/// Waits for output of a terminal, but not for ever.
fn wait_readable(terminal: &std::fs::File) {
    let mut fds = [PollFd::new(terminal, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "nothing was said");
}

#[test]
fn a_password_is_asked_for_without_an_echo() {
    let user = User::new("{}");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let terminal = options.read(true).write(true).open(name.to_str().unwrap());
    let terminal = terminal.unwrap();
    let mut child = user
        .command(&support::hull())
        .args(["login", "h:1"])
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut master = std::fs::File::from(master);
    let mut output = master.try_clone().unwrap();
    let mut seen = String::new();
    let mut until = |mark: &str| {
        let mut byte = [0];
        while !seen.contains(mark) {
            // An ended program leaves nothing to read, but the terminal stays.
            wait_readable(&output);
            output.read_exact(&mut byte).unwrap();
            seen.push(char::from(byte[0]));
        }
        seen.clone()
    };
    until("Username: ");
    master.write_all(b"me\n").unwrap();
    until("Password: ");
    master.write_all(b"hunter2\n").unwrap();
    let all = until("Login Succeeded");
    assert!(all.contains("me") && !all.contains("hunter2"), "{all}");
    assert!(child.wait().unwrap().success());
    let request = &user.engine.requests()[user.engine.requests().len() - 1];
    assert_eq!(request.body["username"], "me");
    assert_eq!(request.body["password"], "hunter2");
}
