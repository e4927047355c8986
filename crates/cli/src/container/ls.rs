//! `hull ps`.

use crate::app::{Arity, Command};
use crate::error::Result;
use crate::flags::{Flag, Kind, Matches};
use crate::format::{Columns, ellipsis, short_id};
use crate::go::template::Row;
use crate::go::{quote, time, units};
use crate::output;
use crate::parse::{keyvalue, reference::Reference};
use crate::session::Session;
use api_types::{ContainerSummary, MountPoint, PortSummary};
use client::Request;
use gtmpl_ng::Value;
use serde::de::IgnoredAny;
use std::collections::HashMap;

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Show all containers, not only those that run").short('a'),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only containers with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::of(
        "last",
        Kind::Int,
        "Show so many of the newest containers, running or not",
    )
    .short('n')
    .default("-1"),
    Flag::bool("latest", "Show the newest container, running or not").short('l'),
    Flag::bool("no-trunc", "Show long texts as a whole"),
    Flag::bool("quiet", "Show only IDs").short('q'),
    Flag::bool("size", "Show sizes").short('s'),
];

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List containers",
    aliases: &["container ls", "container list", "container ps", "ps"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const TITLES: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    titles: TITLES,
};

const TABLE_WITH_SIZE: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    titles: TITLES,
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let quiet = matches.on("quiet");
    let mut format = matches.text("format").to_owned();
    if format.is_empty() {
        format.clone_from(&session.config().ps_format);
    } else if quiet {
        output::complain(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
    }
    if quiet {
        "{{.ID}}".clone_into(&mut format);
    }
    // The engine computes sizes only when asked, and a format may ask.
    let size = matches.on("size") || format.contains(".Size");
    let limit = match matches.on("latest") {
        true => 1,
        false => matches.int("last").unwrap_or(-1),
    };
    let request = Request::get(&["containers", "json"])
        .query_flag("all", matches.on("all"))
        .query_some("limit", (limit > 0).then(|| limit.to_string()))
        .query_flag("size", size)
        .query_some(
            "filters",
            keyvalue::filters(matches.list("filter")).to_query(),
        );
    let columns = if matches.on("size") {
        TABLE_WITH_SIZE
    } else {
        TABLE
    };
    let list = columns.list(&format)?;
    let truncate = !matches.on("no-trunc");
    // Of its networks nothing is shown but their names.
    let show = |container: ContainerSummary<IgnoredAny>| fill(list.row(), &container, truncate);
    let rows = session.client().await?.list(&request, show).await?;
    output::print(&list.render(rows)?)
}

/// The fields of one container, those that the row takes.
pub(crate) fn fill<E>(row: Row, container: &ContainerSummary<E>, truncate: bool) -> Row {
    let command = match truncate {
        true => ellipsis(&container.command, 20),
        false => container.command.clone(),
    };
    let id = if truncate {
        short_id(&container.id)
    } else {
        &container.id
    };
    row.set("ID", id)
        .set("Names", names(&container.names, truncate))
        .set("Image", image(container, truncate))
        .set("Command", quote::quote(&command))
        .set_with("CreatedAt", || time::local(container.created))
        .set("RunningFor", time::ago(container.created))
        .set("Ports", ports(&container.ports))
        .set("State", container.state.as_str())
        .set("Status", container.status.as_str())
        .set_with("Size", || size(container))
        .set_with("Mounts", || mounts(container, truncate))
        .set_with("LocalVolumes", || local_volumes(container).to_string())
        .set_with("Networks", || networks(container))
        .set_with("Platform", || platform(container))
        .labels(container.labels.as_ref())
}

fn mounts<E>(container: &ContainerSummary<E>, truncate: bool) -> String {
    let names = container.mounts.iter().map(|mount| {
        let name = if mount.name.is_empty() {
            &mount.source
        } else {
            &mount.name
        };
        if truncate {
            ellipsis(name, 15)
        } else {
            name.clone()
        }
    });
    names.collect::<Vec<_>>().join(",")
}

fn local_volumes<E>(container: &ContainerSummary<E>) -> usize {
    let is_local = |mount: &&MountPoint| mount.driver == "local";
    container.mounts.iter().filter(is_local).count()
}

fn networks<E>(container: &ContainerSummary<E>) -> String {
    let networks = container
        .network_settings
        .iter()
        .filter_map(|settings| settings.networks.as_ref());
    let names: Vec<&str> = networks.flatten().map(|(name, _)| name.as_str()).collect();
    names.join(",")
}

/// Names without their slash; shortened, only the container's own, not those its links give it.
fn names(names: &[String], truncate: bool) -> String {
    let plain: Vec<&str> = names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .collect();
    match plain.iter().find(|name| !name.contains('/')) {
        Some(own) if truncate => (*own).to_owned(),
        _ => plain.join(","),
    }
}

fn image<E>(container: &ContainerSummary<E>, truncate: bool) -> String {
    let image = container.image.as_str();
    match () {
        () if image.is_empty() => "<no image>".to_owned(),
        () if !truncate || image.starts_with('/') => image.to_owned(),
        () if short_id(image) == short_id(&container.image_id) => short_id(image).to_owned(),
        () => match Reference::parse(image) {
            Some(reference) => {
                let tag = reference
                    .tag
                    .map(|tag| format!(":{tag}"))
                    .unwrap_or_default();
                format!("{}{tag}", reference.familiar_name())
            }
            None => image.to_owned(),
        },
    }
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size<E>(container: &ContainerSummary<E>) -> String {
    let show = |bytes: i64| units::human_size_precision(bytes as f64, 3);
    match container.size_root_fs {
        1.. => format!(
            "{} (virtual {})",
            show(container.size_rw),
            show(container.size_root_fs)
        ),
        _ => show(container.size_rw),
    }
}

fn platform<E>(container: &ContainerSummary<E>) -> Value {
    let descriptor = container.image_manifest_descriptor.as_ref();
    match descriptor.and_then(|descriptor| descriptor.platform.as_ref()) {
        Some(platform) => [&platform.os, &platform.architecture, &platform.variant]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("/")
            .into(),
        None => Value::Nil,
    }
}

/// Ports in one text. Neighbours that are published on the same port, or not at all, are a range.
fn ports(ports: &[PortSummary]) -> String {
    let mut sorted: Vec<&PortSummary> = ports.iter().collect();
    sorted.sort_by_key(|port| {
        (
            port.private_port,
            &port.ip,
            port.public_port,
            &port.protocol,
        )
    });
    let mut texts = Vec::new();
    let mut mapped = Vec::new();
    // The ranges that may still grow, by address and protocol, in order of appearance.
    let mut open: HashMap<(&str, &str), (u16, u16)> = HashMap::new();
    let mut order = Vec::new();
    for port in sorted {
        if !port.ip.is_empty() && port.public_port != port.private_port {
            let host = host_port(&port.ip, &port.public_port.to_string());
            mapped.push(format!("{host}->{}/{}", port.private_port, port.protocol));
            continue;
        }
        let key = (port.ip.as_str(), port.protocol.as_str());
        match open.get_mut(&key) {
            Some((_, last)) if last.checked_add(1) == Some(port.private_port) => {
                *last = port.private_port
            }
            Some(range) => {
                texts.push(range_text(key, *range));
                *range = (port.private_port, port.private_port);
            }
            None => {
                open.insert(key, (port.private_port, port.private_port));
                order.push(key);
            }
        }
    }
    texts.extend(
        order
            .into_iter()
            .filter_map(|key| Some(range_text(key, *open.get(&key)?))),
    );
    texts.extend(mapped);
    texts.join(", ")
}

fn range_text((ip, protocol): (&str, &str), (first, last): (u16, u16)) -> String {
    let range = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    match ip {
        "" => format!("{range}/{protocol}"),
        ip => format!("{}->{range}/{protocol}", host_port(ip, &range)),
    }
}

/// `address:port`, an IPv6 address in brackets.
pub(crate) fn host_port(address: &str, port: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, public_port: u16, private_port: u16, protocol: &str) -> PortSummary {
        PortSummary {
            ip: ip.to_owned(),
            private_port,
            public_port,
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn ports_are_grouped() {
        for (list, expected) in [
            (vec![], ""),
            (vec![port("", 0, 80, "tcp")], "80/tcp"),
            (
                vec![
                    port("", 0, 81, "tcp"),
                    port("", 0, 80, "tcp"),
                    port("", 0, 83, "tcp"),
                ],
                "80-81/tcp, 83/tcp",
            ),
            (
                vec![
                    port("0.0.0.0", 8080, 80, "tcp"),
                    port("::", 8080, 80, "tcp"),
                ],
                "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (
                vec![
                    port("0.0.0.0", 80, 80, "tcp"),
                    port("0.0.0.0", 81, 81, "tcp"),
                ],
                "0.0.0.0:80-81->80-81/tcp",
            ),
            (
                vec![port("", 0, 65535, "udp"), port("0.0.0.0", 1, 2, "udp")],
                "65535/udp, 0.0.0.0:1->2/udp",
            ),
        ] {
            assert_eq!(ports(&list), expected);
        }
    }

    #[test]
    fn names_and_images() {
        let all = ["/link/a".to_owned(), "/b".to_owned()];
        assert_eq!(names(&all, true), "b");
        assert_eq!(names(&all, false), "link/a,b");
        let image_of = |name: &str| {
            image(
                &ContainerSummary::<IgnoredAny> {
                    image: name.into(),
                    image_id: "sha256:0123456789abcdef".into(),
                    ..Default::default()
                },
                true,
            )
        };
        assert_eq!(image_of("docker.io/library/x:1@sha256:0"), "x:1");
        assert_eq!(image_of("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(image_of("/"), "/");
        assert_eq!(image_of(""), "<no image>");
    }
}
