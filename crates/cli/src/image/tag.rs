//! `hull tag`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::Matches;
use crate::objects;
use crate::registry;
use crate::session::Session;
use client::Request;
use oci::reference::DEFAULT_TAG;

pub(crate) const TAG: Command = Command {
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give an image a further name",
    aliases: &["image tag", "tag"],
    flags: &[],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let (source, target) = (&matches.args[0], &matches.args[1]);
    objects::check_name(source)?;
    let reference = registry::reference(target)?;
    if reference.digest().is_some() {
        return Err(Error::msg(
            "refusing to create a tag with a digest reference",
        ));
    }
    let request = Request::post(&["images", source, "tag"])
        .query("repo", reference.name())
        .query("tag", reference.tag().unwrap_or(DEFAULT_TAG));
    Ok(session.client().await?.call(&request).await?)
}
