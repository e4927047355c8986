//! `hull manifest rm`.

use super::local::Lists;
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::Matches;
use crate::session::Session;

pub(crate) const RM: Command = Command {
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    about: "Forget lists of manifests that are kept here",
    aliases: &[],
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let lists = Lists::of(session);
    let mut missing = Vec::new();
    for text in &matches.args {
        let name = super::name(text)?;
        if !lists.remove(&name)? {
            missing.push(format!("No such manifest: {name}"));
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::msg(missing.join("\n"))),
    }
}
