//! `cargo xtask testcontainers`: Testcontainers for Python starts PostgreSQL and Redis on the engine, and queries are run in them.
//!
//! The images are made here, of Debian's packages, and behave as those that Testcontainers expects as far as it looks. They and what
//! Python needs are kept in target/; the library's own container that cleans up (Ryuk) is an image of a registry, and is switched off.

use crate::engine::Engine;
use crate::{Result, install_missing, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The library, and the clients of both services.
const PACKAGES: [&str; 4] = [
    "testcontainers==4.9.0",
    "sqlalchemy==2.0.36",
    "psycopg2-binary==2.9.10",
    "redis==5.2.0",
];

/// The release of Debian whose packages the image has; its PostgreSQL is version 15.
const SUITE: &str = "bookworm";

/// How long the script may take.
const SCRIPT_TIMEOUT: &str = "300";

/// The images: name, entrypoint, port.
const IMAGES: [(&str, &str, u16); 2] = [
    ("postgres:15", "/usr/local/bin/postgres-entrypoint", 5432),
    ("redis:7", "/usr/local/bin/redis-entrypoint", 6379),
];

/// Starts both by the library, and asks them something.
pub(crate) fn run(root: &Path) -> Result<()> {
    let place = root.join("target/testcontainers");
    std::fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let archive = make_archive(&place)?;
    let python = install_python(&place)?;
    let engine = Engine::start(root, &place)?;
    for (name, entrypoint, port) in IMAGES {
        let path = "PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let changes = [
            format!("ENV {path}"),
            format!("ENTRYPOINT [{entrypoint:?}]"),
            format!("EXPOSE {port}"),
        ];
        let changes = changes.iter().flat_map(|change| ["-c", change]);
        let archive = archive.display().to_string();
        let words = ["import"].into_iter().chain(changes);
        engine.does(&words.chain([archive.as_str(), name]).collect::<Vec<_>>())?;
    }
    ask(&engine, &place, &python)?;
    let (_, left) = engine.client(&["ps", "-aq"])?;
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("containers are left: {left}")),
    }
}

fn ask(engine: &Engine, place: &Path, python: &Path) -> Result<()> {
    let script = place.join("queries.py");
    std::fs::write(&script, include_str!("testcontainers/queries.py"))
        .map_err(|error| format!("{}: {error}", script.display()))?;
    let home = place.join("home");
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let status = Command::new("nsenter")
        .args([
            &engine.network(),
            "timeout",
            "--kill-after",
            "10",
            SCRIPT_TIMEOUT,
        ])
        .args([python, &script])
        .env("HOME", &home)
        .env("DOCKER_HOST", &engine.host)
        .env("TESTCONTAINERS_RYUK_DISABLED", "true")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run nsenter: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("the queries failed: {status}")),
    }
}

/// The root filesystem of both images, once.
fn make_archive(place: &Path) -> Result<PathBuf> {
    install_missing(&[("mmdebstrap", "mmdebstrap")])?;
    let archive = place.join("root.tar");
    if archive.exists() {
        return Ok(archive);
    }
    let made = place.join("root.new.tar");
    let mut hooks = Vec::new();
    for (name, text) in [
        (IMAGES[0].1, include_str!("testcontainers/postgres.sh")),
        (IMAGES[1].1, include_str!("testcontainers/redis.sh")),
    ] {
        let file = place.join(Path::new(name).file_name().unwrap_or_default());
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        hooks.push(format!(
            "--customize-hook=install -D -m 755 '{}' \"$1{name}\"",
            file.display()
        ));
    }
    shell::say("making an image of PostgreSQL and Redis");
    let made_path = made.display().to_string();
    let mut arguments = vec![
        "--quiet",
        "--variant=minbase",
        "--include=postgresql,redis-server",
    ];
    arguments.extend(hooks.iter().map(String::as_str));
    arguments.extend([SUITE, &made_path]);
    let mirror = crate::compose::mirror()?;
    arguments.extend(mirror.as_deref());
    shell::run("mmdebstrap", &arguments)?;
    // It is there as a whole, or not at all.
    std::fs::rename(&made, &archive).map_err(|error| format!("{}: {error}", archive.display()))?;
    Ok(archive)
}

/// The library in an environment of its own, once.
fn install_python(place: &Path) -> Result<PathBuf> {
    let venv = place.join("venv");
    let (python, ready) = (venv.join("bin/python"), venv.join("ready"));
    if ready.exists() {
        return Ok(python);
    }
    crate::docker_py::make_venv(&venv)?;
    let pip = venv.join("bin/pip").display().to_string();
    let quiet = ["install", "-q", "--disable-pip-version-check"];
    shell::run(&pip, &[&quiet[..], &PACKAGES].concat())?;
    std::fs::write(&ready, "").map_err(|error| format!("{}: {error}", ready.display()))?;
    Ok(python)
}
