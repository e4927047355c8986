//! `hull system prune`, and what all prunes have in common.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::go::units;
use crate::objects;
use crate::output;
use crate::parse::keyvalue;
use crate::session::Session;
use crate::{build, container, image, network, volume};
use api_types::{ComponentVersion, Filters, Version};
use client::{Client, Request};

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
    DRY_RUN,
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

/// `--dry-run`, for all prunes.
pub(crate) const DRY_RUN: Flag = Flag::bool("dry-run", "Only show what would be removed");

/// How to prune, as flags say.
pub(crate) struct How<'a> {
    pub(crate) client: &'a Client,
    pub(crate) filters: Filters,
    /// Whether to remove nothing.
    pub(crate) plan: bool,
    /// Containers that a plan takes for removed.
    gone: Vec<String>,
}

impl<'a> How<'a> {
    /// Reads the flags, and asks whoever sits there unless that is needless. `None`: the answer is no.
    pub(crate) async fn ask(
        session: &'a Session,
        matches: &Matches,
        question: &str,
    ) -> Result<Option<Self>> {
        let plan = matches.on("dry-run");
        if !plan && !matches.on("force") && !objects::confirm(question)? {
            return Ok(None);
        }
        let client = session.client().await?;
        if plan {
            // An engine that does not know the wish would not plan, but remove.
            let version: Version = client.json(&Request::get(&["version"])).await?;
            let plans = |component: &ComponentVersion| component.details.contains_key("PrunePlan");
            if !version.components.iter().any(plans) {
                return Err(Error::msg(
                    "--dry-run: this engine cannot tell what it would remove",
                ));
            }
        }
        Ok(Some(Self {
            client,
            filters: keyvalue::filters(matches.list("filter")),
            plan,
            gone: Vec::new(),
        }))
    }

    /// The request to prune one kind of thing.
    pub(crate) fn request(&self, kind: &'static str, filters: &Filters) -> Request {
        let mut request = Request::post(&[kind, "prune"])
            .query_some("filters", filters.to_query())
            .query_flag("dry-run", self.plan);
        for id in &self.gone {
            request = request.query("gone", id);
        }
        request
    }

    /// What was pruned, one line for each under a title; nothing where nothing was.
    pub(crate) fn pruned(&self, kind: &str, names: Option<Vec<String>>, bytes: u64) -> Pruned {
        let title = if self.plan { "Would delete" } else { "Deleted" };
        match names.unwrap_or_default() {
            names if names.is_empty() => Pruned::default(),
            names => Pruned {
                text: format!("{title} {kind}:\n{}\n\n", names.join("\n")),
                names,
                bytes,
            },
        }
    }

    /// `Total reclaimed space: 1.2MB`.
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    pub(crate) fn total(&self, bytes: u64) -> String {
        let what = if self.plan {
            "reclaimable"
        } else {
            "reclaimed"
        };
        format!("Total {what} space: {}", units::human_size(bytes as f64))
    }
}

/// What a prune removed, or would.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    /// For people; empty where nothing was removed.
    pub(crate) text: String,
    pub(crate) names: Vec<String>,
    pub(crate) bytes: u64,
}

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    if volumes && keyvalue::filters(matches.list("filter")).contains("until") {
        return Err(Error::msg(
            "the \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let Some(mut how) = How::ask(session, matches, &question(all, volumes)).await? else {
        return Ok(());
    };
    let mut bytes = 0;
    let mut show = |pruned: &Pruned| {
        bytes += pruned.bytes;
        output::print(&pruned.text)
    };
    let containers = container::prune(&how).await?;
    show(&containers)?;
    if how.plan {
        how.gone = containers.names;
    }
    show(&network::prune(&how).await?)?;
    if volumes {
        show(&volume::prune(&how, &how.filters).await?)?;
    }
    show(&image::prune(&how, all).await?)?;
    show(&build::prune(&how, all, &[]).await?)?;
    output::line(&how.total(bytes))
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
    lines.push(match all {
        true => "all build cache",
        false => "unused build cache",
    });
    let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
    format!("WARNING! This will remove:\n{lines}")
}
