//! `hull logs`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::go::time;
use crate::objects;
use crate::session::Session;
use crate::stdio;
use api_types::InspectResponse;
use client::Request;
use jiff::Timestamp;

const FLAGS: &[Flag] = &[
    Flag::bool("details", "Show further attributes of each line"),
    Flag::bool("follow", "Go on showing what is logged").short('f'),
    Flag::text(
        "since",
        "Show what was logged since a time (2013-01-02T13:23:37Z) or so long ago (42m)",
    ),
    Flag::text("tail", "Show so many lines of the end")
        .short('n')
        .default("all"),
    Flag::bool("timestamps", "Show when each line was logged").short('t'),
    Flag::text("until", "Show what was logged before a time or so long ago"),
];

pub(crate) const LOGS: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Show what a container has written",
    aliases: &["container logs", "logs"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    let now = Timestamp::now();
    let moment = |flag| match matches.text(flag) {
        "" => Ok(None),
        text => {
            let invalid = |reason| Error::msg(format!("invalid value for --{flag}: {reason}"));
            time::moment(text, now).map(Some).map_err(invalid)
        }
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let client = session.client().await?;
    let container: InspectResponse = client
        .json(&Request::get(&["containers", name, "json"]))
        .await?;
    let request = Request::get(&["containers", &container.id, "logs"])
        .query_flag("stdout", true)
        .query_flag("stderr", true)
        .query_some("since", since)
        .query_some("until", until)
        .query_flag("timestamps", matches.on("timestamps"))
        .query_flag("follow", matches.on("follow"))
        .query_flag("details", matches.on("details"))
        .query("tail", matches.get("tail").unwrap_or("all"));
    let reader = client.send(&request).await?.reader();
    match container.config.tty {
        true => stdio::copy_raw(reader).await,
        false => stdio::copy_frames(reader).await,
    }
}
