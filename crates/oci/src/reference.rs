//! Names of images: `[domain/]path[:tag][@digest]`, with Docker's defaults.
//!
//! Invariant: a [`Reference`] is normalised: it has a domain and a path that the grammar allows, so that equal images have
//! equal names. What people read is [`Reference::familiar`], which hides the defaults again. Source: the grammar of
//! `github.com/distribution/reference` (v0.6), which every Docker client follows.

use crate::digest::{Digest, DigestError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The registry that names without a domain mean.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that names without tag and digest mean.
pub const DEFAULT_TAG: &str = "latest";
/// Bytes in the path of a repository.
pub const PATH_BYTES_MAX: usize = 255;
/// Characters in a tag.
pub const TAG_CHARS_MAX: usize = 128;

/// The older name of the default domain.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where single names live on the default domain.
const OFFICIAL_PREFIX: &str = "library/";
/// No valid reference is longer: a domain of 255, a path, a tag and a digest of SHA-512, generously.
const REFERENCE_BYTES_MAX: usize = 1024;

/// A normalised name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not match the grammar.
    #[error("invalid reference format")]
    Format,
    /// Only the case of the repository's name is wrong.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It would be mistaken for an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The path is longer than [`PATH_BYTES_MAX`].
    #[error("repository name must not be more than {PATH_BYTES_MAX} characters")]
    TooLong,
    /// The part after `@` is no digest.
    #[error("invalid reference format")]
    Digest(#[source] DigestError),
}

impl Reference {
    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path in its registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository: domain and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, when one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, when one is given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether both are of one repository, whatever their tags and digests.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    /// The repository's name alone.
    pub fn without_tag(mut self) -> Self {
        self.tag = None;
        self.digest = None;
        self
    }

    /// The same repository under another tag, without digest.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        self.tag = Some(tag.to_owned());
        self.digest = None;
        Ok(self)
    }

    /// The same repository by digest, without tag.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.tag = None;
        self.digest = Some(digest);
        self
    }

    /// The same name by digest, the tag beside it kept.
    pub fn beside_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// What an image is stored under: the digest where one is given (the tag beside it says nothing more), else the tag,
    /// else [`DEFAULT_TAG`].
    pub fn to_target(mut self) -> Self {
        if self.digest.is_some() {
            self.tag = None;
        } else if self.tag.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The repository as people write it: `busybox`, `user/app`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.split_once('/') {
            Some(("library", name)) if !name.contains('/') => name.to_owned(),
            // Without its domain the name would be read as one of another registry.
            Some((first, _)) if reads_as_domain(first) => self.name(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses and normalises what a person wrote. No tag is added.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(path.to_owned()));
        }
        if !is_domain(domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest
                .map(str::parse)
                .transpose()
                .map_err(ReferenceError::Digest)?,
        })
    }
}

/// Splits the domain off, or adds the default one. What comes before the first slash is a domain only when it could be no
/// path component of the default registry: it has a dot, a port or a capital, or is `localhost`.
fn split_domain(text: &str) -> (&str, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN, format!("{OFFICIAL_PREFIX}{text}"));
    };
    let domain = match first {
        LEGACY_DOMAIN => DEFAULT_DOMAIN,
        _ if reads_as_domain(first) => first,
        _ => return (DEFAULT_DOMAIN, text.to_owned()),
    };
    if domain == DEFAULT_DOMAIN && !rest.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (domain, rest.to_owned())
}

/// Whether what stands before the first slash is a registry.
fn reads_as_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

/// `host[:port]`, where host is dotted labels or an IPv6 address in brackets.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':') {
        Some(at) if !domain.ends_with(']') => (&domain[..at], Some(&domain[at + 1..])),
        _ => (domain, None),
    };
    let port_fits =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let label_fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let host_fits = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label_fits),
    };
    port_fits && host_fits
}

/// Whether a text is a repository's path by the grammar; its length is another matter ([`PATH_BYTES_MAX`]).
///
/// Components of lower-case letters and digits, with `.`, `_`, `__` or dashes between them, separated by slashes.
pub fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = component.as_bytes();
        let framed =
            bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
        framed
            && bytes
                .split(alphanumeric)
                .all(|s| matches!(s, b"" | b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
    })
}

/// Whether a text is a tag: a word character, then up to 127 word characters, dots and dashes.
pub fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_CHARS_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    /// The normalised form, with domain: `docker.io/library/busybox:latest`. Parsing it gives the same reference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_and_shown_as_docker_does() {
        let digest = format!("@sha256:{HEX}");
        for (text, normal, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "localhost:5000/app",
                "localhost:5000/app",
                "localhost:5000/app",
            ),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000",
                "localhost:5000",
            ),
            ("Host/app", "Host/app", "Host/app"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            (
                "r.example.com/a/b:T_1.x-y",
                "r.example.com/a/b:T_1.x-y",
                "r.example.com/a/b:T_1.x-y",
            ),
            (
                "a__b/c---d/e.f_g",
                "docker.io/a__b/c---d/e.f_g",
                "a__b/c---d/e.f_g",
            ),
            (
                &format!("busybox:1{digest}"),
                &format!("docker.io/library/busybox:1{digest}"),
                &format!("busybox:1{digest}"),
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), *normal, "{text}");
            assert_eq!(reference.familiar(), *familiar, "{text}");
            assert_eq!(normal.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let long_path = format!("a/{}", "b".repeat(PATH_BYTES_MAX));
        let long_tag = format!("a:{}", "t".repeat(TAG_CHARS_MAX + 1));
        for text in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ":tag",
            "a:",
            "a@",
            "a:b:c",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "../a",
            "a/../b",
            "https://a/b",
            "a@sha256:00",
            "ä",
            "a\n",
            "a:-t",
            "x.y:/a",
            "x.y:z/a",
            "-x.y/a",
            "x..y/a",
            "[]/a",
            "[::1/a",
            &long_path,
            &long_tag,
            HEX,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert_eq!(
            "User/App".parse::<Reference>().unwrap_err().to_string(),
            "invalid reference format: repository name (App) must be lowercase"
        );
    }

    #[test]
    fn the_target_has_one_of_tag_and_digest() {
        let target = |text: &str| text.parse::<Reference>().unwrap().to_target().familiar();
        assert_eq!(target("a"), "a:latest");
        assert_eq!(target("a:1"), "a:1");
        assert_eq!(
            target(&format!("a:1@sha256:{HEX}")),
            format!("a@sha256:{HEX}")
        );
    }

    #[test]
    fn a_tag_is_checked_when_it_is_set() {
        let reference: Reference = format!("a@sha256:{HEX}").parse().unwrap();
        assert_eq!(reference.clone().with_tag("b").unwrap().familiar(), "a:b");
        assert_eq!(
            reference.with_tag("../b").unwrap_err(),
            ReferenceError::Format
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,80}|\\PC{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                for form in [reference.to_string(), reference.familiar()] {
                    prop_assert_eq!(form.parse::<Reference>().unwrap(), reference.clone(), "{}", form);
                }
            }
        }
    }
}
