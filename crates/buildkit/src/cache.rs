//! What builds have left, as `docker buildx du` and `prune` ask for it.
//!
//! Source: moby/buildkit `api/services/control` (DiskUsage, Prune), `client/diskusage.go`, `client/prune.go`.

use crate::failure::status;
use crate::grpc::Status;
use crate::messages::{DiskUsageRequest, DiskUsageResponse, PruneRequest, Timestamp, UsageRecord};
use builder::{PruneLimits, Usage, UsageFilter};
use engine::{Engine, Prune};
use jiff::Timestamp as Time;

const NANOSECONDS: i64 = 1_000_000_000;

/// Control.DiskUsage.
///
/// # Errors
/// A filter that cannot be read, records that cannot be read.
pub(crate) fn usage(
    engine: &Engine,
    request: &DiskUsageRequest,
) -> Result<DiskUsageResponse, Status> {
    let filter = UsageFilter::parse(&request.filters).map_err(|error| status(&error, None))?;
    let mut all = builder::usage(engine).map_err(|error| status(&error, None))?;
    filter.apply(&mut all);
    let before = used_before_s(request.unused_for);
    all.retain(|usage| before.is_none_or(|before| usage.used_s < before));
    Ok(DiskUsageResponse {
        records: all.into_iter().map(record).collect(),
    })
}

/// Control.Prune: what was removed.
///
/// # Errors
/// A filter that cannot be read, what cannot be removed.
pub(crate) fn prune(engine: &Engine, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let limits = PruneLimits {
        all: request.all,
        used_before_s: used_before_s(request.keep_duration),
        filter: UsageFilter::parse(&request.filters).map_err(|error| status(&error, None))?,
        reserved_bytes: bytes(request.reserved_bytes),
        used_bytes_max: bytes(request.used_bytes_max),
        free_bytes_min: bytes(request.free_bytes_min),
    };
    let pruned = builder::prune(engine, &limits, Prune::Remove);
    let (gone, _) = pruned.map_err(|error| status(&error, None))?;
    Ok(gone.into_iter().map(record).collect())
}

/// The time so many nanoseconds ago, in seconds since 1970; `None` where no time is asked for.
fn used_before_s(unused_for: i64) -> Option<i64> {
    (unused_for > 0).then(|| Time::now().as_second() - unused_for / NANOSECONDS)
}

fn record(usage: Usage) -> UsageRecord {
    let created = usage.created.parse::<Time>().ok();
    UsageRecord {
        mutable: usage.is_mutable(),
        id: usage.id,
        parents: usage.parents,
        in_use: usage.in_use,
        bytes: i64::try_from(usage.bytes).unwrap_or(i64::MAX),
        created: Some(Timestamp::from_seconds(
            created.map_or(usage.used_s, Time::as_second),
        )),
        last_used: Some(Timestamp::from_seconds(usage.used_s)),
        uses: i64::try_from(usage.uses).unwrap_or(i64::MAX),
        description: usage.description,
        kind: usage.kind.name().to_owned(),
        shared: usage.shared,
    }
}
