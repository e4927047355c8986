//! What a request's path asks for.
//!
//! Invariant: a [`Name`], an [`UploadId`] and a [`Target`] have been checked against their grammars, which know no `..`, no
//! empty component and no leading underscore: they can be parts of a path on disk, and never name what the store keeps for
//! itself (CVE-2024-3727 came from a digest that was not). Source: distribution-spec 1.1, "Endpoints".

use super::reply::{Code, Refusal};
use http::{Method, StatusCode};
use oci::Digest;
use oci::reference::{PATH_BYTES_MAX, is_path, is_tag};
use std::fmt;

/// The path of a repository, such as `team/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(String);

impl Name {
    /// A repository's path, when it is one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        (text.len() <= PATH_BYTES_MAX && is_path(text)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tag(String),
    Digest(Digest),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The name of an upload: a UUID in its text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

impl UploadId {
    /// Digits of each group.
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

    /// Version 4 of RFC 9562, of 16 random bytes.
    pub(crate) fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut rest = digits.as_str();
        let groups = Self::GROUPS.map(|length| {
            let (group, after) = rest.split_at(length);
            rest = after;
            group
        });
        Self(groups.join("-"))
    }

    pub(crate) fn new(text: &str) -> Option<Self> {
        let hex = |group: &str| {
            group
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let groups = text.split('-');
        let fits = groups.clone().map(str::len).eq(Self::GROUPS) && groups.clone().all(hex);
        fits.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The resource that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/token`
    Token,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/manifests/<tag-or-digest>`
    Manifest(Name, Target),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, UploadId),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
}

impl Route {
    /// Reads a request's path. The method decides only how a bad tag is refused: to ask for it is to ask for nothing.
    pub(crate) fn parse(method: &Method, path: &str) -> Result<Self, Refusal> {
        // Of the characters in these paths, a colon is the only one that clients are known to escape.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let nowhere = || Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "no such endpoint");
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some("/_catalog") => return Ok(Self::Catalog),
            Some("/token") => return Ok(Self::Token),
            Some(rest) => rest.strip_prefix('/').ok_or_else(nowhere)?,
            None => return Err(nowhere()),
        };
        let segments: Vec<&str> = rest.split('/').collect();
        Ok(match segments.as_slice() {
            [name @ .., "tags", "list"] => Self::Tags(repository(name)?),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Self::Uploads(repository(name)?)
            }
            [name @ .., "blobs", "uploads", id] => {
                let name = repository(name)?;
                let id = UploadId::new(id).ok_or_else(|| Refusal::no_upload(id))?;
                Self::Upload(name, id)
            }
            [name @ .., "blobs", digest] => Self::Blob(repository(name)?, parse_digest(digest)?),
            [name @ .., "referrers", digest] => {
                Self::Referrers(repository(name)?, parse_digest(digest)?)
            }
            [name @ .., "manifests", target] => {
                Self::Manifest(repository(name)?, parse_target(method, target)?)
            }
            _ => return Err(nowhere()),
        })
    }
}

fn repository(segments: &[&str]) -> Result<Name, Refusal> {
    let text = segments.join("/");
    Name::new(&text).ok_or_else(|| {
        let reason = "a repository's name has lower-case letters, digits and single separators";
        Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, reason)
    })
}

/// A digest that was sent.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: oci::digest::DigestError| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            error.to_string(),
        )
    })
}

fn parse_target(method: &Method, text: &str) -> Result<Target, Refusal> {
    if text.contains(':') {
        return parse_digest(text).map(Target::Digest);
    }
    if is_tag(text) {
        return Ok(Target::Tag(text.to_owned()));
    }
    Err(if method == Method::PUT {
        Refusal::bad_tag()
    } else {
        Refusal::no_manifest("a tag of that form")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(path: &str) -> Result<Route, StatusCode> {
        Route::parse(&Method::GET, path).map_err(|refusal| refusal.status)
    }

    #[test]
    fn every_endpoint_has_its_route() {
        let name = Name::new("a/b").unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        let id = UploadId::from_random([7; 16]);
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            (super::super::tokens::PATH.to_owned(), Route::Token),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name.clone())),
            (
                "/v2/a/b/manifests/1.0".to_owned(),
                Route::Manifest(name.clone(), Target::Tag("1.0".to_owned())),
            ),
            (
                format!("/v2/a/b/manifests/{}", DIGEST.replace(':', "%3A")),
                Route::Manifest(name.clone(), Target::Digest(digest)),
            ),
            (
                format!("/v2/a/b/blobs/{DIGEST}"),
                Route::Blob(name.clone(), digest),
            ),
            (
                "/v2/a/b/blobs/uploads/".to_owned(),
                Route::Uploads(name.clone()),
            ),
            (
                format!("/v2/a/b/blobs/uploads/{id}"),
                Route::Upload(name.clone(), id),
            ),
            (
                format!("/v2/a/b/referrers/{DIGEST}"),
                Route::Referrers(name.clone(), digest),
            ),
        ] {
            assert_eq!(parse(&path).unwrap(), route, "{path}");
        }
        // The words of the endpoints are names, too.
        let odd = parse("/v2/blobs/uploads/manifests/tags/list").unwrap();
        let name = Name::new("blobs/uploads/manifests").unwrap();
        assert_eq!(odd, Route::Tags(name));
    }

    #[test]
    fn what_could_name_another_file_is_refused() {
        for path in [
            "/v2/../etc/tags/list".to_owned(),
            "/v2/a/../b/tags/list".to_owned(),
            "/v2/a//b/tags/list".to_owned(),
            "/v2//tags/list".to_owned(),
            "/v2/a/_blobs/tags/list".to_owned(),
            "/v2/%2e%2e/tags/list".to_owned(),
            "/v2/A/tags/list".to_owned(),
            format!("/v2/{}/tags/list", "a".repeat(PATH_BYTES_MAX + 1)),
            "/v2/a/blobs/sha256:../../../../etc/passwd".to_owned(),
            "/v2/a/blobs/sha256:..".to_owned(),
            format!("/v2/a/blobs/{}", DIGEST.to_uppercase()),
            "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            "/v2/a/blobs/uploads/../../b".to_owned(),
            "/v2/a/blobs/uploads/..".to_owned(),
            "/v2/a/manifests/..".to_owned(),
            "/v2/a/manifests/.x".to_owned(),
            "/v2/a".to_owned(),
            "/v1/".to_owned(),
            "/v2x".to_owned(),
        ] {
            let status = parse(&path).unwrap_err();
            assert!(status == 400 || status == 404, "{path}: {status}");
        }
        let put = Route::parse(&Method::PUT, "/v2/a/manifests/.x").unwrap_err();
        assert_eq!(put.status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn upload_ids_are_uuids() {
        let id = UploadId::from_random([0xff; 16]);
        assert_eq!(id.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(UploadId::new(id.as_str()), Some(id));
        assert_eq!(UploadId::new("ffffffff-ffff-4fff-bfff-fffffffffff/"), None);
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_below_its_repository(path in "/v2/([a-z0-9._/%-]|\\PC|blobs/|uploads/|manifests/|\\.\\./|sha256:){0,40}") {
            for method in [Method::GET, Method::PUT] {
                let parts = match Route::parse(&method, &path) {
                    Ok(Route::Manifest(name, target)) => vec![name.to_string(), target.to_string()],
                    Ok(Route::Upload(name, id)) => vec![name.to_string(), id.to_string()],
                    Ok(Route::Tags(name) | Route::Uploads(name)) => vec![name.to_string()],
                    Ok(Route::Blob(name, digest) | Route::Referrers(name, digest)) => {
                        vec![name.to_string(), digest.to_string()]
                    }
                    Ok(Route::Base | Route::Token | Route::Catalog) | Err(_) => continue,
                };
                for component in parts[0].split('/').chain(parts[1..].iter().map(String::as_str)) {
                    prop_assert!(!component.is_empty() && !component.starts_with('.'));
                    prop_assert!(!component.contains('/'));
                }
                prop_assert!(!parts[0].split('/').any(|component| component.starts_with('_')));
            }
        }
    }
}
