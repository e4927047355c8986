//! `cargo xtask bench`: hull beside the engines and runtimes that are installed, in one run, taking turns.
//!
//! Absolute times move with the machine; the ratios of one run hold. Everything is the median of many, wall time of a whole
//! client command as a person waits for it. Each engine has directories of its own, which are removed.

mod build;
pub(crate) mod engines;
mod floor;
mod image;
mod many;
mod network;
mod process;
mod registry;
mod runtimes;
mod serving;

use crate::{Result, built, release_binary, shell};
use engines::Engine;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How often each command is timed.
const ROUNDS: usize = 30;

/// How many containers are run at once.
const PARALLEL: usize = 20;

/// Something to time.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) command: Box<dyn Fn() -> Command>,
}

/// Measures everything, or the part that is named.
pub(crate) fn run(root: &Path) -> Result<()> {
    let part = std::env::args().nth(2).unwrap_or_default();
    if part == "build" {
        return builds(root);
    }
    shell::run("cargo", &["build", "--release", "--package", "hull"])?;
    let hull = release_binary(root)?;
    let size = std::fs::metadata(&hull)
        .map_err(|error| error.to_string())?
        .len();
    shell::print(&format!("binary: {:.1} MB", bytes_to_mb(size)));
    if part == runtimes::INSIDE {
        return runtimes::compare_all(&hull);
    }
    if matches!(part.as_str(), "" | "runtime") {
        runtimes::run()?;
    }
    if matches!(part.as_str(), "" | "floor") {
        floor()?;
    }
    if matches!(part.as_str(), "" | "network") {
        network::run(&hull)?;
    }
    if matches!(part.as_str(), "" | "serving") {
        serving::run(&hull, rounds(LOAD_ROUNDS)?)?;
    }
    if !matches!(part.as_str(), "runtime" | "floor" | "network" | "serving") {
        engines(root, &hull, &part)?;
    }
    Ok(())
}

/// The parts that are named after the rounds, or all: by a build that is made faster than a release.
fn builds(root: &Path) -> Result<()> {
    let arguments = ["build", "--profile", "measure", "--package", "hull"];
    shell::run("cargo", &arguments)?;
    shell::print(
        "hull is built by the profile `measure`: optimised as a release, but not at link time",
    );
    let parts: Vec<String> = std::env::args().skip(4).collect();
    build::run(root, &built(root, "measure")?, rounds(LOAD_ROUNDS)?, &parts)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// What no engine can be faster than.
fn floor() -> Result<()> {
    let work = engines::TemporaryDirectory::new("hull-bench-floor")?;
    let rootfs = work.path.join("rootfs");
    engines::write_busybox(&rootfs)?;
    let mut floor = floor::Floor::new(&work.path, &rootfs)?;
    let mut rows = vec![
        ("kernel work, no network", Vec::new()),
        ("and a veth pair", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        for (with_network, row) in [false, true].into_iter().zip(&mut rows) {
            row.1.push(floor.run(with_network)?);
        }
    }
    print_table("the floor", rows.into_iter());
    Ok(())
}

/// How often what takes seconds is timed: as often as the second argument says.
fn rounds(default: usize) -> Result<usize> {
    match std::env::args().nth(3) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{text:?} is no number of rounds")),
    }
}

/// How often the archive is loaded into each engine: it takes seconds.
const LOAD_ROUNDS: usize = 5;

/// Times the load of one archive into each engine, each time anew.
fn load(root: &Path, engines: &[&Engine]) -> Result<()> {
    let archive = image::cached(&root.join("target/bench"))?;
    let bytes = std::fs::metadata(&archive).map_err(|error| error.to_string())?;
    let mut rows: Vec<(&str, Vec<Duration>)> = engines
        .iter()
        .map(|engine| (engine.name(), Vec::new()))
        .collect();
    for round in 1..=LOAD_ROUNDS {
        shell::say(&format!("load: round {round} of {LOAD_ROUNDS}"));
        for (engine, row) in engines.iter().zip(&mut rows) {
            // What the last load and removal left to be written is not this one's to wait for.
            rustix::fs::sync();
            let start = Instant::now();
            engine.client(&["load", "-q", "-i", &archive.display().to_string()])?;
            row.1.push(start.elapsed());
            engine.client(&["rmi", image::NAME])?;
        }
    }
    let title = format!("load of {:.0} MB", bytes_to_mb(bytes.len()));
    print_table(&title, rows.into_iter());
    Ok(())
}

fn engines(root: &Path, hull: &Path, part: &str) -> Result<()> {
    let hull_engine = Engine::hull(hull)?;
    let peer = if shell::is_installed("dockerd") {
        Some(Engine::dockerd()?)
    } else {
        None
    };
    let mut clients = vec![("hull", hull.display().to_string(), &hull_engine)];
    if shell::is_installed("docker") {
        clients.push(("docker client, hull", "docker".to_owned(), &hull_engine));
        match &peer {
            Some(peer) => clients.push(("dockerd", "docker".to_owned(), peer)),
            None => shell::print("dockerd: not installed"),
        }
    }
    let wants = |name: &str| part.is_empty() || part == name;
    let time = |title: &str, arguments: &'static [&'static str]| {
        let contenders = { clients.iter() }
            .map(|(name, program, engine)| engine.contender(name, program, arguments));
        compare(title, &contenders.collect::<Vec<_>>())
    };
    if wants("run") {
        time(
            "run --rm, no network",
            &["run", "--rm", "--network", "none", "busybox", "true"],
        )?;
        time("run --rm, bridge", &["run", "--rm", "busybox", "true"])?;
    }
    if wants("load") {
        let engines = [Some(&hull_engine), peer.as_ref()];
        load(root, &engines.into_iter().flatten().collect::<Vec<_>>())?;
    }
    if wants("registry") {
        let engines = [Some(&hull_engine), peer.as_ref()];
        let engines: Vec<&Engine> = engines.into_iter().flatten().collect();
        registry::run(root, &engines, rounds(LOAD_ROUNDS)?)?;
    }
    if wants("exec") {
        for engine in [Some(&hull_engine), peer.as_ref()].into_iter().flatten() {
            engine.client(&["run", "-d", "--name", "target", "busybox", "sleep", "3600"])?;
        }
        time("exec true", &["exec", "target", "true"])?;
    }
    if wants("parallel") {
        parallel(&clients)?;
    }
    if wants("memory") {
        hull_engine.print_memory();
        if let Some(peer) = &peer {
            peer.print_memory();
        }
    }
    if wants("many") {
        let engines = [Some(&hull_engine), peer.as_ref()];
        many::run(&engines.into_iter().flatten().collect::<Vec<_>>(), &clients)?;
    }
    Ok(())
}

/// Times contenders in turns, and prints their medians and how they compare with the first.
fn compare(title: &str, contenders: &[Contender]) -> Result<()> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let start = Instant::now();
            let status = (contender.command)().status();
            let took = start.elapsed();
            if !status.is_ok_and(|status| status.success()) {
                return Err(format!("{title}: {} failed", contender.name));
            }
            // The first round warms up.
            if round > 0 {
                times.push(took);
            }
        }
    }
    print_table(
        title,
        contenders
            .iter()
            .map(|contender| contender.name.as_str())
            .zip(times),
    );
    Ok(())
}

fn print_table<'a>(title: &str, rows: impl Iterator<Item = (&'a str, Vec<Duration>)>) {
    shell::print(&format!("\n{title}"));
    let mut first = None;
    for (name, mut times) in rows {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() * 1e3;
        let least = times[0].as_secs_f64() * 1e3;
        let ratio = *first.get_or_insert(median) / median;
        let n = times.len();
        shell::print(&format!(
            "  {name:<22} median {median:8.2} ms   min {least:8.2} ms   n {n}   hull takes {ratio:.3} of it"
        ));
    }
}

fn parallel(clients: &[(&str, String, &Engine)]) -> Result<()> {
    let mut rows = Vec::new();
    for (name, program, engine) in clients {
        let mut times = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let mut children = Vec::new();
            for _ in 0..PARALLEL {
                let mut command = shell::quiet(program);
                command.args(["run", "--rm", "busybox", "true"]);
                command
                    .env("DOCKER_HOST", engine.host())
                    .env("HULL_HOST", engine.host());
                children.push(command.spawn().map_err(|error| error.to_string())?);
            }
            for mut child in children {
                let status = child.wait().map_err(|error| error.to_string())?;
                if !status.success() {
                    return Err(format!("{name}: one of {PARALLEL} parallel runs failed"));
                }
            }
            times.push(start.elapsed());
        }
        rows.push((*name, times));
    }
    print_table(
        &format!("{PARALLEL} run --rm at once, bridge"),
        rows.into_iter(),
    );
    Ok(())
}
