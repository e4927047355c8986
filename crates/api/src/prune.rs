//! `POST /…/prune`, and the plan of it: with `dry-run=1` each tells what it would remove, and removes nothing.
//!
//! The parameter is this engine's own. An engine that does not know it would remove things, so that clients ask only one whose
//! `/version` names [`PRUNE_PLAN`]. `gone` names containers that are to be taken for removed.

use crate::http::{Error, Query, Reply, json};
use crate::images::{removal_item, tell_removal};
use crate::server::Call;
use crate::version::Version;
use api_types as types;
use engine::events::EventKind;
use engine::{Prune, PruneFilter};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use tokio::task::block_in_place;

/// Of `/version`: that prunes can be asked for their plan.
pub(crate) const PRUNE_PLAN: &str = "PrunePlan";

/// How the filters and parameters of a prune read.
struct Wish {
    filter: PruneFilter,
    prune: Prune,
    gone: BTreeSet<String>,
    filters: types::Filters,
}

impl Wish {
    fn read(query: &Query, more: &[&str]) -> Result<Self, Error> {
        let known = [&["label", "label!", "until"], more].concat();
        let filters = query.filters(&known)?;
        let pair = |text: &str| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        };
        let times = filters
            .get("until")
            .map(|text| until(text, Timestamp::now()));
        let filter = PruneFilter {
            labels: filters.get("label").map(pair).collect(),
            without_labels: filters.get("label!").map(pair).collect(),
            until: times.collect::<Result<Vec<_>, _>>()?.into_iter().min(),
        };
        Ok(Self {
            filter,
            prune: if query.flag("dry-run") {
                Prune::Plan
            } else {
                Prune::Remove
            },
            gone: query.all("gone").iter().cloned().collect(),
            filters,
        })
    }

    fn is_on(&self, name: &str) -> bool {
        self.filters
            .get(name)
            .any(|value| matches!(value, "1" | "true"))
    }
}

pub(crate) async fn containers(call: &Call<'_>) -> Reply {
    let wish = Wish::read(&call.query, &[])?;
    let pruned = call
        .engine
        .prune_containers(&wish.filter, wish.prune)
        .await?;
    if wish.prune == Prune::Remove {
        call.engine.prune_event(EventKind::Container, pruned.bytes);
    }
    json(&types::ContainerPruneResponse {
        containers_deleted: Some(pruned.items),
        space_reclaimed: pruned.bytes,
    })
}

pub(crate) fn volumes(call: &Call<'_>) -> Reply {
    let wish = Wish::read(&call.query, &["all"])?;
    if wish.filters.contains("until") {
        return Err(Error::bad_request("invalid filter 'until'"));
    }
    // Before 1.42 volumes with a name go, too.
    let all = wish.is_on("all") || call.version < Version::of(42);
    let pruned = call
        .engine
        .prune_volumes(&wish.filter, all, &wish.gone, wish.prune)?;
    if wish.prune == Prune::Remove {
        call.engine.prune_event(EventKind::Volume, pruned.bytes);
    }
    json(&types::VolumePruneResponse {
        volumes_deleted: Some(pruned.items),
        space_reclaimed: pruned.bytes,
    })
}

pub(crate) fn networks(call: &Call<'_>) -> Reply {
    let wish = Wish::read(&call.query, &[])?;
    let pruned = block_in_place(|| {
        call.engine
            .prune_networks(&wish.filter, &wish.gone, wish.prune)
    })?;
    if wish.prune == Prune::Remove {
        // Networks take no space.
        call.engine.prune_event(EventKind::Network, 0);
    }
    json(&types::NetworkPruneResponse {
        networks_deleted: Some(pruned.items),
    })
}

pub(crate) fn images(call: &Call<'_>) -> Reply {
    let wish = Wish::read(&call.query, &["dangling"])?;
    let all = wish
        .filters
        .get("dangling")
        .any(|value| matches!(value, "0" | "false"));
    let Wish {
        filter,
        prune,
        gone,
        ..
    } = wish;
    let pruned = block_in_place(|| call.engine.prune_images(filter, all, &gone, prune))?;
    if prune == Prune::Remove {
        tell_removal(call.engine, &pruned.items);
        call.engine.prune_event(EventKind::Image, pruned.bytes);
    }
    json(&types::ImagePruneResponse {
        images_deleted: Some(pruned.items.iter().map(removal_item).collect()),
        space_reclaimed: pruned.bytes,
    })
}

/// A time as Docker's filters have it: a Go duration before now, seconds since 1970, RFC 3339, or a date with or without a time.
pub(crate) fn until(text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let bad = || {
        Error::bad_request(format!(
            "invalid filter 'until={text}': it is a duration such as 24h, a time, or a date"
        ))
    };
    if let Some(before) = duration(text) {
        return now.checked_sub(before).map_err(|_| bad());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let since = SignedDuration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        return Timestamp::from_duration(since).map_err(|_| bad());
    }
    let civil: jiff::civil::DateTime = text.parse().map_err(|_| bad())?;
    let zoned = civil
        .to_zoned(jiff::tz::TimeZone::system())
        .map_err(|_| bad())?;
    Ok(zoned.timestamp())
}

/// A duration as Go writes it: `1h30m`, `250ms`.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_dockers() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let read = |text: &str| until(text, now).map(Timestamp::as_second).ok();
        assert_eq!(read("1h30m"), Some(994_600));
        assert_eq!(read("1.5h"), Some(994_600));
        assert_eq!(read("500000.5"), Some(500_000));
        assert_eq!(read("1970-01-01T00:00:10Z"), Some(10));
        assert!(read("1970-01-02").is_some());
        for bad in ["", "yesterday", "5x", "1h-"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
