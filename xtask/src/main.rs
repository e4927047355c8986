//! The project's own tasks: `cargo xtask tidy | test | docker-py | compose | dockerfiles | testcontainers | vm-test | ci | bench | soak | conformance | conformance-registry`.

mod bench;
mod buildx;
mod compose;
mod conformance;
mod docker_py;
mod dockerfiles;
mod elf;
mod engine;
mod http;
mod shell;
mod soak;
mod strays;
mod testcontainers;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A task's result; the error is for the person who ran it.
type Result<T, E = String> = std::result::Result<T, E>;

const USAGE: &str = "\
cargo xtask tidy    check the rules that no compiler checks
cargo xtask test    install what the tests need, and run them all (as root)
cargo xtask vm-test [--accel kvm|tcg] [SUITE|TEST]
                    the tests that ask a kernel, on a Debian machine with systemd, cgroup v2, AppArmor (as root)
cargo xtask docker-py
                    the integration tests of docker's library for Python against the engine (as root)
cargo xtask compose a project of six services by the Compose plugin against the engine (as root)
cargo xtask dockerfiles [NAME,… | language [TEXT,…]]
                    Dockerfiles built by this engine and by Docker's, and compared (as root)
cargo xtask testcontainers
                    PostgreSQL and Redis by Testcontainers for Python against the engine (as root)
cargo xtask ci      formatting, clippy, tidy, tests, docker-py, and a static release build
cargo xtask bench   measure side by side with the engines that are installed (as root)
cargo xtask soak [--calls N] [--lives N] [--binary PATH]
                    an engine under many calls and lives of containers, which must not grow by them (as root)
cargo xtask conformance <suite>
                    run a built opencontainers/runtime-tools against this runtime, runc and crun (as root)
cargo xtask conformance-registry <suite>
                    run the built conformance program of opencontainers/distribution-spec against hull registry
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let result = match task.as_str() {
        "tidy" => tidy::run(&root()),
        "test" => test(),
        "vm-test" => vm::run(&root(), &arguments),
        "vm-guest" => vm::guest::run(&arguments),
        "compose" => compose::run(&root()),
        "dockerfiles" => dockerfiles::run(&root(), &arguments),
        "docker-py" => docker_py::run(&root()),
        "ci" => ci(),
        "bench" => bench::run(&root()),
        "testcontainers" => testcontainers::run(&root()),
        "soak" => soak::run(&root(), &arguments),
        "conformance" => conformance::run(&root(), std::env::args().nth(2).as_deref()),
        "conformance-registry" => {
            conformance::registry::run(&root(), std::env::args().nth(2).as_deref())
        }
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
const NEEDED: [(&str, &str); 25] = [
    ("busybox", "busybox-static"),
    ("dbus-daemon", "dbus-daemon"),
    ("newuidmap", "uidmap"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("jq", "jq"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("unshare", "util-linux"),
    ("skopeo", "skopeo"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("catatonit", "catatonit"),
    ("script", "bsdutils"),
    ("tar", "tar"),
    ("zstd", "zstd"),
    ("cc", "gcc"),
    ("/usr/include/stdio.h", "libc6-dev"),
    ("curl", "curl"),
    ("git", "git"),
    ("openssl", "openssl"),
    ("zsh", "zsh"),
];

/// No run of the tests takes as long: one that does waits for something that never comes.
const TESTS_TIMEOUT: &str = "60m";

fn test() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("the tests make containers: run them as root".to_owned());
    }
    install_missing(&NEEDED)?;
    buildx::install(&root())?;
    strays::adopt()?;
    let limited = ["--foreground", "--verbose", TESTS_TIMEOUT];
    let tests = ["cargo", "test", "--workspace", "--no-fail-fast"];
    let tested = shell::run("timeout", &[&limited[..], &tests].concat());
    let ended = strays::end();
    tested.and(ended)
}

/// Installs the packages of those programs that are missing, with Debian's package manager.
fn install_missing(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| !shell::is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::is_installed("apt-get") {
        return Err(format!(
            "programs of these Debian packages are missing, and there is no apt-get: {missing:?}"
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
    docker_py::run(&root())?;
    shell::run("cargo", &["build", "--release"])?;
    elf::check_static(&release_binary(&root())?)
}

/// The release build's binary, whatever the host's target is called.
fn release_binary(root: &Path) -> Result<PathBuf> {
    built(root, "release")
}

/// The binary that was built by a profile.
fn built(root: &Path, profile: &str) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let targets = std::fs::read_dir(target).map_err(|error| error.to_string())?;
    let candidates = targets
        .flatten()
        .map(|entry| entry.path().join(profile).join("hull"));
    let found = { candidates }.find(|path| path.exists());
    found.ok_or_else(|| format!("no {profile} build in target/"))
}
