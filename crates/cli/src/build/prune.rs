//! `hull builder prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::system::prune::{DRY_RUN, How, Pruned};
use api_types::BuildPruneResponse;

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Remove what images share, too").short('a'),
    Flag::list(
        "filter",
        "Remove only what meets this (until=24h, id=…, type=regular, private=true, description~=RUN)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::of("keep-storage", Kind::Bytes, "As --reserved-space"),
    Flag::of(
        "max-used-space",
        Kind::Bytes,
        "Leave at most this much, the last used",
    ),
    Flag::of(
        "min-free-space",
        Kind::Bytes,
        "Remove no more than what makes this much of the disk free",
    ),
    Flag::of(
        "reserved-space",
        Kind::Bytes,
        "Leave this much in any case, the last used",
    ),
    DRY_RUN,
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove what builds have left for later builds",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let question = match matches.on("all") {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all build cache that no image shares.",
    };
    let Some(how) = How::ask(session, matches, question).await? else {
        return Ok(());
    };
    let bytes = |flag: &str| matches.bytes(flag).filter(|bytes| *bytes != 0);
    let limits = [
        (
            "reserved-space",
            bytes("reserved-space").or_else(|| bytes("keep-storage")),
        ),
        ("max-used-space", bytes("max-used-space")),
        ("min-free-space", bytes("min-free-space")),
    ];
    let pruned = prune(&how, matches.on("all"), &limits).await?;
    output::print(&pruned.text)?;
    output::line(&how.total(pruned.bytes))
}

/// Removes what is there within limits, by their names; what was removed, for people.
pub(crate) async fn prune(
    how: &How<'_>,
    all: bool,
    limits: &[(&'static str, Option<i64>)],
) -> Result<Pruned> {
    let request = how.request("build", &how.filters).query_flag("all", all);
    let request = limits.iter().fold(request, |request, (name, bytes)| {
        request.query_some(name, bytes.map(|bytes| bytes.to_string()))
    });
    let gone: BuildPruneResponse = how.client.json(&request).await?;
    Ok(how.pruned(
        "build cache objects",
        gone.caches_deleted,
        gone.space_reclaimed,
    ))
}
