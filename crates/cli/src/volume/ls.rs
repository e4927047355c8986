//! `hull volume ls`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::format::Columns;
use crate::go::template::Row;
use crate::go::units;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::{Volume, VolumeListResponse};
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::bool(
        "cluster",
        "Show only Swarm's cluster volumes (not supported)",
    ),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only volumes with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("quiet", "Show only names").short('q'),
];

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List volumes",
    aliases: &["volume ls", "volume list"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.Driver}}\t{{.Name}}",
    titles: &[
        ("ID", "ID"),
        ("Name", "VOLUME NAME"),
        ("Group", "GROUP"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Availability", "AVAILABILITY"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    if matches.on("cluster") {
        return Err(Error::msg(
            "--cluster is for Swarm's cluster volumes, which are not supported",
        ));
    }
    let filters = keyvalue::filters(matches.list("filter"));
    let request = Request::get(&["volumes"]).query_some("filters", filters.to_query());
    let answer: VolumeListResponse = session.client().await?.json(&request).await?;
    for warning in answer.warnings.iter().flatten() {
        output::complain(&format!("WARNING: {warning}"));
    }
    let format = match (matches.text("format"), matches.on("quiet")) {
        ("" | "table", true) => "{{.Name}}",
        ("", false) => session.config().volumes_format.as_str(),
        (format, _) => format,
    };
    let mut volumes = answer.volumes.unwrap_or_default();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    output::print(&COLUMNS.render(format, volumes.iter().map(row))?)
}

/// The fields of one volume.
#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn row(volume: &Volume) -> Row {
    let (links, size) = match &volume.usage_data {
        Some(usage) => (
            usage.ref_count.to_string(),
            units::human_size(usage.size as f64),
        ),
        None => ("N/A".to_owned(), "N/A".to_owned()),
    };
    Row::default()
        .set("Name", volume.name.as_str())
        .set("Driver", volume.driver.as_str())
        .set("Scope", volume.scope.as_str())
        .set("Mountpoint", volume.mountpoint.as_str())
        .set("Links", links)
        .set("Size", size)
        // Of Swarm's cluster volumes.
        .set("Group", "N/A")
        .set("Availability", "N/A")
        .set("Status", "N/A")
        .labels(volume.labels.as_ref())
}
