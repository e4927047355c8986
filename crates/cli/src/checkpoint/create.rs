//! `hull checkpoint create`.

use super::DIRECTORY;
use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::CheckpointCreateRequest;
use client::Request;

const FLAGS: &[Flag] = &[
    DIRECTORY,
    Flag::bool("leave-running", "Let the container go on"),
];

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] CONTAINER CHECKPOINT",
    about: "Create a checkpoint from a running container",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let [container, checkpoint] = matches.args.as_slice() else {
        unreachable!("there are two arguments");
    };
    objects::check_name(container)?;
    let body = CheckpointCreateRequest {
        checkpoint_id: checkpoint.clone(),
        checkpoint_dir: matches.text("checkpoint-dir").to_owned(),
        exit: !matches.on("leave-running"),
    };
    let request = Request::post(&["containers", container, "checkpoints"]).json(&body);
    session.client().await?.call(&request).await?;
    output::line(checkpoint)
}
