//! Who somebody is, and what they may do: a file of htpasswd(1) with bcrypt, and rules per repository.
//!
//! Without rules everybody who is known may do everything; without a file of users everybody is. With rules, what none of them
//! allows is denied. The file is read again when it changes.

use super::reply::{Code, Refusal};
use super::route::Name;
use super::tokens::{self, Tokens};
use crate::error::{Error, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap};
use oci::Digest;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// Bytes of the file of users.
const USERS_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a user's name and password together.
const LOGIN_BYTES_MAX: usize = 4096;
/// Passwords that are checked at once: each takes some 100 ms of a processor.
const CHECKS_AT_ONCE: usize = 2;
/// Checks that wait. More are told to come back: they are a flood, since what was right is remembered.
const CHECKS_WAITING_MAX: usize = 64;
/// How long a password that was right is believed to be.
const REMEMBERED_S: u64 = 300;
/// Logins that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// What may be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Pull,
    Push,
    Delete,
}

/// Who a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// Everybody, logged in or not.
    Everybody,
    /// Every user.
    Users,
    /// One.
    User(String),
}

/// A rule: `[USER@]PATTERN=RIGHT[,RIGHT…]`.
///
/// In the pattern `*` stands for any part of one component of a repository's path, `**` for any part of the whole. As a user,
/// `*` is everybody who has logged in. The rights are `pull`, `push` and `delete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    who: Who,
    pattern: String,
    rights: Vec<Right>,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subject, rights) = text.rsplit_once('=').ok_or_else(|| {
            format!("{text:?} is no rule: it reads like [USER@]PATTERN=pull,push,delete")
        })?;
        let (who, pattern) = match subject.rsplit_once('@') {
            None => (Who::Everybody, subject),
            Some(("*", pattern)) => (Who::Users, pattern),
            Some(("", _)) => return Err(format!("the rule {text:?} has an empty user")),
            Some((user, pattern)) => (Who::User(user.to_owned()), pattern),
        };
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"*._-/".contains(&byte)
        };
        if pattern.is_empty() || !pattern.bytes().all(fits) {
            return Err(format!("{pattern:?} is no pattern of repositories"));
        }
        let right = |word: &str| match word {
            "pull" => Ok(Right::Pull),
            "push" => Ok(Right::Push),
            "delete" => Ok(Right::Delete),
            _ => Err(format!(
                "{word:?} is no right: there are pull, push and delete"
            )),
        };
        Ok(Self {
            who,
            pattern: pattern.to_owned(),
            rights: rights.split(',').map(right).collect::<Result<_, _>>()?,
        })
    }
}

/// Whether a path matches a pattern. Backtracks to the last star only, as shells do: the time is at most the product of the
/// lengths, for each of the two stars.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let deep = pattern.starts_with(b"**");
    match pattern.split_first() {
        None => path.is_empty(),
        Some((b'*', _)) => {
            let rest = &pattern[if deep { 2 } else { 1 }..];
            let reach = if deep {
                path.len()
            } else {
                path.iter()
                    .position(|byte| *byte == b'/')
                    .unwrap_or(path.len())
            };
            (0..=reach).any(|taken| matches(rest, &path[taken..]))
        }
        Some((first, rest)) => path.first() == Some(first) && matches(rest, &path[1..]),
    }
}

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Who has said nothing.
    Nobody,
    /// Who has a token and no name.
    Guest,
    User(String),
}

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    users: Option<Users>,
    rules: Vec<Rule>,
    tokens: Tokens,
}

/// The hash of each user's password.
type Hashes = HashMap<String, String>;

struct Users {
    path: PathBuf,
    /// The file as it was read, and when it had been changed then.
    read: Mutex<(Option<SystemTime>, Arc<Hashes>)>,
    checks: Semaphore,
    waiting: Semaphore,
    /// What was right, by the digest of all that it depends on.
    remembered: Mutex<HashMap<Digest, Instant>>,
}

impl Access {
    /// Reads a file of users, where there is one.
    pub fn new(htpasswd: Option<&Path>, rules: Vec<Rule>) -> Result<Self> {
        let users = htpasswd.map(Users::open).transpose()?;
        let tokens = Tokens::default();
        Ok(Self {
            users,
            rules,
            tokens,
        })
    }

    /// Who sends a request. A wrong password is refused, whatever is asked for.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(users) = &self.users else {
            return Ok(Caller::Nobody);
        };
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(Caller::Nobody);
        };
        let header = header.to_str().unwrap_or_default();
        if let Some(token) = header.strip_prefix("Bearer ") {
            let expired = || unauthorized("the token is not known, or not any more");
            return self.tokens.owner(token).ok_or_else(expired);
        }
        let (user, password) = login(header).ok_or_else(|| {
            unauthorized("the credentials are none: a name and a password are wanted")
        })?;
        // What some clients say who have nothing to say.
        if user.is_empty() && password.is_empty() {
            return Ok(Caller::Nobody);
        }
        if users.know(&user, &password).await? {
            return Ok(Caller::User(user));
        }
        Err(unauthorized("the name or the password is wrong"))
    }

    /// What to say to who is refused for not being known.
    pub(crate) fn challenge(&self, headers: &HeaderMap, has_tls: bool) -> String {
        let token = { self.gives_tokens() }.then(|| tokens::challenge(headers, has_tls));
        let basic = || "Basic realm=\"registry\"".to_owned();
        token.flatten().unwrap_or_else(basic)
    }

    /// Whether some repositories are everybody's, and others are not.
    fn gives_tokens(&self) -> bool {
        self.users.is_some() && self.rules.iter().any(|rule| rule.who == Who::Everybody)
    }

    /// A token for somebody, where those are given.
    pub(crate) fn token(&self, caller: Caller) -> Result<serde_json::Value, Refusal> {
        if self.gives_tokens() {
            return Ok(self.tokens.issue(caller)?);
        }
        Err(Refusal::unsupported("there are no tokens here"))
    }

    /// Whether somebody may do something with a repository.
    pub(crate) fn allows(&self, caller: &Caller, right: Right, name: &Name) -> bool {
        if self.rules.is_empty() {
            return self.users.is_none() || matches!(caller, Caller::User(_));
        }
        self.rules.iter().any(|rule| {
            let is_for = match (&rule.who, caller) {
                (Who::Everybody, _) | (Who::Users, Caller::User(_)) => true,
                (Who::User(user), Caller::User(caller)) => user == caller,
                (_, Caller::Nobody | Caller::Guest) => false,
            };
            is_for
                && rule.rights.contains(&right)
                && matches(rule.pattern.as_bytes(), name.as_str().as_bytes())
        })
    }

    /// Whether who may read anything may read everything.
    pub(crate) fn is_open(&self) -> bool {
        self.rules.is_empty()
    }

    /// Refuses what is not allowed.
    pub(crate) fn require(
        &self,
        caller: &Caller,
        right: Right,
        name: &Name,
    ) -> Result<(), Refusal> {
        if self.allows(caller, right, name) {
            return Ok(());
        }
        if self.users.is_some() && !matches!(caller, Caller::User(_)) {
            return Err(unauthorized("a name and a password are needed"));
        }
        let word = match right {
            Right::Pull => "pull from",
            Right::Push => "push to",
            Right::Delete => "delete from",
        };
        let message = format!("you may not {word} {name}");
        Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message))
    }

    /// Refuses who has said nothing, where there are users: clients learn here how to say who they are.
    pub(crate) fn require_word(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.users.is_some() && *caller == Caller::Nobody {
            return Err(unauthorized("a name and a password are needed"));
        }
        Ok(())
    }
}

/// Refuses somebody for not being known; the challenge is added where the request is.
fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
}

/// The name and the password of a header: RFC 7617.
fn login(header: &str) -> Option<(String, String)> {
    let (scheme, pair) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || pair.len() > LOGIN_BYTES_MAX {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

impl fmt::Debug for Users {
    /// Tells no secret, which hashes of passwords are, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({:?})", self.path)
    }
}

impl Users {
    fn open(path: &Path) -> Result<Self> {
        let users = Self {
            path: path.to_owned(),
            read: Mutex::default(),
            checks: Semaphore::new(CHECKS_AT_ONCE),
            waiting: Semaphore::new(CHECKS_WAITING_MAX),
            remembered: Mutex::default(),
        };
        users.current()?;
        Ok(users)
    }

    /// The users, read again when the file is not what it was.
    fn current(&self) -> Result<Arc<Hashes>> {
        let error = |reason: String| Error::Settings {
            path: self.path.clone(),
            reason,
        };
        let metadata = fs::metadata(&self.path).map_err(|bad| error(bad.to_string()))?;
        let modified = metadata.modified().ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0.is_none() || read.0 != modified {
            if metadata.len() > USERS_BYTES_MAX {
                return Err(error(format!("it has more than {USERS_BYTES_MAX} bytes")));
            }
            let text = fs::read_to_string(&self.path).map_err(|bad| error(bad.to_string()))?;
            *read = (modified, Arc::new(parse(&text).map_err(error)?));
        }
        Ok(Arc::clone(&read.1))
    }

    /// Whether a password is a user's.
    async fn know(&self, user: &str, password: &str) -> Result<bool, Refusal> {
        let users = self.current()?;
        let known = users.get(user);
        // For a user that is not there another's is checked in vain, so that the time does not tell.
        let Some(hash) = known.or_else(|| users.values().next()).cloned() else {
            return Ok(false);
        };
        // The hash is in it, so that nothing is remembered of a password that was changed.
        let key = Digest::sha256(format!("{hash}\0{user}\0{password}").as_bytes());
        if known.is_some() && self.remembers(&key) {
            return Ok(true);
        }
        let busy = || {
            let reason = "too many logins at once";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, reason)
        };
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let _checking = self.checks.acquire().await.map_err(|_| busy())?;
        // Another request with the same password may have waited for the same.
        if known.is_some() && self.remembers(&key) {
            return Ok(true);
        }
        let password = password.to_owned();
        let check = move || bcrypt::verify(password, &hash).unwrap_or(false);
        let is_right = tokio::task::spawn_blocking(check).await? && known.is_some();
        if is_right {
            self.remember(key);
        }
        Ok(is_right)
    }

    fn remembers(&self, key: &Digest) -> bool {
        let remembered = { self.remembered.lock() }.unwrap_or_else(PoisonError::into_inner);
        remembered
            .get(key)
            .is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, key: Digest) {
        let now = Instant::now();
        let mut remembered = { self.remembered.lock() }.unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, until| *until > now);
        }
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(key, now + Duration::from_secs(REMEMBERED_S));
        }
    }
}

/// Reads the lines of htpasswd(1): `name:hash`.
fn parse(text: &str) -> Result<Hashes, String> {
    let mut users = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) = { line.split_once(':') }
            .ok_or_else(|| format!("line {number} is not of the form name:hash"))?;
        let parsed: Result<bcrypt::HashParts, _> = hash.parse();
        if parsed.is_err() {
            return Err(format!(
                "line {number}: only bcrypt is supported, which `htpasswd -B` writes"
            ));
        }
        users.insert(user.to_owned(), hash.to_owned());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "secret", at the lowest cost there is.
    const HASH: &str = "$2y$04$cHkDdv3sEDVMcqSQeQDFA.nWhtfOxfPlZDT0Y/iSJVRZpZoNZmz5C";

    fn allowed(rules: &[&str], caller: &Caller, right: Right, name: &str) -> bool {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let access = Access {
            users: None,
            rules,
            tokens: Tokens::default(),
        };
        access.allows(caller, right, &Name::new(name).unwrap())
    }

    #[test]
    fn patterns_match_whole_paths() {
        for (pattern, path, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("**/b", "b", false),
            ("a*c/**d", "abbc/x/yd", true),
            ("a/**", "a", false),
        ] {
            let matched = matches(pattern.as_bytes(), path.as_bytes());
            assert_eq!(matched, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn rules_add_up() {
        let (nobody, ann) = (Caller::Nobody, Caller::User("ann".to_owned()));
        let bob = Caller::User("bob".to_owned());
        let rules = [
            "public/**=pull",
            "*@team/*=pull,push",
            "ann@**=pull,push,delete",
        ];
        for (caller, right, name, expected) in [
            (&nobody, Right::Pull, "public/x", true),
            (&nobody, Right::Push, "public/x", false),
            (&nobody, Right::Pull, "team/x", false),
            (&bob, Right::Push, "team/x", true),
            (&bob, Right::Delete, "team/x", false),
            (&ann, Right::Delete, "team/x", true),
            (&bob, Right::Pull, "other", false),
        ] {
            assert_eq!(
                allowed(&rules, caller, right, name),
                expected,
                "{caller:?} {right:?} {name}"
            );
        }
        for bad in [
            "a",
            "=pull",
            "a=fly",
            "A=pull",
            "@a=pull",
            "a=",
            "../x y=pull",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_bcrypt_is_read() {
        assert_eq!(parse(&format!("# users\n\nann:{HASH}\n")).unwrap().len(), 1);
        for bad in [
            "ann",
            "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "ann:$apr1$x$y",
            "ann:plain",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn passwords_are_checked_and_the_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let hash = bcrypt::hash_with_salt("secret", 4, [7; 16])
            .unwrap()
            .to_string();
        fs::write(&path, format!("ann:{hash}\n")).unwrap();
        let users = Users::open(&path).unwrap();
        for _ in 0..2 {
            assert!(users.know("ann", "secret").await.unwrap());
            assert!(!users.know("ann", "Secret").await.unwrap());
            assert!(!users.know("bob", "secret").await.unwrap());
        }
        fs::write(&path, format!("bob:{hash}\n")).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!users.know("ann", "secret").await.unwrap());
        assert!(users.know("bob", "secret").await.unwrap());
    }

    #[test]
    fn secrets_are_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("ann:{HASH}\n")).unwrap();
        let access = Access::new(Some(file.path()), Vec::new()).unwrap();
        let token = access.tokens.issue(Caller::Nobody).unwrap();
        let printed = format!("{access:?}");
        assert!(!printed.contains(HASH) && !printed.contains(token["token"].as_str().unwrap()));
    }

    #[test]
    fn logins_are_read() {
        assert_eq!(
            login("basic YTpiOmM="),
            Some(("a".to_owned(), "b:c".to_owned()))
        );
        assert_eq!(login("Bearer YTpiOmM="), None);
        assert_eq!(login("Basic !"), None);
    }
}
