//! The payload: the test programs, the programs they execute, this program and the plan, as a disk of its own.
//!
//! The guest mounts it where the workspace is on the host, so the paths that cargo compiles into tests hold there as well.

use super::image::{pack, remove_tree};
use super::plan::{PACKAGES, PLAN_FILE, Plan, SKIPPED, Suite};
use crate::Result;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the workspace has programs that tests use and that are not its own.
pub(super) const TOOLS: &str = "target/tools";

/// The rulesets that a test compares the kernel's with.
const RULESETS: &str = "docs/networks";

/// Room for what tests write beside the programs.
const SPARE_BYTES: u64 = 1 << 30;

/// Builds the tests and packs them; the disk. `filter`: a suite's name, or parts of tests' names, separated by commas.
pub(super) fn make(root: &Path, directory: &Path, filter: Option<String>) -> Result<PathBuf> {
    crate::buildx::install(root)?;
    let artifacts = build(root)?;
    let mut suites: Vec<Suite> = artifacts.iter().filter_map(suite).collect();
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    check_skipped(&suites)?;
    let named = |suite: &Suite| filter.as_ref() == Some(&suite.name);
    let filter = if suites.iter().any(named) {
        suites.retain(named);
        None
    } else {
        filter
    };
    let plan = Plan {
        workspace: root.to_owned(),
        filter,
        suites,
    };
    if plan.suites.is_empty() {
        return Err("cargo built no tests".to_owned());
    }
    let tree = directory.join("payload");
    remove_tree(&tree)?;
    let staged = stage(root, &tree, &artifacts, &plan);
    let bytes = staged.map_err(|error| format!("{}: {error}", tree.display()))?;
    let disk = directory.join("payload.ext4");
    pack(
        &tree,
        &disk,
        &format!("{}K", (2 * bytes + SPARE_BYTES) >> 10),
    )?;
    remove_tree(&tree)?;
    Ok(disk)
}

/// A program that cargo has built.
#[derive(Debug)]
struct Artifact {
    package: String,
    /// `lib`, `bin`, `test`.
    kind: String,
    name: String,
    is_test: bool,
    program: PathBuf,
    directory: PathBuf,
}

/// Builds every test, and what they call.
fn build(root: &Path) -> Result<Vec<Artifact>> {
    let mut arguments = vec![
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    arguments.push("--workspace");
    let output = Command::new("cargo")
        .args(&arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {} failed", arguments.join(" ")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(artifact).collect())
}

/// What a message of cargo's tells of a program of the [`PACKAGES`] (The Cargo Book, "External tools").
fn artifact(message: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = message["package_id"].as_str()?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    // `path+file:///…/crates/runtime#hull-runtime@0.1.0`, or without a name where it is the directory's.
    let (path, fragment) = id.rsplit_once('#')?;
    let package = match fragment.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    PACKAGES.contains(&package).then_some(())?;
    Some(Artifact {
        package: package.to_owned(),
        kind: text(&message["target"]["kind"][0])?,
        name: text(&message["target"]["name"])?,
        is_test: message["profile"]["test"].as_bool()?,
        program: text(&message["executable"])?.into(),
        directory: manifest.parent()?.to_owned(),
    })
}

fn suite(artifact: &Artifact) -> Option<Suite> {
    let Artifact {
        package,
        kind,
        name,
        ..
    } = artifact;
    let name = match kind.as_str() {
        "lib" => package.clone(),
        "test" => format!("{package}::{name}"),
        // A program's own tests are its library's.
        _ => return None,
    };
    artifact.is_test.then(|| Suite {
        name,
        program: artifact.program.clone(),
        directory: artifact.directory.clone(),
    })
}

/// What is said not to run has to be there.
fn check_skipped(suites: &[Suite]) -> Result<()> {
    for (name, test, _) in SKIPPED {
        let suite = suites.iter().find(|suite| suite.name == name);
        let suite = suite.ok_or_else(|| format!("no suite {name} of which to skip tests"))?;
        let list = Command::new(&suite.program).arg("--list").output();
        let list = list.map_err(|error| format!("{}: {error}", suite.program.display()))?;
        let line = format!("{test}: test");
        if !String::from_utf8_lossy(&list.stdout)
            .lines()
            .any(|found| found == line)
        {
            return Err(format!("no test {test} of {name} to skip"));
        }
    }
    Ok(())
}

/// Puts everything where the guest will look for it; how many bytes that is.
fn stage(root: &Path, tree: &Path, artifacts: &[Artifact], plan: &Plan) -> std::io::Result<u64> {
    fs::create_dir_all(tree)?;
    fs::write(tree.join(PLAN_FILE), serde_json::to_vec(plan)?)?;
    // By this name it is there even when the build has just replaced it.
    let mut bytes = fs::copy("/proc/self/exe", tree.join("xtask"))?;
    for artifact in artifacts {
        let place = |path: &Path| path.strip_prefix(root).map(|path| tree.join(path));
        let (Ok(program), Ok(directory)) = (place(&artifact.program), place(&artifact.directory))
        else {
            let message = format!("{} is not in the workspace", artifact.program.display());
            return Err(std::io::Error::other(message));
        };
        fs::create_dir_all(directory)?;
        fs::create_dir_all(program.parent().unwrap_or(tree))?;
        bytes += fs::copy(&artifact.program, program)?;
    }
    let rulesets = tree.join(RULESETS);
    fs::create_dir_all(&rulesets)?;
    for entry in fs::read_dir(root.join(RULESETS))? {
        let entry = entry?;
        bytes += fs::copy(entry.path(), rulesets.join(entry.file_name()))?;
    }
    Ok(bytes + stage_tools(root, tree)?)
}

/// The clients of this machine, which are newer than the guest's Debian has them.
fn stage_tools(root: &Path, tree: &Path) -> std::io::Result<u64> {
    let tools = tree.join(TOOLS);
    fs::create_dir_all(&tools)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let docker = std::env::split_paths(&path).map(|directory| directory.join("docker"));
    let own = fs::read_dir(root.join(TOOLS))?.map(|entry| entry.map(|entry| entry.path()));
    let mut bytes = 0;
    for program in docker
        .filter(|path| path.is_file())
        .take(1)
        .map(Ok)
        .chain(own)
    {
        let program = program?;
        if let Some(name) = program.file_name() {
            bytes += fs::copy(&program, tools.join(name))?;
        }
    }
    Ok(bytes)
}
