//! `cargo xtask conformance-registry <suite>`: the conformance suite of opencontainers/distribution-spec, run against
//! `hull registry serve`.
//!
//! The suite is not ours and is not built here: `<suite>` is the program that `go build` makes in the directory `conformance` of
//! a checkout. It runs twice: as released, for the four categories of a certificate (pull, push, content discovery, content
//! management), and with all that the specification's next version asks for.

use super::debug_binary;
use crate::{Result, shell};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How long one run may take.
const RUN_TIMEOUT_S: &str = "600";

/// What is asked for beyond the defaults of a version. Manifests whose layers were never pushed (`OCI_DATA_SPARSE`) are not: a
/// registry may refuse them, and this does.
const RUNS: [(&str, &[&str]); 2] = [
    ("1.1", &[]),
    (
        "dev",
        &[
            "OCI_API_BLOBS_DIGEST_HEADER",
            "OCI_API_BLOBS_UPLOAD_CANCEL",
            "OCI_API_MANIFESTS_DIGEST_HEADER",
            "OCI_API_MANIFESTS_TAG_PARAM",
        ],
    ),
];

/// A registry that ends with the value.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the suite; its report of each run is left in `target/conformance-registry`.
pub(crate) fn run(root: &Path, suite: Option<&str>) -> Result<()> {
    let suite =
        suite.ok_or("name the built conformance program of opencontainers/distribution-spec")?;
    let suite = Path::new(suite).canonicalize();
    let suite = suite.map_err(|error| format!("the suite: {error}"))?;
    shell::run("cargo", &["build", "--package", "hull"])?;
    let hull = debug_binary(root, "hull")?;
    let scratch = root.join("target/conformance-registry");
    // What is left of the last time.
    let _ = std::fs::remove_dir_all(&scratch);
    let mut failed = Vec::new();
    for (version, more) in RUNS {
        let directory = scratch.join(version);
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let registry = start(&hull, &directory.join("storage"))?;
        shell::print(&format!("distribution-spec {version}"));
        let mut command = Command::new("timeout");
        command
            .arg(RUN_TIMEOUT_S)
            .arg(&suite)
            .current_dir(&directory)
            .env("OCI_REGISTRY", &registry.address)
            .env("OCI_TLS", "disabled")
            .env("OCI_VERSION", version)
            .env("OCI_RESULTS_DIR", directory.join("results"));
        command.envs(more.iter().map(|name| (name, "true")));
        let status = command.status();
        let status = status.map_err(|error| format!("{}: {error}", suite.display()))?;
        if !status.success() {
            failed.push(version);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the suite fails for {failed:?}: see {}",
        scratch.display()
    ))
}

fn start(hull: &Path, storage: &Path) -> Result<Registry> {
    let mut child = Command::new(hull)
        .args([
            "registry",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--delete",
            "--storage",
        ])
        .arg(storage)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", hull.display()))?;
    let log = child.stderr.take().expect("it was asked for");
    let mut registry = Registry {
        child,
        address: String::new(),
    };
    let mut log = BufReader::new(log);
    let mut line = String::new();
    log.read_line(&mut line)
        .map_err(|error| error.to_string())?;
    let address = { line.split_whitespace() }.find_map(|word| word.strip_prefix("address="));
    address
        .ok_or_else(|| format!("the registry does not serve: {line}"))?
        .clone_into(&mut registry.address);
    // Somebody has to read on, or the registry would wait for that.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    Ok(registry)
}
