//! `hull pull`, and the pull before a container is made.

use super::{credentials, reference, tagged};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::parse::platform;
use crate::progress::{self, To};
use crate::session::Session;
use client::{Client, Request};
use oci::Reference;

const FLAGS: &[Flag] = &[
    Flag::bool("all-tags", "Pull all tags of the repository").short('a'),
    Flag::bool("disable-content-trust", "Take images without signatures").default("true"),
    Flag::text("platform", "Pull for this platform (os[/arch[/variant]])"),
    Flag::bool("quiet", "Show only the image's full name").short('q'),
];

pub(crate) const PULL: Command = Command {
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Pull an image from a registry",
    aliases: &["image pull", "pull"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    refuse_trust(matches)?;
    let (named, defaulted) = tagged(&matches.args[0], matches.on("all-tags"))?;
    let quiet = matches.on("quiet");
    let platform = platform::normal(&platform::wished(matches))?;
    if let Some(tag) = named.tag().filter(|_| defaulted && !quiet) {
        output::line(&format!("Using default tag: {tag}"))?;
    }
    let client = session.client().await?;
    let to = if quiet { To::Nowhere } else { To::Stdout };
    pull(session, client, &named, platform, to).await?;
    output::line(&named.to_string())
}

/// Signatures are not looked at, and must not seem to be.
pub(crate) fn refuse_trust(matches: &Matches) -> Result<()> {
    match matches.on_unless("disable-content-trust") {
        true => Ok(()),
        false => Err(Error::msg(
            "--disable-content-trust=false is not supported yet",
        )),
    }
}

/// Pulls the image that a container is to be made of.
pub(crate) async fn for_container(
    session: &Session,
    client: &Client,
    image: &str,
    platform: Option<String>,
    quiet: bool,
) -> Result<()> {
    let named = reference(image)?.to_target();
    let to = if quiet { To::Nowhere } else { To::Stderr };
    pull(session, client, &named, platform, to).await
}

/// Has the engine pull: one image, or without tag and digest all of a repository.
async fn pull(
    session: &Session,
    client: &Client,
    named: &Reference,
    platform: Option<String>,
    to: To,
) -> Result<()> {
    let tag = match (named.digest(), named.tag()) {
        (Some(digest), _) => Some(digest.to_string()),
        (None, tag) => tag.map(str::to_owned),
    };
    let request = Request::post(&["images", "create"])
        .query("fromImage", named.name())
        .query_some("tag", tag)
        .query_some("platform", platform);
    let request = credentials::authorized(session, request, named)?;
    let response = client.send(&request).await?;
    progress::show(response.lines(), to).await
}
