//! What builds have left, as `docker buildx du` and `prune` ask for it.
//!
//! Source: moby/buildkit `api/services/control` (DiskUsage, Prune), `client/diskusage.go`, `client/prune.go`.

use crate::failure::status;
use crate::grpc::{Code, Status};
use crate::messages::{DiskUsageRequest, DiskUsageResponse, PruneRequest, Timestamp, UsageRecord};
use builder::UsageKind;
use builder::{PruneLimits, Usage};
use engine::Engine;
use jiff::Timestamp as Time;

const NANOSECONDS: i64 = 1_000_000_000;

/// Control.DiskUsage.
///
/// # Errors
/// A filter that is not supported, records that cannot be read.
pub(crate) fn usage(
    engine: &Engine,
    request: &DiskUsageRequest,
) -> Result<DiskUsageResponse, Status> {
    let ids = ids(&request.filters)?;
    let all = builder::usage(engine).map_err(|error| status(&error, None))?;
    let wanted = |usage: &Usage| ids.is_empty() || ids.iter().any(|id| usage.id.starts_with(id));
    let records = all.into_iter().filter(wanted).map(record).collect();
    Ok(DiskUsageResponse { records })
}

/// Control.Prune: what was removed.
///
/// # Errors
/// A limit or filter that is not supported, what cannot be removed.
pub(crate) fn prune(engine: &Engine, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    for (what, bytes) in [
        ("max-used-space", request.used_bytes_max),
        ("min-free-space", request.free_bytes_min),
    ] {
        if bytes != 0 {
            let text = format!("pruning by {what} is not supported yet");
            return Err(Status::new(Code::Unimplemented, text));
        }
    }
    let age_s = request.keep_duration / NANOSECONDS;
    let limits = PruneLimits {
        all: request.all,
        used_before_s: (age_s > 0).then(|| Time::now().as_second() - age_s),
        ids: ids(&request.filters)?,
        keep_bytes: u64::try_from(request.reserved_bytes)
            .ok()
            .filter(|bytes| *bytes > 0),
    };
    let (gone, _) = builder::prune(engine, &limits).map_err(|error| status(&error, None))?;
    Ok(gone.into_iter().map(record).collect())
}

/// The IDs that filters ask for, each by its beginning.
fn ids(filters: &[String]) -> Result<Vec<String>, Status> {
    let id = |filter: &String| {
        let id = filter.strip_prefix("id").and_then(|rest| {
            let operators = ["~=", "==", "="];
            operators
                .iter()
                .find_map(|operator| rest.strip_prefix(operator))
        });
        let id = id.map(|id| id.trim_start_matches('^').to_owned());
        id.ok_or_else(|| {
            let text = format!("the filter {filter:?} is not supported yet: only id is");
            Status::new(Code::Unimplemented, text)
        })
    };
    let given = filters.iter().filter(|filter| !filter.is_empty());
    given.map(id).collect()
}

fn record(usage: Usage) -> UsageRecord {
    let created = usage.created.parse::<Time>().ok();
    UsageRecord {
        id: usage.id,
        mutable: usage.kind != UsageKind::Result,
        in_use: false,
        bytes: i64::try_from(usage.bytes).unwrap_or(i64::MAX),
        created: Some(Timestamp::from_seconds(
            created.map_or(usage.used_s, Time::as_second),
        )),
        last_used: Some(Timestamp::from_seconds(usage.used_s)),
        uses: i64::try_from(usage.uses).unwrap_or(i64::MAX),
        description: usage.description,
        kind: match usage.kind {
            UsageKind::Result => "regular",
            UsageKind::Mount => "exec.cachemount",
            UsageKind::Context => "source.local",
        }
        .to_owned(),
        shared: usage.shared,
    }
}
