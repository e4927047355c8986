//! `hull context`: names for engines and the ways to them.

mod create;
mod inspect;
mod ls;
mod rm;
pub(crate) mod store;
mod transfer;
mod using;

use crate::app::Entry;
use crate::endpoint::{Endpoint, context_name, host_variable};
use crate::error::Result;
use crate::parse::keyvalue;
use crate::session::{Session, default_socket};
use client::{Host, Trust};
use store::{DEFAULT, Meta, Store, TlsFiles};

pub(crate) const ENTRIES: &[Entry] = &[
    Entry::command("create", &create::CREATE),
    Entry::command("export", &transfer::EXPORT),
    Entry::command("import", &transfer::IMPORT),
    Entry::command("inspect", &inspect::INSPECT),
    Entry::alias("list", &ls::LS),
    Entry::command("ls", &ls::LS),
    Entry::alias("remove", &rm::RM),
    Entry::command("rm", &rm::RM),
    Entry::command("show", &using::SHOW),
    Entry::command("update", &create::UPDATE),
    Entry::command("use", &using::USE),
];

/// What the default context, which is not on disk, is described as.
const DEFAULT_DESCRIPTION: &str = "Current DOCKER_HOST based configuration";

fn open(session: &Session) -> Store {
    Store::new(&session.config_directory())
}

/// The name of the context in use.
fn current(session: &Session) -> Result<String> {
    context_name(session.global(), &session.config().current_context)
}

/// What is said of a context, the default one included.
fn describe(session: &Session, name: &str) -> Result<Meta> {
    if name != DEFAULT {
        return open(session).get(name);
    }
    let endpoint = Endpoint::by_flags(session.global(), &session.config_directory())?;
    let host = endpoint.host.unwrap_or(Host::Unix(default_socket()));
    let skip_tls_verify = endpoint.tls.is_some_and(|tls| tls.trust == Trust::Anyone);
    let endpoint = store::Endpoint {
        host: host.to_string(),
        skip_tls_verify,
    };
    Ok(Meta::new(DEFAULT, &endpoint))
}

/// The certificates and keys of a context, the default one included.
fn tls_of(session: &Session, name: &str) -> Result<TlsFiles> {
    if name != DEFAULT {
        return open(session).tls(name);
    }
    let mut files = TlsFiles::new();
    let endpoint = Endpoint::by_flags(session.global(), &session.config_directory())?;
    let Some(tls) = endpoint.tls else {
        return Ok(files);
    };
    let mut add = |name: &str, path: &std::path::Path| {
        files.insert(
            name.to_owned(),
            keyvalue::read_limited(&path.to_string_lossy())?,
        );
        Ok::<_, crate::error::Error>(())
    };
    if let Trust::Only(path) = &tls.trust {
        add("ca.pem", path)?;
    }
    if let Some(identity) = &tls.identity {
        add("cert.pem", &identity.certificate)?;
        add("key.pem", &identity.key)?;
    }
    Ok(files)
}

/// What to say when the environment names an engine, and the context in use means nothing. `which`: what does not count.
fn overridden(which: &str) -> Option<String> {
    let (name, _) = host_variable()?;
    Some(format!(
        "Warning: {name} environment variable overrides the active context. To use {which}, either set the global --context flag, or unset {name} environment variable."
    ))
}
