//! `hull diff`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::Matches;
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::FilesystemChange;
use client::Request;

pub(crate) const DIFF: Command = Command {
    usage: "CONTAINER",
    about: "Show what a container has changed in its image",
    aliases: &["container diff", "diff"],
    flags: &[],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    let request = Request::get(&["containers", name, "changes"]);
    let changes: Option<Vec<FilesystemChange>> = session.client().await?.json(&request).await?;
    let changes = changes.unwrap_or_default();
    let lines = changes
        .iter()
        .map(|change| format!("{} {}\n", change.kind.letter(), change.path));
    output::print(&lines.collect::<String>())
}
