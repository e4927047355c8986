//! Where the engine is: the value of `DOCKER_HOST` and `--host`.

use crate::{Error, Result};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    /// `tcp://address[:port][/path]`.
    Tcp {
        /// The addresses to try in turn.
        addresses: Vec<SocketAddr>,
        /// As given, without the scheme and the path, with the port.
        authority: String,
        /// Goes before every request's path; empty or starts with a slash.
        base_path: String,
    },
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
            "https" => Err(error("TLS is not supported yet")),
            "ssh" => Err(error("connecting over ssh is not supported yet")),
            "npipe" => Err(error("named pipes exist on Windows only")),
            "fd" => Err(error("a client cannot inherit the engine's socket")),
            _ => Err(error("expected unix:// or tcp://")),
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
        let addresses: Vec<IpAddr> = match name {
            "" => vec![Ipv4Addr::LOCALHOST.into()],
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            name => vec![
                name.parse()
                    .map_err(|_| "host names are not resolved yet: give an IP address")?,
            ],
        };
        let authority = match addresses[0] {
            IpAddr::V6(address) => format!("[{address}]:{port}"),
            IpAddr::V4(_) if name == "localhost" => format!("localhost:{port}"),
            IpAddr::V4(address) => format!("{address}:{port}"),
        };
        let addresses = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
        Ok(Self::Tcp {
            addresses,
            authority,
            base_path: base_path.to_owned(),
        })
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        match self {
            // Nobody reads it; HTTP/1.1 wants one.
            Self::Unix(_) => "localhost",
            Self::Tcp { authority, .. } => authority,
        }
    }

    /// What goes before every path.
    pub(crate) fn base_path(&self) -> &str {
        match self {
            Self::Unix(_) => "",
            Self::Tcp { base_path, .. } => base_path,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp {
                authority,
                base_path,
                ..
            } => write!(f, "tcp://{authority}{base_path}"),
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
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_reached_says_why() {
        for (text, reason) in [
            ("ssh://a@b", "ssh"),
            ("https://a", "TLS"),
            ("tcp://example.com:1", "host names"),
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
