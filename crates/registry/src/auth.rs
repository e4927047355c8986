//! Credentials, the challenges of registries, and the tokens that answer them.
//!
//! A token is kept as long as its issuer says, for one endpoint, account and scope. Credentials go to the registry they are
//! for, and to the token issuer its challenge names; never to where a redirect leads (`transport`). Sources: RFC 9110
//! section 11, RFC 6750, Docker's "Token Authentication Specification" and "OAuth2 Token Authentication".

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is good when its issuer does not say.
const TOKEN_DEFAULT_S: u64 = 60;
/// As long as one is believed to be good.
const TOKEN_MAX_S: u64 = 24 * 3600;
/// A token is not used in its last moments.
const TOKEN_MARGIN_S: u64 = 5;
/// Tokens kept; the oldest goes first.
const TOKENS_MAX: usize = 1024;

/// Who somebody is to a registry.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nobody.
    #[default]
    Anonymous,
    /// A name and a password, or an access token in its place.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A long-lived token that is exchanged for others at the registry's token issuer.
    Identity(String),
    /// A token to show as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    /// Tells no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

impl Credentials {
    /// What is known of somebody, empty where it is not: the most particular counts.
    pub fn known(user: String, password: String, identity: String, token: String) -> Self {
        match (token.as_str(), identity.as_str(), user.as_str()) {
            ("", "", "") => Self::Anonymous,
            ("", "", _) => Self::Basic { user, password },
            ("", ..) => Self::Identity(identity),
            _ => Self::Bearer(token),
        }
    }

    /// The header that shows them as they are, where they can be.
    pub(crate) fn header(&self) -> Option<String> {
        match self {
            Self::Basic { user, password } => {
                let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {pair}"))
            }
            Self::Bearer(token) => Some(format!("Bearer {token}")),
            Self::Anonymous | Self::Identity(_) => None,
        }
    }
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

impl Challenge {
    /// Reads the values of `WWW-Authenticate`: the first challenge that can be met.
    pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        values.filter_map(Self::parse_one).next()
    }

    fn parse_one(value: &str) -> Option<Self> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = parameters(rest);
        Some(Self::Bearer {
            realm: fields.remove("realm")?,
            service: fields.remove("service").unwrap_or_default(),
            scope: fields.remove("scope").unwrap_or_default(),
        })
    }
}

/// `key=value` pairs with commas between; values may be quoted.
fn parameters(mut text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while let Some((key, rest)) = text.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        if rest.starts_with('"') {
            characters.next();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                    other => value.push(other),
                }
            }
        } else {
            end = rest.find(',').unwrap_or(rest.len());
            value.push_str(rest[..end].trim());
        }
        found.insert(key, value);
        text = &rest[end..];
    }
    found
}

/// What a token issuer answers.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
    /// A long-lived token, when one was asked for.
    #[serde(default)]
    pub(crate) refresh_token: String,
}

impl TokenAnswer {
    /// The token; empty when there is none.
    pub(crate) fn token(&self) -> &str {
        if self.token.is_empty() {
            &self.access_token
        } else {
            &self.token
        }
    }

    pub(crate) fn lifetime(&self) -> Duration {
        let seconds = self.expires_in.unwrap_or(TOKEN_DEFAULT_S);
        Duration::from_secs(seconds.min(TOKEN_MAX_S).saturating_sub(TOKEN_MARGIN_S))
    }
}

/// What a token is for: the endpoint, the account, the scope.
pub(crate) type TokenKey = (String, Credentials, String);

/// Tokens that are still good.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    headers: Mutex<HashMap<TokenKey, (String, Instant)>>,
}

impl Tokens {
    pub(crate) fn get(&self, key: &TokenKey) -> Option<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let (header, until) = headers.get(key)?;
        (*until > Instant::now()).then(|| header.clone())
    }

    pub(crate) fn put(&self, key: TokenKey, header: String, lifetime: Duration) {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.len() >= TOKENS_MAX {
            let now = Instant::now();
            headers.retain(|_, (_, until)| *until > now);
            let oldest = headers.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(key) = oldest
                .map(|(key, _)| key.clone())
                .filter(|_| headers.len() >= TOKENS_MAX)
            {
                headers.remove(&key);
            }
        }
        // A lifetime beyond what the clock can say is as good as none.
        if let Some(until) = Instant::now().checked_add(lifetime) {
            headers.insert(key, (header, until));
        }
    }

    pub(crate) fn forget(&self, key: &TokenKey) {
        self.headers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let value = r#"Bearer realm="https://a.example/token?x=1,2",service=reg,scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://a.example/token?x=1,2".into(),
            service: "reg".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(Challenge::parse([value].into_iter()), Some(expected));
        assert_eq!(
            Challenge::parse(["Negotiate", "basic realm=\"x\""].into_iter()),
            Some(Challenge::Basic)
        );
        assert_eq!(
            Challenge::parse(["Bearer service=x", "Digest"].into_iter()),
            None
        );
        let odd = Challenge::parse([r#"Bearer realm="a\"b"#].into_iter());
        assert!(matches!(odd, Some(Challenge::Bearer { realm, .. }) if realm == "a\"b"));
    }

    #[test]
    fn tokens_end() {
        let tokens = Tokens::default();
        let key = |scope: &str| ("e".to_owned(), Credentials::Anonymous, scope.to_owned());
        tokens.put(key("long"), "Bearer x".into(), Duration::from_secs(1000));
        tokens.put(key("short"), "Bearer y".into(), Duration::ZERO);
        tokens.put(
            key("forever"),
            "Bearer z".into(),
            Duration::from_secs(u64::MAX),
        );
        assert_eq!(tokens.get(&key("long")).as_deref(), Some("Bearer x"));
        assert_eq!(tokens.get(&key("short")), None);
        assert_eq!(tokens.get(&key("forever")), None);
        tokens.forget(&key("long"));
        assert_eq!(tokens.get(&key("long")), None);
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Credentials::Basic {
            user: "u".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
