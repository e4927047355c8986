//! `hull search`.

use super::credentials;
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::format::Columns;
use crate::go::template::Row;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::SearchResult;
use client::Request;

/// Characters of a description in a table.
const DESCRIPTION_CHARS_MAX: usize = 45;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only images with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::of("limit", Kind::Int, "Show no more than this many"),
    Flag::bool("no-trunc", "Show descriptions as a whole"),
];

pub(crate) const SEARCH: Command = Command {
    usage: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    titles: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let term = matches.args[0].as_str();
    let filters = keyvalue::filters(matches.list("filter"));
    let limit = matches.int("limit").filter(|limit| *limit != 0);
    let request = Request::get(&["images", "search"])
        .query("term", term)
        .query_some("limit", limit.map(|limit| limit.to_string()))
        .query_some("filters", filters.to_query());
    // What is searched is the registry before the first slash.
    let named = super::reference(term)
        .or_else(|_| super::reference("x"))
        .map_err(|_| Error::msg(format!("invalid search term {term:?}")))?;
    let request = credentials::authorized(session, request, &named)?;
    let found: Option<Vec<SearchResult>> = session.client().await?.json(&request).await?;
    let truncate = !matches.on("no-trunc");
    let rows = found.unwrap_or_default();
    let format = matches.text("format");
    let marks = match format {
        "json" | "{{json .}}" => ["false", "true"],
        _ => ["", "[OK]"],
    };
    let rows = rows.iter().map(|result| row(result, truncate, marks));
    output::print(&COLUMNS.render(format, rows)?)
}

/// The fields of one result, with `marks` for no and yes.
fn row(result: &SearchResult, truncate: bool, marks: [&'static str; 2]) -> Row {
    let mut description = result.description.replace(['\n', '\r'], " ");
    if truncate && description.chars().count() > DESCRIPTION_CHARS_MAX {
        let kept = description.chars().take(DESCRIPTION_CHARS_MAX - 1);
        description = kept.chain(['…']).collect();
    }
    Row::default()
        .set("Name", result.name.as_str())
        .set("Description", description)
        .set("StarCount", result.star_count.to_string())
        .set("IsOfficial", marks[usize::from(result.is_official)])
        .set("IsAutomated", marks[usize::from(result.is_automated)])
}
