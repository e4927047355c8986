//! A container in a list.

use super::mounts;
use api_types as wire;
use engine::Engine;
use engine::health::Status;
use engine::model::{ImageSource, Phase, Snapshot, State};
use std::collections::BTreeMap;

/// An element of `GET /containers/json`.
pub(crate) fn summary(
    engine: &Engine,
    container: &Snapshot,
    sizes: Option<(u64, u64)>,
) -> wire::ContainerSummary {
    let spec = &container.spec;
    let command: Vec<&str> = spec
        .process
        .entrypoint
        .iter()
        .chain(&spec.process.command)
        .map(String::as_str)
        .collect();
    let (rw, root) = sizes.unwrap_or_default();
    wire::ContainerSummary {
        id: spec.id.clone(),
        names: vec![format!("/{}", container.name)],
        image: spec.image_reference.clone(),
        image_id: image_id(&spec.image),
        command: command.join(" "),
        created: spec.created.as_second(),
        ports: ports(container),
        size_rw: i64::try_from(rw).unwrap_or(i64::MAX),
        size_root_fs: i64::try_from(rw.saturating_add(root)).unwrap_or(i64::MAX),
        labels: Some(spec.labels.clone()),
        state: container.state.phase.as_str().to_owned(),
        status: status(container),
        host_config: wire::ContainerSummaryHostConfig {
            network_mode: super::connections::mode_name(&spec.network.mode),
            annotations: spec.annotations.clone(),
        },
        network_settings: Some(wire::SummaryNetworkSettings {
            networks: Some(super::connections::endpoints(container)),
        }),
        mounts: mounts::points(engine, container),
        ..wire::ContainerSummary::default()
    }
}

/// The image's id; of a directory there is none, so its path stands there.
pub(crate) fn image_id(image: &ImageSource) -> String {
    match image {
        ImageSource::Image(id) => id.clone(),
        ImageSource::Directory(path) => path.display().to_string(),
        ImageSource::Layers(layers) => layers.last().map_or_else(String::new, ToString::to_string),
    }
}

fn ports(container: &Snapshot) -> Vec<wire::PortSummary> {
    let endpoints = || container.state.endpoints();
    let mut ports: Vec<wire::PortSummary> = endpoints()
        .flat_map(|(_, endpoint)| &endpoint.ports)
        .map(|mapping| wire::PortSummary {
            ip: mapping.host_ip.to_string(),
            private_port: mapping.port.number,
            public_port: mapping.host_port,
            protocol: mapping.port.protocol.as_str().to_owned(),
        })
        .collect();
    if endpoints().next().is_some() {
        for port in &container.spec.network.exposed {
            let protocol = port.protocol.as_str();
            if !ports
                .iter()
                .any(|known| known.private_port == port.number && known.protocol == protocol)
            {
                let (private_port, protocol) = (port.number, protocol.to_owned());
                ports.push(wire::PortSummary {
                    private_port,
                    protocol,
                    ..wire::PortSummary::default()
                });
            }
        }
    }
    ports
}

/// `Up 2 minutes`, `Exited (0) 3 seconds ago`, in Docker's words.
fn status(container: &Snapshot) -> String {
    let state = &container.state;
    let ago = |time: Option<jiff::Timestamp>| {
        let seconds = time.map_or(0, |time| {
            jiff::Timestamp::now().as_second() - time.as_second()
        });
        human_duration(u64::try_from(seconds).unwrap_or(0))
    };
    match state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => match state.health.as_ref().map(|health| health.status) {
            None => format!("Up {}", ago(state.started_at)),
            Some(Status::Starting) => format!("Up {} (health: starting)", ago(state.started_at)),
            Some(status) => format!("Up {} ({})", ago(state.started_at), status.as_str()),
        },
        Phase::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Phase::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
        Phase::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
    }
}

/// A duration as people say it, in the steps of Docker's units package.
fn human_duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if seconds < 2 * MINUTE => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ => match (seconds + HOUR / 2) / HOUR {
            1 => "About an hour".to_owned(),
            hours @ ..48 => format!("{hours} hours"),
            hours if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
            hours if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
            hours if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / DAY / 365),
        },
    }
}

/// Which containers a list shows.
#[derive(Debug)]
pub(crate) struct Selection {
    all: bool,
    filters: wire::Filters,
    names: Vec<regex_lite::Regex>,
}

/// The filters of `GET /containers/json`.
const FILTERS: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name",
    "network", "publish", "since", "status", "volume",
];

/// What the filter `health` can be.
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl Selection {
    pub(crate) fn read(query: &crate::http::Query) -> Result<Self, crate::http::Error> {
        let filters = query.filters(&FILTERS)?;
        let names = filters
            .get("name")
            .map(regex_lite::Regex::new)
            .collect::<Result<_, _>>();
        let names = names.map_err(|error| {
            crate::http::Error::bad_request(format!("invalid filter 'name': {error}"))
        })?;
        let phases = [
            "created",
            "running",
            "paused",
            "restarting",
            "removing",
            "exited",
            "dead",
        ];
        if let Some(unknown) = filters
            .get("status")
            .find(|status| !phases.contains(status))
        {
            return Err(crate::http::Error::bad_request(format!(
                "invalid filter 'status={unknown}'"
            )));
        }
        if let Some(unknown) = filters.get("health").find(|word| !HEALTHS.contains(word)) {
            return Err(crate::http::Error::bad_request(format!(
                "invalid filter 'health={unknown}': it is starting, healthy, unhealthy or none"
            )));
        }
        // A limit counts from the youngest, whether or not they run.
        let limited = query.number::<i64>("limit")?.is_some_and(|limit| limit > 0);
        let all = limited
            || query.flag("all")
            || filters.contains("status")
            || filters.contains("exited");
        Ok(Self {
            all,
            filters,
            names,
        })
    }

    /// Whether one in this state can be wanted.
    pub(crate) fn may_want(&self, state: &State) -> bool {
        self.all || state.phase.is_running() || state.phase == Phase::Restarting
    }

    /// Whether a container is wanted, which is in a state that is. `times`: when the containers named by `before` and `since` were created.
    pub(crate) fn wants(
        &self,
        container: &Snapshot,
        times: &BTreeMap<&str, jiff::Timestamp>,
    ) -> bool {
        let state = &container.state;
        let any = |name: &str, matches: &dyn Fn(&str) -> bool| {
            !self.filters.contains(name) || self.filters.get(name).any(matches)
        };
        let spec = &container.spec;
        let health = state.health.as_ref().map(|health| health.status);
        let labels = self
            .filters
            .get("label")
            .all(|filter| match filter.split_once('=') {
                Some((name, value)) => spec.labels.get(name).is_some_and(|label| label == value),
                None => spec.labels.contains_key(filter),
            });
        let named = |regex: &regex_lite::Regex| {
            regex.is_match(&container.name) || regex.is_match(&format!("/{}", container.name))
        };
        let exited =
            |code: &str| state.phase == Phase::Exited && code.parse() == Ok(state.exit_code);
        let mounted = |wanted: &str| {
            spec.mounts.iter().any(|mount| match &mount.source {
                engine::model::MountSource::Volume { name, .. } => {
                    name == wanted || mount.target == wanted
                }
                _ => mount.target == wanted,
            })
        };
        let ancestor = |wanted: &str| {
            let id = image_id(&spec.image);
            let hex = id.strip_prefix("sha256:").unwrap_or(&id);
            spec.image_reference == wanted
                || spec.image_reference == format!("{wanted}:latest")
                || id == wanted
                || (wanted.len() >= 12 && hex.starts_with(wanted))
        };
        let network =
            |network: &str| super::connections::endpoints(container).contains_key(network);
        let port = |wanted: &str| {
            ports(container)
                .iter()
                .any(|port| port_matches(port.private_port, &port.protocol, wanted))
        };
        let published = |wanted: &str| {
            ports(container).iter().any(|port| {
                port.public_port != 0 && port_matches(port.private_port, &port.protocol, wanted)
            })
        };
        labels
            && any("id", &|prefix| spec.id.starts_with(prefix))
            && (self.names.is_empty() || self.names.iter().any(named))
            && any("status", &|status| status == state.phase.as_str())
            && any("exited", &exited)
            && any("health", &|word| health.map_or("none", Status::as_str) == word)
            // There is no swarm, so nothing is a task of it.
            && any("is-task", &|word| matches!(word, "0" | "false"))
            && any("ancestor", &ancestor)
            && any("volume", &mounted)
            && any("network", &network)
            && any("expose", &port)
            && any("publish", &published)
            && times.get("before").is_none_or(|time| spec.created < *time)
            && times.get("since").is_none_or(|time| spec.created > *time)
    }

    /// The container that a `before` or `since` filter names.
    pub(crate) fn named(&self, filter: &str) -> Option<&str> {
        self.filters.get(filter).next()
    }
}

/// Whether a port is meant by `80`, `80/udp` or `8000-8010/tcp`.
fn port_matches(port: u16, protocol: &str, wanted: &str) -> bool {
    let (numbers, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    protocol == wanted_protocol
        && first.parse().is_ok_and(|first: u16| first <= port)
        && last.parse().is_ok_and(|last: u16| port <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_dockers() {
        let said: Vec<String> = [
            0,
            1,
            59,
            60,
            119,
            120,
            3599,
            3600,
            5400,
            172_799,
            172_800,
            1_300_000,
            200_000_000,
        ]
        .map(human_duration)
        .to_vec();
        assert_eq!(
            said,
            [
                "Less than a second",
                "1 second",
                "59 seconds",
                "About a minute",
                "About a minute",
                "2 minutes",
                "59 minutes",
                "About an hour",
                "2 hours",
                "2 days",
                "2 days",
                "2 weeks",
                "6 years",
            ]
        );
    }
}
