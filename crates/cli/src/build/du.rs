//! `hull builder du`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::go::{time, units};
use crate::output;
use crate::session::Session;
use api_types::{CacheRecord, DiskUsage};
use client::Request;

const FLAGS: &[Flag] = &[Flag::bool("verbose", "Show all that is known").short('v')];

pub(crate) const DU: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what builds have left for later builds",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let request = Request::get(&["system", "df"]).query("type", "build-cache");
    let usage: DiskUsage = session.client().await?.json(&request).await?;
    let records = usage.build_cache.unwrap_or_default();
    if !matches.on("verbose") {
        output::line(&format!(
            "{:<24}{:<14}{:<12}{:<20}LAST ACCESSED",
            "ID", "RECLAIMABLE", "SIZE", "TYPE"
        ))?;
    }
    for record in &records {
        let used = record
            .last_used_at
            .as_deref()
            .map(time::since)
            .unwrap_or_default();
        match matches.on("verbose") {
            true => output::print(&verbose(record, &used))?,
            false => output::line(&format!(
                "{:<24}{:<14}{:<12}{:<20}{used}",
                record.id.chars().take(20).collect::<String>(),
                !record.shared,
                size(record.size),
                record.kind,
            ))?,
        }
    }
    let sum = |wanted: fn(&CacheRecord) -> bool| {
        records
            .iter()
            .filter(|record| wanted(record))
            .map(|record| record.size)
            .sum()
    };
    output::line(&format!("Shared:\t\t{}", size(sum(|record| record.shared))))?;
    output::line(&format!(
        "Reclaimable:\t{}",
        size(sum(|record| !record.shared))
    ))?;
    output::line(&format!("Total:\t\t{}", size(sum(|_| true))))
}

fn verbose(record: &CacheRecord, used: &str) -> String {
    format!(
        "ID:\t\t{}\nCreated at:\t{}\nReclaimable:\t{}\nShared:\t\t{}\nSize:\t\t{}\nDescription:\t{}\nUsage count:\t{}\nLast used:\t{used}\nType:\t\t{}\n\n",
        record.id,
        record.created_at,
        !record.shared,
        record.shared,
        size(record.size),
        record.description.lines().next().unwrap_or_default(),
        record.usage_count,
        record.kind,
    )
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: i64) -> String {
    units::human_size(bytes as f64)
}
