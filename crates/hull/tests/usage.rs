//! What builds have left: `hull builder du` and `prune`, their filters and limits, and the same over the API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::process::Stdio;
use support::{Engine, said};

const DOCKERFILE: &str = "FROM busybox\nRUN dd if=/dev/zero of=/one bs=1k count=600\n\
    RUN --mount=type=cache,target=/cache dd if=/dev/zero of=/two bs=1k count=300 && touch /cache/x\nENV A=b\n";

fn build(engine: &Engine, flags: &[&str], dockerfile: &str) {
    let arguments = [&["build"], flags, &["-"]].concat();
    engine.ok_with_input(&arguments, dockerfile.as_bytes());
}

/// What `du` shows of each record, with flags.
fn usage(engine: &Engine, flags: &[&str]) -> Vec<Value> {
    let arguments = [&["builder", "du", "--format", "json"], flags].concat();
    let shown = engine.ok(&arguments);
    let lines = shown.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn count(engine: &Engine, filter: &str) -> usize {
    usage(engine, &["--filter", filter]).len()
}

/// The steps and mounts that are there, by a word of theirs.
fn there(engine: &Engine) -> Vec<&'static str> {
    let all = usage(engine, &[]);
    let of = |word: &&str| {
        let mut descriptions = all.iter().map(|one| one["Description"].as_str().unwrap());
        descriptions.any(|it| it == *word || it.contains(&format!("of={word}")))
    };
    ["/one", "/two", "/cache"].into_iter().filter(of).collect()
}

#[test]
fn usage_is_filtered_and_shown_as_asked() {
    let engine = Engine::new();
    build(&engine, &["-t", "t"], DOCKERFILE);
    for (filter, expected) in [
        ("type=regular", 2),
        ("type!=regular", 1),
        ("type=exec.cachemount", 1),
        ("shared=true", 2),
        ("private=1", 1),
        ("mutable=true", 1),
        ("immutable=", 2),
        ("inuse=true", 0),
        ("inuse=false", 3),
        ("description~=count=600$", 1),
        ("description=/cache", 1),
        ("until=1h", 0),
        ("label=x", 0),
        ("label!=x", 3),
    ] {
        assert_eq!(count(&engine, filter), expected, "{filter}");
    }
    let all = usage(&engine, &["--filter", "type=regular"]);
    let by = |word: &str| {
        let is_it = |one: &&Value| one["Description"].as_str().unwrap().contains(word);
        all.iter().find(is_it).unwrap()
    };
    let (one, two) = (by("/one"), by("/two"));
    assert_eq!(two["Parents"][0], one["ID"]);
    assert_eq!(one["Parents"].as_array().unwrap().len(), 0);
    assert_eq!(
        count(&engine, &format!("id=^{}$", one["ID"].as_str().unwrap())),
        1
    );
    let table = engine.ok(&["builder", "du"]);
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]);
    for end in ["Shared:", "Private:", "Reclaimable:", "Total:"] {
        assert!(table.contains(end), "{end} is missing in\n{table}");
    }
    let shown = engine.ok(&["builder", "du", "--format", "{{.Type}} {{.Shared}}"]);
    assert!(shown.contains("regular true\n"), "{shown}");
    for (flags, why) in [
        (&["--filter", "size=1"][..], "invalid filter 'size'"),
        (&["--filter", "shared=x"], "true or false"),
        (
            &["--filter", "until=1h", "--filter", "until=2h"],
            "only one value",
        ),
        (
            &["--filter", "until=1h", "--filter", "unused-for=2h"],
            "conflicting filters",
        ),
        (
            &["--verbose", "--format", "json"],
            "cannot be used together",
        ),
    ] {
        let said = engine.run(&[&["builder", "du"], flags].concat());
        assert!(
            said.code != 0 && said.stderr.contains(why),
            "{flags:?}: {said:?}"
        );
    }
}

#[test]
fn limits_leave_what_was_used_last() {
    let engine = Engine::new();
    let prune = |flags: &[&str]| engine.ok(&[&["builder", "prune", "-f"], flags].concat());
    build(&engine, &["-t", "t"], DOCKERFILE);
    // What an image has is left, and costs nothing.
    assert!(prune(&["--filter", "type=regular"]).ends_with("reclaimed space: 0B"));
    engine.ok(&["rmi", "t"]);
    assert_eq!(there(&engine), ["/one", "/two", "/cache"]);
    for flags in [
        &["--filter", "until=1h"][..],
        &["--filter", "label=x"],
        &["--reserved-space", "1g"],
        &["--keep-storage", "1g"],
        &["--max-used-space", "1g"],
        &["--min-free-space", "1"],
        &["--max-used-space", "1", "--reserved-space", "1g"],
    ] {
        let said = prune(flags);
        assert!(said.ends_with("reclaimed space: 0B"), "{flags:?}: {said}");
    }
    let planned = prune(&["--dry-run", "--max-used-space", "700k"]);
    assert!(
        planned.contains("Would delete build cache objects:"),
        "{planned}"
    );
    assert_eq!(there(&engine), ["/one", "/two", "/cache"]);
    // The last step goes before the one that it stands on.
    let pruned = prune(&["--max-used-space", "700k", "--filter", "type=regular"]);
    assert_eq!(there(&engine), ["/one", "/cache"], "{pruned}");
    assert!(pruned.contains("kB"), "{pruned}");
    prune(&["--filter", "type=exec.cachemount"]);
    assert_eq!(there(&engine), ["/one"]);
    // More is to be free than the disk has.
    prune(&["--min-free-space", "1000000g"]);
    assert!(there(&engine).is_empty());
}

#[test]
fn a_prune_leaves_what_a_build_has() {
    let engine = Engine::new();
    build(&engine, &["-t", "t"], DOCKERFILE);
    engine.ok(&["rmi", "t"]);
    let waiting = "RUN --mount=type=cache,target=/cache sleep 1000\n";
    let mut child = engine.hull(&["build", "-"]);
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    support::feed(&mut child, &format!("{DOCKERFILE}{waiting}"));
    engine.until("the command runs", || {
        usage(
            &engine,
            &["--filter", "type=exec.cachemount", "--filter", "inuse=true"],
        )
        .len()
            == 1
    });
    assert_eq!(count(&engine, "inuse=true"), 3);
    let table = engine.ok(&["builder", "du"]);
    assert!(table.contains("false"), "{table}");
    engine.ok(&["builder", "prune", "-af"]);
    assert_eq!(there(&engine), ["/one", "/two", "/cache"]);
    // What limits its time passes it on.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    engine.until("the build has ended", || count(&engine, "inuse=true") == 0);
    engine.ok(&["builder", "prune", "-af"]);
    assert!(there(&engine).is_empty());
}

#[test]
fn docker_prunes_and_lists_the_same() {
    let engine = Engine::new();
    build(&engine, &["-t", "t"], DOCKERFILE);
    let shown = engine.docker(&[
        "system",
        "df",
        "--format",
        "{{.Type}} {{.TotalCount}} {{.Active}}",
    ]);
    assert!(shown.contains("Build Cache 3 0"), "{shown}");
    engine.docker(&["builder", "prune", "-f", "--filter", "type=exec.cachemount"]);
    assert_eq!(there(&engine), ["/one", "/two"]);
    let refused = engine.client("docker", &["builder", "prune", "-f", "--filter", "what=x"]);
    let refused = said({ refused }.output().unwrap());
    assert!(
        refused.stderr.contains("invalid filter 'what'"),
        "{refused:?}"
    );
    // Nothing of it has a label.
    engine.docker(&["system", "prune", "-f", "--filter", "label=x"]);
    assert_eq!(there(&engine), ["/one", "/two"]);
    engine.ok(&["rmi", "t"]);
    engine.ok(&["system", "prune", "-f"]);
    assert!(there(&engine).is_empty());
    let told = engine.ok(&[
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--filter",
        "type=builder",
    ]);
    assert!(told.contains("builder prune"), "{told}");
}
