//! The language, by hundreds of Dockerfiles of a few lines: `crates/hull/tests/dockerfiles`.
//!
//! What Docker's engine builds this one has to build, and alike; what that refuses this one has to refuse. Both reasons are in
//! `refused.txt` beside the other working files then, to be read beside each other. What this engine says is kept by its own tests.

use super::compare::{self, Times};
use super::image::{Image, Tree};
use super::{Bench, output};
use crate::{Result, shell};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../../crates/hull/tests/support/cases.rs"]
#[expect(unreachable_pub, reason = "the tests of another crate have it, too")]
mod cases;

use cases::Case;

/// Where the texts are.
const TEXTS: &str = "crates/hull/tests/dockerfiles";
/// The text whose Dockerfiles are checked, and not built.
const CHECKED: &str = "lint";
/// Differences that are meant: how titles begin, and why that is so.
const MEANT: [(&str, &str); 33] = [
    (
        "files: COPY --parents",
        "Docker's own frontend has that flag in another edition alone",
    ),
    ("files: COPY --exclude=*.txt --parents", "the same"),
    (
        "files: COPY --chown=",
        "Docker's takes a user that nobody knows for root",
    ),
    (
        "files: COPY one.txt two.txt /x",
        "Docker's writes the files over one another",
    ),
    ("files: COPY *.txt /x", "the same"),
    ("files: ADD one.txt two.txt /x", "the same"),
    ("two documents of COPY into one file", "the same"),
    (
        "no text in a quoted document",
        "what would not get through as it is is refused",
    ),
    (
        "words of ENV: \"\"=1",
        "no container can have a variable without a name",
    ),
    ("words of ENV: ${NONE}=1", "the same"),
    (
        "single words: WORKDIR /a/../b",
        "a directory is kept by its path alone",
    ),
    ("single words: WORKDIR /a//b/./c/", "the same"),
    (
        "SecretsUsedInArgOrEnv of files and versions",
        "later frontends of Docker's leave these names out, too",
    ),
    (
        "mounts: type=bind,target=/x,id=1",
        "what means nothing to a mount is refused",
    ),
    ("mounts: type=cache,target=/x,env=A", "the same"),
    ("mounts: type=secret,id=x,rw", "the same"),
    ("mounts: type=ssh,env=X", "the same"),
    (
        "mounts: type=bind,\"target=/x",
        "Docker's runs nothing where a quote is not closed",
    ),
    ("mounts: \"type=cache,target=/x", "the same"),
    (
        "commands: ONBUILD FOO",
        "what cannot ever run is refused where it is written",
    ),
    (
        "commands: ONBUILD WORKDIR  /x  ",
        "blanks at the end of a line mean nothing",
    ),
    (
        "skipped above an instruction",
        "rules can be left out for one instruction here",
    ),
    (
        "files: COPY --exclude=one.txt one.txt",
        "Docker's copies a file that is named whatever is excluded",
    ),
    ("files: COPY --exclude=*.txt *.txt", "the same"),
    (
        "files: COPY --exclude=*.txt .",
        "Docker's looks for what a dangling link leads to where something is excluded",
    ),
    ("files: COPY --exclude=*.txt --exclude=", "the same"),
    ("files: COPY --exclude=dir/sub .", "the same"),
    ("files: COPY --exclude=/dir .", "the same"),
    ("files: COPY --exclude= .", "the same"),
    ("files: COPY --exclude=$F .", "the same"),
    ("files: ADD --exclude=*.txt .", "the same"),
    (
        "UndefinedVar in other places",
        "Docker's tells what it has found up to a signal that is none",
    ),
    (
        "with a mistake",
        "Docker's tells what it has found up to the mistake",
    ),
];

/// What one engine has made of a case.
enum Outcome {
    Built(Image),
    Said(String),
    Refused(String),
}

/// Whether a case of a text is among those that are named, by the text or by how its title begins, too.
fn is_wanted(wanted: &[String], text: &str, title: &str) -> bool {
    let is_meant = |word: &String| match word.split_once(':') {
        Some((name, start)) => name == text && title.starts_with(start),
        None => word == text,
    };
    wanted.is_empty() || wanted.iter().any(is_meant)
}

/// Builds the cases that are among `wanted`, or all; how many differ, and how many there are.
pub(super) fn run(bench: &Bench, root: &Path, wanted: &[String]) -> Result<(usize, usize)> {
    let place = Place::make(bench)?;
    let mut known = BTreeMap::new();
    let mut refused = String::new();
    let (mut different, mut count) = (0, 0);
    for (name, text) in texts(root)? {
        let cases = cases::read(&text);
        for case in { cases.iter() }.filter(|case| is_wanted(wanted, &name, &case.title)) {
            count += 1;
            let found = place.judge(case, name == CHECKED, &mut known, &mut refused);
            let found = found.unwrap_or_else(|error| vec![error]);
            let meant = MEANT.iter().any(|(title, _)| case.title.starts_with(title));
            if found.is_empty() || meant {
                continue;
            }
            different += 1;
            shell::print(&format!("{name}: {}: DIFFERENT", case.title));
            for difference in &found {
                shell::print(&format!("    {difference}"));
            }
        }
        shell::print(&format!("{name}: done"));
    }
    let path = bench.work.join("refused.txt");
    std::fs::write(&path, refused).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((different, count))
}

/// The texts by their names, ordered.
fn texts(root: &Path) -> Result<Vec<(String, String)>> {
    let place = root.join(TEXTS);
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(&place).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        texts.push((name.into_owned(), text));
    }
    texts.sort();
    Ok(texts)
}

/// The context of all cases, and the file that each one's Dockerfile is written to.
struct Place<'b> {
    bench: &'b Bench,
    context: PathBuf,
    dockerfile: PathBuf,
}

impl<'b> Place<'b> {
    fn make(bench: &'b Bench) -> Result<Self> {
        let beside = bench.work.join("language");
        let context = beside.join("context");
        std::fs::create_dir_all(&context)
            .map_err(|error| format!("{}: {error}", context.display()))?;
        let mut script = Command::new("sh");
        output(script.args(["-c", cases::CONTEXT]).current_dir(&context))?;
        bench.engine.make_image()?;
        let archive = bench.work.join("image.tar").display().to_string();
        bench.oracle.docker(&[
            "import",
            "--change",
            "CMD [\"/bin/sh\"]",
            "--change",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            &archive,
            "busybox",
        ])?;
        Ok(Self {
            bench,
            dockerfile: beside.join("Dockerfile"),
            context,
        })
    }

    /// What differs.
    fn judge(
        &self,
        case: &Case,
        is_checked: bool,
        known: &mut BTreeMap<String, Tree>,
        refused: &mut String,
    ) -> Result<Vec<String>> {
        let written = std::fs::write(&self.dockerfile, &case.dockerfile);
        written.map_err(|error| format!("{}: {error}", self.dockerfile.display()))?;
        let flags: Vec<&str> = case.flags.iter().map(String::as_str).collect();
        let (file, context) = (
            self.dockerfile.display().to_string(),
            self.context.display().to_string(),
        );
        let way: &[&str] = match is_checked {
            true => &["--check"],
            false => &["--progress=plain", "-t", "case"],
        };
        let words = [
            &["build", "--network=host"],
            way,
            &["-f", &file],
            &flags[..],
            &[&context],
        ]
        .concat();
        let mut of_oracle = { &self.bench.oracle }.client(&[&["buildx"], &words[..]].concat());
        let mut of_engine = Command::new(self.bench.engine.program());
        of_engine.args(["-H", &self.bench.engine.host]).args(&words);
        let expected = self.outcome(&mut of_oracle, is_checked, known, &|words| {
            self.bench.oracle.docker(words)
        })?;
        let made = self.outcome(&mut of_engine, is_checked, known, &|words| {
            self.bench.client.docker(&self.bench.engine.host, words)
        })?;
        Ok(match (expected, made) {
            (Outcome::Built(expected), Outcome::Built(made)) => {
                let times = Times {
                    started_s: self.bench.started_s,
                    epoch_s: None,
                };
                compare::compare(&expected, &made, times)
            }
            (Outcome::Said(expected), Outcome::Said(made)) => {
                let differs = expected != made;
                let both = format!("{made}\n  instead of\n{expected}").replace('\n', "\n    ");
                differs.then_some(both).into_iter().collect()
            }
            (Outcome::Refused(expected), Outcome::Refused(made)) => {
                let title = &case.title;
                write!(refused, "=== {title}\n{expected}\n---\n{made}\n\n")
                    .map_err(|error| error.to_string())?;
                Vec::new()
            }
            (Outcome::Refused(why), _) => vec![format!("built, but Docker: {why}")],
            (_, Outcome::Refused(why)) => vec![format!("refused: {why}")],
            _ => vec!["built and checked".to_owned()],
        })
    }

    fn image(
        &self,
        docker: &dyn Fn(&[&str]) -> Result<String>,
        known: &mut BTreeMap<String, Tree>,
    ) -> Result<Image> {
        let told = docker(&["image", "inspect", "--format", "{{json .}}", "case"])?;
        let told: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
        let layers = told["RootFS"]["Layers"].as_array();
        match layers.is_none_or(Vec::is_empty) {
            true => Ok(without_layers(&told)),
            false => {
                let save = |to: &str| docker(&["save", "-o", to, "case"]);
                self.bench.saved(&save, known)
            }
        }
    }

    fn outcome(
        &self,
        command: &mut Command,
        is_checked: bool,
        known: &mut BTreeMap<String, Tree>,
        docker: &dyn Fn(&[&str]) -> Result<String>,
    ) -> Result<Outcome> {
        let said = command
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&said.stdout), text(&said.stderr));
        Ok(match (is_checked, said.status.success()) {
            (true, _) if stdout.contains("Check complete") => Outcome::Said(findings(&stdout)),
            (false, true) => Outcome::Built(self.image(docker, known)?),
            _ => Outcome::Refused(reason(&format!("{stdout}{stderr}"))),
        })
    }
}

/// An image without layers, of which Docker makes no archive: what is told of it.
fn without_layers(told: &Value) -> Image {
    let fields = [
        ("architecture", "Architecture"),
        ("variant", "Variant"),
        ("os", "Os"),
        ("author", "Author"),
        ("config", "Config"),
    ];
    let fields = fields.map(|(name, of_api)| (name.to_owned(), told[of_api].clone()));
    Image {
        config: fields.into_iter().collect::<serde_json::Map<_, _>>().into(),
        layers: Vec::new(),
    }
}

/// What a check has found: rules, details and places, without the text around them, in an order that those of one line have, too.
fn findings(said: &str) -> String {
    let mut found = Vec::new();
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if let Some(rule) = line.strip_prefix("WARNING: ") {
            let rule = rule.split(' ').next().unwrap_or_default();
            let (detail, place) = (lines.next(), lines.next());
            let parts = [Some(rule), detail, place].map(Option::unwrap_or_default);
            found.push(parts.join(" "));
        }
    }
    found.sort();
    found.join("\n")
}

/// The end of what a client says when it fails, from where it shows the Dockerfile.
fn reason(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let shown = lines
        .iter()
        .rposition(|line| line.starts_with("Dockerfile:") || line.starts_with("ERROR:"));
    let from = shown.unwrap_or_default().min(lines.len().saturating_sub(1));
    lines[from..].join("\n")
}
