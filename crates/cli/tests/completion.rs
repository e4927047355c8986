//! Completion as the shells ask for it, and as bash shows it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

mod support;

use support::{Answer, Engine, Request};

fn engine() -> Engine {
    Engine::start(|request: &Request| match request.path.as_str() {
        "/containers/json" => Answer::json(
            200,
            r#"[{"Id":"1","Names":["/web"],"Image":"img","Status":"Up 2 hours"},{"Id":"2","Names":["/db/web","/db"],"Image":"img"}]"#,
        ),
        "/images/json" => Answer::json(
            200,
            r#"[{"Id":"sha256:1","RepoTags":["img:1","img:2"]},{"Id":"sha256:2","RepoTags":["<none>:<none>"]}]"#,
        ),
        "/networks" => Answer::json(200, r#"[{"Name":"front","Id":"1","Driver":"bridge"}]"#),
        "/volumes" => Answer::json(200, r#"{"Volumes":[{"Name":"data","Driver":"local"}]}"#),
        _ => Answer::empty(200),
    })
}

/// What is said to a shell; the last word is the one that is written.
fn asked(host: &str, words: &[&str]) -> String {
    let output = support::command(&support::hull())
        .arg("__complete")
        .args(words)
        .env("DOCKER_HOST", host)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn names_are_asked_of_the_engine() {
    let engine = engine();
    for (words, expected) in [
        (["stop", "w"].as_slice(), "web\timg, Up 2 hours\n:4\n"),
        (&["stop", "web", ""], "db\timg, \n:4\n"),
        (&["cp", "w"], "web:\timg, Up 2 hours\n:2\n"),
        (&["rmi", "img"], "img:1\nimg:2\n:4\n"),
        (&["run", "--network=f"], "--network=front\tbridge\n:4\n"),
        (&["run", "-itv", ""], ":4\n"),
        (&["run", "img", ""], ":0\n"),
        (&["volume", "inspect", "d"], "data\n:4\n"),
        (&["volume", "create", "d"], ":4\n"),
        (&["inspect", "d"], "db\timg, \ndata\n:4\n"),
        (&["run", "--restart", "u"], "unless-stopped\n:4\n"),
        (&["nothing", ""], ":4\n"),
    ] {
        assert_eq!(asked(&engine.host(), words), expected, "{words:?}");
    }
    // The engine that the line itself names is the one that is asked.
    let line = ["-H", &engine.host(), "network", "rm", ""];
    assert_eq!(asked("unix:///nowhere", &line), "front\tbridge\n:4\n");
}

#[test]
fn without_an_engine_there_are_still_words() {
    assert_eq!(asked("unix:///nowhere", &["stop", ""]), ":4\n");
    let commands = asked("unix:///nowhere", &["network", "cr"]);
    assert_eq!(commands, "create\tCreate a network\n:4\n");
    let flags = asked("unix:///nowhere", &["kill", "--"]);
    assert!(flags.contains("--signal\tSignal to send"), "{flags}");
}

#[test]
fn bash_puts_words_together_that_it_has_broken() {
    let engine = engine();
    let hull = support::hull();
    let script = r#"
        eval "$("$HULL" completion bash)"
        compopt() { echo "option $*"; }
        complete_line() {
            COMP_LINE=$1 COMP_POINT=${#1}
            shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _hull
            echo "${COMPREPLY[*]}"
        }
        complete_line "$HULL rmi img:" "$HULL" rmi img :
        complete_line "$HULL run --network=f" "$HULL" run --network = f
        complete_line "$HULL cp w" "$HULL" cp w
        complete_line "$HULL   stop  " "$HULL" stop ""
    "#;
    let output = support::command(std::path::Path::new("bash"))
        .args(["--norc", "-c", script])
        .env("HULL", &hull)
        .env("DOCKER_HOST", engine.host())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        "1 2\nfront\noption -o nospace\noption -o default\nweb:\nweb db\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn zsh_is_given_words_with_colons_in_them() {
    let engine = engine();
    let script = r#"
        compdef() { : }
        eval "$("$HULL" completion zsh)"
        _describe() { print -r -- "${(j:|:)@[4,-1]}/${(j:|:)${(@P)3}}" }
        _files() { print files }
        complete_line() {
            local -a words=("$@")
            local CURRENT=$# PREFIX=$@[-1]
            _hull
        }
        complete_line "$HULL" cp w
        complete_line "$HULL" cp web:
        complete_line "$HULL" cp /etc
        complete_line "$HULL" rmi img:
        complete_line "$HULL" stop w
        complete_line "$HULL" volume create d
    "#;
    let output = support::command(std::path::Path::new("zsh"))
        .args(["-f", "-c", script])
        .env("HULL", support::hull())
        .env("DOCKER_HOST", engine.host())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let container = r"-S|/web\::img, Up 2 hours";
    let expected = [
        container,
        container,
        "files",
        r"/img\:1|img\:2",
        "/web:img, Up 2 hours",
    ];
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
