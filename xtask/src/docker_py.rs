//! `cargo xtask docker-py`: the integration tests that docker's library for Python brings along, against this engine.
//!
//! They are of a version that still has them (6.1.3 of the package `docker`), written for engines that were in use then, and
//! nobody here wrote them. Engine and tests run in a network namespace of their own; the images that the tests want are made
//! here. A test that fails is in the table below, with the reason, or the task has failed.

use crate::engine::Engine;
use crate::{Result, install_missing, shell};
use std::path::Path;
use std::process::{Command, Stdio};

/// The package with the tests, and what it and they need.
const SUITE: &str = "docker==6.1.3";
const PACKAGES: [&str; 8] = [
    "pytest==7.1.2",
    "pytest-timeout==2.1.0",
    "requests==2.31.0",
    "urllib3==1.26.20",
    "websocket-client==1.9.0",
    "packaging==24.2",
    "setuptools==65.5.1",
    "paramiko==3.5.1",
];

/// How long all of it may take, and one test.
const SUITE_TIMEOUT: &str = "1200";
const TEST_TIMEOUT_S: &str = "--timeout=60";
/// Fewer tests than these were not the suite.
const PASSED_MIN: usize = 180;

/// Files whose tests ask for what is not there on purpose.
const LEFT_OUT: [&str; 9] = [
    "api_config_test.py",
    "api_plugin_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "api_swarm_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
    "credentials",
];

const HUB: &str = "asks for an image of a registry that cannot be reached";
const FIELDS: &str = "asks for fields that the API has no more since version 1.45";
const SWARM: &str = "asks for a swarm";

/// Tests that fail, by the end of their names or a part of it, and why that is no fault.
const ARGUED: [(&str, &str); 18] = [
    ("PullImageTest::", HUB),
    ("ImportImageTest::test_get_load_image", HUB),
    ("PruneImagesTest::test_prune_images", HUB),
    ("InspectDistributionTest::", HUB),
    ("test_run_with_image_that_does_not_exist", HUB),
    ("ImageCollectionTest::test_list", HUB),
    ("ImageCollectionTest::test_pull", HUB),
    ("ImageTest::test_tag_and_remove", HUB),
    ("CommitTest::test_commit", FIELDS),
    (
        "test_run_container_reading_socket_ws",
        "the library cannot open a websocket over a unix socket",
    ),
    (
        "test_create_with_runtime",
        "gives the runtime where no engine has ever read it, and asks for the name of another runtime",
    ),
    (
        "test_exec_run_failed",
        "asks for the exit code 126 where engines since version 25 say 127: the command is not found",
    ),
    (
        "test_build_with_cache_from",
        "takes the history of an image for a cache; here an image carries one (BUILDKIT_INLINE_CACHE=1)",
    ),
    (
        "test_build_squash",
        "squashes layers, which is refused by name; only engines with experimental features are asked, as checkpoints are one",
    ),
    ("test_create_network_attachable", SWARM),
    ("test_create_network_ingress", SWARM),
    ("test_create_inspect_network_with_scope", SWARM),
    (
        "test_create_check_duplicate",
        "asks for two networks of one name, which engines since version 25 refuse",
    ),
];

/// How many tests that have failed are run once more: several do not wait for what they have begun.
const REPEATED_MAX: usize = 5;

/// Runs the tests.
pub(crate) fn run(root: &Path) -> Result<()> {
    let place = root.join("target/docker-py");
    prepare(&place)?;
    let engine = Engine::start(root, &place)?;
    engine.make_image()?;
    let mut said = test(&engine, &place, &["tests/integration"])?;
    let repeated = unexplained(&said);
    if (1..=REPEATED_MAX).contains(&repeated.len()) {
        shell::say(&format!("once more: {}", repeated.join(", ")));
        let again = test(&engine, &place, &repeated)?;
        // Of a test that was repeated the second run counts.
        let kept = { said.lines() }.filter(|line| !repeated.iter().any(|name| line.contains(name)));
        said = kept.chain(again.lines()).collect::<Vec<_>>().join("\n");
    }
    drop(engine);
    judge(&said)
}

/// Brings the suite and what it needs, once.
fn prepare(place: &Path) -> Result<()> {
    let ready = place.join("ready");
    if ready.exists() {
        return Ok(());
    }
    shell::say("fetching the integration tests of docker's library for Python");
    // What an interrupted run has left.
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(|error| format!("{}: {error}", place.display()))?;
    }
    std::fs::create_dir_all(place).map_err(|error| format!("{}: {error}", place.display()))?;
    make_venv(&place.join("venv"))?;
    let pip = path(place, "venv/bin/pip");
    let quiet = ["-q", "--disable-pip-version-check"];
    shell::run(&pip, &[&["install"], &quiet[..], &PACKAGES].concat())?;
    let source = path(place, "source");
    let download = [
        "download",
        SUITE,
        "--no-binary",
        ":all:",
        "--no-deps",
        "-d",
        &source,
    ];
    shell::run(&pip, &[&quiet[..], &download].concat())?;
    let archive = path(place, "source/docker-6.1.3.tar.gz");
    shell::run("tar", &["-C", &path(place, "."), "-xf", &archive])?;
    std::fs::write(&ready, "").map_err(|error| format!("{}: {error}", ready.display()))
}

/// An environment for packages of Python.
pub(crate) fn make_venv(venv: &Path) -> Result<()> {
    let able = shell::quiet("python3")
        .args(["-c", "import ensurepip"])
        .status();
    if !able.is_ok_and(|status| status.success()) {
        install_missing(&[("python3 with venv", "python3-venv")])?;
    }
    shell::run("python3", &["-m", "venv", &venv.display().to_string()])
}

fn path(place: &Path, below: &str) -> String {
    place.join(below).display().to_string()
}

/// Runs these of the suite, and returns what it says.
fn test(engine: &Engine, place: &Path, tests: &[&str]) -> Result<String> {
    // Without a configuration file there, the library keeps its contexts in the working directory.
    let home = place.join("home/.docker");
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    std::fs::write(home.join("config.json"), "{}").map_err(|error| error.to_string())?;
    let mut command = Command::new("timeout");
    command
        .args([
            "--kill-after",
            "10",
            SUITE_TIMEOUT,
            "nsenter",
            &engine.network(),
        ])
        .arg(place.join("venv/bin/python"))
        .args([
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "-rA",
            "--tb=line",
            TEST_TIMEOUT_S,
        ])
        .args(LEFT_OUT.map(|file| format!("--ignore=tests/integration/{file}")))
        .args(tests)
        .current_dir(place.join("docker-6.1.3"))
        .env("HOME", place.join("home"))
        .env("DOCKER_HOST", &engine.host)
        .stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| format!("cannot run pytest: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = place.join("pytest.log");
    std::fs::write(&log, &said).map_err(|error| format!("{}: {error}", log.display()))?;
    Ok(said)
}

/// Each test's result and its name.
fn results(said: &str) -> impl Iterator<Item = (&str, &str)> {
    let results = said.lines().filter_map(|line| line.split_once(' '));
    results.map(|(word, rest)| (word, rest.split(" - ").next().unwrap_or(rest)))
}

fn has_failed((word, name): &(&str, &str)) -> bool {
    matches!(*word, "FAILED" | "ERROR") && name.starts_with("tests/")
}

fn argued(name: &str) -> Option<usize> {
    ARGUED.iter().position(|(part, _)| name.contains(part))
}

/// What failed for no known reason.
fn unexplained(said: &str) -> Vec<&str> {
    let failed = results(said).filter(has_failed).map(|(_, name)| name);
    failed.filter(|name| argued(name).is_none()).collect()
}

/// Compares what failed with what may fail.
fn judge(said: &str) -> Result<()> {
    let passed = results(said).filter(|(word, _)| *word == "PASSED").count();
    let failed = unexplained(said);
    let mut excused = [false; ARGUED.len()];
    for (_, name) in results(said).filter(has_failed) {
        if let Some(at) = argued(name) {
            excused[at] = true;
        }
    }
    shell::print(&format!(
        "docker-py: {passed} passed, {} failed for no known reason",
        failed.len()
    ));
    if !failed.is_empty() {
        let failed = failed.join("\n  ");
        return Err(format!("see target/docker-py/pytest.log:\n  {failed}"));
    }
    if passed < PASSED_MIN {
        return Err(format!(
            "only {passed} tests passed: see target/docker-py/pytest.log"
        ));
    }
    let idle = ARGUED.iter().zip(excused).filter(|(_, excused)| !excused);
    let idle: Vec<&str> = idle.map(|((part, _), _)| *part).collect();
    if idle.is_empty() {
        return Ok(());
    }
    Err(format!(
        "nothing fails any more of what is excused by {idle:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_without_a_reason_is_named() {
        let line = "FAILED tests/integration/a_test.py::New::test_x - AssertionError\n";
        assert!(judge(line).unwrap_err().contains("New::test_x"));
        assert!(judge("PASSED tests/integration/a_test.py::A::b\n").is_err());
    }
}
