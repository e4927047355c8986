//! Names of images: `[domain/]path[:tag][@digest]`, and the short form people write.
//!
//! Only what the client needs: to tell the parts from each other. What is a valid name is the engine's to say.

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";

/// An image's name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    domain: &'a str,
    path: String,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Takes a name apart; `None` for what cannot be one.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((base, tag)) => (&rest[..last + base.len()], Some(tag)),
            None => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path),
            _ => (DEFAULT_DOMAIN, name),
        };
        let domain = if domain == LEGACY_DOMAIN {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        let official = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if official {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        let empty = |part: Option<&str>| part == Some("");
        let bad = path.ends_with('/') || path.contains("//") || empty(tag) || empty(digest);
        (!bad).then_some(Self {
            domain,
            path,
            tag,
            digest,
        })
    }

    /// `docker.io/library/busybox`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// `busybox`.
    pub(crate) fn familiar_name(&self) -> String {
        match (self.domain, self.path.strip_prefix(OFFICIAL)) {
            (DEFAULT_DOMAIN, Some(path)) if !path.contains('/') => path.to_owned(),
            (DEFAULT_DOMAIN, _) => self.path.clone(),
            _ => self.name(),
        }
    }
}

/// Whether the part before the first slash is a host: it has a dot, a port, an upper-case letter, or is localhost.
fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        for (text, name, familiar, tag, digest) in [
            (
                "busybox",
                "docker.io/library/busybox",
                "busybox",
                None,
                None,
            ),
            ("a/b:1", "docker.io/a/b", "a/b", Some("1"), None),
            (
                "docker.io/library/x:1",
                "docker.io/library/x",
                "x",
                Some("1"),
                None,
            ),
            ("index.docker.io/x", "docker.io/library/x", "x", None, None),
            ("localhost/x", "localhost/x", "localhost/x", None, None),
            (
                "h:5000/x:2@sha256:0",
                "h:5000/x",
                "h:5000/x",
                Some("2"),
                Some("sha256:0"),
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.name(), name, "{text}");
            assert_eq!(reference.familiar_name(), familiar, "{text}");
            assert_eq!((reference.tag, reference.digest), (tag, digest), "{text}");
        }
        for text in ["", "a/", "a:", "a@", "a//b"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
