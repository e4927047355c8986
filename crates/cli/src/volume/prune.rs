//! `hull volume prune`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{Pruned, reclaimed};
use api_types::{Filters, VolumePruneResponse};
use client::{ApiVersion, Client, Request};

/// The API version from which only volumes without a name are removed.
const ALL_IS_A_WISH: ApiVersion = ApiVersion::new(1, 42);

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Remove all unused volumes, also those with a name").short('a'),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only volumes with this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove unused volumes",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let mut filters = keyvalue::filters(matches.list("filter"));
    let all = matches.on("all");
    if all && filters.contains("all") {
        return Err(Error::msg(
            "conflicting options: cannot specify both --all and --filter all=1",
        ));
    }
    let question = match all {
        true => "WARNING! This will remove all volumes not used by at least one container.",
        false => {
            "WARNING! This will remove anonymous local volumes not used by at least one container."
        }
    };
    if !matches.on("force") && !objects::confirm(question)? {
        return Ok(());
    }
    let client = session.client().await?;
    // Before, all of them were removed in any case.
    if all && client.settle_version().await? >= ALL_IS_A_WISH {
        filters.add("all", "true");
    }
    let pruned = prune(client, &filters).await?;
    output::print(&pruned.text)?;
    output::line(&reclaimed(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(client: &Client, filters: &Filters) -> Result<Pruned> {
    let request = Request::post(&["volumes", "prune"]).query_some("filters", filters.to_query());
    let answer: VolumePruneResponse = client.json(&request).await?;
    Ok(Pruned::list(
        "Deleted Volumes:",
        answer.volumes_deleted,
        answer.space_reclaimed,
    ))
}
