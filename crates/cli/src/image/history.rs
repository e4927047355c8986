//! `hull history`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::format::{Columns, ellipsis, short_id};
use crate::go::template::Row;
use crate::go::{time, units};
use crate::objects;
use crate::output;
use crate::parse::platform;
use crate::session::Session;
use api_types::HistoryItem;
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("human", "Show sizes and ages in words")
        .short('H')
        .default("true"),
    Flag::bool("no-trunc", "Show long texts as a whole"),
    Flag::text(
        "platform",
        "Only if the image is for this platform (os[/arch[/variant]])",
    ),
    Flag::bool("quiet", "Show only IDs").short('q'),
];

pub(crate) const HISTORY: Command = Command {
    usage: "[OPTIONS] IMAGE",
    about: "Show the steps that made an image",
    aliases: &["image history", "history"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

const HUMAN: Columns = Columns {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    titles: TITLES,
};

const EXACT: Columns = Columns {
    table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    titles: TITLES,
};

/// 2000-01-01: images that do not tell their age have an earlier one.
const OLDEST_S: i64 = 946_684_800;

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let platform = platform::document(matches.text("platform"))?;
    let name = &matches.args[0];
    objects::check_name(name)?;
    let request = Request::get(&["images", name, "history"]).query_some("platform", platform);
    let history: Vec<HistoryItem> = session.client().await?.json(&request).await?;
    let format = match (matches.text("format"), matches.on("quiet")) {
        ("" | "table", true) => "{{.ID}}",
        (format, _) => format,
    };
    let (human, truncate) = (matches.on_unless("human"), !matches.on("no-trunc"));
    let rows = history.iter().map(|item| row(item, human, truncate));
    let columns = if human { HUMAN } else { EXACT };
    output::print(&columns.render(format, rows)?)
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn row(item: &HistoryItem, human: bool, truncate: bool) -> Row {
    let created_at = time::local_rfc3339_seconds(item.created);
    let since = match (human, item.created) {
        (false, _) => created_at.clone(),
        (true, ..=OLDEST_S) => "N/A".to_owned(),
        (true, created) => time::ago(created),
    };
    let created_by = item.created_by.replace('\t', " ");
    Row::default()
        .set(
            "ID",
            if truncate {
                short_id(&item.id)
            } else {
                &item.id
            },
        )
        .set("CreatedSince", since)
        .set("CreatedAt", created_at)
        .set(
            "CreatedBy",
            if truncate {
                ellipsis(&created_by, 45)
            } else {
                created_by
            },
        )
        .set(
            "Size",
            match human {
                true => units::human_size_precision(item.size as f64, 3),
                false => item.size.to_string(),
            },
        )
        .set("Comment", item.comment.as_str())
}
