//! The registry's face: `hull registry serve` and `hull registry gc`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use registry::Credentials;
use registry::config::{Address, Registries};
use registry::server::{
    Access, Identity, Quota, Rule, Server, Settings, Sweep, UpstreamSettings, sweep,
};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// More threads than this would only wait for each other.
const WORKERS_MAX: usize = 8;
/// How many arenas glibc's allocator may have: each keeps memory of its own.
const ARENAS_MAX: i32 = 2;
/// Bytes of a file with credentials.
const CREDENTIALS_BYTES_MAX: usize = 64 << 10;
/// How long a cache keeps what nobody asks for.
const CACHE_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) fn command() -> Command {
    Command::new("hull registry")
        .about("An OCI distribution registry")
        .subcommand_required(true)
        .subcommand(serve_command())
        .subcommand(gc_command())
}

fn storage_flag() -> Arg {
    Arg::new("storage")
        .long("storage")
        .value_name("DIR")
        .default_value("/var/lib/hull-registry")
        .help("Where everything is kept")
}

fn seconds(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("SECONDS")
        .default_value(default)
        .value_parser(clap::value_parser!(u64))
        .help(help)
}

fn grace_flag() -> Arg {
    let help = "What was pushed, mounted or asked for by HEAD so recently is never deleted";
    seconds("gc-grace-s", "86400", help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn file(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FILE").help(help)
}

fn serve_command() -> Command {
    Command::new("serve")
        .about("Serve a registry in the foreground")
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS:PORT")
                .default_value("127.0.0.1:5000")
                .value_parser(clap::value_parser!(SocketAddr))
                .help("Where to listen"),
        )
        .arg(storage_flag())
        .arg(file("tls-cert", "The certificate to show, in PEM, with those that vouch for it; read again when it changes").requires("tls-key"))
        .arg(file("tls-key", "Its key, in PEM").requires("tls-cert"))
        .arg(flag("plain-http", "Listen without TLS on an address that others can reach").conflicts_with("tls-cert"))
        .arg(file("htpasswd", "Users and their passwords, as `htpasswd -B` writes them; read again when it changes"))
        .arg(
            Arg::new("allow")
                .long("allow")
                .action(ArgAction::Append)
                .value_name("[USER@]PATTERN=RIGHTS")
                .value_parser(|text: &str| text.parse::<Rule>())
                .help("Allow pull, push and delete (with commas) for repositories; `*` matches within a component, `**` all; as a user, `*` is everybody who has logged in. With such rules, what none allows is denied"),
        )
        .arg(
            Arg::new("quota")
                .long("quota")
                .action(ArgAction::Append)
                .value_name("PREFIX=BYTES")
                .conflicts_with("proxy")
                .value_parser(|text: &str| text.parse::<Quota>())
                .help("Let repositories below this prefix have so much, such as team/app=20G; `*` is all repositories"),
        )
        .arg(
            Arg::new("connections-per-address")
                .long("connections-per-address")
                .value_name("COUNT")
                .default_value("256")
                .value_parser(clap::value_parser!(u16).range(1..=1024))
                .help("How many connections one address may have at once"),
        )
        .arg(flag("delete", "Allow manifests, tags and blobs to be deleted"))
        .arg(flag("read-only", "Take nothing, delete nothing").conflicts_with_all(["delete", "proxy"]))
        .arg(
            Arg::new("proxy")
                .long("proxy")
                .value_name("URL")
                .conflicts_with("delete")
                .value_parser(|text: &str| text.parse::<Address>())
                .help("Be a cache of this registry: https://registry-1.docker.io"),
        )
        .arg(file("proxy-credentials", "A file with name:password for that registry").requires("proxy"))
        .arg(seconds("gc-interval-s", "21600", "How often what nobody uses is deleted; 0 is never"))
        .arg(grace_flag())
        .arg(crate::log_level())
}

fn gc_command() -> Command {
    Command::new("gc")
        .about("Delete what nobody uses of a storage, whether it is being served or not")
        .arg(storage_flag())
        .arg(grace_flag())
        .arg(flag("dry-run", "Only tell what would be deleted"))
}

/// Serves a registry until it is told to end, or cleans its storage.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match crate::read("hull registry", command(), arguments) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let done = match matches.subcommand() {
        Some(("gc", matches)) => gc(matches),
        Some(("serve", matches)) => run(matches),
        _ => Err("there are serve and gc".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "hull registry: {message}");
            ExitCode::FAILURE
        }
    }
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<String>(name).map(PathBuf::from)
}

fn duration(matches: &ArgMatches, name: &str) -> Duration {
    Duration::from_secs(matches.get_one::<u64>(name).copied().unwrap_or_default())
}

fn gc(matches: &ArgMatches) -> Result<(), String> {
    let storage = PathBuf::from(text(matches, "storage"));
    if !storage.join("version").is_file() {
        return Err(format!("{} is no storage of a registry", storage.display()));
    }
    let dry_run = matches.get_flag("dry-run");
    let how = Sweep {
        grace: duration(matches, "gc-grace-s"),
        keep: None,
        dry_run,
    };
    let swept = sweep(&storage, how).map_err(|error| sys::chain(&error))?;
    let word = if dry_run { "would delete" } else { "deleted" };
    let told = writeln!(std::io::stdout(), "{word} {swept}");
    told.map_err(|error| error.to_string())
}

fn run(matches: &ArgMatches) -> Result<(), String> {
    crate::log(matches)?;
    let address = *{ matches.get_one::<SocketAddr>("listen") }.ok_or("--listen is missing")?;
    let settings = settings(matches)?;
    check_exposure(
        address,
        settings.tls.is_some(),
        matches.get_flag("plain-http"),
    )?;
    sys::process::limit_arenas(ARENAS_MAX);
    let workers = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    // The work is spawned, so that it runs on the workers.
    runtime
        .block_on(async move { tokio::spawn(serve(address, settings)).await })
        .map_err(|error| error.to_string())?
}

/// Passwords and images that anybody between could read and change are not sent because somebody forgot a flag.
fn check_exposure(address: SocketAddr, has_tls: bool, plain_http: bool) -> Result<(), String> {
    if has_tls || plain_http || address.ip().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "will not listen on {address} without TLS, which others could read and change on its way: give --tls-cert and --tls-key, or --plain-http where that is wanted"
    ))
}

fn settings(matches: &ArgMatches) -> Result<Settings, String> {
    let rules = matches.get_many::<Rule>("allow");
    let rules = rules.into_iter().flatten().cloned().collect();
    let access = Access::new(path(matches, "htpasswd").as_deref(), rules);
    let tls = path(matches, "tls-cert").zip(path(matches, "tls-key"));
    let upstream = matches.get_one::<Address>("proxy");
    let upstream = upstream.map(|address| upstream_settings(matches, address));
    let upstream = upstream.transpose()?;
    let read_only = matches.get_flag("read-only");
    let interval = duration(matches, "gc-interval-s");
    let sweep = Sweep {
        grace: duration(matches, "gc-grace-s"),
        keep: upstream.is_some().then_some(CACHE_KEEP),
        dry_run: false,
    };
    Ok(Settings {
        storage: PathBuf::from(text(matches, "storage")),
        read_only,
        deletion: matches.get_flag("delete"),
        access: access.map_err(|error| sys::chain(&error))?,
        tls: tls.map(|(certificate, key)| Identity { certificate, key }),
        connections_per_address_max: { matches.get_one::<u16>("connections-per-address") }
            .map_or(usize::MAX, |count| usize::from(*count)),
        quotas: { matches.get_many::<Quota>("quota") }
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
        sweep: (!interval.is_zero() && !read_only).then_some((interval, sweep)),
        upstream,
    })
}

fn upstream_settings(matches: &ArgMatches, address: &Address) -> Result<UpstreamSettings, String> {
    let certificates = registry::config::CERTIFICATES.map(PathBuf::from).to_vec();
    let credentials = path(matches, "proxy-credentials");
    let credentials = credentials
        .map(|path| read_credentials(&path))
        .transpose()?;
    Ok(UpstreamSettings {
        address: address.clone(),
        credentials: credentials.unwrap_or_default(),
        registries: Registries::with_certificates(certificates),
    })
}

/// Reads `name:password` from a file of one line.
fn read_credentials(path: &Path) -> Result<Credentials, String> {
    let error = |reason: &dyn Display| format!("{}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|bad| error(&bad))?;
    if text.len() > CREDENTIALS_BYTES_MAX {
        return Err(error(&format!(
            "it has more than {CREDENTIALS_BYTES_MAX} bytes"
        )));
    }
    let line = text.trim_end_matches(['\n', '\r']);
    let (user, password) = { line.split_once(':') }
        .filter(|_| !line.contains('\n'))
        .ok_or_else(|| error(&"it is not of the form name:password"))?;
    Ok(Credentials::Basic {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

async fn serve(address: SocketAddr, settings: Settings) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let storage = settings.storage.clone();
    let server = Server::open(settings).map_err(|error| sys::chain(&error))?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!(%address, storage = %storage.display(), "the registry serves");
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end: requests under way may finish");
    };
    server.serve(listener, stop).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn nobody_is_exposed_by_accident() {
        let reachable: SocketAddr = "0.0.0.0:5000".parse().unwrap();
        assert!(
            check_exposure(reachable, false, false)
                .unwrap_err()
                .contains("--plain-http")
        );
        assert!(check_exposure(reachable, true, false).is_ok());
        assert!(check_exposure(reachable, false, true).is_ok());
        for local in ["127.0.0.1:5000", "[::1]:5000"] {
            assert!(check_exposure(local.parse().unwrap(), false, false).is_ok());
        }
    }

    #[test]
    fn credentials_are_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, "ann:a:b\n").unwrap();
        let expected = Credentials::Basic {
            user: "ann".to_owned(),
            password: "a:b".to_owned(),
        };
        assert_eq!(read_credentials(&path), Ok(expected));
        for bad in ["ann\n", "ann:x\nbob:y\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read_credentials(&path).is_err());
        }
    }
}
