//! Which images may be pulled: `policy.toml`, described in docs/formats/policy.md.
//!
//! The rule with the longest prefix of an image's name counts, alone. What a rule requires to be signed is verified for the
//! digest that is then pulled, so that nothing can come between. What cannot be read is an error, never an open door.

use crate::client::Repository;
use crate::error::{Error, Result};
use crate::signature::{self, PublicKey};
use oci::reference::is_path;
use oci::{Digest, Reference};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the file is.
pub const FILE: &str = "/etc/hull/policy.toml";
/// Bytes of the file, and of a file of keys.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Keys of one rule.
const KEYS_MAX: usize = 64;

/// The rules. Without any, every image is accepted.
#[derive(Debug, Clone)]
pub struct Policy {
    path: PathBuf,
    default: Verdict,
    rules: BTreeMap<String, Verdict>,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Default,
    #[serde(default)]
    rule: BTreeMap<String, Rule>,
}

/// What happens to an image that no rule names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Default {
    #[default]
    Accept,
    Reject,
}

/// What is said of a prefix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "policy")]
enum Rule {
    Accept {},
    Reject {},
    Require { keys: Vec<PathBuf> },
}

#[derive(Debug, Clone)]
enum Verdict {
    Accept,
    Reject,
    Require(Vec<PublicKey>),
}

/// What the rule for one image demands.
#[derive(Debug)]
pub struct Demand<'a> {
    policy: &'a Path,
    rule: &'a str,
    keys: Option<&'a [PublicKey]>,
}

impl Policy {
    /// Reads the file, and the keys it names; without the file everything is accepted.
    pub fn read(path: &Path) -> Result<Self> {
        let error = |reason: String| Error::Config {
            path: path.to_owned(),
            reason,
        };
        let text = match std::fs::symlink_metadata(path) {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
            _ => read_text(path)?,
        };
        let File { default, rule } = toml::from_str(&text).map_err(|bad| error(bad.to_string()))?;
        let mut rules = BTreeMap::new();
        for (prefix, rule) in rule {
            check_prefix(&prefix).map_err(|reason| error(format!("rule {prefix:?}: {reason}")))?;
            let verdict = match rule {
                Rule::Accept {} => Verdict::Accept,
                Rule::Reject {} => Verdict::Reject,
                Rule::Require { keys } => Verdict::Require(read_keys(path, &prefix, &keys)?),
            };
            rules.insert(prefix, verdict);
        }
        Ok(Self {
            path: path.to_owned(),
            default: match default {
                Default::Accept => Verdict::Accept,
                Default::Reject => Verdict::Reject,
            },
            rules,
        })
    }

    /// What is demanded of an image, by its name; an error where it is rejected.
    pub fn demand(&self, image: &Reference) -> Result<Demand<'_>> {
        let (rule, verdict) = self.find(&image.name());
        let demand = Demand {
            policy: &self.path,
            rule,
            keys: match verdict {
                Verdict::Require(keys) => Some(keys),
                Verdict::Accept | Verdict::Reject => None,
            },
        };
        match verdict {
            Verdict::Reject => Err(demand.refused(image, "it is rejected".to_owned())),
            _ => Ok(demand),
        }
    }

    /// The rule with the longest prefix of a name, in whole components of it.
    fn find(&self, name: &str) -> (&str, &Verdict) {
        let mut prefix = name;
        loop {
            if let Some((rule, verdict)) = self.rules.get_key_value(prefix) {
                return (rule, verdict);
            }
            match prefix.rsplit_once('/') {
                Some((shorter, _)) => prefix = shorter,
                None => return ("default", &self.default),
            }
        }
    }
}

impl Demand<'_> {
    /// Checks what a digest, which the image's name was resolved to, needs.
    pub async fn check(
        &self,
        repository: &Arc<Repository>,
        image: &Reference,
        digest: &Digest,
    ) -> Result<()> {
        let Some(keys) = self.keys else {
            return Ok(());
        };
        match signature::find(repository, image, digest, keys).await? {
            Ok(()) => Ok(()),
            Err(reason) => Err(self.refused(image, format!("{digest}: {reason}"))),
        }
    }

    fn refused(&self, image: &Reference, reason: String) -> Error {
        Error::Policy {
            path: self.policy.to_owned(),
            rule: self.rule.to_owned(),
            image: image.familiar(),
            reason,
        }
    }
}

/// Why a text is no prefix of names, written as registries' own: `docker.io/library/busybox`, not `busybox`.
fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    let (domain, path) = match prefix.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (prefix, None),
    };
    // What is no registry's name would be taken for a directory of Docker Hub.
    let named = format!("{domain}/x").parse::<Reference>();
    if !named.is_ok_and(|named| named.domain() == domain) {
        return Err("it does not begin with a registry, such as docker.io");
    }
    match path.is_none_or(is_path) {
        true => Ok(()),
        false => Err("after the registry comes no repository, or a tag, which rules have none of"),
    }
}

fn read_keys(policy: &Path, prefix: &str, files: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let error = |reason: String| Error::Config {
        path: policy.to_owned(),
        reason: format!("rule {prefix:?}: {reason}"),
    };
    let directory = policy.parent().unwrap_or(Path::new("/"));
    let mut keys = Vec::new();
    for file in files {
        let path = directory.join(file);
        let pem = read_text(&path)?;
        let found = PublicKey::read_all(pem.as_bytes());
        keys.extend(found.map_err(|reason| error(format!("{path:?}: {reason}")))?);
    }
    match keys.len() {
        0 => Err(error("it requires signatures by no key".to_owned())),
        1..=KEYS_MAX => Ok(keys),
        _ => Err(error(format!("it has more than {KEYS_MAX} keys"))),
    }
}

fn read_text(path: &Path) -> Result<String> {
    let error = |reason: String| Error::Config {
        path: path.to_owned(),
        reason,
    };
    let found = std::fs::metadata(path).map_err(|other| error(other.to_string()))?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(error(format!(
            "it is no file of at most {FILE_BYTES_MAX} bytes"
        )));
    }
    std::fs::read_to_string(path).map_err(|other| error(other.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvXaRv6TO53nOqc8Nd/KoG189ag2n\n\
    ucXVWBIvg+qHJWhtbXU4lPPTayz0B64JDs/3RzNSk8aZDfoSxWlHLIcAdg==\n-----END PUBLIC KEY-----\n";

    fn read(text: &str) -> Result<Policy> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("team.pub"), KEY).unwrap();
        std::fs::write(directory.path().join("bad.pub"), "no key").unwrap();
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        Policy::read(&path)
    }

    #[test]
    fn the_longest_prefix_counts() {
        let policy = read(
            "default = \"reject\"\n\
             [rule.\"docker.io\"]\npolicy = \"accept\"\n\
             [rule.\"docker.io/evil\"]\npolicy = \"reject\"\n\
             [rule.\"docker.io/evil/good\"]\npolicy = \"accept\"\n\
             [rule.\"a.example:5000/team\"]\npolicy = \"require\"\nkeys = [\"team.pub\"]\n",
        );
        let policy = policy.unwrap();
        for (image, expected) in [
            ("busybox", Ok(false)),
            ("evil/x", Err("docker.io/evil")),
            ("evil/good", Ok(false)),
            ("evil/goods", Err("docker.io/evil")),
            ("evils/x", Ok(false)),
            ("a.example:5000/team/app/x:1", Ok(true)),
            ("a.example:5000/team", Ok(true)),
            ("a.example:5000/teams", Err("default")),
            ("a.example/team", Err("default")),
        ] {
            let image: Reference = image.parse().unwrap();
            match (policy.demand(&image), expected) {
                (Ok(demand), Ok(signed)) => assert_eq!(demand.keys.is_some(), signed, "{image}"),
                (Err(Error::Policy { rule, .. }), Err(expected)) => assert_eq!(rule, expected),
                (found, _) => panic!("{image}: {found:?}"),
            }
        }
    }

    #[test]
    fn without_a_file_everything_is_accepted() {
        let policy = Policy::read(Path::new("/nonexistent/policy.toml")).unwrap();
        let demand = policy.demand(&"busybox".parse().unwrap()).unwrap();
        assert!(demand.keys.is_none());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("default = \"maybe\"", "maybe"),
            ("[rules.x]", "unknown field"),
            ("[rule.\"a.example\"]\npolicy = \"trust\"", "trust"),
            ("[rule.\"a.example\"]", "policy"),
            (
                "[rule.\"a.example\"]\npolicy = \"accept\"\nkeys = [\"team.pub\"]",
                "unknown field",
            ),
            ("[rule.\"a.example\"]\npolicy = \"require\"", "keys"),
            (
                "[rule.\"a.example\"]\npolicy = \"require\"\nkeys = []",
                "by no key",
            ),
            (
                "[rule.\"a.example\"]\npolicy = \"require\"\nkeys = [\"none.pub\"]",
                "none.pub",
            ),
            (
                "[rule.\"a.example\"]\npolicy = \"require\"\nkeys = [\"bad.pub\"]",
                "no public key",
            ),
            (
                "[rule.\"busybox\"]\npolicy = \"accept\"",
                "begin with a registry",
            ),
            (
                "[rule.\"https://a.example\"]\npolicy = \"accept\"",
                "begin with a registry",
            ),
            ("[rule.\"a.example/b:1\"]\npolicy = \"accept\"", "a tag"),
            (
                "[rule.\"a.example/\"]\npolicy = \"accept\"",
                "no repository",
            ),
            (
                "[rule.\"index.docker.io/x\"]\npolicy = \"accept\"",
                "begin with a registry",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
