//! What is told of containers, images and volumes: the same script told dockerd's listeners the same, but for the order of an end and
//! its volumes' release.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::Engine;

/// Type, action, and the attributes that say something (those of the container alone are everywhere).
fn told(engine: &Engine) -> Vec<String> {
    let events = engine.docker(&[
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--format",
        "{{json .}}",
    ]);
    let line = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let attributes = event["Actor"]["Attributes"].as_object().unwrap();
        let more = attributes.iter().filter(|(key, _)| {
            [
                "exitCode",
                "signal",
                "oldName",
                "imageRef",
                "comment",
                "destination",
                "read/write",
                "reclaimed",
            ]
            .contains(&key.as_str())
        });
        let more: Vec<String> = more
            .map(|(key, value)| format!(" {key}={}", value.as_str().unwrap()))
            .collect();
        format!("{} {}{}", text("Type"), text("Action"), more.concat())
    };
    events.lines().map(line).collect()
}

fn play(engine: &Engine, script: &[&str]) {
    for line in script {
        let words: Vec<&str> = line.split(' ').collect();
        engine.docker(&words);
    }
}

/// What dockerd told of this script.
const EXPECTED: &str = "\
image tag
image import
volume create
container create
volume mount destination=/v read/write=false
network connect
container start
container exec_create: echo x
container exec_start: echo x
container exec_die exitCode=0
container top
container pause
container unpause
container rename oldName=/c1
container update
container extract-to-dir
container archive-path
container pause
image create
image tag
container commit comment=said imageRef=made:1
container unpause
container export
container kill signal=15
container kill signal=9
network disconnect
volume unmount
container die exitCode=137
container stop
volume mount destination=/v read/write=false
network connect
container start
container kill signal=9
network disconnect
volume unmount
container die exitCode=137
container destroy
image save
image load
image untag
image delete
volume destroy
container prune reclaimed=0
container prune reclaimed=0
network prune reclaimed=0
image prune reclaimed=0
builder prune reclaimed=0";

#[test]
fn everything_is_told_as_dockerd_tells_it() {
    let engine = Engine::new();
    std::fs::write(engine.path("file"), "x").unwrap();
    let file = engine.path("file").display().to_string();
    play(
        &engine,
        &[
            "volume create v1",
            "run -d --name c1 -v v1:/v:ro busybox sleep 1000",
            "exec c1 echo x",
            "top c1",
            "pause c1",
            "unpause c1",
            "rename c1 c2",
            "update --pids-limit 50 c2",
            &format!("cp {file} c2:/tmp/x"),
            "cp c2:/tmp/x copied",
            "commit -m said c2 made:1",
            "export -o exported c2",
            "stop -t 0 c2",
            "start c2",
            "rm -f c2",
            "save -o saved made:1",
            "load -i saved",
            "rmi made:1",
            "volume rm v1",
            "container prune -f",
            "system prune -f",
        ],
    );
    let expected: Vec<&str> = EXPECTED.lines().collect();
    // The client asks until a whole second: what is younger comes a moment later.
    engine.until("everything was told", || {
        told(&engine).len() >= expected.len()
    });
    assert_eq!(told(&engine), expected);
}

#[test]
fn events_are_chosen_by_filters() {
    let engine = Engine::new();
    // Names that no ID begins with: a filter takes those, too.
    play(
        &engine,
        &[
            "create --name one --label a=b busybox",
            "create --name two busybox",
            "volume create v1",
            "rm one two",
        ],
    );
    for (filters, count) in [
        (&["type=volume"][..], 1),
        (&["type=container", "type=volume"], 5),
        (&["container=one"], 2),
        (&["event=create", "container=two"], 1),
        (&["label=a"], 2),
        (&["label=a=c"], 0),
        (&["image=busybox"], 4),
        (&["volume=v1"], 1),
        (&["scope=local", "event=destroy"], 2),
    ] {
        let mut command = vec!["events", "--since", "1", "--until", "0s"];
        for filter in filters {
            command.extend(["--filter", filter]);
        }
        let counted = |words: &str| words.lines().count();
        engine.until(&format!("{filters:?} shows {count}"), || {
            counted(&engine.docker(&command)) == count && counted(&engine.ok(&command)) == count
        });
    }
}
