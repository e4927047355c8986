//! `hull manifest inspect`.

use super::entry::{self, Entry};
use super::local::Lists;
use super::remote::{self, Found};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::session::Session;
use crate::{json, output};
use registry::Purpose;

const FLAGS: &[Flag] = &[
    Flag::bool("insecure", "Take plain HTTP and any certificate"),
    Flag::bool("verbose", "Show layers and platforms, too").short('v'),
];

pub(crate) const INSPECT: Command = Command {
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about: "Show a manifest, or a list of manifests",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Between(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let verbose = matches.on("verbose");
    let lists = Lists::of(session);
    if let [list, text] = &matches.args[..] {
        let entry = lists.entry(&super::name(list)?, &super::name(text)?)?;
        let entry = entry.ok_or_else(|| Error::msg(format!("No such manifest: {text}")))?;
        return one(&entry, verbose);
    }
    let name = super::name(&matches.args[0])?;
    if let Some(entries) = lists.get(&name)? {
        return several(&entries, verbose);
    }
    let insecure = matches.on("insecure");
    let repository = remote::repository(session, &name, insecure, Purpose::Pull)?;
    match remote::find(&repository, &name).await? {
        Found::Manifest(entry) => one(&entry, verbose),
        Found::List(index) => {
            let members = remote::members(&repository, &name, &index).await?;
            several(&members, verbose)
        }
    }
}

fn one(entry: &Entry, verbose: bool) -> Result<()> {
    let text = match verbose {
        true => entry.to_json(),
        false => String::from_utf8_lossy(&entry.bytes).into_owned(),
    };
    output::line(&json::indent(&text, "\t"))
}

fn several(entries: &[Entry], verbose: bool) -> Result<()> {
    if !verbose {
        return output::line(&entry::list(entries)?.1);
    }
    let all: Vec<String> = entries.iter().map(Entry::to_json).collect();
    output::line(&json::indent(&format!("[{}]", all.join(",")), "\t"))
}
