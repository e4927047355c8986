//! How a build is shown, beside Docker's buildx on the same engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use support::buildx::{Bench, assert_has};
use support::{Said, said};

const DOCKERFILE: &str = "FROM busybox AS one\nRUN echo out; echo err >&2; echo 1 > /1\n\
    FROM busybox\nENV A=b\nCOPY --from=one /1 /1\nCOPY a /a\nRUN cat /1 /a\nCMD echo\n";

fn hull(bench: &Bench, flags: &[&str]) -> Said {
    let context = bench.context.display().to_string();
    let arguments = [&["build"], flags, &[&context]].concat();
    said(bench.engine.hull(&arguments).output().unwrap())
}

fn buildx(bench: &Bench, flags: &[&str]) -> Said {
    let context = bench.context.display().to_string();
    said(
        bench
            .buildx(&[&["build"], flags, &[&context]].concat())
            .output()
            .unwrap(),
    )
}

/// The lines of rawjson, which some releases of buildx break. What is said of a failure comes after them.
fn lines(said: &Said) -> Vec<Value> {
    let all = serde_json::Deserializer::from_str(&said.stderr).into_iter::<Value>();
    all.map_while(Result::ok).collect()
}

/// Which keys the objects of each list have.
fn keys(lines: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (list, objects) in lines.iter().flat_map(|line| line.as_object().unwrap()) {
        for object in objects.as_array().unwrap() {
            let names = object.as_object().unwrap().keys().cloned();
            keys.entry(list.clone()).or_default().extend(names);
        }
    }
    keys
}

/// What a program makes of it: the names of all steps with how they ended, and what they said.
fn told(lines: &[Value]) -> (BTreeMap<String, String>, String) {
    let mut steps = BTreeMap::new();
    for vertex in lines
        .iter()
        .flat_map(|line| line["vertexes"].as_array())
        .flatten()
    {
        let name = vertex["name"].as_str().unwrap().to_owned();
        assert!(vertex["digest"].as_str().unwrap().starts_with("sha256:"));
        if name.starts_with("[internal] load") || vertex["completed"].is_null() {
            continue;
        }
        let end = match (vertex["cached"].as_bool(), vertex["error"].as_str()) {
            (_, Some(error)) => error,
            (Some(true), _) => "cached",
            _ => "done",
        };
        steps.insert(name, end.to_owned());
    }
    let logs = { lines.iter() }
        .flat_map(|line| line["logs"].as_array())
        .flatten();
    let decoded = logs.map(|log| BASE64.decode(log["data"].as_str().unwrap()).unwrap());
    let mut said: Vec<u8> = decoded.flatten().collect();
    // Stages go on at the same time, and streams are read as they come.
    said.sort_unstable();
    (steps, String::from_utf8(said).unwrap())
}

#[test]
fn programs_read_both_clients_alike() {
    let bench = Bench::new(DOCKERFILE, &[("a", "A\n")]);
    let flags = ["--progress", "rawjson", "-t", "t"];
    for round in ["first", "cached", "failed"] {
        let (ours, theirs) = match round {
            "first" => {
                let ours = hull(&bench, &[&flags[..], &["--no-cache"]].concat());
                (
                    ours,
                    buildx(&bench, &[&flags[..], &["--no-cache"]].concat()),
                )
            }
            _ => (hull(&bench, &flags), buildx(&bench, &flags)),
        };
        assert_eq!(ours.code, theirs.code, "{ours:?} {theirs:?}");
        assert!(
            ours.stderr.lines().next().unwrap().starts_with('{'),
            "{ours:?}"
        );
        let (ours, theirs) = (lines(&ours), lines(&theirs));
        assert_eq!(told(&ours), told(&theirs), "{round}");
        let known = keys(&theirs);
        for (list, names) in keys(&ours) {
            // What a vertex stands on is told by BuildKit alone.
            let unknown = names
                .difference(&known[&list])
                .filter(|name| *name != "inputs");
            let unknown: Vec<_> = unknown.collect();
            assert!(unknown.is_empty(), "{round}: {list} has {unknown:?}");
        }
        bench.write(
            "context/Dockerfile",
            match round {
                "first" => DOCKERFILE,
                _ => "FROM busybox\nRUN echo before; exit 3\n",
            },
        );
    }
    bench.assert_clean();
}

#[test]
fn lines_are_those_of_buildx() {
    let bench = Bench::new(DOCKERFILE, &[("a", "A\n")]);
    let said = hull(&bench, &["--progress", "plain", "-t", "t"]);
    let id = bench
        .engine
        .ok(&["inspect", "--type", "image", "--format", "{{.Id}}", "t"]);
    assert_has(
        &said.stderr,
        &[
            "#1 [internal] load build context\n#1 transferring context: ",
            "] FROM docker.io/library/busybox:latest\n",
            " [one 2/2] RUN echo out; echo err >&2; echo 1 > /1\n",
            " [stage-1 4/4] RUN cat /1 /a\n",
            " exporting to image\n",
            &format!(" writing image {id} "),
            " naming to docker.io/library/t:latest ",
            "1 warning found",
        ],
    );
    let again = hull(&bench, &["--progress", "plain", "-t", "t"]);
    assert_eq!(again.stderr.matches(" CACHED\n").count(), 4, "{again:?}");
    bench.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo before; exit 3\n",
    );
    let failed = hull(&bench, &["--progress", "plain"]);
    assert_has(
        &failed.stderr,
        &[
            " ERROR: process \"/bin/sh -c echo before; exit 3\" did not complete successfully: exit code: 3\n",
            "------\n > [2/2] RUN echo before; exit 3:\n",
            " before\n------\n",
        ],
    );
    bench.assert_clean();
}

#[test]
fn quiet_says_the_id_alone() {
    let bench = Bench::new(DOCKERFILE, &[("a", "A\n")]);
    for flags in [&["-q"][..], &["--progress", "quiet"]] {
        let quiet = hull(&bench, &[flags, &["-t", "t"]].concat());
        let id = bench
            .engine
            .ok(&["inspect", "--type", "image", "--format", "{{.Id}}", "t"]);
        assert_eq!(
            (quiet.stdout, quiet.stderr),
            (format!("{id}\n"), String::new())
        );
        let theirs = buildx(&bench, &[flags, &["-t", "t"]].concat());
        assert_eq!(
            (theirs.stdout, theirs.stderr),
            (format!("{id}\n"), String::new())
        );
    }
    let none = hull(&bench, &["--progress", "none", "-t", "t"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", ""));
    let both = hull(&bench, &["-q", "--progress", "plain"]);
    assert_has(
        &both.stderr,
        &["progress=plain and quiet cannot be used together"],
    );
}

#[test]
fn metadata_has_the_keys_of_buildx() {
    let bench = Bench::new(DOCKERFILE, &[("a", "A\n")]);
    let keys = |client: &str| {
        let path = bench.path(client);
        let flags = ["-t", "t", "-t", "u:1", "--metadata-file", &path];
        let said = match client {
            "ours" => hull(&bench, &flags),
            _ => buildx(&bench, &flags),
        };
        assert_eq!(said.code, 0, "{said:?}");
        let text = std::fs::read_to_string(path).unwrap();
        let all: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        // What a client calls a build is its own.
        let all = all
            .into_iter()
            .filter(|(key, _)| !key.starts_with("buildx."));
        all.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(keys("ours"), keys("theirs"));
}
