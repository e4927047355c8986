//! `hull top`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::Matches;
use crate::go::tabwriter;
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::TopResponse;
use client::Request;

pub(crate) const TOP: Command = Command {
    usage: "CONTAINER [ps OPTIONS]",
    about: "Show the processes of a container",
    aliases: &["container top", "top"],
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Docker lays this table out wider than others.
const COLUMN_WIDTH_MIN: usize = 20;
const COLUMN_PADDING: usize = 3;

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    let arguments = matches.args[1..].join(" ");
    let request = Request::get(&["containers", name, "top"]).query_some(
        "ps_args",
        Some(arguments).filter(|arguments| !arguments.is_empty()),
    );
    let top: TopResponse = session.client().await?.json(&request).await?;
    let rows = [top.titles.unwrap_or_default()]
        .into_iter()
        .chain(top.processes.unwrap_or_default());
    let text: String = rows.map(|row| row.join("\t") + "\n").collect();
    output::print(&tabwriter::align(&text, COLUMN_WIDTH_MIN, COLUMN_PADDING))
}
