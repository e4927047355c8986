//! Bearer tokens, where some repositories are everybody's and others are not.
//!
//! A challenge to log in by name and password keeps Docker's client from asking for anything without them. So where a rule is
//! for everybody and there are users, the challenge is for a token, which everybody gets: it says who somebody is, and the rules
//! decide as ever. A token is a random name for that, known to this process alone; who comes with one that is not known asks
//! for another. Source: Docker's "Token Authentication Specification".

use super::access::Caller;
use super::store::random_id;
use crate::error::Result;
use http::HeaderMap;
use http::header::HOST;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(300);
/// Tokens at once; when there are more, all who have one ask again.
const TOKENS_MAX: usize = 10_000;
/// Where tokens are given.
pub(crate) const PATH: &str = "/v2/token";

/// The tokens that are good, and whose they are.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (Caller, Instant)>>);

impl fmt::Debug for Tokens {
    /// Tells no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    /// A token for somebody, as the document for clients. Nobody becomes a guest.
    pub(super) fn issue(&self, caller: Caller) -> Result<serde_json::Value> {
        let token = random_id()?.to_string();
        let caller = match caller {
            Caller::Nobody => Caller::Guest,
            known => known,
        };
        let now = Instant::now();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.retain(|_, (_, until)| *until > now);
        }
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(token.clone(), (caller, now + LIFETIME));
        Ok(serde_json::json!({
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME.as_secs(),
        }))
    }

    /// Whose a token is.
    pub(super) fn owner(&self, token: &str) -> Option<Caller> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, until) = tokens.get(token)?;
        (*until > Instant::now()).then(|| caller.clone())
    }
}

/// The challenge to get a token where the client has reached this server. What it says of that is told back to it alone.
pub(super) fn challenge(headers: &HeaderMap, has_tls: bool) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let host: http::uri::Authority = text(HOST.as_str())?.parse().ok()?;
    // Whoever ends TLS before this server says so by that header.
    let is_secure = has_tls || text("x-forwarded-proto") == Some("https");
    let scheme = if is_secure { "https" } else { "http" };
    Some(format!(
        "Bearer realm=\"{scheme}://{host}{PATH}\",service=\"registry\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_somebodys_and_end() {
        let tokens = Tokens::default();
        let issue = |caller| {
            let document = tokens.issue(caller).unwrap();
            document["token"].as_str().unwrap().to_owned()
        };
        let ann = Caller::User("ann".to_owned());
        assert_eq!(tokens.owner(&issue(ann.clone())), Some(ann.clone()));
        assert_eq!(tokens.owner(&issue(Caller::Nobody)), Some(Caller::Guest));
        assert_eq!(tokens.owner("x"), None);
        let old = issue(ann.clone());
        tokens
            .0
            .lock()
            .unwrap()
            .insert(old.clone(), (ann, Instant::now()));
        assert_eq!(tokens.owner(&old), None);
        for _ in 0..=TOKENS_MAX {
            issue(Caller::Nobody);
        }
        assert!(tokens.0.lock().unwrap().len() <= TOKENS_MAX);
    }

    #[test]
    fn the_realm_is_where_the_client_is() {
        let mut headers = HeaderMap::new();
        assert_eq!(challenge(&headers, false), None);
        headers.insert(HOST, "a.example:5000".parse().unwrap());
        let expected = "Bearer realm=\"http://a.example:5000/v2/token\",service=\"registry\"";
        assert_eq!(challenge(&headers, false).unwrap(), expected);
        assert!(challenge(&headers, true).unwrap().contains("https://"));
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        assert!(challenge(&headers, false).unwrap().contains("https://"));
        headers.insert(HOST, "x\",realm=\"y".parse().unwrap());
        assert_eq!(challenge(&headers, false), None);
    }
}
