//! The image store under any order of operations, with the engine killed in between: what is there is whole, and what nobody
//! has is gone; and what is told of it is what is on the disk.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::Engine;

/// Operations of one run; as many as the variable `HULL_TEST_OPERATIONS` says.
const OPERATIONS: u32 = 600;
/// How often the engine is killed in the midst of one.
const KILL_EVERY: u32 = 25;
/// Names that images and containers get: few, so that they meet.
const NAMES: u32 = 6;

/// Numbers that look random and are the same each time: Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(end)).unwrap()
    }

    fn name(&mut self, kind: &str) -> String {
        format!("{kind}{}", self.below(NAMES))
    }
}

/// A tar of two files, one of which many have.
fn tar(number: u32) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shared"), "the same everywhere").unwrap();
    std::fs::write(directory.path().join("own"), number.to_string()).unwrap();
    let output = Command::new("tar")
        .arg("-C")
        .arg(directory.path())
        .args(["--sort=name", "--mtime=@1", "-c", "shared", "own"])
        .output();
    output.unwrap().stdout
}

/// One operation: the command line, and what it reads.
fn operation(dice: &mut Dice) -> (Vec<String>, Option<Vec<u8>>) {
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (image, other, container) = (
        dice.name("image"),
        dice.name("image"),
        dice.name("container"),
    );
    match dice.below(12) {
        0..=2 => (words(format!("import - {image}")), Some(tar(dice.below(4)))),
        3 => (words(format!("tag {image} {other}")), None),
        4..=5 => (words(format!("rmi -f {image}")), None),
        6 => (
            words(format!("create --name {container} {image} /own")),
            None,
        ),
        7 => (words(format!("rm -f {container}")), None),
        8..=9 => (words(format!("commit {container} {image}")), None),
        10 => (words("image prune -f".to_owned()), None),
        _ => (words("image prune -af".to_owned()), None),
    }
}

#[test]
fn whatever_happens_the_store_is_whole_and_nothing_leaks() {
    let wanted = std::env::var("HULL_TEST_OPERATIONS").ok();
    let operations = wanted.map_or(OPERATIONS, |text| text.parse().unwrap());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut engine = Engine::empty();
    for number in 1..=operations {
        let (words, input) = operation(&mut dice);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // Most name something that is not there, or in use: then they fail, and nothing has changed.
        let mut command = engine.hull(&words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(&input.unwrap_or_default());
        drop(stdin);
        if number % KILL_EVERY == 0 {
            std::thread::sleep(Duration::from_micros(u64::from(dice.below(20_000))));
            engine.kill();
            child.wait().unwrap();
            engine.start();
            engine.ok(&["system", "verify"]);
        } else {
            child.wait().unwrap();
        }
    }
    engine.ok(&["system", "verify"]);
    engine.ok(&["container", "prune", "-f"]);
    let plan = engine.ok(&["image", "prune", "-af", "--dry-run"]);
    let done = engine.ok(&["image", "prune", "-af"]);
    let steps = |text: &str| {
        let mut steps: Vec<String> = text
            .lines()
            .filter(|line| line.contains("sha256:"))
            .map(str::to_owned)
            .collect();
        steps.sort();
        steps
    };
    assert_eq!(steps(&plan), steps(&done));
    for directory in [
        "data/layers",
        "data/blobs/sha256",
        "data/snapshots",
        "data/tmp",
    ] {
        let left: Vec<_> = std::fs::read_dir(engine.path(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

/// Bytes on the disk as du(1) counts them.
fn du(path: &Path) -> u64 {
    let output = Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the API answers.
fn get(engine: &Engine, path: &str) -> serde_json::Value {
    let (_, body) = engine.ask("GET", &format!("/v1.51/{path}"), None);
    serde_json::from_slice(&body).unwrap()
}

fn sum(list: &serde_json::Value, size: impl Fn(&serde_json::Value) -> &serde_json::Value) -> u64 {
    let list = list.as_array().unwrap();
    list.iter().map(|one| size(one).as_u64().unwrap()).sum()
}

/// Those records of the build cache that no image shares.
fn private(records: &serde_json::Value) -> serde_json::Value {
    let records = records.as_array().unwrap().iter();
    { records.filter(|record| record["Shared"] == false) }
        .cloned()
        .collect()
}

/// Bytes of all that is told of.
fn told(usage: &serde_json::Value) -> u64 {
    usage["LayersSize"].as_u64().unwrap()
        + sum(&usage["Containers"], |container| &container["SizeRw"])
        + sum(&usage["Volumes"], |volume| &volume["UsageData"]["Size"])
        + sum(&private(&usage["BuildCache"]), |record| &record["Size"])
}

/// Bytes of all that is there, but for the database and the directories that are always there.
fn there(engine: &Engine) -> u64 {
    let data = engine.path("data");
    let own = |path: &Path| std::fs::symlink_metadata(path).unwrap().blocks() * 512;
    assert!(
        Command::new("sync")
            .arg("-f")
            .arg(&data)
            .status()
            .unwrap()
            .success()
    );
    let mut bytes = 0;
    for entry in std::fs::read_dir(&data).unwrap().flatten() {
        let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
        bytes += match name.as_str() {
            "blobs" => du(&path) - own(&path) - own(&path.join("sha256")),
            "layers" | "snapshots" | "tmp" | "containers" | "volumes" | "build-caches" => {
                du(&path) - own(&path)
            }
            "hull.db" | "hull.db-wal" | "hull.db-shm" | "mountpoints" | "empty" => 0,
            other => panic!("{other} is new, and not counted"),
        };
    }
    bytes
}

/// A list without how long ago something was.
fn ageless(list: &serde_json::Value) -> serde_json::Value {
    let mut list = list.clone();
    for one in list.as_array_mut().unwrap() {
        one["Status"].take();
    }
    list
}

#[test]
fn what_df_says_is_what_du_says() {
    let engine = Engine::new();
    let check = || {
        let usage = get(&engine, "system/df");
        assert_eq!(told(&usage), there(&engine), "{usage:#}");
        usage
    };
    check();
    // A layer above the one that all share, a container that has written, a volume, logs.
    let script = "dd if=/dev/zero of=/big bs=1000 count=777 2>&1; echo x >/data/x; ln /big /same; \
                  truncate -s 1g /sparse; echo said";
    engine.ok(&[
        "run",
        "--name",
        "one",
        "-v",
        "vol:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    engine.ok(&["commit", "one", "second"]);
    engine.ok_with_input(&["import", "-", "alone"], &tar(2));
    let usage = check();
    let images = usage["Images"].as_array().unwrap();
    let find = |name: &str| {
        let named = |image: &&serde_json::Value| image["RepoTags"][0] == name;
        let image = images.iter().find(named).unwrap();
        let size = |field: &str| image[field].as_u64().unwrap();
        (size("Size"), size("SharedSize"))
    };
    let (base, second, alone) = (
        find("busybox:latest"),
        find("second:latest"),
        find("alone:latest"),
    );
    assert_eq!(base.1, second.1, "both have the layer of busybox");
    assert!(base.1 > 0 && base.0 - base.1 < 64 << 10 && second.0 - second.1 > 777_000);
    assert_eq!(alone.1, 0);
    let unique: u64 = [base, second, alone]
        .iter()
        .map(|(size, shared)| size - shared)
        .sum();
    assert_eq!(usage["LayersSize"].as_u64(), Some(unique + base.1));
    for words in [&["system", "df", "-v"][..], &["system", "df"]] {
        // How long ago something was may change in between.
        engine.until("both clients print the same", || {
            engine.docker(words) == engine.ok(words)
        });
    }
    for (kind, there) in [
        ("image", "Images"),
        ("container", "Containers"),
        ("volume", "Volumes"),
        ("build-cache", "BuildCache"),
    ] {
        let only = get(&engine, &format!("system/df?type={kind}"));
        assert_eq!(ageless(&only[there]), ageless(&usage[there]));
        let others = ["Images", "Containers", "Volumes", "BuildCache"];
        let others = others.iter().filter(|other| **other != there);
        assert!(
            others.clone().all(|other| only[*other].is_null()),
            "{only:#}"
        );
    }
}

#[test]
fn what_builds_leave_is_told_of_once() {
    let engine = Engine::new();
    let check = || {
        let usage = get(&engine, "system/df");
        assert_eq!(told(&usage), there(&engine), "{usage:#}");
    };
    let dockerfile = "FROM busybox\nRUN echo 1 > /1\nRUN --mount=type=cache,target=/c echo 2 > /c/2; cp /c/2 /2\n";
    engine.ok_with_input(&["build", "-t", "built", "-"], dockerfile.as_bytes());
    check();
    // The results keep the layers.
    engine.ok(&["rmi", "built"]);
    check();
    let before = there(&engine);
    let said = engine.docker(&["builder", "prune", "--force"]);
    assert!(said.contains("Total reclaimed space"), "{said}");
    check();
    assert!(there(&engine) < before);
    assert_eq!(
        get(&engine, "system/df?type=build-cache")["BuildCache"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn nothing_is_told_of_what_was_pruned() {
    let engine = Engine::new();
    engine.ok(&[
        "run",
        "--name",
        "one",
        "-v",
        "vol:/data",
        "busybox",
        "touch",
        "/data/x",
        "/y",
    ]);
    assert!(told(&get(&engine, "system/df")) > 0);
    for kind in ["container", "volume", "image"] {
        let all: &[&str] = if kind == "container" { &[] } else { &["-a"] };
        engine.ok(&[&[kind, "prune", "-f"], all].concat());
    }
    let usage = get(&engine, "system/df");
    assert_eq!((told(&usage), there(&engine)), (0, 0), "{usage:#}");
}

#[test]
fn a_list_of_images_tells_what_they_share_when_it_is_asked() {
    let engine = Engine::new();
    engine.ok(&["run", "--name", "one", "busybox", "touch", "/own"]);
    engine.ok(&["commit", "one", "second"]);
    let shared = |query: &str| {
        let list = get(&engine, &format!("images/json{query}"));
        let list = list.as_array().unwrap().iter();
        list.map(|image| image["SharedSize"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(shared(""), [-1, -1]);
    let base: i64 = engine
        .ok(&["inspect", "-f", "{{.Size}}", "busybox"])
        .parse()
        .unwrap();
    assert_eq!(shared("?shared-size=1"), [base, base]);
}
