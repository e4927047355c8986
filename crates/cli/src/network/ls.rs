//! `hull network ls`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::format::{Columns, short_id, yes_no};
use crate::go::template::Row;
use crate::go::time;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::Network;
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only networks with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("no-trunc", "Show long texts as a whole"),
    Flag::bool("quiet", "Show only IDs").short('q'),
];

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List networks",
    aliases: &["network ls", "network list"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    titles: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let filters = keyvalue::filters(matches.list("filter"));
    let request = Request::get(&["networks"]).query_some("filters", filters.to_query());
    let mut networks: Vec<Network> = session.client().await?.json(&request).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let format = match (matches.text("format"), matches.on("quiet")) {
        ("" | "table", true) => "{{.ID}}",
        ("", false) => session.config().networks_format.as_str(),
        (format, _) => format,
    };
    let truncate = !matches.on("no-trunc");
    let rows = networks.iter().map(|network| row(network, truncate));
    output::print(&COLUMNS.render(format, rows)?)
}

fn row(network: &Network, truncate: bool) -> Row {
    Row::default()
        .set(
            "ID",
            if truncate {
                short_id(&network.id)
            } else {
                &network.id
            },
        )
        .set("Name", network.name.as_str())
        .set("Driver", network.driver.as_str())
        .set("Scope", network.scope.as_str())
        .set("IPv4", yes_no(network.enable_ipv4))
        .set("IPv6", yes_no(network.enable_ipv6))
        .set("Internal", yes_no(network.internal))
        .set("CreatedAt", time::go_string(&network.created))
        .labels(network.labels.as_ref())
}
