//! Where the engine is: the value of `DOCKER_HOST` and `--host`.

use crate::{Error, Result};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The port of a `tcp://` address without one.
const DEFAULT_PORT: u16 = 2375;

/// The socket of a `unix://` address without a path.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The address of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://name[:port][/path]`.
    Tcp {
        /// A name or an address.
        name: String,
        /// Where it listens.
        port: u16,
        /// Goes before every request's path; empty or starts with a slash.
        base_path: String,
    },
    /// `ssh://[user@]name[:port][/path]`: the path is of the engine's socket there, where it is another than usual.
    Ssh(Ssh),
}

/// An account on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub(crate) user: Option<String>,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<String>,
}

impl Host {
    /// Parses an address as Docker's client does: without a scheme it means TCP.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let error = |reason| Error::Host {
            address: text.to_owned(),
            reason,
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(DEFAULT_SOCKET.into())),
            "unix" if rest.contains("://") => Err(error("two schemes")),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" | "http" => Self::parse_tcp(rest).map_err(error),
            "https" => Err(error("an engine with TLS is tcp:// with --tlsverify")),
            "ssh" => Ssh::parse(rest).map(Self::Ssh).map_err(error),
            "npipe" => Err(error("named pipes exist on Windows only")),
            "fd" => Err(error("a client cannot inherit the engine's socket")),
            _ => Err(error("expected unix://, tcp:// or ssh://")),
        }
    }

    fn parse_tcp(rest: &str) -> std::result::Result<Self, &'static str> {
        let (authority, base_path) = match rest.find('/') {
            Some(slash) => (&rest[..slash], rest[slash..].trim_end_matches('/')),
            None => (rest, ""),
        };
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => DEFAULT_PORT,
            port => port
                .parse()
                .map_err(|_| "the port is not a number below 65536")?,
        };
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        let name = if name.is_empty() { "127.0.0.1" } else { name };
        check_name(name)?;
        Ok(Self::Tcp {
            name: name.to_owned(),
            port,
            base_path: base_path.to_owned(),
        })
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            // Nobody reads it; HTTP/1.1 wants one.
            Self::Unix(_) | Self::Ssh(_) => "localhost".to_owned(),
            Self::Tcp { name, port, .. } => join(name, Some(*port)),
        }
    }

    /// What goes before every path.
    pub(crate) fn base_path(&self) -> &str {
        match self {
            Self::Unix(_) | Self::Ssh(_) => "",
            Self::Tcp { base_path, .. } => base_path,
        }
    }
}

impl Ssh {
    fn parse(rest: &str) -> std::result::Result<Self, &'static str> {
        if rest.contains(['?', '#']) {
            return Err("ssh:// takes no query and no fragment");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err("ssh:// takes no password"),
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (name, port) = match address.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => {
                let port = port
                    .parse()
                    .map_err(|_| "the port is not a number below 65536")?;
                (name, Some(port))
            }
            _ => (address, None),
        };
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        if name.is_empty() {
            return Err("ssh:// needs a host");
        }
        check_name(name)?;
        // What begins with a dash would be an option to ssh.
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
            return Err("that is no user");
        }
        Ok(Self {
            user: user.map(str::to_owned),
            name: name.to_owned(),
            port,
            socket: Some(path.trim_end_matches('/'))
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        })
    }
}

/// A name or an address, and never an option.
fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    match name.parse::<IpAddr>().is_ok() || (name.bytes().all(letter) && !name.starts_with('-')) {
        true => Ok(()),
        false => Err("that is no name of a host"),
    }
}

fn join(name: &str, port: Option<u16>) -> String {
    let name = match name.contains(':') {
        true => format!("[{name}]"),
        false => name.to_owned(),
    };
    port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { base_path, .. } => write!(f, "tcp://{}{base_path}", self.authority()),
            Self::Ssh(ssh) => {
                let user = ssh.user.as_ref().map(|user| format!("{user}@"));
                let socket = ssh.socket.as_deref().unwrap_or_default();
                let address = join(&ssh.name, ssh.port);
                write!(f, "ssh://{}{address}{socket}", user.unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_defaults() {
        for (text, expected) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9"),
            ("tcp://127.0.0.1", "tcp://127.0.0.1:2375"),
            ("tcp://", "tcp://127.0.0.1:2375"),
            ("10.0.0.1:1/base/", "tcp://10.0.0.1:1/base"),
            ("tcp://[::1]:7", "tcp://[::1]:7"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            (" localhost ", "tcp://localhost:2375"),
            ("tcp://engine.example:1", "tcp://engine.example:1"),
            ("ssh://ann@engine.example", "ssh://ann@engine.example"),
            ("ssh://engine:22/run/x.sock", "ssh://engine:22/run/x.sock"),
            ("ssh://[::1]:22/", "ssh://[::1]:22"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_reached_says_why() {
        for (text, reason) in [
            ("ssh://a:secret@b", "password"),
            ("ssh://a@", "needs a host"),
            ("ssh://-oProxyCommand=x", "no name"),
            ("ssh://-x@b", "no user"),
            ("ssh://@b", "no user"),
            ("ssh://b:x", "port"),
            ("ssh://b?c", "query"),
            ("https://a", "--tlsverify"),
            ("tcp://a b", "no name"),
            ("tcp://1.2.3.4:x", "port"),
            ("tcp://1.2.3.4:65536", "port"),
            ("npipe:////./pipe/x", "Windows"),
            ("fd://", "inherit"),
            ("foo://x", "unix://"),
            ("unix://unix://x", "two schemes"),
        ] {
            let error = Host::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
