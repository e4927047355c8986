//! `hull push`.

use super::pull::refuse_trust;
use super::{credentials, tagged};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::parse::platform;
use crate::progress::{self, To};
use crate::session::Session;
use client::Request;
use oci::Reference;

const FLAGS: &[Flag] = &[
    Flag::bool("all-tags", "Push all tags of the repository").short('a'),
    Flag::bool("disable-content-trust", "Push without a signature").default("true"),
    Flag::text(
        "platform",
        "Push only the image for this platform (os[/arch[/variant]])",
    ),
    Flag::bool("quiet", "Show only the image's full name").short('q'),
];

pub(crate) const PUSH: Command = Command {
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Push an image to a registry",
    aliases: &["image push", "push"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    refuse_trust(matches)?;
    let (named, defaulted) = tagged(&matches.args[0], matches.on("all-tags"))?;
    let quiet = matches.on("quiet");
    let platform = platform::document(matches.text("platform"))?;
    if let Some(tag) = named.tag().filter(|_| defaulted && !quiet) {
        output::line(&format!("Using default tag: {tag}"))?;
    }
    if named.digest().is_some() {
        return Err(Error::msg("cannot push a digest reference"));
    }
    let to = if quiet { To::Nowhere } else { To::Stdout };
    send(session, &named, platform, to).await?;
    match quiet {
        true => output::line(&named.to_string()),
        false => Ok(()),
    }
}

async fn send(
    session: &Session,
    named: &Reference,
    platform: Option<String>,
    to: To,
) -> Result<()> {
    let request = Request::post(&["images", &named.name(), "push"])
        .query_some("tag", named.tag())
        .query_some("platform", platform);
    let request = credentials::authorized(session, request, named)?;
    let response = session.client().await?.send(&request).await?;
    progress::show(response.lines(), to).await
}
