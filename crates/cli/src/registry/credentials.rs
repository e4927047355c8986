//! Credentials for registries: in config.json, or with the helpers that it names.
//!
//! Keys are hosts; Docker Hub has the address of its old index. The file is written by renaming a complete new one over it,
//! readable by its owner alone, with everything in it that means nothing here. Source: docker's `cli/config/configfile`.

use super::helper::{Helper, Secret};
use crate::config::ConfigFile;
use crate::error::{Error, Result};
use crate::session::Session;
use api_types::AuthConfig;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use client::Request;
use oci::Reference;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

/// What Docker Hub's credentials are kept under.
pub(super) const HUB: &str = "https://index.docker.io/v1/";
/// Who a request's sender is to registries.
const HEADER: &str = "X-Registry-Auth";

/// What a registry's credentials are kept under.
pub(super) fn key(domain: &str) -> &str {
    match domain {
        oci::reference::DEFAULT_DOMAIN => HUB,
        other => other,
    }
}

/// The host in an address.
pub(super) fn host(address: &str) -> &str {
    let bare = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    bare.split('/').next().unwrap_or_default()
}

/// Adds the credentials for an image's registry to a request.
pub(crate) fn authorized(
    session: &Session,
    request: Request,
    reference: &Reference,
) -> Result<Request> {
    let store = Store::open(&session.config_directory())?;
    let auth = store.get(key(reference.domain()))?.unwrap_or_default();
    let document = serde_json::to_vec(&auth).expect("its fields are texts");
    Ok(request.header(HEADER, BASE64_URL_SAFE.encode(document)))
}

/// The header with the credentials for registries whose images a text may name, by their domain. Docker Hub is one of them.
const HEADER_CONFIG: &str = "X-Registry-Config";
/// Registries that one text may name.
const DOMAINS_MAX: usize = 64;

/// Adds the credentials for the registries that a Dockerfile names to a request: those that it does not name are nobody's business.
pub(crate) fn authorized_for(
    session: &Session,
    request: Request,
    dockerfile: &str,
) -> Result<Request> {
    let words = dockerfile.split(|c: char| c.is_whitespace() || "=\"',".contains(c));
    let named = words.filter_map(|word| word.parse::<Reference>().ok());
    let mut domains: BTreeSet<String> = named.map(|named| named.domain().to_owned()).collect();
    domains.insert(oci::reference::DEFAULT_DOMAIN.to_owned());
    let store = Store::open(&session.config_directory())?;
    let mut known = Map::new();
    for domain in domains.iter().take(DOMAINS_MAX) {
        if let Some(auth) = store.get(key(domain))? {
            let auth = serde_json::to_value(auth).expect("its fields are texts");
            known.insert(key(domain).to_owned(), auth);
        }
    }
    match known.is_empty() {
        true => Ok(request),
        false => {
            let document = Value::Object(known).to_string();
            Ok(request.header(HEADER_CONFIG, BASE64_URL_SAFE.encode(document)))
        }
    }
}

/// The credentials of config.json.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) file: ConfigFile,
}

impl Store {
    /// Reads the file in a directory; without one there are no credentials.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let file = ConfigFile::open(directory)?;
        Ok(Self { file })
    }

    /// The credentials for a registry, where there are any.
    pub(super) fn get(&self, key: &str) -> Result<Option<AuthConfig>> {
        if let Some(helper) = self.helper(key) {
            return helper.get(key);
        }
        let Some(auths) = self.file.values.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        // Older files have whole addresses.
        let entry = { auths.get_key_value(key) }
            .or_else(|| auths.iter().find(|(known, _)| host(known) == key));
        let Some((address, entry)) = entry else {
            return Ok(None);
        };
        let error =
            |what: String| Error::msg(format!("{}: {key}: {what}", self.file.path.display()));
        let mut auth: AuthConfig =
            api_types::from_value(entry.clone()).map_err(|bad| error(bad.to_string()))?;
        if !auth.auth.is_empty() {
            (auth.username, auth.password) = pair(&auth.auth).map_err(error)?;
            auth.auth.clear();
        }
        auth.server_address.clone_from(address);
        Ok(Some(auth))
    }

    /// Keeps the credentials for a registry. `true` when they lie in the file, for everybody who can read it.
    pub(super) fn put(&mut self, key: &str, auth: &AuthConfig) -> Result<bool> {
        let helper = self.helper(key);
        let mut entry = Map::new();
        match &helper {
            Some(helper) => helper.store(&Secret::new(auth, key))?,
            None => {
                let pair = match auth.identity_token.as_str() {
                    "" => format!("{}:{}", auth.username, auth.password),
                    token => {
                        entry.insert("identitytoken".to_owned(), token.into());
                        format!("{}:", auth.username)
                    }
                };
                entry.insert("auth".to_owned(), BASE64_STANDARD.encode(pair).into());
            }
        }
        // Where a helper has them, the file says no more than for which registries.
        self.auths()?.insert(key.to_owned(), entry.into());
        self.file.write()?;
        Ok(helper.is_none())
    }

    /// Forgets the credentials for a registry, under each of its names.
    pub(super) fn remove(&mut self, keys: &[String]) -> Result<()> {
        let mut failed = Vec::new();
        for key in keys {
            if let Some(Err(error)) = self.helper(key).map(|helper| helper.erase(key)) {
                failed.push(error);
            }
        }
        if self.file.values.contains_key("auths") {
            let auths = self.auths()?;
            let before = auths.len();
            auths.retain(|known, _| !keys.contains(known));
            if auths.len() != before {
                self.file.write()?;
            }
        }
        // A helper has them under one name at most.
        match failed.len() == keys.len() {
            true => failed.pop().map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>> {
        let bad = || Error::msg(format!("{}: auths is no object", self.file.path.display()));
        let auths = self
            .file
            .values
            .entry("auths")
            .or_insert_with(|| Map::new().into());
        auths.as_object_mut().ok_or_else(bad)
    }

    fn helper(&self, key: &str) -> Option<Helper> {
        let own = self
            .file
            .values
            .get("credHelpers")
            .and_then(|map| map.get(key));
        let name = own
            .or_else(|| self.file.values.get("credsStore"))?
            .as_str()?;
        (!name.is_empty()).then(|| Helper(name.to_owned()))
    }
}

/// Name and password from `base64(name:password)`.
fn pair(text: &str) -> Result<(String, String), String> {
    let bad = || "auth is not the base64 of a name, a colon and a password".to_owned();
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (user, password) = text.split_once(':').ok_or_else(bad)?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn basic(user: &str, password: &str) -> AuthConfig {
        AuthConfig {
            username: user.to_owned(),
            password: password.to_owned(),
            ..AuthConfig::default()
        }
    }

    #[test]
    fn the_file_keeps_what_is_not_ours_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"other":{"a":[1.50]},"auths":{"x":{"auth":"YTpi"}}}"#,
        )
        .unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        assert!(store.put("h:1", &basic("u", "p:q")).unwrap());
        let token = AuthConfig {
            identity_token: "t".to_owned(),
            ..basic("u", "never kept")
        };
        store.put("h:2", &token).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["other"]["a"][0], 1.5);
        assert_eq!(document["auths"]["x"]["auth"], "YTpi");
        assert!(!text.contains(&BASE64_STANDARD.encode("u:never kept")));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = Store::open(directory.path()).unwrap();
        let known = store.get("h:1").unwrap().unwrap();
        assert_eq!((known.username, known.password), ("u".into(), "p:q".into()));
        assert_eq!(store.get("h:2").unwrap().unwrap().identity_token, "t");
        assert_eq!(store.get("h:3").unwrap(), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn whole_addresses_of_older_files_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"auths":{"https://h.example/v1/":{"auth":"YTpi"}}}"#,
        )
        .unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.get("h.example").unwrap().unwrap().username, "a");
        for bad in [
            r#"{"auths":{"h":{"auth":"%"}}}"#,
            r#"{"auths":{"h":{"auth":"YWI="}}}"#,
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = Store::open(directory.path()).unwrap().get("h").unwrap_err();
            assert!(error.to_string().contains("base64"), "{error}");
        }
        std::fs::write(&path, "{").unwrap();
        assert!(Store::open(directory.path()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn a_link_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let kept = elsewhere.path().join("kept.json");
        std::fs::write(&kept, "{}").unwrap();
        let path = directory.path().join("config.json");
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        store.put("h", &basic("u", "p")).unwrap();
        assert!(path.is_symlink());
        assert!(std::fs::read_to_string(&kept).unwrap().contains("auths"));
    }

    #[test]
    fn hosts_of_addresses() {
        for (address, expected) in [
            ("https://h:5/v2/", "h:5"),
            ("http://h", "h"),
            ("h/x", "h"),
            (HUB, "index.docker.io"),
        ] {
            assert_eq!(host(address), expected);
        }
        assert_eq!((key("docker.io"), key("h:1")), (HUB, "h:1"));
    }
}
