//! `hull container prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{Pruned, reclaimed};
use api_types::{ContainerPruneResponse, Filters};
use client::{Client, Request};

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only containers with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let question = "WARNING! This will remove all stopped containers.";
    if !matches.on("force") && !objects::confirm(question)? {
        return Ok(());
    }
    let filters = keyvalue::filters(matches.list("filter"));
    let pruned = prune(session.client().await?, &filters).await?;
    output::print(&pruned.text)?;
    output::line(&reclaimed(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(client: &Client, filters: &Filters) -> Result<Pruned> {
    let request = Request::post(&["containers", "prune"]).query_some("filters", filters.to_query());
    let answer: ContainerPruneResponse = client.json(&request).await?;
    Ok(Pruned::list(
        "Deleted Containers:",
        answer.containers_deleted,
        answer.space_reclaimed,
    ))
}
