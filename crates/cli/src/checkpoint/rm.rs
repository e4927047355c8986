//! `hull checkpoint rm`.

use super::DIRECTORY;
use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::Matches;
use crate::objects;
use crate::session::Session;
use client::Request;

pub(crate) const RM: Command = Command {
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Remove a checkpoint",
    aliases: &["checkpoint rm", "checkpoint remove"],
    flags: &[&[DIRECTORY]],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let [container, checkpoint] = matches.args.as_slice() else {
        unreachable!("there are two arguments");
    };
    objects::check_name(container)?;
    objects::check_name(checkpoint)?;
    let request = Request::delete(&["containers", container, "checkpoints", checkpoint])
        .query_some("dir", matches.get("checkpoint-dir"));
    session.client().await?.call(&request).await?;
    Ok(())
}
