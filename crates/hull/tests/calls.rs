//! What is asked of a Dockerfile in the place of building it: `--call targets` and `--call outline`, by hull's client and by buildx.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::buildx::Bench;
use support::said;

const DOCKERFILE: &str = "# BASE is what all stands on\nARG BASE=busybox\nARG UNUSED=1\nFROM $BASE AS tools\nARG TOOLS=some\n\
    RUN --mount=type=ssh,id=key,required true\n# other is not needed\nFROM scratch AS other\nARG OTHER\n\
    # app is the program\nFROM $BASE AS app\nARG TARGETARCH\nARG LEVEL\n\
    RUN --mount=type=secret,id=token,required=true --mount=type=secret,id=opt --mount=from=tools,target=/t true\n";

/// What both clients print, which is the same.
fn asked(bench: &Bench, call: &str, flags: &[&str]) -> String {
    let context = bench.path("context");
    let own = bench
        .engine
        .ok(&[&["build", "--call", call], flags, &[&context]].concat());
    // As buildx called it at first.
    let line = [&["build", "--print", call], flags, &[&context]].concat();
    let mut command = bench.buildx(&line);
    let other = said(command.env("BUILDX_EXPERIMENTAL", "1").output().unwrap());
    assert_eq!(other.code, 0, "{other:?}");
    if call.ends_with("json") {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parsed(&own), parsed(&other.stdout));
    } else {
        let lines = |text: &str| -> Vec<String> {
            text.trim()
                .lines()
                .map(|line| line.trim_end().to_owned())
                .collect()
        };
        assert_eq!(lines(&own), lines(&other.stdout));
    }
    own
}

#[test]
fn both_clients_list_targets() {
    let bench = Bench::new(DOCKERFILE, &[]);
    let text = asked(&bench, "targets", &[]);
    assert!(text.contains("other         is not needed\n"), "{text}");
    assert!(text.contains("app (default) is the program"), "{text}");
    let json: Value = serde_json::from_str(&asked(&bench, "targets,format=json", &[])).unwrap();
    assert_eq!(json["targets"][2]["default"], true);
    bench.assert_clean();
}

#[test]
fn both_clients_tell_what_a_target_takes() {
    let bench = Bench::new(DOCKERFILE, &[]);
    let text = asked(&bench, "outline", &["--build-arg", "LEVEL=3"]);
    for part in [
        "TARGET:",
        "BASE        busybox   is what all stands on\n",
        "TOOLS       some",
        "LEVEL       3",
        "token    true",
        "opt",
        "key   true",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("UNUSED") && !text.contains("OTHER") && !text.contains("TARGETARCH"));
    let json: Value = serde_json::from_str(&asked(
        &bench,
        "outline,format=json",
        &["--target", "other"],
    ))
    .unwrap();
    assert_eq!(json["args"][0]["name"], "OTHER");
    assert_eq!(json["description"], "is not needed");
    let context = bench.path("context");
    let refused = bench.engine.run(&["build", "--call", "none", &context]);
    assert!(
        refused.stderr.contains("--call none is not supported"),
        "{refused:?}"
    );
    bench.assert_clean();
}
