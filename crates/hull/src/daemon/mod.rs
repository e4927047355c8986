//! The engine's face: flags, sockets, signals, and the end when nobody needs it any more.

mod sockets;

use api::Connections;
use clap::{Arg, ArgAction, Command};
use engine::images::registry::config as registry_config;
use engine::{Config, Engine};
use sockets::Sockets;
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

pub(crate) fn command() -> Command {
    let path = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .default_value(default)
            .help(help)
    };
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
        .args(sockets::flags())
        .args(crate::bridge::flags())
        .arg(path(
            "registries",
            registry_config::FILE,
            "Mirrors and other addresses of registries",
        ))
        .arg(path(
            "policy",
            registry::policy::FILE,
            "Which images may be pulled",
        ))
        .arg(
            Arg::new("insecure-registry")
                .long("insecure-registry")
                .action(ArgAction::Append)
                .value_name("HOST[:PORT]")
                .help("Take plain HTTP and any certificate from this registry"),
        )
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
            Arg::new("idle-exit")
                .long("idle-exit")
                .action(ArgAction::SetTrue)
                .help("End after a minute without running containers and clients"),
        )
}

/// Runs the engine until it is told to end, or is idle.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match crate::read("hull daemon", command(), arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "hull daemon: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(matches: &clap::ArgMatches) -> Result<(), String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    crate::log(matches)?;
    let run_root = PathBuf::from(text("run-root"));
    let sockets = Sockets::read(matches, &run_root)?;
    let certificates = registry_config::CERTIFICATES.map(PathBuf::from).to_vec();
    let registries =
        registry_config::Registries::read(Path::new(&text("registries")), certificates);
    let mut registries = registries.map_err(|error| error.to_string())?;
    for domain in matches
        .get_many::<String>("insecure-registry")
        .into_iter()
        .flatten()
    {
        registries.trust(domain);
    }
    let policy = PathBuf::from(text("policy"));
    // It is read again by each pull, and may be mended until then.
    if let Err(error) = registry::policy::Policy::read(&policy) {
        tracing::error!(%error, "nothing can be pulled");
    }
    let mut config = Config {
        data_root: PathBuf::from(text("data-root")),
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
        registries,
        policy,
    };
    crate::bridge::read(matches, &mut config)?;
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
    // The work is spawned, so that it runs on the workers, as everything it calls expects.
    runtime
        .block_on(async move { tokio::spawn(serve(config, sockets, idle_exit)).await })
        .map_err(|error| error.to_string())?
}

async fn serve(config: Config, sockets: Sockets, idle_exit: bool) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let engine = Engine::open(config).await.map_err(|error| error.chain())?;
    builder::sweep(&engine)
        .await
        .map_err(|error| error.chain())?;
    let mut open = sockets.open().await?;
    let connections = Connections::default();
    let listeners = std::mem::take(&mut open.listeners);
    let serving = api::serve(listeners, engine.clone(), connections.clone());
    tokio::select! {
        () = serving => {}
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
