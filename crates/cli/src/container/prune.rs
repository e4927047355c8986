//! `hull container prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{DRY_RUN, How, Pruned};
use api_types::ContainerPruneResponse;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only containers with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
    DRY_RUN,
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
    let Some(how) = How::ask(session, matches, question).await? else {
        return Ok(());
    };
    let pruned = prune(&how).await?;
    output::print(&pruned.text)?;
    output::line(&how.total(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(how: &How<'_>) -> Result<Pruned> {
    let request = how.request("containers", &how.filters);
    let answer: ContainerPruneResponse = how.client.json(&request).await?;
    Ok(how.pruned(
        "Containers",
        answer.containers_deleted,
        answer.space_reclaimed,
    ))
}
