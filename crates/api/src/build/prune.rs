//! `POST /build/prune`, and the build cache in `/system/df`.

use super::status;
use crate::http::{Error, Query, Reply, json};
use crate::images::signed;
use crate::prune::until;
use crate::server::Call;
use api_types as types;
use builder::{PruneLimits, Usage, UsageFilter};
use engine::events::EventKind;
use engine::{Engine, Prune};
use jiff::Timestamp;
use tokio::task::block_in_place;

fn record(usage: Usage) -> types::CacheRecord {
    let used = Timestamp::from_second(usage.used_s)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string();
    types::CacheRecord {
        id: usage.id,
        parents: usage.parents,
        kind: usage.kind.name().to_owned(),
        description: usage.description,
        in_use: usage.in_use,
        shared: usage.shared,
        size: signed(usage.bytes),
        created_at: if usage.created.is_empty() {
            used.clone()
        } else {
            usage.created
        },
        last_used_at: Some(used),
        usage_count: signed(usage.uses),
    }
}

/// Which of what builds have left are meant. In `/system/df` the filters are this engine's own.
#[derive(Debug)]
pub(crate) struct CacheFilter {
    filter: UsageFilter,
    used_before_s: Option<i64>,
    /// Nothing has a label that is to be there.
    is_nothing: bool,
}

impl CacheFilter {
    /// Reads the filters of a query.
    pub(crate) fn read(query: &Query) -> Result<Self, Error> {
        let names: Vec<String> = UsageFilter::names().collect();
        let mut known = vec!["until", "unused-for", "label", "label!"];
        known.extend(names.iter().map(String::as_str));
        let filters = query.filters(&known)?;
        if filters.contains("until") && filters.contains("unused-for") {
            let text = "conflicting filters: \"until\" and \"unused-for\"";
            return Err(Error::bad_request(text));
        }
        let one = |name: &&str| filters.get(name).count() > 1 && !name.starts_with("label");
        if filters.names().any(|name| one(&name)) {
            return Err(Error::bad_request("filters expect only one value"));
        }
        let mut time = filters.get("until").chain(filters.get("unused-for"));
        let time = { time.next() }.map(|text| until(text, Timestamp::now()));
        let fields = { filters.iter() }.filter(|(name, _)| names.iter().any(|known| known == name));
        Ok(Self {
            filter: UsageFilter::of(fields).map_err(|error| status(&error))?,
            used_before_s: time.transpose()?.map(Timestamp::as_second),
            is_nothing: filters.contains("label"),
        })
    }

    /// What builds have left, for `/system/df`.
    pub(crate) fn records(&self, engine: &Engine) -> Result<Vec<types::CacheRecord>, Error> {
        if self.is_nothing {
            return Ok(Vec::new());
        }
        let mut all = builder::usage(engine).map_err(|error| status(&error))?;
        self.filter.apply(&mut all);
        all.retain(|usage| { self.used_before_s }.is_none_or(|before| usage.used_s < before));
        Ok(all.into_iter().map(record).collect())
    }
}

/// `POST /build/prune`.
pub(crate) fn prune(call: &Call<'_>) -> Reply {
    let query = &call.query;
    let wish = CacheFilter::read(query)?;
    let bytes = |name: &str| Ok::<_, Error>(query.number::<u64>(name)?.unwrap_or(0));
    let limits = PruneLimits {
        all: query.flag("all"),
        used_before_s: wish.used_before_s,
        filter: wish.filter,
        reserved_bytes: match bytes("reserved-space")? {
            0 => bytes("keep-storage")?,
            reserved => reserved,
        },
        used_bytes_max: bytes("max-used-space")?,
        free_bytes_min: bytes("min-free-space")?,
    };
    let how = match query.flag("dry-run") {
        true => Prune::Plan,
        false => Prune::Remove,
    };
    let pruned = match wish.is_nothing {
        true => Ok(Default::default()),
        false => block_in_place(|| builder::prune(call.engine, &limits, how)),
    };
    let (gone, bytes) = pruned.map_err(|error| status(&error))?;
    if how == Prune::Remove {
        call.engine.prune_event(EventKind::Builder, bytes);
    }
    json(&types::BuildPruneResponse {
        caches_deleted: Some(gone.into_iter().map(|usage| usage.id).collect()),
        space_reclaimed: bytes,
    })
}
