//! `hull image prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{DRY_RUN, How, Pruned};
use api_types::ImagePruneResponse;

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
    DRY_RUN,
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
    let Some(how) = How::ask(session, matches, question).await? else {
        return Ok(());
    };
    let pruned = prune(&how, all).await?;
    output::print(&pruned.text)?;
    output::line(&how.total(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(how: &How<'_>, all: bool) -> Result<Pruned> {
    let mut filters = how.filters.clone();
    filters.add("dangling", if all { "false" } else { "true" });
    let answer: ImagePruneResponse = how.client.json(&how.request("images", &filters)).await?;
    let lines = answer.images_deleted.map(|items| {
        let line = |item: api_types::ImageDeleteItem| match item.untagged.as_str() {
            "" => format!("deleted: {}", item.deleted),
            untagged => format!("untagged: {untagged}"),
        };
        items.into_iter().map(line).collect()
    });
    Ok(how.pruned("Images", lines, answer.space_reclaimed))
}
