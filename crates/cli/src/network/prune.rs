//! `hull network prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::Pruned;
use api_types::{Filters, NetworkPruneResponse};
use client::{Client, Request};

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only networks with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all networks that no container uses",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let question =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if !matches.on("force") && !objects::confirm(question)? {
        return Ok(());
    }
    let filters = keyvalue::filters(matches.list("filter"));
    output::print(&prune(session.client().await?, &filters).await?.text)
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(client: &Client, filters: &Filters) -> Result<Pruned> {
    let request = Request::post(&["networks", "prune"]).query_some("filters", filters.to_query());
    let answer: NetworkPruneResponse = client.json(&request).await?;
    Ok(Pruned::list(
        "Deleted Networks:",
        answer.networks_deleted,
        0,
    ))
}
