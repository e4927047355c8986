//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: hosts(5), hostname(5), resolv.conf(5).

use crate::error::{Context, Error, Result};
use crate::model::{NetworkMode, Spec};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The files, by their name below `/etc`.
pub(crate) const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// How much of the host's files is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What stands in for the host's gateway in `--add-host name:host-gateway`.
const HOST_GATEWAY: &str = "host-gateway";

/// The address of the resolver in every network that somebody made.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A line of a hosts file.
#[derive(Debug, Clone)]
pub(crate) struct HostLine {
    pub(crate) address: IpAddr,
    pub(crate) names: Vec<String>,
}

impl HostLine {
    fn text(&self) -> String {
        format!("{}\t{}\n", self.address, self.names.join(" "))
    }
}

/// What a container's files say of its network.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// The container's own addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// The host's address in its network.
    pub(crate) gateway: Option<IpAddr>,
    /// Whether the container has a resolver of its own.
    pub(crate) resolver: bool,
    /// Further lines of its hosts file.
    pub(crate) hosts: &'a [HostLine],
}

/// Writes the files into `dir`.
pub(crate) fn write(dir: &Path, spec: &Spec, surroundings: &Surroundings<'_>) -> Result<()> {
    let hostname = crate::spec::hostname(spec);
    let write = |name: &str, text: String| {
        std::fs::write(dir.join(name), text)
            .context(|| format!("write /etc/{name} of the container"))
    };
    let shares_host = spec.network.mode == NetworkMode::Host;
    let hosts = if shares_host {
        read_host("/etc/hosts")?
    } else {
        LOCAL_HOSTS.to_owned()
    };
    write("hosts", self::hosts(hosts, spec, surroundings)?)?;
    write("hostname", format!("{hostname}\n"))?;
    let servers = if shares_host {
        Servers::Host
    } else if surroundings.resolver {
        Servers::Resolver
    } else {
        Servers::Reachable
    };
    let settings = Settings::of(spec)?;
    write("resolv.conf", settings.render(servers))
}

/// Has a container that runs ask the resolver from now on.
pub(crate) fn use_resolver(dir: &Path, spec: &Spec) -> Result<()> {
    // Written in place: the container has the file itself mounted.
    let text = Settings::of(spec)?.render(Servers::Resolver);
    std::fs::write(dir.join("resolv.conf"), text)
        .context(|| "write /etc/resolv.conf of the container")
}

/// The lines that say which addresses are the container's own.
fn own_lines(spec: &Spec, addresses: &[IpAddr]) -> String {
    let hostname = crate::spec::hostname(spec);
    let domain = &spec.isolation.domainname;
    let full = if domain.is_empty() {
        String::new()
    } else {
        format!("{hostname}.{domain} ")
    };
    let lines = addresses.iter();
    lines
        .map(|address| format!("{address}\t{full}{hostname}\n"))
        .collect()
}

/// Adds addresses of a container that runs to its hosts file.
pub(crate) fn add_addresses(dir: &Path, spec: &Spec, addresses: &[IpAddr]) -> Result<()> {
    rewrite_hosts(dir, |mut text| {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text + &own_lines(spec, addresses)
    })
}

/// Gives names another address in the hosts file of a container that runs.
pub(crate) fn replace_line(dir: &Path, line: &HostLine) -> Result<()> {
    rewrite_hosts(dir, |text| without_names(&text, &line.names) + &line.text())
}

/// Removes the line that has just these names from the hosts file of a container that runs.
pub(crate) fn remove_names(dir: &Path, names: &[String]) -> Result<()> {
    rewrite_hosts(dir, |text| without_names(&text, names))
}

fn without_names(text: &str, names: &[String]) -> String {
    let names = names.join(" ");
    let is_other = |line: &&str| {
        line.split_once('\t')
            .is_none_or(|(_, present)| present.trim_end() != names)
    };
    text.split_inclusive('\n').filter(is_other).collect()
}

/// Removes the lines of addresses from the hosts file of a container that runs.
pub(crate) fn remove_addresses(dir: &Path, addresses: &[IpAddr]) -> Result<()> {
    let is_gone = |line: &&str| {
        let address = line
            .split('\t')
            .next()
            .and_then(|first| first.parse::<IpAddr>().ok());
        address.is_none_or(|address| !addresses.contains(&address))
    };
    rewrite_hosts(dir, |text| {
        text.split_inclusive('\n').filter(is_gone).collect()
    })
}

/// Changes the hosts file of a container that runs, in its place: it is mounted in the container. A run that has just ended has none.
fn rewrite_hosts(dir: &Path, change: impl FnOnce(String) -> String) -> Result<()> {
    let path = dir.join("hosts");
    let text = change(read(&path)?);
    let existing = File::options().write(true).truncate(true).open(&path);
    match existing.and_then(|mut file| file.write_all(text.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| "write /etc/hosts of the container"),
    }
}

/// The loopback names every container has.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

fn read_host(path: &str) -> Result<String> {
    read(Path::new(path))
}

fn read(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => {
            file.take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .context(|| format!("read {path:?}"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::system(format!("read {path:?}"), error)),
    }
    Ok(text)
}

fn hosts(mut text: String, spec: &Spec, surroundings: &Surroundings<'_>) -> Result<String> {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for line in &spec.network.extra_hosts {
        let (name, target) = line.split_once([':', '=']).unwrap_or((line, ""));
        let target = match (target, surroundings.gateway) {
            (HOST_GATEWAY, Some(gateway)) => gateway.to_string(),
            (HOST_GATEWAY, None) => {
                return Err(Error::invalid(format!(
                    "{line:?}: this container's network has no gateway to the host"
                )));
            }
            (target, _) => target.trim_matches(['[', ']']).to_owned(),
        };
        let _ = writeln!(text, "{target}\t{name}");
    }
    text.extend(surroundings.hosts.iter().map(HostLine::text));
    text.push_str(&own_lines(spec, surroundings.addresses));
    Ok(text)
}

/// Which servers a container is told to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Servers {
    /// The host's, all of them.
    Host,
    /// Those of the host's that are reached from another network namespace: not one on the host's loopback.
    Reachable,
    /// Its own resolver, which asks the others.
    Resolver,
}

/// Resolver settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Servers to ask, in this order.
    pub(crate) servers: Vec<String>,
    /// Whether they were asked for, and are not the host's.
    is_chosen: bool,
    search: Vec<String>,
    options: Vec<String>,
}

impl Settings {
    /// The host's, with what was asked for in their place.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        Ok(Self::merge(&read_host("/etc/resolv.conf")?, spec))
    }

    fn merge(host: &str, spec: &Spec) -> Self {
        let network = &spec.network;
        let mut settings = Self {
            servers: Vec::new(),
            is_chosen: !network.dns.is_empty(),
            search: Vec::new(),
            options: Vec::new(),
        };
        for line in host.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => settings.search = words.map(str::to_owned).collect(),
                Some("options") => settings.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        if settings.is_chosen {
            settings.servers = network.dns.iter().map(IpAddr::to_string).collect();
        }
        if !network.dns_search.is_empty() {
            let domains = network.dns_search.iter();
            settings.search = domains.filter(|domain| *domain != ".").cloned().collect();
        }
        if !network.dns_options.is_empty() {
            settings.options.clone_from(&network.dns_options);
        }
        settings
    }

    fn render(&self, servers: Servers) -> String {
        let is_reachable = |server: &&String| {
            let address = server.split('%').next().unwrap_or_default();
            self.is_chosen || !address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        let listed: Vec<String> = match servers {
            Servers::Host => self.servers.clone(),
            Servers::Reachable => self.servers.iter().filter(is_reachable).cloned().collect(),
            Servers::Resolver => vec![RESOLVER.to_string()],
        };
        let mut options = self.options.clone();
        // A name without a dot is a container's, most likely: it is asked for as it is before search domains are tried.
        if servers == Servers::Resolver
            && options.iter().all(|option| !option.starts_with("ndots:"))
        {
            options.push("ndots:0".to_owned());
        }
        let mut text = String::new();
        for server in listed {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (word, values) in [("search", &self.search), ("options", &options)] {
            if !values.is_empty() {
                let _ = writeln!(text, "{word} {}", values.join(" "));
            }
        }
        text
    }
}

/// Checks an `--add-host` line when it is asked for, so that the start cannot fail for it.
pub(crate) fn check_extra_host(line: &str) -> Result<()> {
    let invalid = || {
        Error::invalid(format!(
            "bad format for add-host: {line:?}: it reads like 'name:address'"
        ))
    };
    let (name, target) = line.split_once([':', '=']).ok_or_else(invalid)?;
    let target = target.trim_matches(['[', ']']);
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_name && (target == HOST_GATEWAY || target.parse::<IpAddr>().is_ok()) {
        Ok(())
    } else {
        Err(invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_has_just_ended_has_no_names_to_change() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a".to_owned()];
        remove_names(&dir.path().join("gone"), &names).unwrap();
        remove_names(dir.path(), &names).unwrap();
        assert!(!dir.path().join("hosts").exists());
        std::fs::write(dir.path().join("hosts"), "1.2.3.4\ta\n1.2.3.5\tb\n").unwrap();
        remove_names(dir.path(), &names).unwrap();
        let kept = std::fs::read_to_string(dir.path().join("hosts")).unwrap();
        assert_eq!(kept, "1.2.3.5\tb\n");
    }

    #[test]
    fn an_extra_host_cannot_smuggle_a_line() {
        for bad in [
            "a",
            "a:b",
            "a\n6.6.6.6 b:1.2.3.4",
            ":1.2.3.4",
            "a:1.2.3.4\n5.6.7.8 c",
            "a b:1.2.3.4",
        ] {
            assert!(check_extra_host(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a:1.2.3.4",
            "a=::1",
            "a:[::1]",
            "host.docker.internal:host-gateway",
        ] {
            check_extra_host(good).unwrap();
        }
    }
}
