//! Versions of the API: which there are, and what an older one lacks.
//!
//! Handlers know the newest version's shapes and parameters alone. What is different before is in tables, each entry with the
//! version that brought the change: parameters here, bodies and answers in [`crate::older`]. Where a stream behaves otherwise
//! the handler asks for the version by name.
//!
//! Source: moby's `docs/api/version-history.md`, and every comparison of versions in its `api/server` at v28.5.

use crate::http::Query;
use http::Method;
use std::fmt;

/// A version of the API. There has been no other first number than 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32);

/// Why a version that a path names is none that is served. Displays as Docker says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// Before [`Version::MIN`]. Clients of that age take an error for plain text.
    TooOld(String),
    /// After [`Version::MAX`].
    TooNew(String),
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld(version) => write!(
                f,
                "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                api_types::API_VERSION_MIN
            ),
            Self::TooNew(version) => write!(
                f,
                "client version {version} is too new. Maximum supported API version is {}",
                api_types::API_VERSION
            ),
        }
    }
}

impl Version {
    /// The oldest that is served.
    pub(crate) const MIN: Self = Self::of(24);
    /// The newest, which is what a path without a version means.
    pub(crate) const MAX: Self = Self::of(51);

    /// Version 1.`minor`.
    pub(crate) const fn of(minor: u32) -> Self {
        Self(1, minor)
    }

    /// A path's version, and the rest of it.
    pub(crate) fn split(path: &str) -> Result<(Self, &str), Unserved> {
        let named = { path.strip_prefix("/v") }
            .and_then(|rest| rest.split_once('/'))
            .filter(|(text, _)| {
                text.bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'.')
            })
            .filter(|(text, _)| !text.is_empty());
        let Some((text, rest)) = named else {
            return Ok((Self::MAX, path));
        };
        // As Docker compares: number by number, of which those that are not there are 0.
        let mut numbers = text.split('.').map(|number| match number {
            "" => 0,
            number => number.parse().unwrap_or(u32::MAX),
        });
        let version = Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let is_beyond = numbers.any(|number| number > 0);
        if version < Self::MIN {
            return Err(Unserved::TooOld(text.to_owned()));
        }
        if version > Self::MAX || version == Self::MAX && is_beyond {
            return Err(Unserved::TooNew(text.to_owned()));
        }
        // The slash that separated them begins the rest.
        Ok((version, &path[path.len() - rest.len() - 1..]))
    }

    /// Which of these changes came after this version, in their order: what has to be undone for it.
    pub(crate) fn lacks<'a, T>(
        self,
        changes: &'a [(Self, T)],
    ) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let after = move |(since, change): &'a (Self, T)| (self < *since).then_some(change);
        changes.iter().filter_map(after)
    }

    /// Passes over the parameters that this version does not know, as its engines did.
    pub(crate) fn forget_parameters(self, method: &Method, segments: &[&str], query: &mut Query) {
        for (route, names) in self.lacks(PARAMETERS) {
            if route.matches(method, segments) {
                names.iter().for_each(|name| query.forget(name));
            }
        }
        if self >= Self::of(41) {
            FILTER_GONE
                .matches(method, segments)
                .then(|| query.forget("filter"));
        }
    }
}

/// A route: the method, and the path's segments, of which `*` is any number but none.
struct Route(&'static Method, &'static [&'static str]);

impl Route {
    fn matches(&self, method: &Method, segments: &[&str]) -> bool {
        let Self(own, pattern) = self;
        let ends = match pattern.iter().position(|segment| *segment == "*") {
            None => pattern == &segments,
            Some(at) => {
                let (head, tail) = (&pattern[..at], &pattern[at + 1..]);
                segments.len() > head.len() + tail.len()
                    && segments.starts_with(head)
                    && segments.ends_with(tail)
            }
        };
        *own == method && ends
    }
}

/// `GET /images/json` knows the parameter `filter` before 1.41 alone.
const FILTER_GONE: Route = Route(&Method::GET, &["images", "json"]);

type Parameters = (Version, (Route, &'static [&'static str]));

/// Since which version a route has a parameter.
const PARAMETERS: &[Parameters] = &[
    (
        Version::of(30),
        (
            Route(&Method::POST, &["containers", "*", "wait"]),
            &["condition"],
        ),
    ),
    (
        Version::of(32),
        (Route(&Method::POST, &["images", "create"]), &["platform"]),
    ),
    (
        Version::of(32),
        (Route(&Method::POST, &["build"]), &["platform"]),
    ),
    (
        Version::of(40),
        (Route(&Method::POST, &["build"]), &["outputs"]),
    ),
    (
        Version::of(41),
        (
            Route(&Method::POST, &["containers", "create"]),
            &["platform"],
        ),
    ),
    (
        Version::of(41),
        (
            Route(&Method::GET, &["containers", "*", "stats"]),
            &["one-shot"],
        ),
    ),
    (
        Version::of(42),
        (
            Route(&Method::POST, &["containers", "*", "stop"]),
            &["signal"],
        ),
    ),
    (
        Version::of(42),
        (
            Route(&Method::POST, &["containers", "*", "restart"]),
            &["signal"],
        ),
    ),
    (
        Version::of(42),
        (Route(&Method::GET, &["images", "json"]), &["shared-size"]),
    ),
    (
        Version::of(42),
        (Route(&Method::GET, &["system", "df"]), &["type"]),
    ),
    (
        Version::of(46),
        (
            Route(&Method::POST, &["images", "*", "push"]),
            &["platform"],
        ),
    ),
    (
        Version::of(47),
        (Route(&Method::GET, &["images", "json"]), &["manifests"]),
    ),
    (
        Version::of(48),
        (
            Route(&Method::GET, &["images", "*", "json"]),
            &["manifests"],
        ),
    ),
    (
        Version::of(48),
        (
            Route(&Method::GET, &["images", "*", "history"]),
            &["platform"],
        ),
    ),
    (
        Version::of(48),
        (Route(&Method::GET, &["images", "get"]), &["platform"]),
    ),
    (
        Version::of(48),
        (Route(&Method::GET, &["images", "*", "get"]), &["platform"]),
    ),
    (
        Version::of(48),
        (Route(&Method::POST, &["images", "load"]), &["platform"]),
    ),
    (
        Version::of(48),
        (
            Route(&Method::POST, &["build", "prune"]),
            &["reserved-space", "max-used-space", "min-free-space"],
        ),
    ),
    (
        Version::of(49),
        (Route(&Method::GET, &["images", "*", "json"]), &["platform"]),
    ),
    (
        Version::of(50),
        (Route(&Method::DELETE, &["images", "*"]), &["platforms"]),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off_and_checked() {
        let split = |path| Version::split(path).map_err(|error| error.to_string());
        for (path, version, rest) in [
            ("/v1.24/info", Version::MIN, "/info"),
            (
                "/v1.43/containers/json",
                Version::of(43),
                "/containers/json",
            ),
            ("/v1.40.7/info", Version::of(40), "/info"),
            ("/v1.51.0/info", Version::MAX, "/info"),
            ("/containers/json", Version::MAX, "/containers/json"),
            ("/volumes/v1", Version::MAX, "/volumes/v1"),
            ("/version", Version::MAX, "/version"),
            ("/v1.x/info", Version::MAX, "/v1.x/info"),
        ] {
            assert_eq!(split(path), Ok((version, rest)), "{path}");
        }
        for (path, said) in [
            (
                "/v1.23/info",
                "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
            ),
            (
                "/v1/info",
                "client version 1 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
            ),
            (
                "/v1.52/info",
                "client version 1.52 is too new. Maximum supported API version is 1.51",
            ),
            (
                "/v1.51.1/info",
                "client version 1.51.1 is too new. Maximum supported API version is 1.51",
            ),
            (
                "/v99999999999.1/info",
                "client version 99999999999.1 is too new. Maximum supported API version is 1.51",
            ),
        ] {
            assert_eq!(split(path), Err(said.to_owned()), "{path}");
        }
    }

    #[test]
    fn an_older_version_knows_fewer_parameters() {
        let left = |minor, method: Method, path: &str, text: &str| {
            let mut query = Query::parse(text);
            let segments: Vec<&str> = path.split('/').collect();
            Version::of(minor).forget_parameters(&method, &segments, &mut query);
            let names = text.split('&').filter_map(|pair| pair.split('=').next());
            let kept = names.filter(|name| !query.all(name).is_empty());
            kept.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            left(41, Method::POST, "containers/x/stop", "t=1&signal=HUP"),
            "t"
        );
        assert_eq!(
            left(42, Method::POST, "containers/x/stop", "t=1&signal=HUP"),
            "t signal"
        );
        assert_eq!(
            left(41, Method::POST, "containers/x/kill", "signal=HUP"),
            "signal"
        );
        // An image's name has as many segments as it likes.
        assert_eq!(
            left(
                48,
                Method::GET,
                "images/a/b/c/json",
                "platform={}&manifests=1"
            ),
            "manifests"
        );
        assert_eq!(
            left(46, Method::GET, "images/json", "manifests=1&all=1"),
            "all"
        );
        assert_eq!(left(40, Method::GET, "images/json", "filter=a"), "filter");
        assert_eq!(left(41, Method::GET, "images/json", "filter=a"), "");
        assert_eq!(
            left(49, Method::DELETE, "images/a", "platforms={}&force=1"),
            "force"
        );
    }
}
