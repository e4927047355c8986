//! `hull builder prune`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::go::units;
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::BuildPruneResponse;
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Remove what images share, too").short('a'),
    Flag::list("filter", "Remove only what meets this (until=24h, id=…)")
        .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::of("keep-storage", Kind::Bytes, "Keep this much, the last used"),
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
    if !matches.on("force") && !objects::confirm(question)? {
        return Ok(());
    }
    let request = Request::post(&["build", "prune"])
        .query_flag("all", matches.on("all"))
        .query_some(
            "keep-storage",
            matches.bytes("keep-storage").map(|bytes| bytes.to_string()),
        )
        .query_some(
            "filters",
            keyvalue::filters(matches.list("filter")).to_query(),
        );
    let gone: BuildPruneResponse = session.client().await?.json(&request).await?;
    let ids = gone.caches_deleted.unwrap_or_default();
    if !ids.is_empty() {
        output::line("Deleted build cache objects:")?;
        for id in &ids {
            output::line(id)?;
        }
        output::line("")?;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = units::human_size(gone.space_reclaimed as f64);
    output::line(&format!("Total reclaimed space: {bytes}"))
}
