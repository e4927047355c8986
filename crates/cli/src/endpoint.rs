//! Which engine is meant, and how it is reached: flags, then the environment, then the context in use, as Docker's client
//! decides; without any of them it is hull's own.

use crate::context::store::{self, Store};
use crate::error::{Error, Result};
use crate::flags::Matches;
use client::{Host, Identity, TlsConnector, Trust};
use std::path::{Path, PathBuf};

/// An engine's address, and how TLS is spoken with it.
pub(crate) struct Endpoint {
    /// None: hull's own engine.
    pub(crate) host: Option<Host>,
    pub(crate) tls: Option<Tls>,
}

/// How TLS is spoken.
pub(crate) struct Tls {
    pub(crate) trust: Trust,
    pub(crate) identity: Option<Identity>,
}

impl Tls {
    /// What connects so.
    pub(crate) fn connector(&self) -> Result<TlsConnector> {
        let connector = client::connector(&self.trust, self.identity.as_ref());
        connector.map_err(|error| Error::msg(format!("TLS: {error}")))
    }
}

/// The value of a variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address that the environment names.
pub(crate) fn host_variable() -> Option<(&'static str, String)> {
    let named = |name| variable(name).map(|value| (name, value));
    named("HULL_HOST").or_else(|| named("DOCKER_HOST"))
}

/// The name of the context in use. `current` is the one of `config.json`.
pub(crate) fn context_name(global: &Matches, current: &str) -> Result<String> {
    let flag = global.get("context").filter(|name| !name.is_empty());
    if flag.is_some() && global.given("host") {
        return Err(Error::msg(
            "conflicting options: cannot specify both --host and --context",
        ));
    }
    let unless_host = || match global.given("host") || host_variable().is_some() {
        true => None,
        false => variable("DOCKER_CONTEXT")
            .or_else(|| Some(current.to_owned()).filter(|name| !name.is_empty())),
    };
    let name = flag.map(str::to_owned).or_else(unless_host);
    Ok(name.unwrap_or_else(|| store::DEFAULT.to_owned()))
}

impl Endpoint {
    /// What the flags before the command, the environment and `config.json` in a directory mean.
    pub(crate) fn find(global: &Matches, directory: &Path, current: &str) -> Result<Self> {
        let name = context_name(global, current)?;
        if name == store::DEFAULT {
            return Self::by_flags(global, directory);
        }
        let flags = TlsFlags::read(global, directory);
        Self::of_context(&Store::new(directory), &name, &flags)
            .map_err(|error| Error::msg(format!("unable to resolve docker endpoint: {error}")))
    }

    /// What the flags and the environment mean, without any context.
    pub(crate) fn by_flags(global: &Matches, directory: &Path) -> Result<Self> {
        let host = match global.list("host") {
            [] => host_variable().map(|(_, value)| value),
            [host] => Some(host.clone()),
            _ => return Err(Error::msg("specify only one -H")),
        };
        let host = host.map(|host| Host::parse(&host)).transpose()?;
        let by_tcp = matches!(host, Some(Host::Tcp { .. }));
        let tls = TlsFlags::read(global, directory).tls(by_tcp)?;
        Ok(Self { host, tls })
    }

    fn of_context(store: &Store, name: &str, flags: &TlsFlags) -> Result<Self> {
        let endpoint = store.get(name)?.endpoint()?;
        let host = match endpoint.host.as_str() {
            "" => None,
            host => Some(Host::parse(host)?),
        };
        if !matches!(host, Some(Host::Tcp { .. })) {
            return Ok(Self { host, tls: None });
        }
        if flags.given {
            let tls = flags.tls(true)?;
            return Ok(Self { host, tls });
        }
        let mut files = store.tls_paths(name);
        if files.is_empty() && !endpoint.skip_tls_verify {
            return Ok(Self { host, tls: None });
        }
        let trust = match (endpoint.skip_tls_verify, files.remove("ca.pem")) {
            (true, _) => Trust::Anyone,
            (false, Some(authorities)) => Trust::Only(authorities),
            (false, None) => Trust::SystemAnd(Vec::new()),
        };
        let identity = { files.remove("cert.pem") }
            .zip(files.remove("key.pem"))
            .map(|(certificate, key)| Identity { certificate, key });
        let tls = Some(Tls { trust, identity });
        Ok(Self { host, tls })
    }
}

/// What flags and the environment say about TLS.
struct TlsFlags {
    /// Whether the command line itself asks for it.
    given: bool,
    tls: bool,
    verify: bool,
    /// A file that is named, and where there is none by that name the usual one.
    files: [(Option<PathBuf>, PathBuf); 3],
    /// A flag that names a file.
    file_flag: Option<&'static str>,
}

impl TlsFlags {
    fn read(global: &Matches, directory: &Path) -> Self {
        let switch = |flag: &str, name: &str| match global.given(flag) {
            true => global.on(flag),
            false => variable(name).is_some(),
        };
        let verify = switch("tlsverify", "DOCKER_TLS_VERIFY");
        // As Docker: whoever speaks of verifying means TLS.
        let tls = switch("tls", "DOCKER_TLS") || verify || global.given("tlsverify");
        let usual =
            variable("DOCKER_CERT_PATH").map_or_else(|| directory.to_owned(), PathBuf::from);
        let flags = ["tlscacert", "tlscert", "tlskey"];
        let mut index = 0;
        let files = flags.map(|flag| {
            let usual = usual.join(store::TLS_FILES[index]);
            index += 1;
            (global.get(flag).map(PathBuf::from), usual)
        });
        Self {
            given: global.on("tls") || global.given("tlsverify"),
            tls,
            verify,
            files,
            file_flag: flags.into_iter().find(|flag| global.given(flag)),
        }
    }

    /// What speaks TLS, where that is asked for and there is a way to.
    fn tls(&self, by_tcp: bool) -> Result<Option<Tls>> {
        if let (false, Some(flag)) = (self.tls, self.file_flag) {
            return Err(Error::msg(format!(
                "--{flag} is for TLS: give --tlsverify, too"
            )));
        }
        if !self.tls || !by_tcp {
            return match self.given {
                true if self.tls => Err(Error::msg(
                    "TLS is for engines that are reached by TCP: give --host tcp://address:2376",
                )),
                _ => Ok(None),
            };
        }
        let [authorities, certificate, key] = &self.files;
        // A file that is named has to be there; a usual one may be missing, but for who is to be trusted.
        let found = |(named, usual): &(Option<PathBuf>, PathBuf)| {
            named
                .clone()
                .or_else(|| Some(usual.clone()).filter(|path| path.exists()))
        };
        let trust = match self.verify {
            true => Trust::Only(
                authorities
                    .0
                    .clone()
                    .unwrap_or_else(|| authorities.1.clone()),
            ),
            false => Trust::Anyone,
        };
        let identity = match (found(certificate), found(key)) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::msg(
                    "there is a certificate for TLS and no key: give --tlskey",
                ));
            }
            (None, Some(_)) => {
                return Err(Error::msg(
                    "there is a key for TLS and no certificate: give --tlscert",
                ));
            }
        };
        Ok(Some(Tls { trust, identity }))
    }
}
