//! `config.json` of Docker's command line: the settings of it that mean something here.

use crate::error::{Error, IoContext, Result};
use crate::json;
use crate::output;
use crate::parse::keyvalue;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    /// `--detach-keys`.
    pub(crate) detach_keys: String,
    /// `ps --format`.
    pub(crate) ps_format: String,
    /// `images --format`.
    pub(crate) images_format: String,
    /// `network ls --format`.
    pub(crate) networks_format: String,
    /// `volume ls --format`.
    pub(crate) volumes_format: String,
    /// `stats --format`.
    pub(crate) stats_format: String,
    /// The context in use; empty: the default one.
    pub(crate) current_context: String,
    /// By engine's address, or `default`.
    proxies: BTreeMap<String, Proxy>,
}

/// The proxy that containers get in their environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

impl Config {
    /// Reads the file in `directory`. Without one all settings are empty; a broken one is complained about.
    pub(crate) fn load(directory: &Path) -> Self {
        let path = directory.join("config.json");
        if !path.exists() {
            return Self::default();
        }
        let complain = |problem: &str| {
            output::complain(&format!(
                "WARNING: cannot read {}: {problem}",
                path.display()
            ));
            Self::default()
        };
        match keyvalue::read_limited(&path.to_string_lossy()) {
            Err(error) => complain(&crate::error::chain(&error)),
            Ok(json) => {
                api_types::from_slice(&json).unwrap_or_else(|error| complain(&error.to_string()))
            }
        }
    }

    /// The variables of the proxy for containers of the engine at `host`, but those that `given` has.
    pub(crate) fn proxy_environment(&self, host: &str, given: &[String]) -> Vec<String> {
        let Some(proxy) = self
            .proxies
            .get(host)
            .or_else(|| self.proxies.get("default"))
        else {
            return Vec::new();
        };
        let given = |name: &str| {
            given
                .iter()
                .any(|text| text.split('=').next() == Some(name))
        };
        let mut variables = Vec::new();
        for (name, value) in [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ] {
            for name in [name.to_owned(), name.to_lowercase()] {
                if !value.is_empty() && !given(&name) {
                    variables.push(format!("{name}={value}"));
                }
            }
        }
        variables
    }
}

/// All of `config.json`, to change something in it. What means nothing here stays as it is.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) values: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the file in a directory; without one nothing is set.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        if !path.exists() {
            let values = Map::new();
            return Ok(Self { path, values });
        }
        let text = keyvalue::read_limited(&path.to_string_lossy())?;
        let values = serde_json::from_slice(&text)
            .map_err(|error| Error::msg(format!("{}: {error}", path.display())))?;
        Ok(Self { path, values })
    }

    /// Writes the file by renaming a complete new one over it, readable by its owner alone.
    pub(crate) fn write(&self) -> Result<()> {
        // The file may be a link to where somebody keeps it.
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = target.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .during(|| format!("mkdir {}", directory.display()))?;
        let text = Value::from(self.values.clone()).to_string();
        write_whole(&target, json::indent(&text, "\t").as_bytes(), 0o600)
    }
}

/// Writes a file whole or not at all: a new one is renamed over what was there.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        // The error that brought us here is the one to tell.
        let _ = std::fs::remove_file(&fresh);
    }
    written.during(|| format!("write {}", path.display()))
}

/// Where `config.json` is: `--config`, `$DOCKER_CONFIG`, `~/.docker`.
pub(crate) fn directory(flag: &str) -> PathBuf {
    if !flag.is_empty() {
        return flag.into();
    }
    match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".docker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_proxies() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Config::load(directory.path()), Config::default());
        let json = r#"{"auths":{},"detachKeys":"ctrl-x","proxies":{"default":{"httpProxy":"http://p","noProxy":"x"}}}"#;
        std::fs::write(directory.path().join("config.json"), json).unwrap();
        let config = Config::load(directory.path());
        assert_eq!(config.detach_keys, "ctrl-x");
        let given = ["NO_PROXY=mine".to_owned(), "http_proxy".to_owned()];
        assert_eq!(
            config.proxy_environment("unix:///x", &given),
            ["HTTP_PROXY=http://p", "no_proxy=x"]
        );
        std::fs::write(directory.path().join("config.json"), "{").unwrap();
        assert_eq!(Config::load(directory.path()), Config::default());
    }
}
