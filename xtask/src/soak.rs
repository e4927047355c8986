//! `cargo xtask soak`: an engine under many calls and many lives of containers, which must not grow by them.
//!
//! A tenth of the work comes first, so that what is made once is there; then the engine is looked at, then comes the rest. What an
//! engine has as often as something has happened (descriptors, threads, files, bytes of records, cgroups, interfaces) may not have
//! grown at all; private memory by a share of a byte for each call and life, which no leak of an object keeps below.

use crate::bench::engines::Engine;
use crate::http::Connection;
use crate::{Result, release_binary, shell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much is done when nothing is said.
const CALLS: usize = 100_000;
const LIVES: usize = 10_000;
/// How many clients there are at once.
const CLIENTS: usize = 4;
/// How many calls a client makes on one connection.
const CALLS_PER_CONNECTION: usize = 50;
/// Bytes of private memory that an engine may have more after the work: what allocators keep in reserve.
const GROWTH_BYTES_MAX: u64 = 2 << 20;
/// Bytes that the database may have more: its pages are as many as were ever in use at once, and come with checkpoints.
const RECORD_GROWTH_BYTES_MAX: u64 = 256 << 10;
/// Threads without work end after so long; nothing else takes as long to come to rest.
const REST: Duration = Duration::from_secs(15);

/// Runs the work that the flags name: `--calls N`, `--lives N`; `--binary PATH` is an engine that is built already.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let (mut calls, mut lives, mut binary) = (CALLS, LIVES, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().map(String::as_str);
        let number = value.and_then(|text| text.parse().ok());
        match (word.as_str(), number, value) {
            ("--calls", Some(number), _) => calls = number,
            ("--lives", Some(number), _) => lives = number,
            ("--binary", _, Some(path)) => binary = Some(PathBuf::from(path)),
            _ => {
                return Err(format!(
                    "{word}: there are --calls N, --lives N and --binary PATH"
                ));
            }
        }
    }
    let binary = match binary {
        Some(binary) => binary,
        None => {
            shell::run("cargo", &["build", "--release", "--package", "hull"])?;
            release_binary(root)?
        }
    };
    let engine = &Engine::hull(&binary)?;
    start_resident(engine)?;
    work(engine, calls / 10, lives / 10)?;
    let before = at_rest(engine)?;
    print("before", &before);
    let begin = Instant::now();
    work(engine, calls - calls / 10, lives - lives / 10)?;
    let seconds = begin.elapsed().as_secs();
    let after = at_rest(engine)?;
    print("after", &after);
    shell::print(&format!("{calls} calls and {lives} lives, {seconds} s"));
    let grown: Vec<String> = { after.iter() }
        .filter_map(|(name, after)| {
            let before = before.get(name).copied().unwrap_or(0);
            let most = before
                + match *name {
                    MEMORY => GROWTH_BYTES_MAX,
                    RECORDS => RECORD_GROWTH_BYTES_MAX,
                    _ => 0,
                };
            (*after > most).then(|| format!("{name}: {before}, then {after}"))
        })
        .collect();
    match grown.is_empty() {
        true => Ok(()),
        false => Err(format!("the engine has grown:\n{}", grown.join("\n"))),
    }
}

const MEMORY: &str = "anonymous bytes";
const RECORDS: &str = "record bytes";

/// What an engine has of everything.
type Census = BTreeMap<&'static str, u64>;

fn print(when: &str, census: &Census) {
    let all = { census.iter() }.map(|(name, count)| format!("{name} {count}"));
    shell::print(&format!("{when}: {}", all.collect::<Vec<_>>().join(", ")));
}

/// Counts when what ends has ended.
fn at_rest(engine: &Engine) -> Result<Census> {
    std::thread::sleep(REST);
    census(engine)
}

fn census(engine: &Engine) -> Result<Census> {
    let process = format!("/proc/{}", engine.pid());
    let entries = |path: String| -> Result<u64> {
        let entries = std::fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        u64::try_from(entries.count()).map_err(|error| error.to_string())
    };
    let mut files = (0, 0);
    for directory in [engine.data_root().as_path(), engine.run_root()] {
        count_files(directory, &mut files)?;
    }
    Ok(Census::from([
        ("descriptors", entries(format!("{process}/fd"))?),
        ("threads", entries(format!("{process}/task"))?),
        ("interfaces", entries("/sys/class/net".to_owned())?),
        (
            "processes",
            u64::try_from(engine.processes().len()).unwrap_or(0),
        ),
        ("files", files.0),
        (RECORDS, files.1),
        (MEMORY, engine.own_anonymous_bytes()),
    ]))
}

/// Adds files and directories below one, and the bytes of the database.
fn count_files(directory: &Path, found: &mut (u64, u64)) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        found.0 += 1;
        if entry.file_name() == "hull.db" {
            found.1 += metadata.len();
        }
        // What an image has does not change.
        if metadata.is_dir() && entry.file_name() != "layers" {
            count_files(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// A container that goes on, for the calls to ask about.
fn start_resident(engine: &Engine) -> Result<()> {
    let connection = &mut Connection::open(engine.socket())?;
    let body = r#"{"Image":"busybox","Cmd":["sleep","360000"],"Labels":{"of":"soak"}}"#;
    connection.ok("POST", "/containers/create?name=target", body)?;
    connection.ok("POST", "/containers/target/start", "")?;
    Ok(())
}

/// Calls and lives side by side, by several clients.
fn work(engine: &Engine, calls: usize, lives: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            clients.push(scope.spawn(move || {
                share(calls, client).try_for_each(|from| {
                    call_all(engine, from..(from + CALLS_PER_CONNECTION).min(calls))
                })
            }));
            clients.push(scope.spawn(move || {
                (client..lives)
                    .step_by(CLIENTS)
                    .try_for_each(|life| live(engine, life))
            }));
        }
        clients
            .into_iter()
            .try_for_each(|thread| { thread.join() }.map_err(|_| "a client panicked".to_owned())?)
    })
}

/// Where each connection of one client begins.
fn share(calls: usize, client: usize) -> impl Iterator<Item = usize> {
    (client * CALLS_PER_CONNECTION..calls).step_by(CLIENTS * CALLS_PER_CONNECTION)
}

/// What is asked, in turns, and what comes back.
const CALLS_IN_TURN: [(&str, &str, &str, u16); 18] = [
    ("GET", "/_ping", "", 200),
    ("GET", "/version", "", 200),
    ("GET", "/info", "", 200),
    ("GET", "/containers/json?all=1", "", 200),
    ("GET", "/containers/target/json", "", 200),
    ("GET", "/containers/nobody/json", "", 404),
    (
        "GET",
        "/containers/target/stats?stream=0&one-shot=1",
        "",
        200,
    ),
    ("GET", "/containers/target/top", "", 200),
    ("GET", "/containers/target/logs?stdout=1", "", 200),
    ("GET", "/containers/target/changes", "", 200),
    ("POST", "/containers/target/rename?name=target", "", 400),
    ("POST", "/containers/create", "{}", 400),
    ("GET", "/images/json", "", 200),
    ("POST", "/images/busybox/tag?repo=busybox&tag=soak", "", 201),
    ("GET", "/networks", "", 200),
    ("GET", "/volumes", "", 200),
    ("GET", "/events?since=0&until=1", "", 200),
    ("GET", "/nothing", "", 404),
];

fn call_all(engine: &Engine, numbers: std::ops::Range<usize>) -> Result<()> {
    let connection = &mut Connection::open(engine.socket())?;
    for number in numbers {
        let (method, path, body, expected) = CALLS_IN_TURN[number % CALLS_IN_TURN.len()];
        let (status, answer) = connection.ask(method, path, body)?;
        if status != expected {
            let answer = String::from_utf8_lossy(&answer);
            return Err(format!(
                "{method} {path}: {status} instead of {expected}: {answer}"
            ));
        }
    }
    Ok(())
}

/// One container from its creation to its removal, with a command executed in it, and a volume and a network of its own.
fn live(engine: &Engine, number: usize) -> Result<()> {
    let connection = &mut Connection::open(engine.socket())?;
    let name = format!("life{number}");
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","echo out; read line"],"OpenStdin":true,"Volumes":{"/data":{}}}"#;
    connection.ok("POST", &format!("/containers/create?name={name}"), body)?;
    connection.ok("POST", &format!("/containers/{name}/start"), "")?;
    let exec = connection.ok(
        "POST",
        &format!("/containers/{name}/exec"),
        r#"{"Cmd":["true"]}"#,
    )?;
    let exec: serde_json::Value =
        serde_json::from_slice(&exec).map_err(|error| error.to_string())?;
    let id = exec["Id"].as_str().unwrap_or_default();
    connection.ok("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#)?;
    connection.ok("POST", &format!("/containers/{name}/kill"), "")?;
    connection.ok("POST", &format!("/containers/{name}/wait"), "")?;
    connection.ok("DELETE", &format!("/containers/{name}?v=1"), "")?;
    Ok(())
}
