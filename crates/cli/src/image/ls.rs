//! `hull images` and `hull image ls`.

use super::tree;
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::format::{Columns, short_id};
use crate::go::template::Row;
use crate::go::{time, units};
use crate::output;
use crate::parse::{keyvalue, reference::Reference};
use crate::session::Session;
use api_types::ImageSummary;
use client::Request;
use std::collections::BTreeMap;

const FLAGS: &[Flag] = &[
    Flag::bool("all", "Show all images, also intermediate ones").short('a'),
    Flag::bool("digests", "Show digests"),
    Flag::of(
        "filter",
        Kind::List("filter"),
        "Show only images with this property (name=value)",
    )
    .short('f')
    .check(keyvalue::check_filter),
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("no-trunc", "Show long texts as a whole"),
    Flag::bool("quiet", "Show only IDs").short('q'),
    Flag::bool("tree", "Show the platforms of each image"),
];

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    aliases: &["image ls", "image list", "images"],
    flags: &[FLAGS],
    arity: Arity::Between(0, 1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

pub(crate) const IMAGES: Command = LS;

const TITLES: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

const TABLE: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    titles: TITLES,
};

const TABLE_WITH_DIGESTS: Columns = Columns {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    titles: TITLES,
};

const NONE: &str = "<none>";

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let is_tree = matches.on("tree");
    if is_tree {
        refuse_beside_tree(matches)?;
    }
    let quiet = matches.on("quiet");
    let mut format = matches.text("format").to_owned();
    if format.is_empty() && !quiet {
        format.clone_from(&session.config().images_format);
    }
    if quiet && matches!(format.as_str(), "" | "table") {
        "{{.ID}}".clone_into(&mut format);
    }
    let mut filters = keyvalue::filters(matches.list("filter"));
    if let Some(name) = matches.args.first() {
        filters.add("reference", name);
    }
    let request = Request::get(&["images", "json"])
        .query_flag("all", matches.on("all"))
        .query_flag("manifests", is_tree)
        .query_some("filters", filters.to_query());
    let images: Vec<ImageSummary> = session.client().await?.json(&request).await?;
    if is_tree {
        return tree::show(images, matches.on("all"));
    }
    let digests = matches.on("digests") || format.contains(".Digest");
    let options = Options {
        digests,
        truncate: !matches.on("no-trunc"),
    };
    let rows = images.iter().flat_map(|image| rows(image, options));
    let columns = if matches.on("digests") {
        TABLE_WITH_DIGESTS
    } else {
        TABLE
    };
    output::print(&columns.render(&format, rows)?)
}

/// What a tree has no form for, in the words of Docker's client.
fn refuse_beside_tree(matches: &Matches) -> Result<()> {
    let given = [
        ("--quiet", matches.on("quiet")),
        ("--no-trunc", matches.on("no-trunc")),
        ("--show-digest", matches.on("digests")),
        ("--format", !matches.text("format").is_empty()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) => Err(Error::msg(format!(
            "{flag} is not yet supported with --tree"
        ))),
        None => Ok(()),
    }
}

/// How much of each image is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// A row for each digest.
    pub(crate) digests: bool,
    pub(crate) truncate: bool,
}

/// One row for each name of an image.
pub(crate) fn rows(image: &ImageSummary, options: Options) -> Vec<Row> {
    let mut digests: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for reference in image
        .repo_digests
        .iter()
        .filter_map(|text| Reference::parse(text))
    {
        if let Some(digest) = reference
            .digest
            .filter(|_| reference.familiar_name() != NONE)
        {
            digests
                .entry(reference.familiar_name())
                .or_default()
                .push(digest);
        }
    }
    let mut names = Vec::new();
    for reference in image
        .repo_tags
        .iter()
        .filter_map(|text| Reference::parse(text))
    {
        let name = reference.familiar_name();
        let Some(tag) = reference.tag.filter(|_| name != NONE) else {
            continue;
        };
        let known = digests.get(&name).filter(|_| options.digests);
        match known {
            Some(known) => names.extend(known.iter().map(|digest| (name.clone(), tag, *digest))),
            None => names.push((name, tag, NONE)),
        }
    }
    let tagged: Vec<String> = names.iter().map(|(name, ..)| name.clone()).collect();
    for (name, digests) in digests {
        match (tagged.contains(&name), options.digests) {
            (true, _) => {}
            (false, true) => {
                names.extend(digests.iter().map(|digest| (name.clone(), NONE, *digest)))
            }
            (false, false) => names.push((name, NONE, "")),
        }
    }
    if names.is_empty() {
        names.push((NONE.to_owned(), NONE, NONE));
    }
    names
        .into_iter()
        .map(|(name, tag, digest)| row(image, options, &name, tag, digest))
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn row(image: &ImageSummary, options: Options, name: &str, tag: &str, digest: &str) -> Row {
    let known = |bytes: i64, show: &dyn Fn(i64) -> String| match bytes {
        -1 => "N/A".to_owned(),
        bytes => show(bytes),
    };
    let human = |bytes: i64| units::human_size(bytes as f64);
    let unique = if image.shared_size == -1 {
        -1
    } else {
        image.size - image.shared_size
    };
    Row::default()
        .set(
            "ID",
            if options.truncate {
                short_id(&image.id)
            } else {
                &image.id
            },
        )
        .set("Repository", name)
        .set("Tag", tag)
        .set("Digest", digest)
        .set("CreatedSince", time::ago(image.created))
        .set("CreatedAt", time::local(image.created))
        .set("Size", units::human_size_precision(image.size as f64, 3))
        .set(
            "Containers",
            known(image.containers, &|count| count.to_string()),
        )
        .set("VirtualSize", human(image.size))
        .set("SharedSize", known(image.shared_size, &human))
        .set("UniqueSize", known(unique, &human))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tags: &[&str], digests: &[&str], with_digests: bool) -> String {
        let image = ImageSummary {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
            ..ImageSummary::default()
        };
        let rows = rows(
            &image,
            Options {
                digests: with_digests,
                truncate: true,
            },
        );
        TABLE
            .render("{{.Repository}}:{{.Tag}}@{{.Digest}}", rows)
            .unwrap()
            .replace('\n', " ")
    }

    #[test]
    fn an_image_has_a_row_for_each_name() {
        assert_eq!(names(&[], &[], false), "<none>:<none>@<none> ");
        assert_eq!(
            names(&["<none>:<none>"], &["<none>@<none>"], false),
            "<none>:<none>@<none> "
        );
        assert_eq!(
            names(&["x:1", "h:5/y:2"], &["x@sha256:a"], false),
            "x:1@<none> h:5/y:2@<none> "
        );
        assert_eq!(
            names(&["x:1", "x:2"], &["x@sha256:a"], true),
            "x:1@sha256:a x:2@sha256:a "
        );
        assert_eq!(names(&[], &["x@sha256:a"], false), "x:<none>@ ");
        assert_eq!(names(&[], &["x@sha256:a"], true), "x:<none>@sha256:a ");
    }
}
