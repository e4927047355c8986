//! A request to an engine: method, path, query, headers, body.

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Names an operation. The API version is not part of it: the client adds what it negotiated.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: Method,
    path: String,
    query: BTreeMap<&'static str, Vec<String>>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Bytes>,
    pub(crate) content_type: Option<&'static str>,
}

impl Request {
    fn new(method: Method, path: &[&str]) -> Self {
        let mut escaped = String::new();
        for part in path {
            escaped.push('/');
            escape_path(part, &mut escaped);
        }
        Self {
            method,
            path: escaped,
            query: BTreeMap::new(),
            headers: Vec::new(),
            body: None,
            content_type: None,
        }
    }

    /// `GET` of a path whose parts are escaped here; a slash inside a part stays (image names have them).
    pub fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    /// `HEAD`.
    pub fn head(path: &[&str]) -> Self {
        Self::new(Method::HEAD, path)
    }

    /// `POST`.
    pub fn post(path: &[&str]) -> Self {
        Self::new(Method::POST, path)
    }

    /// `PUT`.
    pub fn put(path: &[&str]) -> Self {
        Self::new(Method::PUT, path)
    }

    /// `DELETE`.
    pub fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds a query parameter; the same name again adds a value.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.entry(name).or_default().push(value.into());
        self
    }

    /// Adds a query parameter when there is something to say.
    #[must_use]
    pub fn query_some(self, name: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds `name=1` when `flag` holds.
    #[must_use]
    pub fn query_flag(self, name: &'static str, flag: bool) -> Self {
        if flag { self.query(name, "1") } else { self }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json<T: Serialize>(mut self, body: &T) -> Self {
        let bytes = serde_json::to_vec(body)
            .expect("wire types have only string keys and no failing serializers");
        self.body = Some(bytes.into());
        self.content_type = Some("application/json");
        self
    }

    /// The target under an API version.
    pub(crate) fn target(&self, base_path: &str, version: crate::ApiVersion) -> String {
        let mut target = format!("{base_path}/v{version}{}", self.path);
        let mut separator = '?';
        for (name, values) in &self.query {
            for value in values {
                target.push(separator);
                escape_query(name, &mut target);
                target.push('=');
                escape_query(value, &mut target);
                separator = '&';
            }
        }
        target
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Escapes what RFC 3986 does not allow in a path. Slashes stay.
fn escape_path(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' => out.push(char::from(byte)),
            _ => push_escape(byte, out),
        }
    }
}

/// Escapes for `application/x-www-form-urlencoded`, spaces as `+`.
fn escape_query(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => push_escape(byte, out),
        }
    }
}

fn push_escape(byte: u8, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiVersion;

    #[test]
    fn targets_are_escaped_and_sorted() {
        let request = Request::get(&["images", "a/b:c@sha256:d", "json"])
            .query("z", "1 2&3")
            .query("names", "b")
            .query("names", "a")
            .query_flag("no", false)
            .query_some("none", None::<String>);
        assert_eq!(
            request.target("/base", ApiVersion::new(1, 40)),
            "/base/v1.40/images/a/b:c@sha256:d/json?names=b&names=a&z=1+2%263"
        );
    }

    #[test]
    fn an_id_cannot_add_a_query_or_break_the_line() {
        let request = Request::post(&["containers", "x?force=1 HTTP/1.1\r\n\u{e4}#%", "start"]);
        assert_eq!(
            request.target("", ApiVersion::NEWEST),
            "/v1.51/containers/x%3Fforce=1%20HTTP/1.1%0D%0A%C3%A4%23%25/start"
        );
    }
}
