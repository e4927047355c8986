//! How much repositories may have: bytes of content per prefix of their names.
//!
//! What several repositories of one prefix have counts once, as it is stored once. What was measured is remembered for a
//! moment, with what was admitted since; nothing is refused before it was measured anew, so that what was deleted meanwhile
//! counts. Uploads under way count against what may still come, but not against what is there already.

use super::Shared;
use super::reply::{Code, Refusal};
use super::route::Name;
use super::store::Store;
use crate::error::Result;
use http::StatusCode;
use oci::Digest;
use oci::reference::is_path;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a measurement is believed: another process may serve the same storage.
const BELIEVED: Duration = Duration::from_secs(10);
/// Letters for powers of 1024.
const UNITS: &str = "KMGT";

/// A quota: `PREFIX=BYTES`, such as `team/app=20G`. The prefix is of whole components; `*` is all repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    prefix: String,
    bytes: u64,
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (prefix, bytes) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no quota: it reads like team/app=20G"))?;
        if prefix != "*" && !is_path(prefix) {
            return Err(format!("{prefix:?} is no prefix of repositories"));
        }
        let unit = bytes.chars().last().and_then(|last| UNITS.find(last));
        let digits = &bytes[..bytes.len() - usize::from(unit.is_some())];
        let shift = unit.map_or(0, |power| 10 * (power + 1));
        let count = digits.parse::<u64>().ok();
        let bytes = count.and_then(|count| count.checked_mul(1 << shift));
        Ok(Self {
            prefix: prefix.to_owned(),
            bytes: bytes.ok_or_else(|| format!("{text:?} has no bytes, such as 500M or 20G"))?,
        })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.prefix, self.bytes)
    }
}

impl Quota {
    /// Whether it is for a repository.
    fn holds(&self, name: &str) -> bool {
        self.prefix == "*" || { name.strip_prefix(&self.prefix) }
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn exceeded(&self) -> Refusal {
        let message = format!("the quota {self} leaves no place for it");
        Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message)
    }
}

/// All quotas, and what is known of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quotas(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    quotas: Vec<Quota>,
    known: Mutex<Vec<Option<Known>>>,
}

/// What repositories of one quota have.
#[derive(Debug)]
struct Known {
    content: HashSet<Digest>,
    bytes: u64,
    since: Instant,
}

impl Known {
    fn measure(store: &Store, quota: &Quota) -> Result<Self> {
        let (content, bytes) = store.usage(&|name| quota.holds(name))?;
        Ok(Self {
            content,
            bytes,
            since: Instant::now(),
        })
    }
}

impl Quotas {
    pub(crate) fn new(quotas: Vec<Quota>) -> Self {
        let known = quotas.iter().map(|_| None).collect();
        Self(Arc::new(Inner {
            quotas,
            known: Mutex::new(known),
        }))
    }

    fn known(&self) -> MutexGuard<'_, Vec<Option<Known>>> {
        // What is remembered may be dropped at any time.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applying(&self, name: &Name) -> impl Iterator<Item = (usize, &Quota)> {
        let quotas = self.0.quotas.iter().enumerate();
        quotas.filter(move |(_, quota)| quota.holds(name.as_str()))
    }

    /// The bytes that may still come into a repository, of which so many are wanted, and the quota that says so.
    fn left(&self, store: &Store, name: &Name, wanted: u64) -> Result<Option<(u64, Quota)>> {
        let mut least = None;
        for (index, quota) in self.applying(name) {
            let coming = store.uploads_bytes(&|name| quota.holds(name))?;
            let mut known = self.known();
            let known = believed(&mut known[index], store, quota, |known| {
                (known.bytes + coming).saturating_add(wanted) <= quota.bytes
            })?;
            let left = quota.bytes.saturating_sub(known.bytes + coming);
            if least.as_ref().is_none_or(|(known, _)| left < *known) {
                least = Some((left, quota.clone()));
            }
        }
        Ok(least)
    }

    /// Takes account of content that comes into a repository; the refusal when that is too much.
    pub(crate) fn admit(
        &self,
        store: &Store,
        name: &Name,
        digest: &Digest,
        bytes: u64,
    ) -> Result<Result<(), Refusal>> {
        let mut known = self.known();
        let fits = |known: &Known, quota: &Quota| {
            known.content.contains(digest) || known.bytes.saturating_add(bytes) <= quota.bytes
        };
        for (index, quota) in self.applying(name) {
            let known = believed(&mut known[index], store, quota, |known| fits(known, quota))?;
            if !fits(known, quota) {
                return Ok(Err(quota.exceeded()));
            }
        }
        for (index, _) in self.applying(name) {
            if let Some(known) = &mut known[index]
                && known.content.insert(*digest)
            {
                known.bytes += bytes;
            }
        }
        Ok(Ok(()))
    }

    /// Measures anew the next time: something that was admitted did not come, or something has gone.
    pub(crate) fn forget(&self) {
        self.known().fill_with(|| None);
    }
}

/// What is remembered of a quota, where it is young and would do, or else measured.
fn believed<'a>(
    known: &'a mut Option<Known>,
    store: &Store,
    quota: &Quota,
    would_do: impl Fn(&Known) -> bool,
) -> Result<&'a mut Known> {
    let young = |known: &Known| known.since.elapsed() < BELIEVED && would_do(known);
    match known.take() {
        Some(found) if young(&found) => Ok(known.insert(found)),
        _ => Ok(known.insert(Known::measure(store, quota)?)),
    }
}

/// What a body may have before a quota ends it.
#[derive(Debug)]
pub(crate) struct Allowance(Option<(u64, Quota)>);

impl Allowance {
    /// What is left for a repository into which so many bytes are to come, or nobody knows how many.
    pub(crate) async fn of(
        shared: &Arc<Shared>,
        name: &Name,
        wanted: Option<u64>,
    ) -> Result<Self, Refusal> {
        if shared.quotas.applying(name).next().is_none() {
            return Ok(Self(None));
        }
        let (quotas, name) = (shared.quotas.clone(), name.clone());
        let wanted = wanted.unwrap_or(u64::MAX);
        let left = shared.blocking(move |store| quotas.left(store, &name, wanted));
        Ok(Self(left.await?))
    }

    /// The bytes, where there is a limit to them.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |(bytes, _)| *bytes)
    }

    /// The refusal of more bytes than there is place for.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Refusal> {
        match &self.0 {
            Some((left, quota)) if bytes > *left => Err(quota.exceeded()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read() {
        let quota = |text: &str| text.parse::<Quota>();
        for (text, bytes) in [
            ("a/b=10", 10),
            ("*=2K", 2048),
            ("a=3M", 3 << 20),
            ("a=4G", 4 << 30),
            ("a=5T", 5 << 40),
            ("a=0", 0),
        ] {
            assert_eq!(quota(text).unwrap().bytes, bytes, "{text}");
        }
        for bad in [
            "a",
            "a=",
            "a=G",
            "A=1",
            "a/=1",
            "=1",
            "a=-1",
            "a=1GG",
            "a=1X",
            "a=99999999T",
        ] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_of_whole_components() {
        let quota: Quota = "team/app=1".parse().unwrap();
        for (name, expected) in [
            ("team/app", true),
            ("team/app/x", true),
            ("team/apps", false),
            ("team", false),
        ] {
            assert_eq!(quota.holds(name), expected, "{name}");
        }
        assert!("*=1".parse::<Quota>().unwrap().holds("any/thing"));
    }
}
