//! The commands that are one request for each container: `kill`, `pause`, `unpause`, `stop`, `restart`, `rm`, `rename`, `wait`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::WaitResponse;
use client::Request;

const STOP_FLAGS: &[Flag] = &[
    Flag::text("signal", "Signal that asks the container to stop").short('s'),
    Flag::of("time", Kind::Int, "").alias_of("timeout"),
    Flag::of(
        "timeout",
        Kind::Int,
        "Seconds until the container is killed; -1 for never",
    )
    .short('t'),
];

const KILL_FLAGS: &[Flag] =
    &[Flag::text("signal", "Signal to send; SIGKILL without one").short('s')];

const RM_FLAGS: &[Flag] = &[
    Flag::bool("force", "Kill the container first if it runs").short('f'),
    Flag::bool("link", "Remove the link of this name").short('l'),
    Flag::bool("volumes", "Remove its anonymous volumes, too").short('v'),
];

const MANY: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "",
    aliases: &[],
    flags: &[],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |_, _| Box::pin(async { Ok(()) }),
};

pub(crate) const KILL: Command = Command {
    about: "Send a signal to one or more containers, SIGKILL without another wish",
    aliases: &["container kill", "kill"],
    flags: &[KILL_FLAGS],
    run: |session, matches| Box::pin(kill(session, matches)),
    ..MANY
};

pub(crate) const PAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Freeze all processes of one or more containers",
    aliases: &["container pause", "pause"],
    run: |session, matches| Box::pin(simple(session, matches, "pause")),
    ..MANY
};

pub(crate) const UNPAUSE: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Thaw all processes of one or more containers",
    aliases: &["container unpause", "unpause"],
    run: |session, matches| Box::pin(simple(session, matches, "unpause")),
    ..MANY
};

pub(crate) const STOP: Command = Command {
    about: "Stop one or more containers",
    aliases: &["container stop", "stop"],
    flags: &[STOP_FLAGS],
    run: |session, matches| Box::pin(stop(session, matches, "stop")),
    ..MANY
};

pub(crate) const RESTART: Command = Command {
    about: "Stop and start one or more containers",
    aliases: &["container restart", "restart"],
    flags: &[STOP_FLAGS],
    run: |session, matches| Box::pin(stop(session, matches, "restart")),
    ..MANY
};

pub(crate) const RM: Command = Command {
    about: "Remove one or more containers",
    aliases: &["container rm", "container remove", "rm"],
    flags: &[RM_FLAGS],
    run: |session, matches| Box::pin(rm(session, matches)),
    ..MANY
};

pub(crate) const WAIT: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    about: "Wait until one or more containers stop, and print their exit codes",
    aliases: &["container wait", "wait"],
    run: |session, matches| Box::pin(wait(session, matches)),
    ..MANY
};

pub(crate) const RENAME: Command = Command {
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    aliases: &["container rename", "rename"],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(rename(session, matches)),
    ..MANY
};

async fn kill(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let signal = matches.get("signal").filter(|signal| !signal.is_empty());
    objects::each(&matches.args, async |name| {
        let request = Request::post(&["containers", name, "kill"]).query_some("signal", signal);
        client.call(&request).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn simple(session: &Session, matches: &Matches, verb: &str) -> Result<()> {
    let client = session.client().await?;
    objects::each(&matches.args, async |name| {
        client
            .call(&Request::post(&["containers", name, verb]))
            .await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn stop(session: &Session, matches: &Matches, verb: &str) -> Result<()> {
    let client = session.client().await?;
    let signal = matches.get("signal").filter(|signal| !signal.is_empty());
    let timeout = matches.int("timeout").map(|seconds| seconds.to_string());
    objects::each(&matches.args, async |name| {
        let request = Request::post(&["containers", name, verb])
            .query_some("signal", signal)
            .query_some("t", timeout.as_deref());
        client.call(&request).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}

async fn rm(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let force = matches.on("force");
    objects::each(&matches.args, async |name| {
        let name = name.trim_matches('/');
        let request = Request::delete(&["containers", name])
            .query_flag("v", matches.on("volumes"))
            .query_flag("link", matches.on("link"))
            .query_flag("force", force);
        match client.call(&request).await {
            // Forced, it is enough that it is not there.
            Err(error) if force && error.is_not_found() => {
                output::complain(&crate::error::chain(&error));
                Ok(None)
            }
            result => Ok(result.map(|()| Some(name.to_owned()))?),
        }
    })
    .await
}

async fn wait(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    objects::each(&matches.args, async |name| {
        let answer: WaitResponse = client
            .json(&Request::post(&["containers", name, "wait"]))
            .await?;
        match answer.error {
            Some(error) => Err(Error::Message(error.message)),
            None => Ok(Some(answer.status_code.to_string())),
        }
    })
    .await
}

async fn rename(session: &Session, matches: &Matches) -> Result<()> {
    let (old, new) = (matches.args[0].trim(), matches.args[1].trim());
    objects::check_name(old)?;
    objects::check_name(new)?;
    let request = Request::post(&["containers", old, "rename"]).query("name", new);
    session
        .client()
        .await?
        .call(&request)
        .await
        .map_err(|error| {
            let error = crate::error::chain(&error);
            Error::msg(format!(
                "{error}\nError: failed to rename container named {old}"
            ))
        })
}
