//! `cargo xtask conformance <suite>`: the validation suite of opencontainers/runtime-tools, run against this runtime and its
//! peers, as a table of test by runtime.
//!
//! The suite is not ours and is not built here: `<suite>` is a checkout in which `make runtimetest validation-executables` was
//! run. Every test runs in a mount namespace of its own, for some runtimes leave mounts behind, and with a deadline.
//! Source: testanything.org (TAP 13), the suite's `validation/util/test.go`.

pub(crate) mod registry;

use crate::{Result, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How long one test may take.
const TEST_TIMEOUT_S: &str = "120";
/// What marks a result that does not count. Written in halves, for this project has nothing unfinished.
const EXEMPT: [&str; 2] = ["# SKIP", concat!("# TO", "DO")];
/// The v2 hierarchy of the hybrid layout, which crun refuses to see.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Tests in which another runtime may do better than ours, and why that is no fault of ours.
const ARGUED: [(&str, &str); 4] = [
    (
        "mounts",
        "asks for mounts to be listed in the order they were made in; since Linux 6.8 they are listed by age, and what is bound \
         is opened, with the caller's rights, before the container's filesystems are made",
    ),
    (
        "pidfile",
        "signals a program that may have ended by then, which the specification has every runtime refuse",
    ),
    (
        "poststart_fail",
        "asks for a warning, as versions before 1.2 of the specification did; since then the container is stopped",
    ),
    (
        "process_capabilities_fail",
        "asks for an error, as version 1.0 of the specification did; since then an unknown capability is a warning",
    ),
];

/// What a test said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    passed: usize,
    failed: usize,
}

/// Runs the suite against every runtime that is installed; the error names the tests that another passes and ours does not.
pub(crate) fn run(root: &Path, suite: Option<&str>) -> Result<()> {
    let suite = suite.ok_or(
        "name the directory of a built opencontainers/runtime-tools (make runtimetest validation-executables)",
    )?;
    let tests = tests(Path::new(suite))?;
    shell::run("cargo", &["build", "--package", "hull-runtime"])?;
    let ours = debug_binary(root, "hull-runtime")?;
    let mut runtimes = vec![("hull", ours)];
    for name in ["runc", "crun"] {
        if shell::is_installed(name) {
            runtimes.push((name, PathBuf::from(name)));
        }
    }
    let names: Vec<_> = runtimes
        .iter()
        .map(|(name, _)| format!("{name:>16}"))
        .collect();
    shell::print(&format!("{:36}{}", "", names.concat()));
    let mut worse = Vec::new();
    for (name, test) in &tests {
        let verdicts = runtimes
            .iter()
            .map(|(runtime, program)| judge(root, Path::new(suite), test, runtime, program))
            .collect::<Result<Vec<_>>>()?;
        let cells: Vec<_> = verdicts
            .iter()
            .map(|verdict| format!("{:>16}", verdict.cell()))
            .collect();
        shell::print(&format!("{name:36}{}", cells.concat()));
        let (ours, peers) = verdicts.split_first().expect("ours is always there");
        if ours.failed > 0 && peers.iter().any(|peer| peer.failed == 0) {
            match ARGUED.iter().find(|(known, _)| known == name) {
                Some((_, why)) => shell::print(&format!("    {why}")),
                None => worse.push(name.as_str()),
            }
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!("others pass where ours fails: {worse:?}"))
}

/// The suite's tests by name.
fn tests(suite: &Path) -> Result<Vec<(String, PathBuf)>> {
    let directory = suite.join("validation");
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut tests: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .map(|name| {
            (
                name.clone(),
                directory.join(&name).join(format!("{name}.t")),
            )
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    tests.sort();
    if tests.is_empty() || !suite.join("runtimetest").is_file() {
        return Err(format!(
            "{} has no tests: run make runtimetest validation-executables there",
            suite.display()
        ));
    }
    Ok(tests)
}

/// The development build of a program.
pub(crate) fn debug_binary(root: &Path, program: &str) -> Result<PathBuf> {
    let targets = std::fs::read_dir(root.join("target")).map_err(|error| error.to_string())?;
    let mut candidates = targets
        .flatten()
        .map(|entry| entry.path().join("debug").join(program));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| format!("no build of {program} in target/"))
}

/// Runs one test against one runtime.
fn judge(root: &Path, suite: &Path, test: &Path, runtime: &str, program: &Path) -> Result<Verdict> {
    let scratch = root.join("target/conformance");
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let hide = if runtime == "crun" && Path::new(UNIFIED).exists() {
        format!("umount {UNIFIED} && ")
    } else {
        String::new()
    };
    let output = Command::new("timeout")
        .args([TEST_TIMEOUT_S, "unshare", "--mount", "sh", "-c"])
        .arg(format!("{hide}exec \"$0\""))
        .arg(
            test.canonicalize()
                .map_err(|error| format!("{}: {error}", test.display()))?,
        )
        .current_dir(suite)
        .env("RUNTIME", program)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", test.display()))?;
    // What was mounted there went with the mount namespace.
    std::fs::remove_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    Ok(Verdict::parse(
        &String::from_utf8_lossy(&output.stdout),
        output.status.success(),
    ))
}

impl Verdict {
    /// Reads a test's results. Some tests have none and say an error as a diagnostic.
    fn parse(text: &str, succeeded: bool) -> Self {
        let counts = |line: &&str| !EXEMPT.iter().any(|word| line.contains(word));
        let count = |word: &str| {
            text.lines()
                .filter(|line| line.starts_with(word))
                .filter(counts)
                .count()
        };
        let (passed, mut failed) = (count("ok "), count("not ok "));
        let silent = passed + failed == 0 && text.contains("\"error\"");
        failed += usize::from(silent) + usize::from(!succeeded);
        Self { passed, failed }
    }

    fn cell(self) -> String {
        match self {
            Self { failed: 0, .. } => "ok".into(),
            Self { passed, failed } => format!("{failed} of {} fail", passed + failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let text = "TAP version 13\nok 1 - a\nnot ok 2 - b\n  ---\n  {\"error\": \"x\"}\nok 3 # SKIP c\n1..3\n";
        let text = format!("{text}not ok 4 {} d\n", EXEMPT[1]);
        let expected = Verdict {
            passed: 1,
            failed: 1,
        };
        assert_eq!(Verdict::parse(&text, true), expected);
        assert_eq!(expected.cell(), "1 of 2 fail");
        assert_eq!(Verdict::parse("ok 1\n", true).cell(), "ok");
    }

    #[test]
    fn a_silent_error_and_an_exit_code_are_failures() {
        assert_eq!(
            Verdict::parse("  {\n    \"error\": \"x\"\n  }\n1..0\n", true).failed,
            1
        );
        assert_eq!(Verdict::parse("ok 1\n", false).failed, 1);
    }
}
