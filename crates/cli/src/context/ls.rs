//! `hull context ls`.

use super::store::{DEFAULT, Meta};
use super::{DEFAULT_DESCRIPTION, current, describe, open, overridden};
use crate::app::{Arity, Command};
use crate::error::{Result, chain};
use crate::flags::{Flag, Matches};
use crate::format::{Columns, ellipsis};
use crate::go::template::Row;
use crate::output;
use crate::session::Session;

/// Characters of an error that a table shows.
const ERROR_CHARS_MAX: usize = 45;

const FLAGS: &[Flag] = &[
    Flag::text(
        "format",
        "How to show them: table, 'table TEMPLATE', json, or a Go template",
    ),
    Flag::bool("quiet", "Show only names").short('q'),
];

pub(crate) const LS: Command = Command {
    usage: "[OPTIONS]",
    about: "List contexts",
    aliases: &["context ls", "context list"],
    flags: &[FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(async move { run(session, matches) }),
};

const COLUMNS: Columns = Columns {
    table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    titles: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
    ],
};

fn run(session: &Session, matches: &Matches) -> Result<()> {
    let current = current(session)?;
    let mut rows: Vec<(String, Row)> = Vec::new();
    for meta in open(session).list()? {
        let row = row(&meta, meta.description(), &current);
        rows.push((meta.name, row));
    }
    rows.push(match describe(session, DEFAULT) {
        Ok(meta) => (
            DEFAULT.to_owned(),
            row(&meta, DEFAULT_DESCRIPTION, &current),
        ),
        Err(error) => (
            DEFAULT.to_owned(),
            broken(DEFAULT, &chain(&error), &current),
        ),
    });
    if !rows.iter().any(|(name, _)| *name == current)
        && let Err(error) = describe(session, &current)
    {
        let row = broken(&current, &chain(&error), &current);
        rows.push((current, row));
    }
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let format = match (matches.text("format"), matches.on("quiet")) {
        ("" | "table", true) => "{{.Name}}",
        (format, _) => format,
    };
    let rows = rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    output::print(&COLUMNS.render(format, rows)?)?;
    if let Some(warning) = overridden("a context") {
        output::complain(&warning);
    }
    Ok(())
}

fn row(meta: &Meta, description: &str, current: &str) -> Row {
    match meta.endpoint() {
        Err(error) => broken(&meta.name, &chain(&error), current),
        Ok(endpoint) => broken(&meta.name, "", current)
            .set("Description", description)
            .set("DockerEndpoint", endpoint.host),
    }
}

fn broken(name: &str, error: &str, current: &str) -> Row {
    Row::default()
        .set("Name", name)
        .set("Current", name == current)
        .set("Description", "")
        .set("DockerEndpoint", "")
        .set(
            "Error",
            ellipsis(&error.replace('\n', " "), ERROR_CHARS_MAX),
        )
}
