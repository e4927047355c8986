//! `hull network connect`, `disconnect` and `rm`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::{address, keyvalue};
use crate::session::Session;
use api_types::{
    EndpointIpamConfig, EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest,
};
use client::Request;

const CONNECT_FLAGS: &[Flag] = &[
    Flag::of("alias", Kind::Strings, "Add a name in the network's DNS"),
    Flag::of("driver-opt", Kind::Strings, "Option of the driver"),
    Flag::of(
        "gw-priority",
        Kind::Int,
        "The network with the highest gives the default route",
    ),
    Flag::text("ip", "IPv4 address"),
    Flag::text("ip6", "IPv6 address"),
    Flag::list("link", "Add a link to another container (name:alias)").check(address::check_link),
    Flag::of("link-local-ip", Kind::Strings, "Add a link-local address"),
];

const FORCE_FLAGS: &[Flag] = &[Flag::bool("force", "It is enough that it is not there").short('f')];

pub(crate) const CONNECT: Command = Command {
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    aliases: &[],
    flags: &[CONNECT_FLAGS],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(connect(session, matches)),
};

pub(crate) const DISCONNECT: Command = Command {
    about: "Disconnect a container from a network",
    flags: &[FORCE_FLAGS],
    run: |session, matches| Box::pin(disconnect(session, matches)),
    ..CONNECT
};

pub(crate) const RM: Command = Command {
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    aliases: &["network rm", "network remove"],
    flags: &[FORCE_FLAGS],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(rm(session, matches)),
    ..CONNECT
};

async fn connect(session: &Session, matches: &Matches) -> Result<()> {
    let (network, container) = (&matches.args[0], &matches.args[1]);
    objects::check_name(network)?;
    let some = |flag| Some(matches.list(flag).to_vec()).filter(|list| !list.is_empty());
    let addresses = EndpointIpamConfig {
        ipv4_address: matches.text("ip").to_owned(),
        ipv6_address: matches.text("ip6").to_owned(),
        link_local_ips: matches.list("link-local-ip").to_vec(),
    };
    let endpoint = EndpointSettings {
        ipam_config: Some(addresses),
        links: some("link"),
        aliases: Some(matches.list("alias").to_vec()),
        driver_opts: Some(keyvalue::map(matches.list("driver-opt"))),
        gw_priority: matches.int("gw-priority").unwrap_or(0),
        ..EndpointSettings::default()
    };
    let body = NetworkConnectRequest {
        container: container.clone(),
        endpoint_config: Some(endpoint),
    };
    let request = Request::post(&["networks", network, "connect"]).json(&body);
    Ok(session.client().await?.call(&request).await?)
}

async fn disconnect(session: &Session, matches: &Matches) -> Result<()> {
    let (network, container) = (&matches.args[0], &matches.args[1]);
    objects::check_name(network)?;
    let body = NetworkDisconnectRequest {
        container: container.clone(),
        force: matches.on("force"),
    };
    let request = Request::post(&["networks", network, "disconnect"]).json(&body);
    Ok(session.client().await?.call(&request).await?)
}

async fn rm(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let force = matches.on("force");
    objects::each(&matches.args, async |name| {
        match client.call(&Request::delete(&["networks", name])).await {
            Err(error) if force && error.is_not_found() => {
                output::complain(&crate::error::chain(&error));
                Ok(None)
            }
            result => Ok(result.map(|()| Some(name.to_owned()))?),
        }
    })
    .await
}
