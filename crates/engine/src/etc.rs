//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: hosts(5), hostname(5), resolv.conf(5).

use crate::error::{Context, Error, Result};
use crate::model::{NetworkMode, Spec};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// The files, by their name below `/etc`.
pub(crate) const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// How much of the host's files is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What stands in for the host's gateway in `--add-host name:host-gateway`.
const HOST_GATEWAY: &str = "host-gateway";

/// Writes the files into `dir`. `address`: the container's own, `gateway`: the host's in its network.
pub(crate) fn write(
    dir: &Path,
    spec: &Spec,
    address: Option<IpAddr>,
    gateway: Option<IpAddr>,
) -> Result<()> {
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
    write(
        "hosts",
        self::hosts(hosts, spec, &hostname, address, gateway)?,
    )?;
    write("hostname", format!("{hostname}\n"))?;
    let resolv = read_host("/etc/resolv.conf")?;
    write("resolv.conf", resolv_conf(&resolv, spec, shares_host))
}

/// The loopback names every container has.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

fn read_host(path: &str) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .context(|| format!("read the host's {path}"))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::system(format!("read the host's {path}"), error)),
    }
    Ok(text)
}

fn hosts(
    mut text: String,
    spec: &Spec,
    hostname: &str,
    address: Option<IpAddr>,
    gateway: Option<IpAddr>,
) -> Result<String> {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for line in &spec.network.extra_hosts {
        let (name, target) = line.split_once([':', '=']).unwrap_or((line, ""));
        let target = match (target, gateway) {
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
    if let Some(address) = address {
        let domain = &spec.isolation.domainname;
        let full = if domain.is_empty() {
            String::new()
        } else {
            format!("{hostname}.{domain} ")
        };
        let _ = writeln!(text, "{address}\t{full}{hostname}");
    }
    Ok(text)
}

/// The host's resolver settings with what was asked for in their place. A name server on the host's loopback cannot be
/// reached from a network namespace of its own and is left out.
fn resolv_conf(host: &str, spec: &Spec, shares_host: bool) -> String {
    let network = &spec.network;
    let mut servers = Vec::new();
    let mut search = Vec::new();
    let mut options = Vec::new();
    for line in host.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            Some("options") => options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    let reachable = |server: &String| {
        let address = server
            .split('%')
            .next()
            .unwrap_or_default()
            .parse::<IpAddr>();
        shares_host || !address.is_ok_and(|address| address.is_loopback())
    };
    servers.retain(reachable);
    if !network.dns.is_empty() {
        servers = network.dns.iter().map(IpAddr::to_string).collect();
    }
    if !network.dns_search.is_empty() {
        search = network
            .dns_search
            .iter()
            .filter(|domain| *domain != ".")
            .cloned()
            .collect();
    }
    if !network.dns_options.is_empty() {
        options.clone_from(&network.dns_options);
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, values) in [("search", search), ("options", options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    text
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
