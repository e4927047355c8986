//! The Dockerfile language, by hundreds of Dockerfiles of a few lines: what each is built to, or why it is refused.
//!
//! The Dockerfiles are in `dockerfiles/`, what becomes of them in `snapshots/`. `cargo xtask dockerfiles language` holds the same
//! ones against Docker's engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use support::Engine;
use support::cases::{self, Case};

/// Instructions without which there are no files.
const FILLING: [&str; 4] = ["COPY", "ADD", "RUN", "WORKDIR"];

/// What every image finds programs by.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Values that say nothing.
const NOTHING: [&str; 7] = ["null", "\"\"", "[]", "{}", "false", "\"/\"", "[\"PATH\"]"];

/// Builds cases in one context, by an engine of their own.
struct Bench {
    engine: Engine,
    /// Where the engine has its data: in memory, so that nothing waits for a disk. It goes after the engine.
    _data: tempfile::TempDir,
    /// The files of the image `busybox`.
    base: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Self {
        let mut engine = Engine::empty();
        engine.kill();
        let data = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::remove_dir_all(engine.path("data")).unwrap();
        symlink(data.path(), engine.path("data")).unwrap();
        engine.start();
        let import = ["import", "--change", "CMD [\"sh\"]", "-", "busybox"];
        engine.ok_with_input(&import, &support::busybox_tar());
        // No registry is asked, so that nobody has to have one.
        std::fs::write(engine.path("policy.toml"), "default = \"reject\"\n").unwrap();
        let context = engine.path("context");
        std::fs::create_dir(&context).unwrap();
        let mut script = Command::new("sh");
        let made = script
            .args(["-c", cases::CONTEXT])
            .current_dir(&context)
            .status();
        assert!(made.unwrap().success());
        let mut bench = Self {
            engine,
            _data: data,
            base: BTreeMap::new(),
        };
        std::fs::write(bench.engine.path("Dockerfile"), "FROM busybox\n").unwrap();
        bench.base = bench.files(&[]);
        bench
    }

    /// What is said of a case: the configuration and the files that it is built to, or why it is not.
    fn answer(&self, case: &Case, check: bool) -> String {
        std::fs::write(self.engine.path("Dockerfile"), &case.dockerfile).unwrap();
        let flags: Vec<&str> = case.flags.iter().map(String::as_str).collect();
        let network = ["--network", "none"];
        let way: &[&str] = if check {
            &["--check"]
        } else {
            &["-q", "-t", "case"]
        };
        let said = self
            .engine
            .run(&[&self.words()[..], &network, way, &flags, &["context"]].concat());
        if check {
            return said.stdout + &said.stderr;
        }
        if said.code != 0 {
            return said.stderr;
        }
        let mut answer = self.configuration();
        let text = String::from_utf8_lossy(&case.dockerfile);
        if FILLING.iter().any(|word| text.contains(word)) {
            for (path, what) in self.files(&flags) {
                if self.base.get(&path) != Some(&what) {
                    writeln!(answer, "{path} {what}").unwrap();
                }
            }
        }
        answer
    }

    fn words(&self) -> [&str; 3] {
        ["build", "-f", "Dockerfile"]
    }

    fn dockerfile(&self) -> String {
        let bytes = std::fs::read(self.engine.path("Dockerfile")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the image's configuration has that says something.
    fn configuration(&self) -> String {
        let image = self.asked("/images/case/json");
        let mut text = String::new();
        if image["Architecture"] != "amd64" {
            let (architecture, variant) = (&image["Architecture"], &image["Variant"]);
            writeln!(text, "platform {architecture} {variant}").unwrap();
        }
        for (name, value) in image["Config"].as_object().unwrap() {
            let value = value.to_string().replace(PATH, "PATH");
            if !NOTHING.contains(&value.as_str()) {
                writeln!(text, "{name} {value}").unwrap();
            }
        }
        text
    }

    /// What the API tells.
    fn asked(&self, path: &str) -> Value {
        let mut socket = UnixStream::connect(self.engine.path("run/hull.sock")).unwrap();
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// All files of what was built.
    fn files(&self, flags: &[&str]) -> BTreeMap<String, String> {
        let output = ["--network", "none", "-q", "-o", "out", "context"];
        let said = self
            .engine
            .run(&[&self.words()[..], flags, &output].concat());
        assert_eq!(said.code, 0, "{said:?}\n{}", self.dockerfile());
        let out = self.engine.path("out");
        let mut files = BTreeMap::new();
        list(&out, Path::new(""), &mut files);
        std::fs::remove_dir_all(&out).unwrap();
        files
    }
}

/// Lists a tree: paths, with modes, owners and contents.
fn list(root: &Path, below: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let (path, metadata) = (below.join(entry.file_name()), entry.metadata().unwrap());
        let content = match metadata.file_type() {
            kind if kind.is_dir() => "directory".to_owned(),
            kind if kind.is_symlink() => {
                format!("-> {}", std::fs::read_link(entry.path()).unwrap().display())
            }
            _ if metadata.len() > 300 => format!("{} bytes", metadata.len()),
            _ => {
                let content = std::fs::read(entry.path()).unwrap();
                format!("{:?}", String::from_utf8_lossy(&content))
            }
        };
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        files.insert(
            path.display().to_string(),
            format!("{mode:o} {uid}:{gid} {content}"),
        );
        if metadata.is_dir() {
            list(root, &path, files);
        }
    }
}

/// Builds, or checks, all of a text.
fn answers(name: &str, check: bool) -> String {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
    let text = std::fs::read_to_string(texts.join(format!("{name}.txt"))).unwrap();
    let bench = Bench::new();
    let mut answers = String::new();
    for case in cases::read(&text) {
        let answer = bench.answer(&case, check);
        let root = bench.engine.path("").display().to_string();
        let answer = answer.replace(&root, "/");
        write!(answers, "=== {}\n{}\n", case.title, answer.trim_end()).unwrap();
    }
    bench.engine.assert_nothing_left();
    answers
}

#[test]
fn words() {
    insta::assert_snapshot!("words", answers("words", false));
}

#[test]
fn instructions() {
    insta::assert_snapshot!("instructions", answers("instructions", false));
}

#[test]
fn whole_files() {
    insta::assert_snapshot!("whole_files", answers("parser", false));
}

#[test]
fn checks() {
    insta::assert_snapshot!("checks", answers("lint", true));
}
