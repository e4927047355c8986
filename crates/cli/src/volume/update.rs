//! `hull volume update`, which is for Swarm's cluster volumes.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::session::Session;
use api_types::Volume;
use client::Request;

const FLAGS: &[Flag] = &[Flag::text(
    "availability",
    "Availability of a cluster volume: active, pause, drain",
)];

pub(crate) const UPDATE: Command = Command {
    usage: "[OPTIONS] VOLUME",
    about: "Update a volume (Swarm's cluster volumes only)",
    aliases: &["volume update"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// The volume is looked for first, as Docker's client does; none that an engine without a swarm has can be updated.
async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    for name in &matches.args {
        let request = Request::get(&["volumes", name]);
        client.json::<Volume>(&request).await?;
    }
    Err(Error::msg("can only update cluster volumes"))
}
