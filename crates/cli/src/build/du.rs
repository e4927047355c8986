//! `hull builder du`, with the columns of `docker buildx du`.

use super::check_engine;
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::format::Columns;
use crate::go::template::Row;
use crate::go::{time, units};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::{CacheRecord, DiskUsage};
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::list(
        "filter",
        "Show only what meets this (type=regular, shared=true, description~=RUN, until=24h)",
    )
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show it: table, pretty, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("verbose", "Show all that is known, as --format pretty does").short('v'),
];

pub(crate) const DU: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what builds have left for later builds",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}",
    titles: &[
        ("ID", "ID"),
        ("Parents", "PARENTS"),
        ("CreatedAt", "CREATED AT"),
        ("Mutable", "MUTABLE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Shared", "SHARED"),
        ("Size", "SIZE"),
        ("Description", "DESCRIPTION"),
        ("UsageCount", "USAGE COUNT"),
        ("LastUsedAt", "LAST ACCESSED"),
        ("Type", "TYPE"),
    ],
};

/// A line for each thing that is known.
const PRETTY: &str = r"ID:           {{.ID}}
{{- if .Parents}}
Parents:
{{- range .Parents}}
 - {{.}}
{{- end}}
{{- end}}
Created at:   {{.CreatedAt}}
Mutable:      {{.Mutable}}
Reclaimable:  {{.Reclaimable}}
Shared:       {{.Shared}}
Size:         {{.Size}}
{{- if .Description}}
Description:  {{.Description}}
{{- end}}
Usage count:  {{.UsageCount}}
{{- if .LastUsedAt}}
Last used:    {{.LastUsedAt}}
{{- end}}
Type:         {{.Type}}
";

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let format = match (matches.text("format"), matches.on("verbose")) {
        ("", true) | ("pretty", false) => PRETTY,
        (format, false) => format,
        (_, true) => {
            return Err(Error::msg("--format and --verbose cannot be used together"));
        }
    };
    let filters = keyvalue::filters(matches.list("filter"));
    let client = session.client().await?;
    if !filters.is_empty() {
        // Another engine would not see them.
        check_engine(client).await?;
    }
    let request = Request::get(&["system", "df"])
        .query("type", "build-cache")
        .query_some("filters", filters.to_query());
    let usage: DiskUsage = client.json(&request).await?;
    let mut records = usage.build_cache.unwrap_or_default();
    records.sort_by(|a, b| (b.size, &b.id).cmp(&(a.size, &a.id)));
    let is_table = format.is_empty() || format.starts_with("table");
    let rows = records.iter().map(|record| row(record, is_table));
    output::print(&COLUMNS.render(format, rows)?)?;
    let is_whole = matches!(format, "" | "table" | PRETTY) && filters.is_empty();
    match is_whole {
        true => output::print(&summary(&records)),
        false => Ok(()),
    }
}

fn row(record: &CacheRecord, is_table: bool) -> Row {
    let mark = |text: String, is_marked: bool| match is_table && is_marked {
        true => text + "*",
        false => text,
    };
    let is_mutable = matches!(record.kind.as_str(), "exec.cachemount" | "source.local");
    let last_used = record.last_used_at.as_deref().map(time::since);
    Row::default()
        .set("ID", mark(record.id.clone(), is_mutable))
        .set("Parents", record.parents.clone())
        .set("CreatedAt", time::go_string(&record.created_at))
        .set("Mutable", is_mutable)
        .set("Reclaimable", !record.in_use)
        .set("Shared", record.shared)
        .set("Size", mark(size(record.size), record.shared))
        .set("Description", record.description.as_str())
        .set("UsageCount", record.usage_count)
        .set("LastUsedAt", last_used.unwrap_or_default())
        .set("Type", record.kind.as_str())
}

fn summary(records: &[CacheRecord]) -> String {
    let sum = |wanted: fn(&CacheRecord) -> bool| -> i64 {
        let wanted = records.iter().filter(|record| wanted(record));
        wanted.map(|record| record.size).sum()
    };
    let (all, shared) = (sum(|_| true), sum(|record| record.shared));
    let mut lines = Vec::new();
    if shared > 0 {
        lines.push(("Shared:", shared));
        lines.push(("Private:", all - shared));
    }
    lines.push(("Reclaimable:", sum(|record| !record.in_use)));
    lines.push(("Total:", all));
    let line = |(what, bytes): &(&str, i64)| format!("{what:<14}{}\n", size(*bytes));
    lines.iter().map(line).collect()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: i64) -> String {
    units::human_size(bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, size: i64) -> CacheRecord {
        CacheRecord {
            id: "abc".to_owned(),
            kind: kind.to_owned(),
            description: "RUN x".to_owned(),
            size,
            created_at: "2026-01-02T03:04:05Z".to_owned(),
            ..CacheRecord::default()
        }
    }

    #[test]
    fn records_are_shown_in_each_format() {
        let shared = CacheRecord {
            shared: true,
            in_use: true,
            parents: vec!["up".to_owned()],
            ..record("regular", 5)
        };
        let rendered = |format: &str, is_table, record: &CacheRecord| {
            COLUMNS.render(format, [row(record, is_table)]).unwrap()
        };
        let table = rendered("", true, &record("exec.cachemount", 2000));
        assert!(table.contains("\nabc*      true          2kB"), "{table}");
        let table = rendered("", true, &shared);
        assert!(table.contains("\nabc       false         5B*"), "{table}");
        assert_eq!(
            rendered(PRETTY, false, &shared),
            "ID:           abc\nParents:\n - up\nCreated at:   2026-01-02 03:04:05 +0000 UTC\nMutable:      false\n\
             Reclaimable:  false\nShared:       true\nSize:         5B\nDescription:  RUN x\nUsage count:  0\nType:         regular\n\n"
        );
        let json = rendered("json", false, &record("regular", 1));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["Reclaimable"], true);
        assert_eq!(json["UsageCount"], 0);
        assert_eq!(
            summary(&[shared, record("regular", 1)]),
            "Shared:       5B\nPrivate:      1B\nReclaimable:  1B\nTotal:        6B\n"
        );
    }
}
