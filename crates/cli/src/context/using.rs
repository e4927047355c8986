//! `hull context use` and `hull context show`.

use super::store::{DEFAULT, check_name};
use super::{current, open, overridden};
use crate::app::{Arity, Command};
use crate::config::ConfigFile;
use crate::error::Result;
use crate::flags::Matches;
use crate::output;
use crate::session::Session;

/// What `config.json` calls the context in use.
const KEY: &str = "currentContext";

pub(crate) const USE: Command = Command {
    usage: "CONTEXT",
    about: "Use a context from now on",
    aliases: &[],
    flags: &[],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async move { run(session, matches) }),
};

pub(crate) const SHOW: Command = Command {
    usage: "",
    about: "Print the name of the context in use",
    arity: Arity::Exactly(0),
    run: |session, _| Box::pin(async move { output::line(&current(session)?) }),
    ..USE
};

fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = matches.args[0].as_str();
    if name != DEFAULT {
        check_name(name)?;
        open(session).get(name)?;
    }
    set(session, name)?;
    output::line(name)?;
    output::complain(&format!("Current context is now {name:?}"));
    if name != DEFAULT
        && let Some(warning) = overridden(&format!("{name:?}"))
    {
        output::complain(&warning);
    }
    Ok(())
}

/// Writes down which context is in use.
pub(super) fn set(session: &Session, name: &str) -> Result<()> {
    let mut file = ConfigFile::open(&session.config_directory())?;
    let changed = match name {
        DEFAULT => file.values.remove(KEY).is_some(),
        name => file.values.insert(KEY.to_owned(), name.into()) != Some(name.into()),
    };
    match changed {
        true => file.write(),
        false => Ok(()),
    }
}
