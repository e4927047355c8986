//! The project's own tasks: `cargo xtask tidy | test | ci | bench | conformance`.

mod bench;
mod conformance;
mod elf;
mod shell;
mod strays;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A task's result; the error is for the person who ran it.
type Result<T, E = String> = std::result::Result<T, E>;

const USAGE: &str = "\
cargo xtask tidy    check the rules that no compiler checks
cargo xtask test    install what the tests need, and run them all (as root)
cargo xtask ci      formatting, clippy, tidy, tests, and a static release build
cargo xtask bench   measure side by side with the engines that are installed (as root)
cargo xtask conformance <suite>
                    run a built opencontainers/runtime-tools against this runtime, runc and crun (as root)
";

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "tidy" => tidy::run(&root()),
        "test" => test(),
        "ci" => ci(),
        "bench" => bench::run(&root()),
        "conformance" => conformance::run(&root(), std::env::args().nth(2).as_deref()),
        _ => Err(format!("no task {task:?}; there are:\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            shell::say(&format!("xtask: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Programs that the tests call, and Debian's packages that have them.
const NEEDED: [(&str, &str); 16] = [
    ("busybox", "busybox-static"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("skopeo", "skopeo"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("catatonit", "catatonit"),
    ("script", "bsdutils"),
    ("tar", "tar"),
    ("cc", "gcc"),
    ("curl", "curl"),
];

fn test() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("the tests make containers: run them as root".to_owned());
    }
    install_needed()?;
    strays::adopt()?;
    let tested = shell::run("cargo", &["test", "--workspace", "--no-fail-fast"]);
    let ended = strays::end();
    tested.and(ended)
}

/// Installs what is missing, with Debian's package manager.
fn install_needed() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !shell::is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::is_installed("apt-get") {
        return Err(format!(
            "the tests need programs of these Debian packages, and there is no apt-get: {missing:?}"
        ));
    }
    shell::say(&format!("installing {}", missing.join(" ")));
    shell::run("apt-get", &["-qq", "update"])?;
    let mut arguments = vec!["-qq", "install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    shell::run("apt-get", &arguments)
}

fn ci() -> Result<()> {
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::run("cargo", &clippy)?;
    tidy::run(&root())?;
    test()?;
    shell::run("cargo", &["build", "--release"])?;
    elf::check_static(&release_binary(&root())?)
}

/// The release build's binary, whatever the host's target is called.
fn release_binary(root: &Path) -> Result<PathBuf> {
    let targets = std::fs::read_dir(root.join("target")).map_err(|error| error.to_string())?;
    let candidates = targets
        .flatten()
        .map(|entry| entry.path().join("release/hull"));
    let found = { candidates }.find(|path| path.exists());
    found.ok_or_else(|| "no release build in target/".to_owned())
}
