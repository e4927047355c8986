//! `hull start`.

use crate::app::{Arity, Command};
use crate::container::follow::{Follow, finish, start, start_request};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::output;
use crate::session::Session;
use crate::stdio::{Attach, Signals};
use api_types::InspectResponse;
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::bool("attach", "Attach stdout and stderr, and pass signals on").short('a'),
    Flag::text("checkpoint", "Restore from this checkpoint"),
    Flag::text(
        "checkpoint-dir",
        "Directory of checkpoints instead of the container's own",
    ),
    Flag::text("detach-keys", "Keys that detach from the container"),
    Flag::bool("interactive", "Attach stdin").short('i'),
];

pub(crate) const START: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    aliases: &["container start", "start"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    if matches.on("attach") || matches.on("interactive") {
        return attached(session, matches).await;
    }
    if !matches.text("checkpoint").is_empty() {
        return restored(session, matches).await;
    }
    let client = session.client().await?;
    let mut failed = Vec::new();
    for name in &matches.args {
        match objects::named(name, start(client, &start_request(name))).await {
            Ok(()) => output::line(name)?,
            Err(error) => {
                output::complain(&crate::error::chain(&error));
                failed.push(name.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::msg(format!(
            "Error: failed to start containers: {}",
            failed.join(", ")
        ))),
    }
}

/// One that goes on from a checkpoint says nothing, as with Docker.
async fn restored(session: &Session, matches: &Matches) -> Result<()> {
    let [name] = matches.args.as_slice() else {
        return Err(Error::msg("you cannot restore multiple containers at once"));
    };
    objects::check_name(name)?;
    start(session.client().await?, &request(name, matches)).await
}

fn request(name: &str, matches: &Matches) -> Request {
    start_request(name)
        .query_some("checkpoint", matches.get("checkpoint"))
        .query_some("checkpoint-dir", matches.get("checkpoint-dir"))
}

async fn attached(session: &Session, matches: &Matches) -> Result<()> {
    let [name] = matches.args.as_slice() else {
        return Err(Error::msg(
            "you cannot start and attach multiple containers at once",
        ));
    };
    objects::check_name(name)?;
    let client = session.client().await?;
    let container: InspectResponse = client
        .json(&Request::get(&["containers", name, "json"]))
        .await?;
    let attach = Attach {
        tty: container.config.tty,
        stdin: matches.on("interactive") && container.config.open_stdin,
        stdout: true,
        stderr: true,
        detach_keys: session.detach_keys(matches),
    };
    let signals = Signals::catch(!container.config.tty)?;
    let auto_remove = container.host_config.auto_remove;
    finish(
        Follow {
            client,
            id: &container.id,
            attach,
            auto_remove,
        }
        .start(&request(&container.id, matches), signals)
        .await?,
    )
}
