//! `POST /build/prune`, and the build cache in `/system/df`.

use super::status;
use crate::http::{Error, Reply, json};
use crate::images::signed;
use crate::prune::until;
use crate::server::Call;
use api_types as types;
use builder::{PruneLimits, Usage, UsageKind};
use engine::Engine;
use jiff::Timestamp;
use tokio::task::block_in_place;

/// What builds have left, for `/system/df`.
pub(crate) fn records(engine: &Engine) -> Result<Vec<types::CacheRecord>, Error> {
    let all = builder::usage(engine).map_err(|error| status(&error))?;
    Ok(all.into_iter().map(record).collect())
}

fn record(usage: Usage) -> types::CacheRecord {
    let used = Timestamp::from_second(usage.used_s)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string();
    let kind = match usage.kind {
        UsageKind::Result => "regular",
        UsageKind::Mount => "exec.cachemount",
        UsageKind::Context => "source.local",
    };
    types::CacheRecord {
        id: usage.id,
        parents: Vec::new(),
        kind: kind.to_owned(),
        description: usage.description,
        in_use: false,
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

/// `POST /build/prune`.
pub(crate) fn prune(call: &Call<'_>) -> Reply {
    let query = &call.query;
    let filters = query.filters(&["until", "unused-for", "id"])?;
    for name in ["max-used-space", "min-free-space"] {
        if query.number::<u64>(name)?.is_some_and(|bytes| bytes != 0) {
            return Err(Error::unsupported(&format!("pruning by {name}")));
        }
    }
    let keep = match query.number::<u64>("reserved-space")? {
        None => query.number::<u64>("keep-storage")?,
        reserved => reserved,
    };
    let times = filters.get("until").chain(filters.get("unused-for"));
    let times = times
        .map(|text| until(text, Timestamp::now()))
        .collect::<Result<Vec<_>, _>>()?;
    let limits = PruneLimits {
        all: query.flag("all"),
        used_before_s: times.into_iter().min().map(Timestamp::as_second),
        ids: filters.get("id").map(str::to_owned).collect(),
        keep_bytes: keep.filter(|bytes| *bytes != 0),
    };
    let (gone, bytes) =
        block_in_place(|| builder::prune(call.engine, &limits)).map_err(|error| status(&error))?;
    json(&types::BuildPruneResponse {
        caches_deleted: Some(gone.into_iter().map(|usage| usage.id).collect()),
        space_reclaimed: bytes,
    })
}
