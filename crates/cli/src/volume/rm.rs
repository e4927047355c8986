//! `hull volume rm`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::session::Session;
use client::Request;

const FLAGS: &[Flag] = &[Flag::bool("force", "It is enough that a volume is not there").short('f')];

pub(crate) const RM: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes that no container uses",
    aliases: &["volume rm", "volume remove"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    objects::each(&matches.args, async |name| {
        let request = Request::delete(&["volumes", name]).query_flag("force", matches.on("force"));
        client.call(&request).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
