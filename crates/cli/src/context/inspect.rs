//! `hull context inspect`.

use super::store::{DEFAULT, TLS_FILES};
use super::{current, describe, open, tls_of};
use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Matches};
use crate::inspect::Format;
use crate::session::Session;
use serde_json::json;

const FLAGS: &[Flag] =
    &[Flag::text("format", "How to show them: json, or a Go template").short('f')];

pub(crate) const INSPECT: Command = Command {
    usage: "[OPTIONS] [CONTEXT...]",
    about: "Show everything about one or more contexts, by default the one in use",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::AtLeast(0),
    interspersed: true,
    run: |session, matches| Box::pin(async move { run(session, matches) }),
};

fn run(session: &Session, matches: &Matches) -> Result<()> {
    let format = Format::parse(matches.text("format"))?;
    let names = match matches.args.is_empty() {
        true => vec![current(session)?],
        false => matches.args.clone(),
    };
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for name in &names {
        match document(session, name) {
            Ok(document) => documents.push(document),
            Err(error) => errors.push(error),
        }
    }
    format.print(&documents, errors)
}

/// A context as Docker's client shows it, its members in that order.
fn document(session: &Session, name: &str) -> Result<String> {
    let meta = describe(session, name)?;
    let files = tls_of(session, name)?;
    let files: Vec<&str> = { TLS_FILES.into_iter() }
        .filter(|file| files.contains_key(*file))
        .collect();
    let material = match files.is_empty() {
        true => json!({}),
        false => json!({ "docker": files }),
    };
    let storage = match name {
        DEFAULT => json!({ "MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>" }),
        name => {
            let store = open(session);
            json!({ "MetadataPath": store.meta_directory(name), "TLSPath": store.tls_directory(name) })
        }
    };
    let meta = meta.json();
    let members = meta.strip_suffix('}').unwrap_or(&meta);
    Ok(format!(
        "{members},\"TLSMaterial\":{material},\"Storage\":{storage}}}"
    ))
}
