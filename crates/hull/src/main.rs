//! Chooses the face of the binary, by its name and its first word, before any thread or async runtime starts.

mod bridge;
mod daemon;
mod faces;
mod registry;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_owned();
    let rest: Vec<OsString> = arguments.collect();
    let first = rest.first().and_then(|word| word.to_str());
    match (name.to_str(), first) {
        (Some("hull-shim"), Some("shim")) | (Some("hull"), Some("shim")) => shim::main(),
        (Some("hulld"), _) => daemon::main(rest),
        (Some("hull-runtime"), _) => runtime::main(rest.into_iter()),
        (_, Some("daemon")) => daemon::main(rest.into_iter().skip(1)),
        (_, Some("registry")) => registry::main(rest.into_iter().skip(1)),
        (_, Some("runtime")) => runtime::main(rest.into_iter().skip(1)),
        _ => cli::main(std::iter::once(name).chain(rest), faces::all),
    }
}

/// Reads the words behind a face's name. The code to exit with when they are none of it, or only ask for help, is as Docker's.
fn read(
    face: &str,
    command: clap::Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<clap::ArgMatches, ExitCode> {
    let words = std::iter::once(OsString::from(face)).chain(arguments);
    command.try_get_matches_from(words).map_err(|error| {
        // Nobody is left to be told when this fails.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(125)
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// The flag of [`log`].
fn log_level() -> clap::Arg {
    clap::Arg::new("log-level")
        .long("log-level")
        .short('l')
        .default_value("info")
        .value_parser(["error", "warn", "info", "debug", "trace"])
        .help("What to log on standard error")
}

/// How much is logged, which can change.
struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    fn set(&self, level: tracing::Level) -> Result<(), String> {
        let set = self.0.reload(targets(level));
        set.map_err(|error| error.to_string())
    }
}

/// The level that flags ask for.
fn level(matches: &clap::ArgMatches) -> Result<tracing::Level, String> {
    let level = { matches.get_one::<String>("log-level") }.ok_or("--log-level is missing")?;
    let level: tracing::Level = level.parse().map_err(|error| format!("{error}"))?;
    // A face without that flag has no such level.
    let debug = matches.try_get_one::<bool>("debug").ok().flatten();
    Ok(match debug {
        Some(true) => level.max(tracing::Level::DEBUG),
        _ => level,
    })
}

/// Who may log at which level.
fn targets(level: tracing::Level) -> Targets {
    // It tells of every frame, which nobody wants to know who looks for what the engine does.
    Targets::new()
        .with_default(level)
        .with_target("h2", level.min(tracing::Level::WARN))
}

/// Begins to log on standard error.
fn log(matches: &clap::ArgMatches) -> Result<LogLevel, String> {
    let (filter, handle) = reload::Layer::new(targets(level(matches)?));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(LogLevel(handle))
}
