//! `hull checkpoint ls`.

use super::DIRECTORY;
use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::Matches;
use crate::format::Columns;
use crate::go::template::Row;
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::CheckpointSummary;
use client::Request;

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "List checkpoints for a container",
    aliases: &["checkpoint ls", "checkpoint list"],
    flags: &[&[DIRECTORY]],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.Name}}",
    titles: &[("Name", "CHECKPOINT NAME")],
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let container = &matches.args[0];
    objects::check_name(container)?;
    let request = Request::get(&["containers", container, "checkpoints"])
        .query_some("dir", matches.get("checkpoint-dir"));
    let found: Option<Vec<CheckpointSummary>> = session.client().await?.json(&request).await?;
    let rows = found.into_iter().flatten();
    let rows = rows.map(|checkpoint| Row::default().set("Name", checkpoint.name));
    output::print(&COLUMNS.render("table", rows)?)
}
