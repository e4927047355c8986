//! What a client asks the Dockerfile frontend for: attributes by name. What is not supported is an error that names it.
//!
//! Source: moby/buildkit `frontend/dockerui/config.go`, `frontend/dockerui/attr.go`.

use builder::{Attestations, CacheImport, Error, Result};
use engine::model::{NetworkMode, Ulimit};
use oci::image::Platform;
use std::collections::BTreeMap;

/// Bytes of `/dev/shm` of commands where nothing is said.
const SHM_BYTES: u64 = 64 << 20;
/// Attributes of one build.
const ATTRIBUTES_MAX: usize = 4096;
/// The repository that the context is in, which only attestations tell of, and what this side is told to expect.
const TOLD_ONLY: [&str; 2] = ["vcs:", "frontend.caps"];

/// The attributes, read.
#[derive(Debug)]
pub(crate) struct Attributes {
    /// The Dockerfile's name in its directory.
    pub(crate) filename: String,
    /// The name under which the client offers that directory.
    pub(crate) dockerfile_directory: String,
    /// Whether the client has said so.
    pub(crate) has_dockerfile: bool,
    /// The same of the context.
    pub(crate) context_directory: String,
    /// An address instead of a directory.
    pub(crate) context: Option<String>,
    /// Named contexts as they are written.
    pub(crate) contexts: BTreeMap<String, String>,
    pub(crate) target: Option<String>,
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) platforms: Vec<Platform>,
    /// The result is an index, even of one platform.
    pub(crate) index: bool,
    pub(crate) network: NetworkMode,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) shm_bytes: u64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) no_cache: bool,
    pub(crate) no_cache_stages: Vec<String>,
    pub(crate) pull: bool,
    /// Caches elsewhere that are read.
    pub(crate) cache_from: Vec<CacheImport>,
    /// What is attested of images that go elsewhere.
    pub(crate) attestations: Attestations,
    /// The image has its own results in it.
    pub(crate) inline_cache: bool,
    /// What is asked of the Dockerfile, in the place of building it.
    pub(crate) inquiry: Option<Inquiry>,
}

/// What can be asked of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inquiry {
    /// What had better be written otherwise.
    Lint,
    /// What the builder knows of it.
    Of(builder::Inquiry),
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            filename: "Dockerfile".to_owned(),
            dockerfile_directory: "dockerfile".to_owned(),
            has_dockerfile: false,
            context_directory: "context".to_owned(),
            context: None,
            contexts: BTreeMap::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            index: false,
            network: NetworkMode::Bridge,
            extra_hosts: Vec::new(),
            shm_bytes: SHM_BYTES,
            ulimits: Vec::new(),
            cgroup_parent: None,
            no_cache: false,
            no_cache_stages: Vec::new(),
            pull: false,
            cache_from: Vec::new(),
            attestations: Attestations::default(),
            inline_cache: false,
            inquiry: None,
        }
    }
}

fn bad(name: &str, value: &str) -> Error {
    Error::Invalid(format!("invalid {name}: {value:?}"))
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::Unsupported(what.into())
}

impl Attributes {
    /// Reads all.
    ///
    /// # Errors
    /// One that is not known, not supported, or malformed.
    pub(crate) fn read(given: &BTreeMap<String, String>) -> Result<Self> {
        if given.len() > ATTRIBUTES_MAX {
            return Err(Error::Invalid(format!(
                "a build has at most {ATTRIBUTES_MAX} attributes"
            )));
        }
        let mut attributes = Self::default();
        for (name, value) in given {
            match name.split_once(':') {
                Some(("build-arg", name)) => {
                    attributes.build_arg(name, value)?;
                }
                Some(("label", name)) => {
                    attributes.labels.insert(name.to_owned(), value.clone());
                }
                Some(("context", name)) => {
                    attributes.contexts.insert(name.to_owned(), value.clone());
                }
                Some(("attest", kind)) => attributes.attestations.add(kind, value)?,
                _ => attributes.one(name, value)?,
            }
        }
        Ok(attributes)
    }

    fn build_arg(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "BUILDKIT_SYNTAX" => Err(unsupported("building by a frontend from an image")),
            "BUILDKIT_MULTI_PLATFORM" => {
                self.index = is_true(value);
                Ok(())
            }
            "BUILDKIT_INLINE_CACHE" => {
                self.inline_cache = is_true(value);
                Ok(())
            }
            _ => {
                self.build_args.insert(name.to_owned(), value.to_owned());
                Ok(())
            }
        }
    }

    fn one(&mut self, name: &str, value: &str) -> Result<()> {
        let text = || value.to_owned();
        let some = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match name {
            "filename" => self.filename = text(),
            "dockerfilekey" => {
                self.dockerfile_directory = text();
                self.has_dockerfile = true;
            }
            "contextkey" => self.context_directory = text(),
            "context" => self.context = some(),
            "target" => self.target = some(),
            "platform" => {
                let all = value.split(',').filter(|text| !text.is_empty());
                self.platforms = all.map(platform).collect::<Result<_>>()?;
            }
            "no-cache" if value.is_empty() => self.no_cache = true,
            "no-cache" => self.no_cache_stages = value.split(',').map(str::to_owned).collect(),
            "force-network-mode" => {
                self.network = match value {
                    "host" => NetworkMode::Host,
                    "none" => NetworkMode::None,
                    "" | "sandbox" | "default" => NetworkMode::Bridge,
                    other => return Err(bad("network mode", other)),
                }
            }
            "image-resolve-mode" => self.pull = value == "pull",
            "add-hosts" => self.extra_hosts = hosts(value)?,
            "shm-size" => {
                self.shm_bytes = value.parse().map_err(|_| bad("size of /dev/shm", value))?;
            }
            "ulimit" => self.ulimits = ulimits(value)?,
            "cgroup-parent" => self.cgroup_parent = some(),
            "multi-platform" => self.index = is_true(value),
            "cache-imports" => self.cache_from.extend(imports(value)?),
            "cache-from" => {
                for reference in value.split(',').filter(|text| !text.is_empty()) {
                    let given = BTreeMap::from([("ref".to_owned(), reference.to_owned())]);
                    self.cache_from.push(CacheImport::read("registry", &given)?);
                }
            }
            "requestid" => {
                self.inquiry = Some(match value {
                    "frontend.lint" => Inquiry::Lint,
                    "frontend.targets" => Inquiry::Of(builder::Inquiry::Targets),
                    "frontend.outline" => Inquiry::Of(builder::Inquiry::Outline),
                    other => return Err(unsupported(other)),
                });
            }
            name if TOLD_ONLY.iter().any(|known| name.starts_with(known)) => {}
            name => return Err(unsupported(format!("the attribute {name} of a build"))),
        }
        Ok(())
    }
}

/// As Go reads booleans.
pub(crate) fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Caches as a JSON list.
fn imports(value: &str) -> Result<Vec<CacheImport>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        r#type: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let given: Option<Vec<Given>> =
        serde_json::from_str(if value.is_empty() { "null" } else { value })
            .map_err(|error| Error::Invalid(format!("cache-imports cannot be read: {error}")))?;
    let given = given.unwrap_or_default();
    given
        .iter()
        .map(|one| CacheImport::read(&one.r#type, &one.attrs))
        .collect()
}

fn platform(value: &str) -> Result<Platform> {
    value
        .parse()
        .map_err(|error: oci::image::PlatformError| Error::Invalid(error.to_string()))
}

fn hosts(value: &str) -> Result<Vec<String>> {
    let all = value.split(',').filter(|host| !host.is_empty());
    all.map(|host| match host.split_once('=') {
        Some((name, address)) => Ok(format!("{name}:{address}")),
        None => Err(bad("host", host)),
    })
    .collect()
}

/// `name=soft[:hard]`, separated by commas.
fn ulimits(value: &str) -> Result<Vec<Ulimit>> {
    let all = value.split(',').filter(|ulimit| !ulimit.is_empty());
    all.map(|text| {
        let (name, limits) = text.split_once('=').ok_or_else(|| bad("ulimit", text))?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |number: &str| number.parse::<i64>().map_err(|_| bad("ulimit", text));
        Ok(Ulimit {
            name: name.to_owned(),
            soft: number(soft)?,
            hard: number(hard)?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)]) -> Result<Attributes> {
        let given = given.iter();
        let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Attributes::read(&given.collect())
    }

    #[test]
    fn attributes_are_read_as_buildx_sends_them() {
        let attributes = read(&[
            ("filename", "D"),
            ("build-arg:A", "1"),
            ("label:x", "y"),
            ("context:base", "docker-image://alpine"),
            ("no-cache", "one,two"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("ulimit", "nofile=10:20,nproc=5"),
            ("shm-size", "1024"),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "none"),
            ("vcs:revision", "abc"),
            (
                "cache-imports",
                "[{\"Type\":\"registry\",\"Attrs\":{\"ref\":\"a/b\"}}]",
            ),
            ("cache-from", "c,d:1"),
            ("build-arg:BUILDKIT_INLINE_CACHE", "1"),
            ("platform", "linux/amd64,linux/arm64"),
            ("multi-platform", "true"),
        ]);
        let attributes = attributes.unwrap();
        assert_eq!(attributes.filename, "D");
        assert_eq!(attributes.build_args["A"], "1");
        assert_eq!(attributes.labels["x"], "y");
        assert_eq!(attributes.contexts["base"], "docker-image://alpine");
        assert_eq!(attributes.no_cache_stages, ["one", "two"]);
        assert_eq!(attributes.extra_hosts, ["a:1.2.3.4", "b:::1"]);
        assert_eq!(
            (attributes.ulimits[0].soft, attributes.ulimits[0].hard),
            (10, 20)
        );
        assert_eq!(attributes.ulimits[1].hard, 5);
        assert!(attributes.pull && !attributes.no_cache && attributes.shm_bytes == 1024);
        assert!(attributes.index && attributes.platforms.len() == 2);
        assert_eq!(attributes.network, NetworkMode::None);
        assert!(attributes.inline_cache && attributes.cache_from.len() == 3);
        assert!(read(&[("no-cache", "")]).unwrap().no_cache);
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for (name, value, expected) in [
            ("platform", "linux/amd64,!", "platform"),
            ("cache-imports", "[{}]", "cache-imports"),
            (
                "cache-imports",
                "[{\"Type\":\"gha\"}]",
                "the cache of type \"gha\"",
            ),
            ("requestid", "frontend.other", "frontend.other"),
            ("build-arg:BUILDKIT_SYNTAX", "x", "frontend"),
            ("new", "", "the attribute new"),
            ("ulimit", "nofile", "ulimit"),
            ("add-hosts", "a", "host"),
            ("shm-size", "x", "shm"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        read(&[("attest:provenance", "disabled=true")]).unwrap();
    }
}
