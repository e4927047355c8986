//! Where the engine listens: `--host`, sockets it is given, TLS, and whose the files of its sockets are.
//!
//! Whoever speaks to an engine is root on its host. So TCP is for those with a certificate alone, and what is misunderstood is
//! an error before anything is opened.

use api::{Access, Listener};
use clap::{Arg, ArgAction, ArgMatches};
use connections::{Acceptor, Identity};
use rustix::net::{AddressFamily, sockopt};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

/// The port of TCP with TLS.
const PORT: u16 = 2376;

/// Bytes of group(5).
const GROUPS_BYTES_MAX: u64 = 16 << 20;

/// The groups whose members may use the engine unless `--group` says otherwise: the first that there is.
const GROUPS: [&str; 2] = ["hull", "docker"];

/// What clients without a certificate would mean.
const NEEDS_TLS: &str = "whoever reaches an engine over TCP is root on its host, so its clients have to show a certificate";

const HINT: &str = "hint: give --tlsverify with --tlscacert (who vouches for clients), --tlscert and --tlskey; or reach its socket by ssh: DOCKER_HOST=ssh://user@host";

/// The flags.
pub(super) fn flags() -> Vec<Arg> {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(clap::value_parser!(bool))
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_possible_values(true)
            .help(help)
    };
    vec![
        text(
            "host",
            "ADDRESS",
            "Where to listen, several times: unix:///path, tcp://address:port with --tlsverify, fd:// for the sockets systemd has opened (default: hull.sock in the run root)",
        )
        .short('H')
        .action(ArgAction::Append),
        text(
            "group",
            "GROUP",
            "Whose members may use the unix sockets, by name or number; '' for root alone (default: hull, or docker, where there is one)",
        )
        .short('G'),
        text(
            "read-only-socket",
            "PATH",
            "A unix socket that tells of containers, images, volumes and networks, and changes nothing",
        ),
        text(
            "read-only-group",
            "GROUP",
            "Whose members may use the read-only socket (default: that of --group)",
        )
        .requires("read-only-socket"),
        switch("tlsverify", "Let in by TCP who shows a certificate that --tlscacert vouches for"),
        switch("tls", "Use TLS; without --tlsverify that is refused"),
        text("tlscacert", "FILE", "Who vouches for clients by TCP, in PEM"),
        text("tlscert", "FILE", "The certificate to show, in PEM; read again when it changes"),
        text("tlskey", "FILE", "Its key, in PEM"),
    ]
}

/// Where to listen.
#[derive(Debug)]
pub(super) struct Sockets {
    addresses: Vec<Address>,
    group: Option<u32>,
    read_only: Option<(PathBuf, Option<u32>)>,
    acceptor: Option<Arc<Acceptor>>,
    run_root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// All sockets that were given, or the one of a number.
    Given(Option<usize>),
}

/// What listens now. The files of its sockets are removed when it is dropped.
pub(super) struct Open {
    pub(super) listeners: Vec<Listener>,
    files: Vec<PathBuf>,
}

impl Drop for Open {
    fn drop(&mut self) {
        for file in &self.files {
            // Who removes it before means the same.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Sockets {
    /// Reads the flags, and the files that they name.
    pub(super) fn read(matches: &ArgMatches, run_root: &Path) -> Result<Self, String> {
        let hosts = matches.get_many::<String>("host").into_iter().flatten();
        let mut addresses: Vec<Address> =
            hosts.map(|host| address(host)).collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            addresses.push(Address::Unix(run_root.join("hull.sock")));
        }
        let group = group(matches.get_one("group"))?;
        let read_only = match matches.get_one::<String>("read-only-socket") {
            None => None,
            Some(path) => {
                let path = absolute(path)?;
                let own = matches.get_one::<String>("read-only-group");
                Some((
                    path,
                    if own.is_some() {
                        self::group(own)?
                    } else {
                        group
                    },
                ))
            }
        };
        if let Some((path, own)) = &read_only
            && *own != group
            && path.parent() == Some(run_root)
        {
            return Err(format!(
                "cannot listen on {}: the run root is open to the group of --group alone\nhint: a read-only socket with a group of its own goes to another directory",
                path.display()
            ));
        }
        let mut seen: BTreeSet<Address> = { read_only.iter() }
            .map(|(path, _)| Address::Unix(path.clone()))
            .collect();
        if let Some(twice) = addresses
            .iter()
            .find(|address| !seen.insert((*address).clone()))
        {
            return Err(format!("cannot listen on {twice:?} twice"));
        }
        let acceptor = acceptor(matches)?;
        let tcp = { addresses.iter() }.find(|address| matches!(address, Address::Tcp(_)));
        if let (Some(Address::Tcp(address)), None) = (tcp, &acceptor) {
            return Err(format!(
                "will not listen on tcp://{address}: {NEEDS_TLS}\n{HINT}"
            ));
        }
        let given = addresses
            .iter()
            .any(|address| matches!(address, Address::Given(_)));
        if acceptor.is_some() && tcp.is_none() && !given {
            return Err("--tlsverify is for TCP: give --host tcp://address:2376, too".to_owned());
        }
        Ok(Self {
            addresses,
            group,
            read_only,
            acceptor,
            run_root: run_root.to_owned(),
        })
    }

    /// Listens everywhere, or nowhere.
    pub(super) async fn open(self) -> Result<Open, String> {
        let mut open = Open {
            listeners: Vec::new(),
            files: Vec::new(),
        };
        let given = sys::activation::take();
        let mut given: Vec<Option<OwnedFd>> = { given.map_err(|error| error.to_string())? }
            .into_iter()
            .map(Some)
            .collect();
        for address in &self.addresses {
            match address {
                Address::Unix(path) => {
                    let listener = self.listen(path, self.group)?;
                    open.files.push(path.clone());
                    open.listeners.push(Listener::unix(listener, Access::Full));
                    tracing::info!(%address, "the engine listens");
                }
                Address::Tcp(address) => {
                    let acceptor = self.acceptor.clone().ok_or(NEEDS_TLS)?;
                    let listener = TcpListener::bind(address).await;
                    let listener = listener
                        .map_err(|error| format!("cannot listen on tcp://{address}: {error}"))?;
                    // The kernel chooses a port where none is said.
                    let address = listener.local_addr().map_err(|error| error.to_string())?;
                    open.listeners.push(Listener::tls(listener, acceptor));
                    tracing::info!(address = %Address::Tcp(address), "the engine listens");
                }
                Address::Given(number) => {
                    for socket in choose(&mut given, *number)? {
                        open.listeners.push(self.adopt(socket)?);
                    }
                    tracing::info!(%address, "the engine listens");
                }
            }
        }
        if let Some((path, group)) = &self.read_only {
            let listener = self.listen(path, *group)?;
            open.files.push(path.clone());
            open.listeners
                .push(Listener::unix(listener, Access::ReadOnly));
            tracing::info!(path = %path.display(), "the engine listens, for reading alone");
        }
        Ok(open)
    }

    /// Makes a unix socket for root and a group's members.
    fn listen(&self, path: &Path, group: Option<u32>) -> Result<UnixListener, String> {
        let error =
            |what: &str, error: std::io::Error| format!("{what} {}: {error}", path.display());
        make_way(path)?;
        // Nobody can connect between the making and the closing of the socket.
        let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(old);
        let listener = listener.map_err(|bad| error("cannot listen on", bad))?;
        let Some(group) = group else {
            return Ok(listener);
        };
        let hand_over = |path: &Path, mode: u32| {
            std::os::unix::fs::chown(path, None, Some(group))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        };
        hand_over(path, 0o660).map_err(|bad| error("cannot give to the group", bad))?;
        if path.parent() == Some(&self.run_root) {
            // They come to the socket, and see nothing else.
            hand_over(&self.run_root, 0o710)
                .map_err(|bad| error("cannot let the group to", bad))?;
        }
        Ok(listener)
    }

    /// Takes a socket that somebody else has opened.
    fn adopt(&self, socket: OwnedFd) -> Result<Listener, String> {
        let error = |error: std::io::Error| format!("cannot take a socket that was given: {error}");
        let family = sockopt::socket_domain(&socket).map_err(|bad| error(bad.into()))?;
        if !sockopt::socket_acceptconn(&socket).map_err(|bad| error(bad.into()))? {
            return Err("a socket that was given does not listen".to_owned());
        }
        if family == AddressFamily::UNIX {
            let socket = std::os::unix::net::UnixListener::from(socket);
            socket.set_nonblocking(true).map_err(error)?;
            let listener = UnixListener::from_std(socket).map_err(error)?;
            return Ok(Listener::unix(listener, Access::Full));
        }
        if family != AddressFamily::INET && family != AddressFamily::INET6 {
            return Err("a socket that was given is neither of unix nor of TCP".to_owned());
        }
        let acceptor = self.acceptor.clone();
        let acceptor = acceptor
            .ok_or_else(|| format!("a socket that was given is of TCP: {NEEDS_TLS}\n{HINT}"))?;
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(error)?;
        let listener = TcpListener::from_std(socket).map_err(error)?;
        Ok(Listener::tls(listener, acceptor))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Given(None) => write!(f, "fd://"),
            Self::Given(Some(number)) => write!(f, "fd://{number}"),
        }
    }
}

/// Reads an address as dockerd does.
fn address(text: &str) -> Result<Address, String> {
    let bad = || {
        format!(
            "cannot listen on {text:?}: it reads like unix:///run/hull/hull.sock, tcp://127.0.0.1:2376 or fd://"
        )
    };
    match text.split_once("://") {
        Some(("unix", path)) => absolute(path).map(Address::Unix),
        Some(("fd", "" | "*")) => Ok(Address::Given(None)),
        Some(("fd", number)) => number
            .parse()
            .map(|number| Address::Given(Some(number)))
            .map_err(|_| bad()),
        Some(("tcp", address)) => tcp(address).map(Address::Tcp).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    match path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => Err(format!(
            "cannot listen on {path:?}: the path of a socket begins with a slash"
        )),
    }
}

/// `address:port`, either of which may be missing; without an address only this machine is listened to.
fn tcp(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (text, PORT),
    };
    let address = match host {
        "" | "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(host) => host.parse::<Ipv6Addr>().ok()?.into(),
            None => host.parse::<Ipv4Addr>().map(IpAddr::from).ok()?,
        },
    };
    Some(SocketAddr::new(address, port))
}

/// What accepts TLS, if the flags ask for it.
fn acceptor(matches: &ArgMatches) -> Result<Option<Arc<Acceptor>>, String> {
    let file = |name: &str| matches.get_one::<String>(name).map(PathBuf::from);
    let files = ["tlscacert", "tlscert", "tlskey"];
    if !matches.get_flag("tlsverify") {
        let given = files.into_iter().find(|name| matches.contains_id(name));
        let given = given.or(matches.get_flag("tls").then_some("tls"));
        return given.map_or(Ok(None), |name| {
            Err(format!(
                "--{name} without --tlsverify lets anybody in: {NEEDS_TLS}\n{HINT}"
            ))
        });
    }
    let [authorities, certificate, key] =
        files.map(|name| file(name).ok_or_else(|| format!("--tlsverify needs --{name}\n{HINT}")));
    let identity = Identity {
        certificate: certificate?,
        key: key?,
    };
    let acceptor = Acceptor::mutual(identity, authorities?);
    acceptor
        .map(|acceptor| Some(Arc::new(acceptor)))
        .map_err(|error| error.to_string())
}

/// Takes the sockets that `fd://` means.
fn choose(given: &mut [Option<OwnedFd>], number: Option<usize>) -> Result<Vec<OwnedFd>, String> {
    let taken: Vec<OwnedFd> = match number {
        None => given.iter_mut().filter_map(Option::take).collect(),
        Some(number) => {
            let index = number.checked_sub(3);
            { index.and_then(|index| given.get_mut(index)) }
                .and_then(Option::take)
                .into_iter()
                .collect()
        }
    };
    if taken.is_empty() {
        let which = number.map(|number| number.to_string()).unwrap_or_default();
        return Err(format!(
            "fd://{which}: no such socket was given (LISTEN_FDS, which systemd sets where the service has a socket unit)"
        ));
    }
    Ok(taken)
}

/// Removes the socket that an engine has left which was killed, and nothing else.
fn make_way(path: &Path) -> Result<(), String> {
    let taken = |why: &str| Err(format!("cannot listen on {}: {why}", path.display()));
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return taken(&error.to_string()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return taken("there is something else than a socket");
        }
        Ok(_) => {}
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return taken("somebody listens there already");
    }
    std::fs::remove_file(path).or_else(|error| taken(&error.to_string()))
}

/// The number of the group that a flag names, or else of the first of those that there is.
fn group(flag: Option<&String>) -> Result<Option<u32>, String> {
    match flag.map(String::as_str) {
        None => Ok(GROUPS.into_iter().find_map(group_id)),
        Some("") => Ok(None),
        Some(name) => { name.parse().ok() }
            .or_else(|| group_id(name))
            .map(Some)
            .ok_or_else(|| format!("there is no group {name:?}")),
    }
}

/// A group's number, from group(5).
fn group_id(name: &str) -> Option<u32> {
    use std::io::Read as _;
    let file = std::fs::File::open("/etc/group").ok()?;
    let mut text = String::new();
    file.take(GROUPS_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Sockets, String> {
        let command = clap::Command::new("x").args(flags());
        let words = std::iter::once("x").chain(words.split_whitespace());
        let matches = command
            .try_get_matches_from(words)
            .map_err(|error| error.to_string())?;
        Sockets::read(&matches, Path::new("/run/none"))
    }

    #[test]
    fn addresses_are_dockerds() {
        for (text, expected) in [
            ("unix:///run/a.sock", "unix:///run/a.sock"),
            ("tcp://", "tcp://127.0.0.1:2376"),
            ("tcp://:1", "tcp://127.0.0.1:1"),
            ("tcp://0.0.0.0", "tcp://0.0.0.0:2376"),
            ("tcp://[::]:7", "tcp://[::]:7"),
            ("tcp://[::1]", "tcp://[::1]:2376"),
            ("fd://", "fd://"),
            ("fd://*", "fd://"),
            ("fd://4", "fd://4"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in [
            "",
            "/run/x",
            "unix://x",
            "unix://",
            "tcp://name:1",
            "tcp://1.2.3.4:x",
            "tcp://1.2.3.4:65536",
            "fd://x",
            "http://127.0.0.1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tcp_without_certificates_of_clients_is_refused_with_a_hint() {
        for words in [
            "-H tcp://0.0.0.0:2375",
            "-H unix:///run/x -H tcp://127.0.0.1",
            "-H tcp://127.0.0.1 --tls",
            "-H tcp://127.0.0.1 --tlsverify=false",
            "-H tcp://127.0.0.1 --tls --tlscert /x --tlskey /y",
        ] {
            let error = read(words).unwrap_err();
            assert!(
                error.contains(NEEDS_TLS) && error.contains("hint:"),
                "{words}: {error}"
            );
        }
        assert!(
            read("-H tcp://127.0.0.1 --tlsverify")
                .unwrap_err()
                .contains("--tlscacert")
        );
        let missing = "-H tcp://127.0.0.1 --tlsverify --tlscacert /none/ca --tlscert /none/c --tlskey /none/k";
        assert!(read(missing).unwrap_err().contains("/none/"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, why) in [
            ("-H unix:///a -H unix:///a", "twice"),
            ("-H unix:///a --read-only-socket /a", "twice"),
            ("--read-only-socket a", "slash"),
            ("--group no-such-group-here", "no-such-group-here"),
            ("--read-only-group 0", "read-only-socket"),
            (
                "--group 1 --read-only-socket /run/none/r --read-only-group 2",
                "another directory",
            ),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.contains(why), "{words}: {error}");
        }
        let sockets = read("--group 12 --read-only-socket /a").unwrap();
        assert_eq!(
            (sockets.group, sockets.read_only),
            (Some(12), Some(("/a".into(), Some(12))))
        );
        assert_eq!(
            sockets.addresses,
            [Address::Unix("/run/none/hull.sock".into())]
        );
        assert_eq!(group(Some(&String::new())), Ok(None));
    }

    #[tokio::test]
    async fn only_a_socket_nobody_listens_on_makes_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        make_way(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        assert!(make_way(&path).unwrap_err().contains("already"));
        drop(listener);
        make_way(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(make_way(&path).unwrap_err().contains("something else"));
        assert!(path.exists());
    }
}
