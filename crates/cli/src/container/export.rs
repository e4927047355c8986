//! `hull export`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::image::save::write_archive;
use crate::objects;
use crate::session::Session;
use client::Request;

const FLAGS: &[Flag] =
    &[Flag::text("output", "Write to this file instead of standard output").short('o')];

pub(crate) const EXPORT: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Write a container's filesystem as a tar archive",
    aliases: &["container export", "export"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    let request = Request::get(&["containers", name, "export"]);
    write_archive(session, matches.text("output"), &request).await
}
