//! TLS towards registries: the system's authorities, and per registry what lies in its certificates' directory.

use crate::config::{Endpoint, Registries, host};
use crate::error::{Error, Result};
use connections::{Identity, Trust};
use std::path::{Path, PathBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// How to speak TLS with an endpoint.
pub(crate) fn connector(registries: &Registries, endpoint: &Endpoint) -> Result<TlsConnector> {
    let authority = &endpoint.address.authority;
    let error = |reason: String| Error::Certificates {
        host: authority.clone(),
        reason,
    };
    let mut found = Found::default();
    for directory in registries.certificates(authority) {
        found.read(&directory).map_err(error)?;
    }
    let trust = match endpoint.verified {
        true => Trust::SystemAnd(found.authorities),
        false => Trust::Anyone,
    };
    let connector = connections::connector(&trust, found.identity.as_ref());
    connector.map_err(|bad| error(bad.to_string()))
}

/// The name that a certificate of an authority has to have.
pub(crate) fn server_name(authority: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host(authority).to_owned()).map_err(|_| Error::Address {
        text: authority.to_owned(),
        reason: "it is no name a certificate could have",
    })
}

/// What lies in a registry's directory of certificates.
#[derive(Default)]
struct Found {
    authorities: Vec<PathBuf>,
    identity: Option<Identity>,
}

impl Found {
    fn read(&mut self, directory: &Path) -> Result<(), String> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("{directory:?}: {error}")),
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(path),
                Some("cert") => {
                    self.identity = Some(Identity {
                        key: path.with_extension("key"),
                        certificate: path,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
