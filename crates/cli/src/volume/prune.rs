//! `hull volume prune`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{DRY_RUN, How, Pruned};
use api_types::{Filters, VolumePruneResponse};
use client::ApiVersion;

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
    DRY_RUN,
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
    let Some(how) = How::ask(session, matches, question).await? else {
        return Ok(());
    };
    // Before, all of them were removed in any case.
    if all && how.client.settle_version().await? >= ALL_IS_A_WISH {
        filters.add("all", "true");
    }
    let pruned = prune(&how, &filters).await?;
    output::print(&pruned.text)?;
    output::line(&how.total(pruned.bytes))
}

/// Removes them; what was removed, for people.
pub(crate) async fn prune(how: &How<'_>, filters: &Filters) -> Result<Pruned> {
    let answer: VolumePruneResponse = how.client.json(&how.request("volumes", filters)).await?;
    Ok(how.pruned("Volumes", answer.volumes_deleted, answer.space_reclaimed))
}
