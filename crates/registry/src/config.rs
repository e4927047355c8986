//! Where registries are: `registries.toml`, and the directories of certificates that Docker has.
//!
//! ```toml
//! [registry."docker.io"]
//! # Tried in this order before the registry itself, for pulls.
//! mirrors = ["https://mirror.example", "http://10.0.0.5:5000/hub"]
//!
//! [registry."registry.example:5000"]
//! # Plain HTTP, and certificates nobody vouches for, are taken. Addresses of this machine are always so.
//! insecure = true
//!
//! [registry."old.example"]
//! # Names of this registry are served from elsewhere.
//! location = "https://new.example/old"
//! ```

use crate::error::{Error, Result};
use oci::reference::DEFAULT_DOMAIN;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the file is.
pub const FILE: &str = "/etc/hull/registries.toml";
/// Where directories of certificates are.
pub const CERTIFICATES: [&str; 2] = ["/etc/hull/certs.d", "/etc/docker/certs.d"];
/// Where the names of `docker.io` are served.
const DEFAULT_LOCATION: &str = "https://registry-1.docker.io";
/// Where they are searched.
const DEFAULT_INDEX: &str = "https://index.docker.io";
/// Mirrors of one registry.
pub const MIRRORS_MAX: usize = 16;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All that is known of registries.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    entries: BTreeMap<String, Entry>,
    certificates: Vec<PathBuf>,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Entry>,
}

/// What is said of one registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    mirrors: Vec<Address>,
    location: Option<Address>,
    #[serde(default)]
    insecure: bool,
}

/// A URL of a registry: scheme, host, port and a prefix of its paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// Whether it is `https`.
    pub(crate) tls: bool,
    /// Host, and port where one is given.
    pub(crate) authority: String,
    /// Begins with a slash, or is empty.
    pub(crate) prefix: String,
}

/// What is known of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name in references.
    pub name: String,
    /// The URLs of its mirrors.
    pub mirrors: Vec<String>,
    /// Whether its certificate has to be valid.
    pub secure: bool,
}

/// One way to a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where it is.
    pub(crate) address: Address,
    /// Whether its certificate counts.
    pub(crate) verified: bool,
    /// Whether it is a mirror: what it lacks, the registry itself may have.
    pub(crate) mirror: bool,
}

impl Registries {
    /// Reads `file`, when it is there. Certificates for a registry are looked for below each of `certificates`, in a directory
    /// of the registry's name: `*.crt` are authorities, `*.cert` and `*.key` what to show to it.
    pub fn read(file: &Path, certificates: Vec<PathBuf>) -> Result<Self> {
        let error = |reason: String| Error::Config {
            path: file.to_owned(),
            reason,
        };
        let text = match std::fs::metadata(file) {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(other) => return Err(error(other.to_string())),
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                return Err(error(format!("it has more than {FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => std::fs::read_to_string(file).map_err(|other| error(other.to_string()))?,
        };
        let File { registry } = toml::from_str(&text).map_err(|bad| error(bad.to_string()))?;
        let crowded = registry
            .iter()
            .find(|(_, entry)| entry.mirrors.len() > MIRRORS_MAX);
        if let Some((name, _)) = crowded {
            return Err(error(format!("{name} has more than {MIRRORS_MAX} mirrors")));
        }
        Ok(Self {
            entries: registry,
            certificates,
        })
    }

    /// Registries of which nothing is known but where their certificates are, as for [`Registries::read`].
    pub fn with_certificates(certificates: Vec<PathBuf>) -> Self {
        Self {
            entries: BTreeMap::new(),
            certificates,
        }
    }

    /// Takes plain HTTP and any certificate from a registry, as Docker's `--insecure-registry`.
    pub fn trust(&mut self, domain: &str) {
        self.entries.entry(domain.to_owned()).or_default().insecure = true;
    }

    /// Adds a mirror of a registry, behind those that it has.
    pub fn mirror(&mut self, domain: &str, mirror: Address) {
        let entry = self.entries.entry(domain.to_owned()).or_default();
        entry.mirrors.push(mirror);
    }

    /// Serves the names of a registry from an address, as `location` in the file does.
    pub fn locate(&mut self, domain: &str, location: Address) {
        self.entries.entry(domain.to_owned()).or_default().location = Some(location);
    }

    /// The registries that the configuration names, Docker's first one always among them.
    pub fn known(&self) -> Vec<Known> {
        let none = (DEFAULT_DOMAIN.to_owned(), Entry::default());
        let mut entries: BTreeMap<String, Entry> = BTreeMap::from([none]);
        entries.extend(self.entries.clone());
        let known = |(name, entry): (String, Entry)| Known {
            secure: !self.is_insecure(&name),
            mirrors: entry.mirrors.iter().map(ToString::to_string).collect(),
            name,
        };
        entries.into_iter().map(known).collect()
    }

    /// The ways to a registry, in the order to try them; mirrors too when they will do.
    pub(crate) fn endpoints(&self, domain: &str, mirrors: bool) -> Result<Vec<Endpoint>> {
        let none = Entry::default();
        let entry = self.entries.get(domain).unwrap_or(&none);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for address in entry.mirrors.iter().filter(|_| mirrors) {
            endpoints.push(Endpoint {
                address: address.clone(),
                verified: !self.is_insecure(&address.authority),
                mirror: true,
            });
        }
        let own = |address: Address, verified| Endpoint {
            address,
            verified,
            mirror: false,
        };
        let known = match &entry.location {
            Some(location) => Some(location.clone()),
            None if domain == DEFAULT_DOMAIN => Some(DEFAULT_LOCATION.parse()?),
            None => None,
        };
        let verified = !self.is_insecure(domain);
        if let Some(address) = known {
            endpoints.push(own(address, verified));
            return Ok(endpoints);
        }
        let secure: Address = format!("https://{domain}").parse()?;
        endpoints.push(own(secure.clone(), verified));
        if !verified {
            let plain = Address {
                tls: false,
                ..secure
            };
            endpoints.push(own(plain, false));
        }
        Ok(endpoints)
    }

    /// The ways to where a registry is searched.
    pub(crate) fn indexes(&self, domain: &str) -> Result<Vec<Endpoint>> {
        let located = { self.entries.get(domain) }.is_some_and(|entry| entry.location.is_some());
        let mut endpoints = self.endpoints(domain, false)?;
        if domain == DEFAULT_DOMAIN && !located {
            for endpoint in &mut endpoints {
                endpoint.address = DEFAULT_INDEX.parse()?;
            }
        }
        Ok(endpoints)
    }

    /// Directories that may have certificates for a host.
    pub(crate) fn certificates(&self, authority: &str) -> impl Iterator<Item = PathBuf> {
        self.certificates
            .iter()
            .map(move |path| path.join(authority))
    }

    fn is_insecure(&self, authority: &str) -> bool {
        let listed = self
            .entries
            .get(authority)
            .is_some_and(|entry| entry.insecure);
        listed || is_loopback(authority)
    }
}

/// Whether an authority is this machine: nobody stands between.
fn is_loopback(authority: &str) -> bool {
    let host = host(authority);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The host of an authority, without the brackets of an IPv6 address.
pub(crate) fn host(authority: &str) -> &str {
    if let Some((address, _)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return address;
    }
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

impl Address {
    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let error = |reason| Error::Address {
            text: text.to_owned(),
            reason,
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(error("it is neither http nor https")),
            None => (true, text),
        };
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let known: http::uri::Authority = authority
            .parse()
            .map_err(|_| error("it has no host, or a strange one"))?;
        if known.as_str().contains('@') {
            return Err(error("credentials do not belong here: log in instead"));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.contains(['?', '#'])
            || prefix.parse::<http::uri::PathAndQuery>().is_err() && !prefix.is_empty()
        {
            return Err(error("its path is none"));
        }
        Ok(Self {
            tls,
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Registries> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.toml");
        std::fs::write(&path, text).unwrap();
        Registries::read(&path, Vec::new())
    }

    fn ways(registries: &Registries, domain: &str, mirrors: bool) -> Vec<(String, bool)> {
        let endpoints = registries.endpoints(domain, mirrors).unwrap();
        let way = |endpoint: &Endpoint| (endpoint.address.to_string(), endpoint.verified);
        endpoints.iter().map(way).collect()
    }

    #[test]
    fn mirrors_come_first_and_only_for_pulls() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"https://m.example/hub/\", \"http://10.0.0.1:5000\"]\n";
        let registries = read(text).unwrap();
        let own = ("https://registry-1.docker.io".to_owned(), true);
        assert_eq!(
            ways(&registries, "docker.io", false),
            std::slice::from_ref(&own)
        );
        let mirrors = [
            ("https://m.example/hub".to_owned(), true),
            ("http://10.0.0.1:5000".to_owned(), true),
        ];
        assert_eq!(
            ways(&registries, "docker.io", true),
            [&mirrors[..], &[own]].concat()
        );
    }

    #[test]
    fn plain_http_is_for_this_machine_and_for_what_is_called_insecure() {
        let mut registries = read("[registry.\"a.example\"]\ninsecure = true\n").unwrap();
        let both = |host: &str| {
            [
                (format!("https://{host}"), false),
                (format!("http://{host}"), false),
            ]
        };
        for host in ["a.example", "localhost:5000", "127.0.0.1", "[::1]:5000"] {
            assert_eq!(ways(&registries, host, true), both(host));
        }
        assert_eq!(
            ways(&registries, "b.example", true),
            [("https://b.example".to_owned(), true)]
        );
        registries.trust("b.example");
        assert_eq!(ways(&registries, "b.example", true), both("b.example"));
    }

    #[test]
    fn a_location_takes_the_registrys_place() {
        let registries =
            read("[registry.\"old.example\"]\nlocation = \"http://new.example:81/a\"\n").unwrap();
        assert_eq!(
            ways(&registries, "old.example", true),
            [("http://new.example:81/a".to_owned(), true)]
        );
    }

    #[test]
    fn docker_hub_is_searched_elsewhere_than_pulled_from() {
        let hub = |registries: &Registries| {
            let found = registries.indexes("docker.io").unwrap();
            found[0].address.to_string()
        };
        assert_eq!(hub(&read("").unwrap()), DEFAULT_INDEX);
        let moved = read("[registry.\"docker.io\"]\nlocation = \"https://hub.example\"\n").unwrap();
        assert_eq!(hub(&moved), "https://hub.example");
        let other = moved.indexes("b.example").unwrap();
        assert_eq!(other[0].address.to_string(), "https://b.example");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, reason) in [
            ("registry = 1", "invalid type"),
            ("[registry.x]\nmirror = []", "unknown field"),
            (
                "[registry.x]\nmirrors = [\"ftp://a\"]",
                "neither http nor https",
            ),
            ("[registry.x]\nmirrors = [\"http://u:p@a\"]", "credentials"),
            ("[registry.x]\nmirrors = [\"http://\"]", "no host"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(Registries::read(Path::new("/nonexistent/x"), Vec::new()).is_ok());
    }
}
