//! `cargo xtask bench many`: what an engine with many containers takes. `ps` with a thousand of them, of which 200 run; creating,
//! inspecting, listing and telling of events by requests on connections that stay; and 500 that run at once: how fast they start,
//! the private memory of what stands around each, the price of `stats`.

use super::engines::Engine;
use super::process::own_cpu_time;
use super::{bytes_to_mb, compare, print_table};
use crate::http::Connection;
use crate::{Result, shell};
use std::time::{Duration, Instant};

/// How many containers there are, and how many of them run.
const ALL: usize = 1000;
const RUNNING: usize = 200;
/// How many run at once in the end.
const CROWD: usize = 500;
/// How many clients start them.
const STARTERS: usize = 4;
/// How many containers are inspected, and how many events are made.
const REQUESTS: usize = 1000;
/// How many clients listen to these.
const LISTENERS: usize = 10;
/// How often everything is listed, and `stats` is asked.
const LISTS: usize = 30;
const READINGS: usize = 3;

/// What is done with each engine, in the order of the table's rows.
struct Figures {
    create: Duration,
    start: Duration,
    inspect: Duration,
    list: Vec<Duration>,
    events: Duration,
}

/// Compares hull with its peer. `clients` are names and programs with the engine that each speaks to.
pub(super) fn run(engines: &[&Engine], clients: &[(&str, String, &Engine)]) -> Result<()> {
    let mut figures = Vec::new();
    for engine in engines {
        shell::say(&format!("many: filling {}", engine.name()));
        figures.push((engine.name(), fill(engine)?));
    }
    for (title, arguments) in [
        ("ps, 200 of 1,000 containers run", ["ps"].as_slice()),
        ("ps --all of the 1,000", &["ps", "--all"]),
    ] {
        let contenders = { clients.iter() }
            .map(|(name, program, engine)| engine.contender(name, program, arguments));
        compare(title, &contenders.collect::<Vec<_>>())?;
    }
    rate("create, one client", ALL, &figures, |of| of.create);
    rate("start, one client", RUNNING, &figures, |of| of.start);
    rate("inspect, one client", REQUESTS, &figures, |of| of.inspect);
    let title = format!("events, {LISTENERS} clients that listen");
    rate(&title, REQUESTS, &figures, |of| of.events);
    let lists = { figures.into_iter() }.map(|(name, figures)| (name, figures.list));
    print_table("list of all by the API", lists);
    for engine in engines {
        empty(engine)?;
    }
    crowd(engines)
}

/// A line for each engine: how many a second, and what share of the time hull takes.
fn rate(title: &str, count: usize, all: &[(&str, Figures)], took: fn(&Figures) -> Duration) {
    shell::print(&format!("\n{title}: {count}"));
    for (name, figures) in all {
        let seconds = took(figures).as_secs_f64();
        let ratio = took(&all[0].1).as_secs_f64() / seconds;
        let each = seconds * 1e3 / as_float(count);
        shell::print(&format!(
            "  {name:<22} {:8.0} a second   {each:8.3} ms each   hull takes {ratio:.3} of it",
            as_float(count) / seconds
        ));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn as_float(count: usize) -> f64 {
    count as f64
}

const REQUEST: &str = r#"{"Image":"busybox","Cmd":["sleep","36000"],"Labels":{"of":"bench"},"Env":["A=b"],"HostConfig":{"Init":false}}"#;

fn create(connection: &mut Connection, name: &str) -> Result<()> {
    let path = format!("/containers/create?name={name}");
    connection.ok("POST", &path, REQUEST).map(drop)
}

fn start(connection: &mut Connection, name: &str) -> Result<()> {
    let path = format!("/containers/{name}/start");
    connection.ok("POST", &path, "").map(drop)
}

fn name(number: usize) -> String {
    format!("many{number}")
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn fill(engine: &Engine) -> Result<Figures> {
    let connection = &mut Connection::open(engine.socket())?;
    let create = timed(|| (0..ALL).try_for_each(|number| create(connection, &name(number))))?;
    let start = timed(|| (0..RUNNING).try_for_each(|number| start(connection, &name(number))))?;
    let inspect = timed(|| {
        (0..REQUESTS).try_for_each(|number| {
            let path = format!("/containers/{}/json", name(number % ALL));
            connection.ok("GET", &path, "").map(drop)
        })
    })?;
    let list = (0..LISTS)
        .map(|_| {
            timed(|| {
                let all = connection.ok("GET", "/containers/json?all=1", "");
                all.map(drop)
            })
        })
        .collect::<Result<_>>()?;
    Ok(Figures {
        create,
        start,
        inspect,
        list,
        events: events(engine, connection)?,
    })
}

/// Gives an image the same tag again and again, until all who listen have heard of all.
fn events(engine: &Engine, connection: &mut Connection) -> Result<Duration> {
    let listeners = (0..LISTENERS)
        .map(|_| {
            let filter = "/events?filters=%7B%22event%22%3A%5B%22tag%22%5D%7D";
            Connection::open(engine.socket())?.follow(filter)
        })
        .collect::<Result<Vec<_>>>()?;
    timed(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = { listeners.into_iter() }
                .map(|listener| scope.spawn(|| listen(listener)))
                .collect();
            for _ in 0..REQUESTS {
                connection.ok("POST", "/images/busybox/tag?repo=busybox&tag=bench", "")?;
            }
            threads.into_iter().try_for_each(|thread| {
                { thread.join() }.map_err(|_| "a listener panicked".to_owned())?
            })
        })
    })
}

fn listen(mut listener: Connection) -> Result<()> {
    let mut heard = 0;
    while heard < REQUESTS {
        let piece = listener
            .piece()
            .map_err(|error| format!("events: {error}"))?;
        let piece = piece.ok_or("events: the engine has ended them")?;
        heard += piece.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}

/// Removes every container.
fn empty(engine: &Engine) -> Result<()> {
    let connection = &mut Connection::open(engine.socket())?;
    let all = connection.ok("GET", "/containers/json?all=1", "")?;
    let all: Vec<serde_json::Value> =
        serde_json::from_slice(&all).map_err(|error| error.to_string())?;
    for container in &all {
        let id = container["Id"].as_str().unwrap_or_default();
        connection.ok("DELETE", &format!("/containers/{id}?force=1"), "")?;
    }
    Ok(())
}

/// Many containers that run at once.
fn crowd(engines: &[&Engine]) -> Result<()> {
    let mut started = Vec::new();
    let mut readings = Vec::new();
    let mut memory = Vec::new();
    for engine in engines {
        shell::say(&format!("many: {CROWD} containers of {}", engine.name()));
        let before = engine.private_bytes();
        started.push((engine.name(), vec![timed(|| start_crowd(engine))?]));
        let each =
            engine.private_bytes().saturating_sub(before) / u64::try_from(CROWD).unwrap_or(1);
        memory.push((engine.name(), each));
        readings.push((engine.name(), stats(engine)?));
        empty(engine)?;
    }
    let title = format!("create and start of {CROWD}, {STARTERS} clients");
    print_table(&title, started.into_iter());
    shell::print(&format!(
        "\nprivate memory around each of {CROWD} containers"
    ));
    for (name, bytes) in memory {
        shell::print(&format!("  {name:<22} {:.3} MB", bytes_to_mb(bytes)));
    }
    let (wall, cpu): (Vec<_>, Vec<_>) = { readings.into_iter() }
        .map(|(name, (wall, cpu))| ((name, wall), (name, cpu)))
        .unzip();
    let title = format!("stats --no-stream of {CROWD}");
    print_table(&title, wall.into_iter());
    print_table(&format!("{title}: CPU time of the engine"), cpu.into_iter());
    Ok(())
}

fn start_crowd(engine: &Engine) -> Result<()> {
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS)
            .map(|first| {
                scope.spawn(move || {
                    let connection = &mut Connection::open(engine.socket())?;
                    (first..CROWD).step_by(STARTERS).try_for_each(|number| {
                        create(connection, &name(number))?;
                        start(connection, &name(number))
                    })
                })
            })
            .collect();
        starters.into_iter().try_for_each(|thread| {
            { thread.join() }.map_err(|_| "a starter panicked".to_owned())?
        })
    })
}

/// Wall time, and the CPU time of all of the engine's processes.
fn stats(engine: &Engine) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let cpu = || -> Duration { engine.processes().into_iter().map(own_cpu_time).sum() };
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..READINGS {
        let before = cpu();
        walls.push(timed(|| engine.client(&["stats", "--no-stream"]))?);
        cpus.push(cpu().saturating_sub(before));
    }
    Ok((walls, cpus))
}
