//! The engine's face: flags, the configuration file, sockets, signals, and the end when nobody needs it any more.

mod defaults;
mod file;
mod pid_file;
mod sockets;

use api::Connections;
use clap::{Arg, ArgAction, ArgMatches, Command};
use engine::images::registry::config as registry_config;
use engine::{Config, Engine, Settings};
use pid_file::PidFile;
use registry_config::{Address, MIRRORS_MAX, Registries};
use sockets::Sockets;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// More threads than this would only wait for each other.
const WORKERS_MAX: usize = 8;

/// Threads for work that blocks, made when they are needed. A client that stops sending or reading keeps one: all that may be
/// connected can do so, and those of the next request are there still.
const BLOCKING_MAX: usize = api::CONNECTIONS_MAX + 512;

/// How many arenas glibc's allocator may have: each keeps memory of its own.
const ARENAS_MAX: i32 = 2;

/// How long an engine that the client has started goes on without containers and clients.
const IDLE_EXIT: Duration = Duration::from_secs(60);

/// How often that is looked at.
const IDLE_CHECK: Duration = Duration::from_secs(5);

/// A flag with a path.
fn path(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("PATH")
        .default_value(default)
        .help(help)
}

/// The flags that say where images come from.
fn registry_flags() -> [Arg; 4] {
    [
        path(
            "registries",
            registry_config::FILE,
            "Mirrors and other addresses of registries",
        ),
        path(
            "policy",
            registry::policy::FILE,
            "Which images may be pulled",
        ),
        Arg::new("insecure-registry")
            .long("insecure-registry")
            .action(ArgAction::Append)
            .value_name("HOST[:PORT]")
            .help("Take plain HTTP and any certificate from this registry"),
        Arg::new("registry-mirror")
            .long("registry-mirror")
            .action(ArgAction::Append)
            .value_name("URL")
            .value_parser(|text: &str| text.parse::<Address>())
            .help("Where images of docker.io are looked for first"),
    ]
}

pub(crate) fn command() -> Command {
    Command::new("hull daemon")
        .about("Run the engine in the foreground")
        .arg(path(
            "data-root",
            "/var/lib/hull",
            "Where images, volumes and records are kept",
        ))
        .arg(path(
            "run-root",
            "/run/hull",
            "Where the state of running containers is kept, on tmpfs",
        ))
        .arg(path(
            "config-file",
            file::DEFAULT,
            "What the flags say, as dockerd's daemon.json has it; SIGHUP has it read again",
        ))
        .arg(
            Arg::new("validate")
                .long("validate")
                .action(ArgAction::SetTrue)
                .help("Check flags and files, and end"),
        )
        .arg(
            Arg::new("pidfile")
                .long("pidfile")
                .short('p')
                .value_name("PATH")
                .help("A file that tells the engine's process id"),
        )
        .args(sockets::flags())
        .args(defaults::flags())
        .args(crate::bridge::flags())
        .args(registry_flags())
        .arg(
            Arg::new("cdi-spec-dir")
                .long("cdi-spec-dir")
                .action(ArgAction::Append)
                .value_name("PATH")
                .default_values(engine::cdi::DIRECTORIES)
                .help("Where specifications of devices (CDI) are; a later one wins"),
        )
        .arg(crate::log_level())
        .arg(
            Arg::new("debug")
                .long("debug")
                .short('D')
                .action(ArgAction::SetTrue)
                .help("Log at least at the level debug"),
        )
        .arg(
            Arg::new("idle-exit")
                .long("idle-exit")
                .action(ArgAction::SetTrue)
                .help("End after a minute without running containers and clients"),
        )
}

/// Runs the engine until it is told to end, or is idle.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = arguments.into_iter().collect();
    let given = match crate::read("hull daemon", command(), words.clone()) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let ended = with_file(&words, &given).and_then(|matches| run(&words, &given, &matches));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "hull daemon: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What the configuration file and the command line say together. `given` is what the command line says alone.
fn with_file(words: &[OsString], given: &ArgMatches) -> Result<ArgMatches, String> {
    let path = given.get_one::<String>("config-file").cloned();
    let path = PathBuf::from(path.unwrap_or_default());
    let told = file::words(&path, given)?;
    if told.is_empty() {
        return Ok(given.clone());
    }
    let all = std::iter::once(OsString::from("hull daemon")).chain(told);
    let all = all.chain(words.iter().cloned());
    command().try_get_matches_from(all).map_err(|error| {
        format!(
            "unable to configure the engine with file {}: {error}",
            path.display()
        )
    })
}

fn run(words: &[OsString], given: &ArgMatches, matches: &ArgMatches) -> Result<(), String> {
    let run_root = PathBuf::from(text(matches, "run-root"));
    let sockets = Sockets::read(matches, &run_root)?;
    let config = config(matches, run_root)?;
    if matches.get_flag("validate") {
        let _ = writeln!(std::io::stderr(), "configuration OK");
        return Ok(());
    }
    let log = crate::log(matches)?;
    // It is read again by each pull, and may be mended until then.
    if let Err(error) = registry::policy::Policy::read(&config.policy) {
        tracing::error!(%error, "nothing can be pulled");
    }
    let pid_file = matches.get_one::<String>("pidfile");
    let _pid_file = pid_file.map(PidFile::write).transpose()?;
    sys::process::limit_arenas(ARENAS_MAX);
    let workers = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_MAX)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let idle_exit = matches.get_flag("idle-exit");
    let reload = Reload {
        words: words.to_vec(),
        given: given.clone(),
        log,
    };
    // The work is spawned, so that it runs on the workers, as everything it calls expects.
    runtime
        .block_on(async move { tokio::spawn(serve(config, sockets, idle_exit, reload)).await })
        .map_err(|error| error.to_string())?
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

/// The engine's configuration.
fn config(matches: &ArgMatches, run_root: PathBuf) -> Result<Config, String> {
    let mut config = Config {
        data_root: PathBuf::from(text(matches, "data-root")),
        run_root,
        bridge: network::BridgeConfig::new(""),
        host_binding: std::net::Ipv4Addr::UNSPECIFIED,
        address_pools: Vec::new(),
        cdi_directories: matches
            .get_many::<String>("cdi-spec-dir")
            .into_iter()
            .flatten()
            .map(PathBuf::from)
            .collect(),
        settings: settings(matches)?,
        defaults: defaults::read(matches)?,
        policy: PathBuf::from(text(matches, "policy")),
    };
    crate::bridge::read(matches, &mut config)?;
    Ok(config)
}

/// What can change while the engine runs.
fn settings(matches: &ArgMatches) -> Result<Settings, String> {
    let certificates = registry_config::CERTIFICATES.map(PathBuf::from).to_vec();
    let registries = Registries::read(Path::new(&text(matches, "registries")), certificates);
    let mut registries = registries.map_err(|error| error.to_string())?;
    let insecure = matches.get_many::<String>("insecure-registry");
    for domain in insecure.into_iter().flatten() {
        registries.trust(domain);
    }
    let mirrors = matches.get_many::<Address>("registry-mirror");
    let mirrors: Vec<&Address> = mirrors.into_iter().flatten().collect();
    if mirrors.len() > MIRRORS_MAX {
        return Err(format!("more than {MIRRORS_MAX} registry mirrors"));
    }
    for mirror in mirrors {
        registries.mirror("docker.io", mirror.clone());
    }
    Ok(Settings {
        labels: defaults::labels(matches)?,
        registries,
    })
}

/// What it takes to read the configuration again.
struct Reload {
    words: Vec<OsString>,
    given: ArgMatches,
    log: crate::LogLevel,
}

impl Reload {
    /// Reads the files again. What cannot be read changes nothing.
    fn again(&self, engine: &Engine) -> Result<(), String> {
        let matches = with_file(&self.words, &self.given)?;
        let settings = settings(&matches)?;
        let level = crate::level(&matches)?;
        self.log.set(level)?;
        let debug = (level >= tracing::Level::DEBUG).to_string();
        engine.reload(settings, BTreeMap::from([("debug".to_owned(), debug)]));
        Ok(())
    }
}

async fn serve(
    config: Config,
    sockets: Sockets,
    idle_exit: bool,
    reload: Reload,
) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let engine = Engine::open(config).await.map_err(|error| error.chain())?;
    builder::sweep(&engine)
        .await
        .map_err(|error| error.chain())?;
    let mut open = sockets.open().await?;
    let connections = Connections::default();
    let listeners = std::mem::take(&mut open.listeners);
    let serving = api::serve(listeners, engine.clone(), connections.clone());
    let reloading = async {
        while hangup.recv().await.is_some() {
            match tokio::task::block_in_place(|| reload.again(&engine)) {
                Ok(()) => tracing::info!(
                    "log level, labels and registries are read again; the rest counts from the next start"
                ),
                Err(error) => tracing::error!(error, "the configuration stays as it is"),
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = reloading => {}
        _ = terminate.recv() => tracing::info!("terminated; containers go on"),
        _ = interrupt.recv() => tracing::info!("interrupted; containers go on"),
        () = idle(&engine, &connections), if idle_exit => tracing::info!("nobody needs the engine: it ends"),
    }
    // Its sockets are removed while the lock is still held: a new engine that starts now makes its own after that.
    drop(open);
    Ok(())
}

/// Ends when there has been no container and no client for a while.
async fn idle(engine: &Engine, connections: &Connections) {
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        if engine.is_busy() || connections.count() > 0 {
            since = tokio::time::Instant::now();
        } else if since.elapsed() >= IDLE_EXIT {
            return;
        }
    }
}
