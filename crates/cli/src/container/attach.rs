//! `hull attach`.

use crate::app::{Arity, Command};
use crate::container::follow::{Follow, finish};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::session::Session;
use crate::stdio::{self, Attach, Signals};
use api_types::InspectResponse;
use client::{Client, Request};

const FLAGS: &[Flag] = &[
    Flag::text("detach-keys", "Keys that detach from the container"),
    Flag::bool("no-stdin", "Do not attach stdin"),
    Flag::bool("sig-proxy", "Pass signals on to the process").default("true"),
];

pub(crate) const ATTACH: Command = Command {
    usage: "[OPTIONS] CONTAINER",
    about: "Attach this terminal to a running container",
    aliases: &["container attach", "attach"],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let container = inspect_running(client, &matches.args[0]).await?;
    let stdin = !matches.on("no-stdin");
    let tty = container.config.tty;
    stdio::check_stdin(stdin, tty)?;
    let attach = Attach {
        tty,
        stdin: stdin && container.config.open_stdin,
        stdout: true,
        stderr: true,
        detach_keys: session.detach_keys(matches),
    };
    let signals = Signals::catch(matches.on_unless("sig-proxy") && !tty)?;
    let id = container.id.as_str();
    let follow = Follow {
        client,
        id,
        attach,
        auto_remove: false,
    };
    finish(follow.join(signals).await?)
}

async fn inspect_running(client: &Client, name: &str) -> Result<InspectResponse> {
    objects::check_name(name)?;
    let container: InspectResponse = client
        .json(&Request::get(&["containers", name, "json"]))
        .await?;
    let refuse = |text: &str| Err(Error::msg(text));
    match &container.state {
        state if !state.running => {
            refuse("You cannot attach to a stopped container, start it first")
        }
        state if state.paused => {
            refuse("You cannot attach to a paused container, unpause it first")
        }
        state if state.restarting => {
            refuse("You cannot attach to a restarting container, wait until it is running")
        }
        _ => Ok(container),
    }
}
