//! `hull network prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{DRY_RUN, How, Pruned};
use api_types::NetworkPruneResponse;

const FLAGS: &[Flag] = &[
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only networks with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
    DRY_RUN,
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
    match How::ask(session, matches, question).await? {
        Some(how) => output::print(&prune(&how).await?.text),
        None => Ok(()),
    }
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(how: &How<'_>) -> Result<Pruned> {
    let request = how.request("networks", &how.filters);
    let answer: NetworkPruneResponse = how.client.json(&request).await?;
    Ok(how.pruned("Networks", answer.networks_deleted, 0))
}
