//! `hull stats`.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::format::{Columns, short_id};
use crate::go::template::Row;
use crate::go::units;
use crate::objects;
use crate::output;
use crate::session::Session;
use api_types::{ContainerSummary, MemoryStats, NetworkRate, StatsResponse};
use client::{Client, Request};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Show all containers, not only those that run").short('a'),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("no-stream", "Show one reading and end"),
    Flag::bool("no-trunc", "Show long texts as a whole"),
];

pub(crate) const STATS: Command = Command {
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Show what containers use, and go on showing it",
    aliases: &["container stats", "stats"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    titles: &[
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("NetRate", "NET RATE"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// The time between two readings.
const PERIOD: Duration = Duration::from_secs(1);
/// Beginning of the screen; to the end of the line; to the end of the screen.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

/// CPU time at the last reading of each container: its own, and the host's.
type Before = BTreeMap<String, (u64, u64)>;

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let format = match matches.text("format") {
        "" => session.config().stats_format.as_str(),
        format => format,
    };
    let stream = !matches.on("no-stream");
    let mut before = Before::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        ticks.tick().await;
        let names = match matches.args.as_slice() {
            [] => running(client, matches.on("all")).await?,
            names => names.to_vec(),
        };
        // One reading has its own CPU times before; a stream compares with its last one.
        let readings = read(client, &names, !first).await?;
        let rows = readings
            .iter()
            .map(|(name, stats)| row(name, stats, &mut before, !matches.on("no-trunc")));
        let text = COLUMNS.render(format, rows)?;
        if !stream {
            return output::print(&text);
        }
        let lines: String = text
            .lines()
            .map(|line| format!("{line}{CLEAR_LINE}\n"))
            .collect();
        output::print(&format!("{HOME}{lines}{CLEAR_BELOW}"))?;
        first = false;
    }
}

async fn running(client: &Client, all: bool) -> Result<Vec<String>> {
    let request = Request::get(&["containers", "json"]).query_flag("all", all);
    let containers: Vec<ContainerSummary> = client.json(&request).await?;
    Ok(containers
        .into_iter()
        .map(|container| container.id)
        .collect())
}

/// One reading of every container, all asked at once. A container that is gone is left out of a running display.
async fn read(
    client: &Client,
    names: &[String],
    one_shot: bool,
) -> Result<Vec<(String, StatsResponse)>> {
    let mut requests = Vec::new();
    for name in names {
        objects::check_name(name)?;
        requests.push(Box::pin(async move {
            let request = Request::get(&["containers", name, "stats"])
                .query("stream", "0")
                .query_flag("one-shot", one_shot);
            client.json::<StatsResponse>(&request).await
        }));
    }
    let mut readings = Vec::new();
    let mut results = Vec::new();
    objects::in_order(requests, |result| results.push(result)).await;
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(stats) => readings.push((name.clone(), stats)),
            Err(error) if one_shot && error.is_not_found() => {}
            Err(error) => return Err(Error::Client(error)),
        }
    }
    Ok(readings)
}

#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn row(asked: &str, stats: &StatsResponse, before: &mut Before, truncate: bool) -> Row {
    let now = (
        stats.cpu_stats.cpu_usage.total_usage,
        stats.cpu_stats.system_cpu_usage,
    );
    let own = (
        stats.precpu_stats.cpu_usage.total_usage,
        stats.precpu_stats.system_cpu_usage,
    );
    let last = before.insert(stats.id.clone(), now).unwrap_or(own);
    let name = stats.name.strip_prefix('/').unwrap_or(&stats.name);
    let row = Row::default()
        .set("Container", asked)
        .set("Name", if name.is_empty() { "--" } else { name })
        .set(
            "ID",
            if truncate {
                short_id(&stats.id)
            } else {
                &stats.id
            },
        );
    // A container that does not run has no readings.
    if now.1 == 0 {
        let nothing = row
            .set("CPUPerc", "--")
            .set("MemUsage", "-- / --")
            .set("MemPerc", "--");
        return nothing
            .set("NetIO", "--")
            .set("NetRate", "--")
            .set("BlockIO", "--")
            .set("PIDs", "--");
    }
    let used = used_memory(&stats.memory_stats);
    let limit = stats.memory_stats.limit as f64;
    let share = if limit > 0.0 {
        used / limit * 100.0
    } else {
        0.0
    };
    let pair = |left: u64, right: u64| {
        let show = |bytes: u64| units::human_size_precision(bytes as f64, 3);
        format!("{} / {}", show(left), show(right))
    };
    let sum =
        |counter: fn(&api_types::NetworkStats) -> u64| stats.networks.values().map(counter).sum();
    let (read, written) = block_io(stats);
    row.set("CPUPerc", format!("{:.2}%", cpu_percent(last, now, stats)))
        .set(
            "MemUsage",
            format!("{} / {}", units::bytes_size(used), units::bytes_size(limit)),
        )
        .set("MemPerc", format!("{share:.2}%"))
        .set(
            "NetIO",
            pair(
                sum(|network| network.rx_bytes),
                sum(|network| network.tx_bytes),
            ),
        )
        .set("NetRate", rate(stats.network_rate.as_ref()))
        .set("BlockIO", pair(read, written))
        .set("PIDs", stats.pids_stats.current.to_string())
}

/// What each interface receives and sends per second at most.
#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn rate(rate: Option<&NetworkRate>) -> String {
    let Some(rate) = rate else {
        return "--".to_owned();
    };
    let show = |bytes: u64| match bytes {
        0 => "--".to_owned(),
        bytes => format!("{}/s", units::bytes_size(bytes as f64)),
    };
    format!("{} / {}", show(rate.receive), show(rate.send))
}

/// The container's share of the host's CPU time since the last reading, 100 for one CPU.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn cpu_percent(last: (u64, u64), now: (u64, u64), stats: &StatsResponse) -> f64 {
    let own = now.0.saturating_sub(last.0) as f64;
    let host = now.1.saturating_sub(last.1) as f64;
    let cpus = match stats.cpu_stats.online_cpus {
        0 => stats.cpu_stats.cpu_usage.percpu_usage.len() as f64,
        cpus => f64::from(cpus),
    };
    if host > 0.0 {
        own / host * cpus * 100.0
    } else {
        0.0
    }
}

/// Memory without the page cache that can be dropped at any time; cgroup v1 and v2 name it differently.
#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
fn used_memory(memory: &MemoryStats) -> f64 {
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .find_map(|name| memory.stats.get(*name));
    let cache = cache
        .copied()
        .filter(|cache| *cache < memory.usage)
        .unwrap_or(0);
    (memory.usage - cache) as f64
}

fn block_io(stats: &StatsResponse) -> (u64, u64) {
    let entries = stats
        .blkio_stats
        .io_service_bytes_recursive
        .iter()
        .flatten();
    entries.fold((0, 0), |(read, written), entry| {
        match entry.op.as_bytes().first() {
            Some(b'r' | b'R') => (read + entry.value, written),
            Some(b'w' | b'W') => (read, written + entry.value),
            _ => (read, written),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_becomes_a_row() {
        let json = br#"{"name":"/web","id":"0123456789abcdef","cpu_stats":{"cpu_usage":{"total_usage":300},
            "system_cpu_usage":2000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100},
            "system_cpu_usage":1000},"memory_stats":{"usage":3145728,"limit":4194304,
            "stats":{"inactive_file":1048576}},"pids_stats":{"current":3},"networks":{"eth0":{"rx_bytes":1500}},
            "blkio_stats":{"io_service_bytes_recursive":[{"op":"read","value":2000},{"op":"Write","value":5}]}}"#;
        let stats: StatsResponse = api_types::from_slice(json).unwrap();
        let text = COLUMNS
            .render("json", vec![row("web", &stats, &mut Before::new(), true)])
            .unwrap();
        assert_eq!(
            text,
            "{\"BlockIO\":\"2kB / 5B\",\"CPUPerc\":\"40.00%\",\"Container\":\"web\",\"ID\":\"0123456789ab\",\"MemPerc\":\"50.00%\",\"MemUsage\":\"2MiB / 4MiB\",\"Name\":\"web\",\"NetIO\":\"1.5kB / 0B\",\"NetRate\":\"--\",\"PIDs\":\"3\"}\n"
        );
        let stopped = COLUMNS.render(
            "{{.CPUPerc}} {{.MemUsage}}",
            vec![row(
                "x",
                &StatsResponse::default(),
                &mut Before::new(),
                true,
            )],
        );
        assert_eq!(stopped.unwrap(), "-- -- / --\n");
    }
}
