//! `hull commit`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::output;
use crate::registry;
use crate::session::Session;
use api_types::IdResponse;
use client::Request;
use oci::reference::DEFAULT_TAG;

const FLAGS: &[Flag] = &[
    Flag::text("author", "Who made the image").short('a'),
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "Message of the commit").short('m'),
    Flag::bool("pause", "Pause the container meanwhile")
        .short('p')
        .default("true"),
];

pub(crate) const COMMIT: Command = Command {
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of what a container has changed",
    aliases: &["container commit", "commit"],
    flags: &[FLAGS],
    arity: Arity::Between(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let container = &matches.args[0];
    objects::check_name(container)?;
    let (repository, tag) = match matches.args.get(1).map(String::as_str) {
        None | Some("") => (String::new(), String::new()),
        Some(text) => {
            let reference = registry::reference(text)?;
            if reference.digest().is_some() {
                return Err(Error::msg(
                    "refusing to create a tag with a digest reference",
                ));
            }
            let tag = reference.tag().unwrap_or(DEFAULT_TAG);
            (reference.name(), tag.to_owned())
        }
    };
    let mut request = Request::post(&["commit"])
        .query("container", container)
        .query("repo", repository)
        .query("tag", tag)
        .query("comment", matches.text("message"))
        .query("author", matches.text("author"));
    for change in matches.list("change") {
        request = request.query("changes", change);
    }
    if !matches.on_unless("pause") {
        request = request.query("pause", "0");
    }
    let IdResponse { id } = session.client().await?.json(&request).await?;
    output::line(&id)
}
