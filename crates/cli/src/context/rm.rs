//! `hull context rm`.

use super::store::DEFAULT;
use super::{current, open, using};
use crate::app::{Arity, Command};
use crate::error::{Error, Result, chain};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[Flag::bool("force", "Remove it also when it is in use").short('f')];

pub(crate) const RM: Command = Command {
    usage: "[OPTIONS] CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    aliases: &["context rm", "context remove"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { run(session, matches) }),
};

fn run(session: &Session, matches: &Matches) -> Result<()> {
    let mut failed = false;
    for name in &matches.args {
        match remove(session, name, matches.on("force")) {
            Ok(()) => output::line(name)?,
            Err(error) => {
                failed = true;
                output::complain(&chain(&error));
            }
        }
    }
    match failed {
        true => Err(Error::Exit(1)),
        false => Ok(()),
    }
}

fn remove(session: &Session, name: &str, force: bool) -> Result<()> {
    if name == DEFAULT {
        return Err(Error::msg("context \"default\" cannot be removed"));
    }
    let in_use = current(session)? == name;
    if in_use && !force {
        return Err(Error::msg(format!(
            "context {name:?} is in use, set -f flag to force remove"
        )));
    }
    if !open(session).exists(name) && !force {
        return Err(Error::msg(format!("context {name:?} does not exist")));
    }
    if in_use && session.config().current_context == name {
        using::set(session, DEFAULT)?;
    }
    open(session).remove(name).map(drop)
}
