//! `hull update`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::objects;
use crate::output;
use crate::parse::ports::Ports;
use crate::parse::{check, network, security};
use crate::session::Session;
use api_types::{PortMap, PortsRequest, UpdateRequest, UpdateResponse};
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::of(
        "blkio-weight",
        Kind::Uint16,
        "Relative weight of block IO, 10 to 1000, or 0 for the default",
    ),
    Flag::of(
        "cpu-period",
        Kind::Int,
        "Period of the CPU quota, in microseconds",
    ),
    Flag::of(
        "cpu-quota",
        Kind::Int,
        "CPU time in each period, in microseconds",
    ),
    Flag::of(
        "cpu-rt-period",
        Kind::Int,
        "Period of real-time CPU time, in microseconds",
    ),
    Flag::of(
        "cpu-rt-runtime",
        Kind::Int,
        "Real-time CPU time in each period, in microseconds",
    ),
    Flag::of("cpu-shares", Kind::Int, "Relative weight of CPU time").short('c'),
    Flag::of("cpus", Kind::Decimal, "Number of CPUs to use at most"),
    Flag::text("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
    Flag::text("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
    Flag::of("memory", Kind::Bytes, "Limit of memory").short('m'),
    Flag::of("memory-reservation", Kind::Bytes, "Soft limit of memory"),
    Flag::of(
        "memory-swap",
        Kind::SwapBytes,
        "Limit of memory and swap together; -1 for unlimited swap",
    ),
    Flag::of(
        "network-rate",
        Kind::Text("rate"),
        "Limit what each interface receives and sends per second (10m, receive=10m,send=1m)",
    )
    .check(network::check_rate),
    Flag::of(
        "pids-limit",
        Kind::Int,
        "Limit of processes; -1 for unlimited",
    ),
    Flag::list(
        "publish-add",
        "Publish a port of a container that exists, as run -p does",
    ),
    Flag::list(
        "publish-rm",
        "Take a published port back ([[address:]host-port:]port[/protocol])",
    ),
    Flag::text(
        "restart",
        "When to start again: no, always, unless-stopped, on-failure[:retries]",
    ),
];

pub(crate) const UPDATE: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Change the limits or the published ports of one or more containers",
    aliases: &["container update", "update"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    if !FLAGS.iter().any(|flag| matches.given(flag.long)) {
        return Err(Error::msg(
            "you must provide one or more flags when using this command",
        ));
    }
    let body = request(matches).map_err(Error::Message)?;
    let ports = PortsRequest {
        add: bindings(matches, "publish-add")?,
        remove: bindings(matches, "publish-rm")?,
    };
    let client = session.client().await?;
    let mut warnings = Vec::new();
    let mut failed = false;
    for name in &matches.args {
        let update = async {
            if ports != PortsRequest::default() {
                let request = Request::post(&["containers", name, "ports"]).json(&ports);
                client.call(&request).await?;
            }
            if body == UpdateRequest::default() {
                return Ok(UpdateResponse::default());
            }
            let request = Request::post(&["containers", name, "update"]).json(&body);
            Ok(client.json::<UpdateResponse>(&request).await?)
        };
        match objects::named(name, update).await {
            Ok(response) => {
                output::line(name)?;
                warnings.extend(response.warnings.into_iter().flatten());
            }
            Err(error) => {
                output::complain(&crate::error::chain(&error));
                failed = true;
            }
        }
    }
    output::print(
        &warnings
            .iter()
            .map(|warning| format!("{warning}\n"))
            .collect::<String>(),
    )?;
    if failed { Err(Error::Exit(1)) } else { Ok(()) }
}

fn bindings(matches: &Matches, flag: &str) -> Result<PortMap> {
    let ports = Ports::parse(matches.list(flag), &[]);
    Ok(ports.map_err(Error::Message)?.bindings)
}

fn request(matches: &Matches) -> Result<UpdateRequest, String> {
    let int = |name| matches.int(name).unwrap_or(0);
    let bytes = |name| matches.bytes(name).unwrap_or(0);
    Ok(UpdateRequest {
        network_rate: matches.get("network-rate").map(network::rate).transpose()?,
        restart_policy: security::restart_policy(matches.text("restart"))?,
        blkio_weight: matches.get("blkio-weight").map_or(Ok(0), check::uint16)?,
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpu_shares: int("cpu-shares"),
        nano_cpus: matches.get("cpus").map_or(Ok(0), check::nano_cpus)?,
        cpuset_cpus: matches.text("cpuset-cpus").to_owned(),
        cpuset_mems: matches.text("cpuset-mems").to_owned(),
        memory: bytes("memory"),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: bytes("memory-swap"),
        // No flag keeps the limit; 0 cannot be told from that, so -1 lifts it.
        pids_limit: matches.int("pids-limit").filter(|limit| *limit != 0),
        ..UpdateRequest::default()
    })
}
