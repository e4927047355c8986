//! `hull exec`.

use crate::app::{Arity, Command};
use crate::container::follow::{exit_code, finish};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::stdio::{self, Attach, End};
use api_types::{ExecCreateRequest, ExecInspect, ExecStartRequest, IdResponse};
use client::{Client, Request};
use std::convert::Infallible;

const FLAGS: &[Flag] = &[
    Flag::bool("detach", "Run in the background").short('d'),
    Flag::text("detach-keys", "Keys that detach from the process"),
    Flag::list(
        "env",
        "Set a variable (NAME=value, or NAME for this process' own)",
    )
    .short('e')
    .check(keyvalue::check_env),
    Flag::list("env-file", "Read variables from a file"),
    Flag::bool("interactive", "Attach stdin").short('i'),
    Flag::bool("privileged", "Give all capabilities"),
    Flag::bool("tty", "Give the process a terminal").short('t'),
    Flag::text("user", "User and group (name|uid[:group|gid])").short('u'),
    Flag::text("workdir", "Working directory").short('w'),
];

pub(crate) const EXEC: Command = Command {
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Run a command in a running container",
    aliases: &["container exec", "exec"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(2),
    interspersed: false,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let container = matches.args[0].as_str();
    objects::check_name(container)?;
    let (detach, tty) = (matches.on("detach"), matches.on("tty"));
    let env = keyvalue::environment(matches.list("env-file"), matches.list("env"))?;
    let console_size = tty.then(stdio::size);
    let create = ExecCreateRequest {
        user: matches.text("user").to_owned(),
        privileged: matches.on("privileged"),
        tty,
        console_size,
        attach_stdin: !detach && matches.on("interactive"),
        attach_stderr: !detach,
        attach_stdout: !detach,
        detach_keys: session.detach_keys(matches),
        env: (!env.is_empty()).then_some(env),
        working_dir: matches.text("workdir").to_owned(),
        cmd: Some(matches.args[1..].to_vec()),
        detach,
    };
    if !detach {
        stdio::check_stdin(create.attach_stdin, tty)?;
    }
    let client = session.client().await?;
    let request = Request::post(&["containers", container, "exec"]).json(&create);
    let IdResponse { id } = client.json(&request).await?;
    if id.is_empty() {
        return Err(Error::msg("the engine gave the exec no ID"));
    }
    let start = ExecStartRequest {
        detach,
        tty,
        console_size,
    };
    let request = Request::post(&["exec", &id, "start"]).json(&start);
    if detach {
        return Ok(client.call(&request).await?);
    }
    let attach = Attach {
        tty,
        stdin: create.attach_stdin,
        stdout: true,
        stderr: true,
        detach_keys: create.detach_keys,
    };
    let end = {
        let streams = attach.run(client.hijack(&request).await?);
        tokio::select! {
            end = streams => end?,
            never = keep_size(client, &id, tty) => match never {},
        }
    };
    let exec: ExecInspect = client.json(&Request::get(&["exec", &id, "json"])).await?;
    match (end, exec.running) {
        (End::Detached, true) => Ok(()),
        _ => finish(exit_code(exec.exit_code.unwrap_or(0))),
    }
}

async fn keep_size(client: &Client, id: &str, tty: bool) -> Infallible {
    match tty && stdio::is_terminal() {
        true => stdio::keep_size(client, &["exec", id]).await,
        false => std::future::pending().await,
    }
}
