//! `hull rmi`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::platform;
use crate::session::Session;
use api_types::ImageDeleteItem;
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::bool(
        "force",
        "Remove also what is in use by stopped containers or has several names",
    )
    .short('f'),
    Flag::bool("no-prune", "Keep parents without a name"),
    Flag::of(
        "platform",
        Kind::Strings,
        "Remove of each image only what is for this platform (os[/arch[/variant]])",
    ),
];

pub(crate) const RM: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    aliases: &["image rm", "image remove", "rmi"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let platforms = { matches.list("platform").iter() }
        .filter_map(|text| platform::document(text).transpose())
        .collect::<Result<Vec<_>>>()?;
    let client = session.client().await?;
    let force = matches.on("force");
    let mut failed = false;
    for name in &matches.args {
        let mut request = Request::delete(&["images", name])
            .query_flag("force", force)
            .query_flag("noprune", matches.on("no-prune"));
        for platform in &platforms {
            request = request.query("platforms", platform);
        }
        let remove = async {
            client
                .json::<Vec<ImageDeleteItem>>(&request)
                .await
                .map_err(Error::from)
        };
        match objects::named(name, remove).await {
            Ok(items) => output::print(&items.iter().map(line).collect::<String>())?,
            Err(error) => {
                // Forced, it is enough that it is not there.
                failed |=
                    !(force && matches!(&error, Error::Client(error) if error.is_not_found()));
                output::complain(&crate::error::chain(&error));
            }
        }
    }
    if failed { Err(Error::Exit(1)) } else { Ok(()) }
}

fn line(item: &ImageDeleteItem) -> String {
    match item.deleted.as_str() {
        "" => format!("Untagged: {}\n", item.untagged),
        deleted => format!("Deleted: {deleted}\n"),
    }
}
