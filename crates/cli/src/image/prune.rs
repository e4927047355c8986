//! `hull image prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{Pruned, reclaimed};
use api_types::{Filters, ImagePruneResponse};
use client::{Client, Request};

const FLAGS: &[Flag] = &[
    Flag::bool(
        "all",
        "Remove all images without a container, not only those without a name",
    )
    .short('a'),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only images with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused images",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let all = matches.on("all");
    let question = match all {
        true => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        false => "WARNING! This will remove all dangling images.",
    };
    if !matches.on("force") && !objects::confirm(question)? {
        return Ok(());
    }
    let filters = keyvalue::filters(matches.list("filter"));
    let pruned = prune(session.client().await?, filters, all).await?;
    output::print(&pruned.text)?;
    output::line(&reclaimed(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(client: &Client, mut filters: Filters, all: bool) -> Result<Pruned> {
    filters.add("dangling", if all { "false" } else { "true" });
    let request = Request::post(&["images", "prune"]).query_some("filters", filters.to_query());
    let answer: ImagePruneResponse = client.json(&request).await?;
    let lines = answer.images_deleted.map(|items| {
        let line = |item: api_types::ImageDeleteItem| match item.untagged.as_str() {
            "" => format!("deleted: {}", item.deleted),
            untagged => format!("untagged: {untagged}"),
        };
        items.into_iter().map(line).collect()
    });
    Ok(Pruned::list(
        "Deleted Images:",
        lines,
        answer.space_reclaimed,
    ))
}
