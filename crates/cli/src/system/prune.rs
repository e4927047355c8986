//! `hull system prune`, and what all prunes have in common.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::go::units;
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::{container, image, network, volume};

const FLAGS: &[Flag] = &[
    Flag::bool(
        "all",
        "Remove all images without a container, not only those without a name",
    )
    .short('a'),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Remove only what has this property (name=value)",
    )
    .check(keyvalue::check_filter),
    Flag::bool("force", "Do not ask").short('f'),
    Flag::bool("volumes", "Remove unused anonymous volumes, too"),
];

pub(crate) const PRUNE: Command = Command {
    usage: "[OPTIONS]",
    about: "Remove what is not in use",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// What a prune removed.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    /// For people; empty where nothing was removed.
    pub(crate) text: String,
    pub(crate) bytes: u64,
}

impl Pruned {
    /// One line for each, under a title.
    pub(crate) fn list(title: &str, names: Option<Vec<String>>, bytes: u64) -> Self {
        match names.unwrap_or_default() {
            names if names.is_empty() => Self::default(),
            names => Self {
                text: format!("{title}\n{}\n\n", names.join("\n")),
                bytes,
            },
        }
    }
}

/// `Total reclaimed space: 1.2MB`.
#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}", units::human_size(bytes as f64))
}

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let filters = keyvalue::filters(matches.list("filter"));
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    if volumes && filters.contains("until") {
        return Err(Error::msg(
            "the \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !matches.on("force") && !objects::confirm(&question(all, volumes))? {
        return Ok(());
    }
    let client = session.client().await?;
    let mut bytes = 0;
    let mut show = |pruned: Pruned| {
        bytes += pruned.bytes;
        output::print(&pruned.text)
    };
    show(container::prune(client, &filters).await?)?;
    show(network::prune(client, &filters).await?)?;
    if volumes {
        show(volume::prune(client, &filters).await?)?;
    }
    show(image::prune(client, filters, all).await?)?;
    output::line(&reclaimed(bytes))
}

fn question(all: bool, volumes: bool) -> String {
    let mut lines = vec![
        "all stopped containers",
        "all networks not used by at least one container",
    ];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    });
    let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
    format!("WARNING! This will remove:\n{lines}")
}
