//! `hull manifest create`.

use super::local::Lists;
use super::remote::{self, Found};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::session::Session;
use registry::Purpose;

const FLAGS: &[Flag] = &[
    Flag::bool("amend", "Add to a list that exists").short('a'),
    Flag::bool("insecure", "Take plain HTTP and any certificate"),
];

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    about: "Begin a list of manifests, to be pushed to a registry",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::AtLeast(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let lists = Lists::of(session);
    let list = super::name(&matches.args[0])?;
    if lists.get(&list)?.is_some() && !matches.on("amend") {
        return Err(Error::msg(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    let mut found = Vec::new();
    for text in &matches.args[1..] {
        let name = super::name(text)?;
        if let Some(entry) = lists.entry(&list, &name)? {
            found.push((name, entry));
            continue;
        }
        let insecure = matches.on("insecure");
        let repository = remote::repository(session, &name, insecure, Purpose::Pull)?;
        match remote::find(&repository, &name).await? {
            Found::Manifest(entry) => found.push((name, *entry)),
            Found::List(_) => return Err(Error::msg(format!("{name} is a manifest list"))),
        }
    }
    for (name, entry) in &found {
        lists.put(&list, name, entry)?;
    }
    output::line(&format!("Created manifest list {list}"))
}
