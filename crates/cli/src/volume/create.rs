//! `hull volume create`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use api_types::{Volume, VolumeCreateRequest};
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::text("driver", "Driver of the volume")
        .short('d')
        .default("local"),
    Flag::list("label", "Set a label").check(keyvalue::check_label),
    Flag::text("name", "").hidden(),
    Flag::of("opt", Kind::List("map"), "Option of the driver").short('o'),
];

/// Flags of Swarm's cluster volumes.
const CLUSTER_FLAGS: &[Flag] = &[
    Flag::text("availability", "").hidden(),
    Flag::text("group", "").hidden(),
    Flag::text("limit-bytes", "").hidden(),
    Flag::text("required-bytes", "").hidden(),
    Flag::text("scope", "").hidden(),
    Flag::text("secret", "").hidden(),
    Flag::text("sharing", "").hidden(),
    Flag::text("topology-preferred", "").hidden(),
    Flag::text("topology-required", "").hidden(),
    Flag::text("type", "").hidden(),
];

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    aliases: &[],
    flags: &[FLAGS, CLUSTER_FLAGS],
    arity: Arity::Between(0, 1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    if let Some(flag) = CLUSTER_FLAGS.iter().find(|flag| matches.given(flag.long)) {
        return Err(Error::msg(format!(
            "--{} is for Swarm's cluster volumes, which are not supported",
            flag.long
        )));
    }
    let name = match (matches.get("name"), matches.args.first()) {
        (Some(_), Some(_)) => {
            return Err(Error::msg(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (Some(name), None) => name.to_owned(),
        (None, name) => name.cloned().unwrap_or_default(),
    };
    let body = VolumeCreateRequest {
        driver: matches.get("driver").unwrap_or("local").to_owned(),
        driver_opts: keyvalue::map(matches.list("opt")),
        labels: keyvalue::map(matches.list("label")),
        name,
        ..VolumeCreateRequest::default()
    };
    let request = Request::post(&["volumes", "create"]).json(&body);
    let volume: Volume = session.client().await?.json(&request).await?;
    output::line(&volume.name)
}
