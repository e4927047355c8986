//! `hull system df`.

use crate::app::{Arity, Command};
use crate::container::ls::fill as fill_container;
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::format::{Columns, short_id, yes_no};
use crate::go::template::Row;
use crate::go::{time, units};
use crate::image::ls::{Options, rows as image_rows};
use crate::output;
use crate::session::Session;
use crate::volume;
use api_types::{CacheRecord, ContainerSummary, DiskUsage};
use client::Request;

const FLAGS: &[Flag] = &[
    Flag::text(
        "format",
        "How to show it: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("verbose", "Show each object").short('v'),
];

pub(crate) const DF: Command = Command {
    usage: "[OPTIONS]",
    about: "Show what uses the disk",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

const SUMMARY: Columns = Columns {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    titles: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

const IMAGES: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    titles: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};

const CONTAINERS: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    titles: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};

const VOLUMES: Columns = Columns {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    titles: &[
        ("Name", "VOLUME NAME"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
};

const CACHE: Columns = Columns {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    titles: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let (verbose, format) = (matches.on("verbose"), matches.text("format"));
    if verbose && !matches!(format, "" | "table") {
        return Err(Error::msg(
            "--verbose with another --format than table is not supported yet",
        ));
    }
    let usage: DiskUsage = session
        .client()
        .await?
        .json(&Request::get(&["system", "df"]))
        .await?;
    match verbose {
        true => output::print(&details(&usage)?),
        false => output::print(&SUMMARY.render(format, summary(&usage))?),
    }
}

/// How much of one kind there is.
struct Total {
    kind: &'static str,
    count: usize,
    active: usize,
    bytes: i64,
    reclaimable: i64,
}

impl Total {
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    fn row(&self) -> Row {
        // A share of nothing is none.
        let percent = match self.bytes {
            1.. => format!(" ({}%)", self.reclaimable.saturating_mul(100) / self.bytes),
            _ => String::new(),
        };
        Row::default()
            .set("Type", self.kind)
            .set("TotalCount", self.count.to_string())
            .set("Active", self.active.to_string())
            .set("Size", units::human_size(self.bytes as f64))
            .set(
                "Reclaimable",
                format!("{}{percent}", units::human_size(self.reclaimable as f64)),
            )
    }
}

fn summary(usage: &DiskUsage) -> Vec<Row> {
    let images = usage.images.as_deref().unwrap_or_default();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let cache = usage.build_cache.as_deref().unwrap_or_default();
    let used: i64 = images
        .iter()
        .filter(|image| image.containers != 0 && image.size != -1)
        .map(|image| image.size - image.shared_size.max(0))
        .sum();
    let running = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let stopped = containers
        .iter()
        .filter(|container| !running(&container.state));
    let known = volumes
        .iter()
        .filter_map(|volume| volume.usage_data.as_ref())
        .filter(|data| data.size != -1);
    let totals = [
        Total {
            kind: "Images",
            count: images.len(),
            active: images.iter().filter(|image| image.containers > 0).count(),
            bytes: usage.layers_size,
            reclaimable: (usage.layers_size - used).max(0),
        },
        Total {
            kind: "Containers",
            count: containers.len(),
            active: containers
                .iter()
                .filter(|container| running(&container.state))
                .count(),
            bytes: containers.iter().map(|container| container.size_rw).sum(),
            reclaimable: stopped.map(|container| container.size_rw).sum(),
        },
        Total {
            kind: "Local Volumes",
            count: volumes.len(),
            active: known.clone().filter(|data| data.ref_count > 0).count(),
            bytes: known.clone().map(|data| data.size).sum(),
            reclaimable: known
                .filter(|data| data.ref_count == 0)
                .map(|data| data.size)
                .sum(),
        },
        Total {
            kind: "Build Cache",
            count: cache.len(),
            active: cache.iter().filter(|record| record.in_use).count(),
            bytes: cache
                .iter()
                .filter(|record| !record.shared)
                .map(|record| record.size)
                .sum(),
            reclaimable: cache
                .iter()
                .filter(|record| !record.in_use && !record.shared)
                .map(|record| record.size)
                .sum(),
        },
    ];
    totals.iter().map(Total::row).collect()
}

#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
fn details(usage: &DiskUsage) -> Result<String> {
    let options = Options {
        digests: false,
        truncate: true,
    };
    let images = usage
        .images
        .iter()
        .flatten()
        .flat_map(|image| image_rows(image, options));
    let containers = usage.containers.iter().flatten().map(|container| {
        // The image's part is counted with the images.
        fill_container(
            Row::default(),
            &ContainerSummary {
                size_root_fs: 0,
                ..container.clone()
            },
            true,
        )
    });
    let volumes = usage.volumes.iter().flatten().map(volume::row);
    let cache = usage.build_cache.as_deref().unwrap_or_default();
    let cache_bytes: i64 = cache
        .iter()
        .filter(|record| !record.shared)
        .map(|record| record.size)
        .sum();
    Ok([
        format!("Images space usage:\n\n{}", IMAGES.render("", images)?),
        format!(
            "Containers space usage:\n\n{}",
            CONTAINERS.render("", containers)?
        ),
        format!(
            "Local Volumes space usage:\n\n{}",
            VOLUMES.render("", volumes)?
        ),
        format!(
            "Build cache usage: {}\n",
            units::human_size(cache_bytes as f64)
        ),
        CACHE.render("", cache.iter().map(cache_row))?,
    ]
    .join("\n"))
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn cache_row(record: &CacheRecord) -> Row {
    let last_used = record.last_used_at.as_deref().map(time::since);
    Row::default()
        .set("ID", short_id(&record.id))
        .set("CacheType", record.kind.as_str())
        .set("Size", units::human_size_precision(record.size as f64, 3))
        .set("CreatedSince", time::since(&record.created_at))
        .set("LastUsedSince", last_used.unwrap_or_default())
        .set("UsageCount", record.usage_count.to_string())
        .set("Shared", yes_no(record.shared))
}
