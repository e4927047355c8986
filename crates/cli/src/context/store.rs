//! Contexts on disk, as Docker's client keeps them: the two read each other's.
//!
//! ```text
//! contexts/meta/<id>/meta.json              <id> is the SHA-256 of the name
//! contexts/tls/<id>/docker/{ca,cert,key}.pem
//! ```
//! A context is written whole or not at all: what is new is renamed over what was. Source: docker's `cli/context/store`.

use crate::config::write_whole;
use crate::error::{Error, IoContext, Result};
use crate::parse::keyvalue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The context that is not on disk: what flags and the environment say.
pub(crate) const DEFAULT: &str = "default";

/// The endpoint of an engine; there could be others.
const ENDPOINT: &str = "docker";

/// Contexts that are read.
const CONTEXTS_MAX: usize = 4096;

/// The files of an endpoint's TLS.
pub(crate) const TLS_FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// What `meta.json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    /// `Description`, and what others keep here.
    pub(crate) metadata: Map<String, Value>,
    pub(crate) endpoints: BTreeMap<String, Value>,
}

/// How an engine is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    #[serde(rename = "Host", default, skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    pub(crate) skip_tls_verify: bool,
}

/// The contents of the files of an endpoint's TLS, by their names.
pub(crate) type TlsFiles = BTreeMap<String, Vec<u8>>;

impl Meta {
    pub(crate) fn new(name: &str, endpoint: &Endpoint) -> Self {
        let mut meta = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        meta.set_endpoint(endpoint);
        meta
    }

    pub(crate) fn description(&self) -> &str {
        let text = self.metadata.get("Description").and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// An empty one takes away what was there.
    pub(crate) fn set_description(&mut self, text: &str) {
        match text {
            "" => self.metadata.remove("Description"),
            text => self.metadata.insert("Description".to_owned(), text.into()),
        };
    }

    /// How the engine is reached; none says nothing about one.
    pub(crate) fn endpoint(&self) -> Result<Endpoint> {
        let Some(endpoint) = self.endpoints.get(ENDPOINT) else {
            return Ok(Endpoint::default());
        };
        serde_json::from_value(endpoint.clone())
            .map_err(|error| Error::msg(format!("context {:?}: {error}", self.name)))
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: &Endpoint) {
        let value = serde_json::to_value(endpoint).expect("a text and a flag");
        self.endpoints.insert(ENDPOINT.to_owned(), value);
    }

    /// As JSON, in Docker's order.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("its keys are texts")
    }
}

/// All contexts of a user.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// Those in a directory of settings.
    pub(crate) fn new(config_directory: &Path) -> Self {
        Self {
            root: config_directory.join("contexts"),
        }
    }

    fn id(name: &str) -> String {
        oci::Digest::sha256(name.as_bytes()).hex()
    }

    /// Where what is said of a context is.
    pub(crate) fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(Self::id(name))
    }

    /// Where its certificates and keys are.
    pub(crate) fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(Self::id(name))
    }

    /// The files of a context's TLS that there are, with their paths.
    pub(crate) fn tls_paths(&self, name: &str) -> BTreeMap<&'static str, PathBuf> {
        let directory = self.tls_directory(name).join(ENDPOINT);
        let found = TLS_FILES.map(|file| (file, directory.join(file)));
        found
            .into_iter()
            .filter(|(_, path)| path.is_file())
            .collect()
    }

    /// The contents of the files of a context's TLS.
    pub(crate) fn tls(&self, name: &str) -> Result<TlsFiles> {
        let read = |(file, path): (&str, PathBuf)| {
            Ok((
                file.to_owned(),
                keyvalue::read_limited(&path.to_string_lossy())?,
            ))
        };
        self.tls_paths(name).into_iter().map(read).collect()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.meta_directory(name).join("meta.json").is_file()
    }

    /// What is said of a context.
    pub(crate) fn get(&self, name: &str) -> Result<Meta> {
        let path = self.meta_directory(name).join("meta.json");
        if !path.is_file() {
            return Err(Error::msg(format!(
                "context {name:?}: context not found: open {}: no such file or directory",
                path.display()
            )));
        }
        read(&path)
    }

    /// All, by their names.
    pub(crate) fn list(&self) -> Result<Vec<Meta>> {
        let directory = self.root.join("meta");
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.during(|| format!("read {}", directory.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries.take(CONTEXTS_MAX) {
            let entry = entry.during(|| format!("read {}", directory.display()))?;
            let path = entry.path().join("meta.json");
            if path.is_file() {
                found.push(read(&path)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Writes a context. `tls`: its files from now on; none leaves those that are there.
    pub(crate) fn put(&self, meta: &Meta, tls: Option<&TlsFiles>) -> Result<()> {
        if let Some(files) = tls {
            let directory = self.tls_directory(&meta.name);
            remove_tree(&directory)?;
            if !files.is_empty() {
                let directory = directory.join(ENDPOINT);
                make_directory(&directory, 0o700)?;
                for (name, content) in files {
                    write_whole(&directory.join(name), content, 0o600)?;
                }
            }
        }
        let directory = self.meta_directory(&meta.name);
        make_directory(&directory, 0o755)?;
        write_whole(&directory.join("meta.json"), meta.json().as_bytes(), 0o644)
    }

    /// Removes a context; false: there is none.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        let there = self.exists(name);
        remove_tree(&self.meta_directory(name))?;
        remove_tree(&self.tls_directory(name))?;
        Ok(there)
    }
}

fn read(path: &Path) -> Result<Meta> {
    let text = keyvalue::read_limited(&path.to_string_lossy())?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::msg(format!("{}: {error}", path.display())))
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.during(|| format!("mkdir {}", path.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.during(|| format!("remove {}", path.display())),
    }
}

/// Checks a new context's name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name == DEFAULT {
        return Err(Error::msg("\"default\" is a reserved context name"));
    }
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    match first && name.len() > 1 && bytes.all(letter) {
        true => Ok(()),
        false => Err(Error::msg(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_where_docker_looks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert_eq!(store.list().unwrap(), []);
        let endpoint = Endpoint {
            host: "tcp://1.2.3.4:5".to_owned(),
            skip_tls_verify: true,
        };
        let mut meta = Meta::new("aa", &endpoint);
        meta.set_description("desc x");
        let tls = BTreeMap::from([("ca.pem".to_owned(), b"x".to_vec())]);
        store.put(&meta, Some(&tls)).unwrap();
        let id = "961b6dd3ede3cb8ecbaacbd68de040cd78eb2ed5889130cceb4c49268ea4d506";
        let text = std::fs::read_to_string(
            directory
                .path()
                .join(format!("contexts/meta/{id}/meta.json")),
        );
        assert_eq!(
            text.unwrap(),
            r#"{"Name":"aa","Metadata":{"Description":"desc x"},"Endpoints":{"docker":{"Host":"tcp://1.2.3.4:5","SkipTLSVerify":true}}}"#
        );
        assert!(
            directory
                .path()
                .join(format!("contexts/tls/{id}/docker/ca.pem"))
                .is_file()
        );
        assert_eq!(store.get("aa").unwrap(), meta);
        assert_eq!(
            (meta.description(), meta.endpoint().unwrap()),
            ("desc x", endpoint)
        );
        // What another has written there stays.
        store.put(&meta, None).unwrap();
        assert_eq!(store.tls("aa").unwrap(), tls);
        assert!(store.remove("aa").unwrap() && !store.remove("aa").unwrap());
        assert!(store.tls_paths("aa").is_empty() && store.get("aa").is_err());
    }

    #[test]
    fn names_are_dockers() {
        for good in ["aa", "a.b+c_d-e", "0x"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a", "-a", "a b", "a/b", "..", "default", "\u{e4}\u{e4}"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
