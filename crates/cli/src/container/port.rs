//! `hull port`.

use crate::app::{Arity, Command};
use crate::container::explain::explain;
use crate::container::ls::host_port;
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::InspectResponse;
use client::Request;

const FLAGS: &[Flag] = &[Flag::bool(
    "explain",
    "Tell who can reach the ports, and by which rule",
)];

pub(crate) const PORT: Command = Command {
    usage: "[OPTIONS] CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "Show where a container's ports are published",
    aliases: &["container port", "port"],
    flags: &[FLAGS],
    arity: Arity::Between(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let name = &matches.args[0];
    objects::check_name(name)?;
    if matches.on("explain") {
        let port = matches.args.get(1).map(String::as_str);
        return explain(session, name, port).await;
    }
    let request = Request::get(&["containers", name, "json"]);
    let container: InspectResponse = session.client().await?.json(&request).await?;
    let ports = container.network_settings.ports.unwrap_or_default();
    let mut lines = Vec::new();
    match matches.args.get(1) {
        Some(wanted) => {
            let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            if port.parse::<u16>().is_err() {
                return Err(Error::msg(format!("Error: invalid port ({port})")));
            }
            let protocol = if protocol.is_empty() { "tcp" } else { protocol };
            let bindings = ports
                .get(&format!("{port}/{protocol}"))
                .cloned()
                .flatten()
                .unwrap_or_default();
            if bindings.is_empty() {
                return Err(Error::msg(format!(
                    "Error: No public port '{wanted}' published for {name}"
                )));
            }
            lines.extend(
                bindings
                    .iter()
                    .map(|binding| (0, host_port(&binding.host_ip, &binding.host_port))),
            );
        }
        None => {
            for (port, bindings) in &ports {
                let number: u32 = port
                    .split('/')
                    .next()
                    .and_then(|port| port.parse().ok())
                    .unwrap_or(0);
                let texts = bindings.iter().flatten().map(|binding| {
                    (
                        number,
                        format!(
                            "{port} -> {}",
                            host_port(&binding.host_ip, &binding.host_port)
                        ),
                    )
                });
                lines.extend(texts);
            }
        }
    }
    lines.sort();
    output::print(
        &lines
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect::<String>(),
    )
}
