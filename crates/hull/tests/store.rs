//! The image store under any order of operations, with the engine killed in between: what is there is whole, and what nobody
//! has is gone.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::io::Write;
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
