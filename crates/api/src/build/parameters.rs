//! Single parameters and headers of a build, each read and checked by itself.

use super::status;
use crate::distribution::{BASE64_URL, known};
use crate::http::{Error, Query};
use crate::wire;
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::{Allowances, CacheExport, CachePlace, CacheTarget, Inquiry};
use engine::images::registry::Credentials;
use engine::model::Limits;
use http::{HeaderMap, HeaderValue};
use oci::Reference;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Who the client is, by registry: base64 of JSON.
const HEADER_CONFIG: &str = "X-Registry-Config";
/// Bytes of that header.
const CONFIG_BYTES_MAX: usize = 256 << 10;
/// The argument that asks for a cache in the image.
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";

pub(super) fn tag(text: &str) -> Result<Reference, Error> {
    let bad = |what: String| {
        Error::bad_request(format!(
            "invalid argument {text:?} for \"-t, --tag\" flag: {what}"
        ))
    };
    let reference: Reference = text
        .parse()
        .map_err(|error: oci::reference::ReferenceError| bad(error.to_string()))?;
    match reference.digest() {
        Some(_) => Err(bad(
            "refusing to create a tag with a digest reference".to_owned()
        )),
        None => Ok(reference.to_target()),
    }
}

/// The cache that the image gets, where an argument asks for one: as by BuildKit's protocol, it is for the builder alone.
pub(super) fn inline_cache(
    arguments: &mut BTreeMap<String, Option<String>>,
) -> Result<Vec<CacheTarget>, Error> {
    let asked = arguments.remove(INLINE_CACHE).flatten();
    if !matches!(asked.as_deref(), Some("1" | "true")) {
        return Ok(Vec::new());
    }
    let options = CacheExport::read("inline", &BTreeMap::new());
    Ok(vec![CacheTarget {
        place: CachePlace::Inline,
        options: options.map_err(|error| status(&error))?,
    }])
}

/// What Docker's engine on Linux refuses, in its words, whichever way is built.
pub(super) fn refuse_options(query: &Query) -> Result<(), Error> {
    if !query.all("securityopt").is_empty() {
        return Err(Error::bad_request(
            "security options are not supported on linux",
        ));
    }
    let isolation = query.get("isolation").unwrap_or_default();
    if !matches!(isolation.to_lowercase().as_str(), "" | "default") {
        return Err(Error::bad_request(format!(
            "unsupported isolation: {isolation:?}"
        )));
    }
    match query.flag("squash") {
        true => Err(Error::bad_request(
            "squash is only supported with experimental mode",
        )),
        false => Ok(()),
    }
}

/// A parameter that is JSON; absent or null is the default.
pub(super) fn json<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, Error> {
    let Some(text) = query.get(name) else {
        return Ok(T::default());
    };
    let value: Option<T> = api_types::from_slice(text.as_bytes())
        .map_err(|error| Error::bad_request(format!("{}: {error}", wrong(name))))?;
    Ok(value.unwrap_or_default())
}

/// What is said of a parameter that cannot be read: of Docker's own, what its engine says.
fn wrong(name: &str) -> String {
    match name {
        "buildargs" => "error reading build args".to_owned(),
        "cachefrom" => "error reading cache-from".to_owned(),
        "labels" => "error reading labels".to_owned(),
        "outputs" => "invalid outputs specified".to_owned(),
        "ulimits" => "error reading ulimit settings".to_owned(),
        name => format!("bad parameter {name}"),
    }
}

pub(super) fn inquiry(query: &Query) -> Result<Option<Inquiry>, Error> {
    match query.get("call") {
        None | Some("build") => Ok(None),
        Some("targets") => Ok(Some(Inquiry::Targets)),
        Some("outline") => Ok(Some(Inquiry::Outline)),
        Some(other) => Err(Error::unsupported(&format!("call={other}"))),
    }
}

pub(super) fn allowances(query: &Query) -> Result<Allowances, Error> {
    let names: Vec<String> = json(query, "allow")?;
    Allowances::read(names.iter().map(String::as_str)).map_err(|error| status(&error))
}

/// One parameter with all, separated by commas, or several.
pub(super) fn extra_hosts(query: &Query) -> Result<Vec<String>, Error> {
    let all = query
        .all("extrahosts")
        .iter()
        .flat_map(|text| text.split(','));
    let hosts: Vec<String> = all
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    match hosts.iter().find(|host| !host.contains([':', '='])) {
        Some(bad) => Err(Error::bad_request(format!(
            "bad format for add-host: {bad:?}"
        ))),
        None => Ok(hosts
            .iter()
            .map(|host| host.replacen('=', ":", 1))
            .collect()),
    }
}

/// Whether commands that fail are to be entered, which the classic text has no word for.
pub(super) fn shell_on_failure(query: &Query) -> Result<bool, Error> {
    match (query.flag("shellonfailure"), query.flag("events")) {
        (true, false) => Err(Error::bad_request(
            "shellonfailure is for clients that take events",
        )),
        (wanted, _) => Ok(wanted),
    }
}

/// The names of SSH agents, of which the classic text cannot tell that they are needed.
pub(super) fn agents(query: &Query) -> Result<BTreeSet<String>, Error> {
    let agents: BTreeSet<String> = json(query, "agents")?;
    match query.flag("events") || agents.is_empty() {
        true => Ok(agents),
        false => Err(Error::bad_request(
            "agents are for clients that take events",
        )),
    }
}

pub(super) fn limits(query: &Query) -> Result<Limits, Error> {
    let number = |name: &str| Ok::<_, Error>(query.number::<i64>(name)?.unwrap_or(0));
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    wire::limits::limits(&types::Resources {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        ulimits: Some(json(query, "ulimits")?),
        ..types::Resources::default()
    })
}

pub(super) fn secrets(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let name = types::HEADER_SECRET;
    let bad = |what: &str| Error::bad_request(format!("{name}: {what}"));
    let all = headers.get_all(name);
    if all.iter().map(HeaderValue::len).sum::<usize>() > types::SECRETS_BYTES_MAX {
        let text = format!("more than {} bytes together", types::SECRETS_BYTES_MAX);
        return Err(bad(&text));
    }
    let secret = |value: &HeaderValue| {
        let mut parts = value.as_bytes().splitn(2, |byte| *byte == b':');
        let mut part = || BASE64.decode(parts.next()?).ok();
        let (id, content) = (part()?, part()?);
        Some((String::from_utf8(id).ok()?, content))
    };
    let secrets = all
        .iter()
        .map(|value| secret(value).ok_or_else(|| bad("it is ID:CONTENT, each in base64")));
    secrets.collect()
}

pub(super) fn credentials(headers: &HeaderMap) -> Result<BTreeMap<String, Credentials>, Error> {
    let bad = |what: String| Error::bad_request(format!("{HEADER_CONFIG}: {what}"));
    let Some(value) = headers.get(HEADER_CONFIG).filter(|value| !value.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    if value.len() > CONFIG_BYTES_MAX {
        return Err(bad(format!("more than {CONFIG_BYTES_MAX} bytes")));
    }
    let document = BASE64_URL
        .decode(value)
        .map_err(|error| bad(error.to_string()))?;
    let by_address: Option<BTreeMap<String, types::AuthConfig>> =
        api_types::from_slice(&document).map_err(|error| bad(error.to_string()))?;
    let by_address = by_address.unwrap_or_default().into_iter();
    Ok(by_address
        .map(|(address, auth)| (crate::distribution::registry_domain(&address), known(auth)))
        .collect())
}
