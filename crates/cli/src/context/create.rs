//! `hull context create` and `hull context update`.

use super::store::{Endpoint, Meta, TlsFiles, check_name};
use super::{DEFAULT_DESCRIPTION, current, describe, open, tls_of};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::go::csv;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use client::Host;
use std::collections::BTreeMap;

const DESCRIPTION: Flag = Flag::text("description", "What it is");
const DOCKER: Flag = Flag::of(
    "docker",
    Kind::List("stringToString"),
    "The way to the engine: host=ADDRESS, and for TLS ca=FILE, cert=FILE, key=FILE, skip-tls-verify=true; or from=CONTEXT",
)
.check(|text| pairs(text).map(drop));

const CREATE_FLAGS: &[Flag] = &[
    DESCRIPTION,
    DOCKER,
    Flag::text("from", "Be a copy of this context"),
];
const UPDATE_FLAGS: &[Flag] = &[DESCRIPTION, DOCKER];

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context: a name for an engine and the way to it",
    aliases: &[],
    flags: &[CREATE_FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { create(session, matches) }),
};

pub(crate) const UPDATE: Command = Command {
    about: "Change a context",
    flags: &[UPDATE_FLAGS],
    run: |session, matches| Box::pin(async move { update(session, matches) }),
    ..CREATE
};

/// Where the files of TLS are written, and what names them.
const FILES: [(&str, &str); 3] = [("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")];

fn create(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    check_name(name)?;
    let store = open(session);
    if store.exists(name) {
        return Err(Error::msg(format!("context {name:?} already exists")));
    }
    let (mut meta, tls) = match (matches.list("docker"), matches.text("from")) {
        ([], "") => copy(session, &current(session)?, name)?,
        ([], from) => copy(session, from, name)?,
        (_, "") => {
            let (endpoint, tls) = endpoint(session, matches)?;
            (Meta::new(name, &endpoint), tls)
        }
        _ => return Err(Error::msg("cannot use --docker flag when --from is set")),
    };
    if matches.given("description") {
        meta.set_description(matches.text("description"));
    }
    store.put(&meta, Some(&tls))?;
    output::line(name)?;
    output::complain(&format!("Successfully created context {name:?}"));
    Ok(())
}

/// Another context, by a new name.
fn copy(session: &Session, from: &str, name: &str) -> Result<(Meta, TlsFiles)> {
    let mut meta = describe(session, from)?;
    if meta.name == super::DEFAULT {
        meta.set_description(DEFAULT_DESCRIPTION);
    }
    name.clone_into(&mut meta.name);
    Ok((meta, tls_of(session, from)?))
}

fn update(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    check_name(name)?;
    let store = open(session);
    let mut meta = store.get(name)?;
    if matches.given("description") {
        meta.set_description(matches.text("description"));
    }
    let tls = match matches.list("docker") {
        [] => None,
        _ => {
            let (endpoint, tls) = endpoint(session, matches)?;
            meta.set_endpoint(&endpoint);
            Some(tls)
        }
    };
    store.put(&meta, tls.as_ref())?;
    output::line(name)?;
    output::complain(&format!("Successfully updated context {name:?}"));
    Ok(())
}

/// `key=value,key=value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let fields = csv::record(text)?;
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("{field} must be formatted as key=value")),
    };
    fields.into_iter().map(pair).collect()
}

/// What `--docker` says.
fn endpoint(session: &Session, matches: &Matches) -> Result<(Endpoint, TlsFiles)> {
    let failed = |error: Error| {
        let error = crate::error::chain(&error);
        Error::msg(format!("unable to create docker endpoint config: {error}"))
    };
    let mut settings = BTreeMap::new();
    for text in matches.list("docker") {
        settings.extend(pairs(text).map_err(Error::msg)?);
    }
    match settings.remove("from") {
        Some(from) if settings.is_empty() => Ok((
            describe(session, &from)?.endpoint()?,
            tls_of(session, &from)?,
        )),
        Some(_) => Err(failed(Error::msg("from stands alone"))),
        None => read_endpoint(settings).map_err(failed),
    }
}

fn read_endpoint(mut settings: BTreeMap<String, String>) -> Result<(Endpoint, TlsFiles)> {
    let host = settings.remove("host").unwrap_or_default();
    if !host.is_empty() {
        // Without a scheme it could be anything.
        let parsed = match host.contains("://") {
            true => Host::parse(&host)
                .map(drop)
                .map_err(|error| error.to_string()),
            false => Err("it has no scheme such as tcp://".to_owned()),
        };
        parsed.map_err(|why| Error::msg(format!("unable to parse docker host `{host}`: {why}")))?;
    }
    let skip_tls_verify = match settings.remove("skip-tls-verify").as_deref() {
        None => false,
        Some(text) => crate::parse::check::bool(text).map_err(|_| {
            Error::msg(format!("skip-tls-verify: parsing {text:?}: invalid syntax"))
        })?,
    };
    let mut files = TlsFiles::new();
    for (key, file) in FILES {
        if let Some(path) = settings.remove(key).filter(|path| !path.is_empty()) {
            files.insert(file.to_owned(), keyvalue::read_limited(&path)?);
        }
    }
    match settings.into_keys().next() {
        Some(unknown) => Err(Error::msg(format!("unrecognized config key: {unknown}"))),
        None => Ok((
            Endpoint {
                host,
                skip_tls_verify,
            },
            files,
        )),
    }
}
