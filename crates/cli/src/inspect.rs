//! `hull inspect`, and `inspect` of every kind of object.

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::go::template::Template;
use crate::json;
use crate::objects;
use crate::output;
use crate::parse::platform;
use crate::session::Session;
use client::{Client, Request};

const FORMAT: Flag = Flag::text("format", "How to show them: json, or a Go template").short('f');
const SIZE: Flag = Flag::bool("size", "Show sizes of containers").short('s');

const INSPECT_FLAGS: &[Flag] = &[
    FORMAT,
    SIZE,
    Flag::text(
        "type",
        "Only objects of this type: container, image, network, volume",
    ),
];
const CONTAINER_FLAGS: &[Flag] = &[FORMAT, SIZE];
const IMAGE_FLAGS: &[Flag] = &[
    FORMAT,
    Flag::text(
        "platform",
        "Only if the image is for this platform (os[/arch[/variant]])",
    ),
];
const NETWORK_FLAGS: &[Flag] = &[
    FORMAT,
    Flag::bool("verbose", "Show details for diagnosis").short('v'),
];
const VOLUME_FLAGS: &[Flag] = &[FORMAT];

pub(crate) const INSPECT: Command = Command {
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show everything about one or more objects of any kind",
    aliases: &[],
    flags: &[INSPECT_FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(any(session, matches)),
};

pub(crate) const CONTAINER_INSPECT: Command = Command {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show everything about one or more containers",
    flags: &[CONTAINER_FLAGS],
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Container])),
    ..INSPECT
};

pub(crate) const IMAGE_INSPECT: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show everything about one or more images",
    flags: &[IMAGE_FLAGS],
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Image])),
    ..INSPECT
};

pub(crate) const NETWORK_INSPECT: Command = Command {
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Show everything about one or more networks",
    flags: &[NETWORK_FLAGS],
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Network])),
    ..INSPECT
};

pub(crate) const VOLUME_INSPECT: Command = Command {
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show everything about one or more volumes",
    flags: &[VOLUME_FLAGS],
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Volume])),
    ..INSPECT
};

/// A kind of object, in the order in which a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn request(self, name: &str, matches: &Matches) -> Result<Request> {
        Ok(match self {
            Self::Container => {
                Request::get(&["containers", name, "json"]).query_flag("size", matches.on("size"))
            }
            Self::Image => Request::get(&["images", name, "json"])
                .query_some("platform", platform::document(matches.text("platform"))?),
            Self::Network if matches.on("verbose") => {
                Request::get(&["networks", name]).query("verbose", "true")
            }
            Self::Network => Request::get(&["networks", name]),
            Self::Volume => Request::get(&["volumes", name]),
        })
    }
}

async fn any(session: &Session, matches: &Matches) -> Result<()> {
    let kinds: &[Kind] = match matches.text("type") {
        "" => &[Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        "container" => &[Kind::Container],
        "image" => &[Kind::Image],
        "network" => &[Kind::Network],
        "volume" => &[Kind::Volume],
        kind @ ("config" | "node" | "plugin" | "secret" | "service" | "task") => {
            return Err(Error::msg(format!(
                "objects of type {kind:?} are not supported yet"
            )));
        }
        kind => return Err(Error::msg(format!("unknown type: {kind:?}"))),
    };
    inspect(session, matches, kinds).await
}

async fn inspect(session: &Session, matches: &Matches, kinds: &[Kind]) -> Result<()> {
    let format = Format::parse(matches.text("format"))?;
    let client = session.client().await?;
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for name in &matches.args {
        match objects::named(name, find(client, name, matches, kinds)).await {
            Ok(document) => documents.push(document),
            Err(error) => errors.push(error),
        }
    }
    format.print(&documents, errors)
}

/// How documents are shown.
pub(crate) enum Format<'a> {
    Json(&'a str),
    Template(Box<Template>),
}

impl<'a> Format<'a> {
    /// Reads the value of `--format`.
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        match text {
            "" | "json" | "{{json .}}" => Ok(Self::Json(text)),
            text => Template::parse(text)
                .map(|template| Self::Template(Box::new(template)))
                .map_err(Error::InspectTemplate),
        }
    }

    /// Prints what was found, then the errors about the rest, of which one is enough to fail.
    pub(crate) fn print(&self, documents: &[String], mut errors: Vec<Error>) -> Result<()> {
        let text = match self {
            Self::Json("{{json .}}") => documents
                .iter()
                .map(|document| json::compact(document) + "\n")
                .collect(),
            Self::Json("json") => json::compact(&format!("[{}]", documents.join(","))) + "\n",
            Self::Json(_) => json::indent(&format!("[{}]", documents.join(",")), "    ") + "\n",
            Self::Template(template) => render(template, documents, &mut errors)?,
        };
        output::print(&text)?;
        for error in &errors {
            output::complain(&crate::error::chain(error));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Error::Exit(1)),
        }
    }
}

/// The first object of this name, as the engine describes it.
async fn find(client: &Client, name: &str, matches: &Matches, kinds: &[Kind]) -> Result<String> {
    for kind in kinds {
        match client.send(&kind.request(name, matches)?).await {
            Ok(response) => {
                let bytes = response.bytes().await?;
                return String::from_utf8(bytes.into())
                    .map_err(|_| Error::msg(format!("{name}: the engine's answer is not UTF-8")));
            }
            Err(error) if error.is_not_found() && kinds.len() > 1 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::msg(format!("Error: No such object: {name}")))
}

/// One line for each object. Where there is none, one empty line, as in Docker.
fn render(template: &Template, documents: &[String], errors: &mut Vec<Error>) -> Result<String> {
    let mut text = String::new();
    for document in documents {
        let json: serde_json::Value = serde_json::from_str(document)
            .map_err(|error| Error::msg(format!("cannot decode the engine's answer: {error}")))?;
        match template.render_struct(&json) {
            Ok(line) => text.push_str(&(line + "\n")),
            Err(error) => errors.push(Error::Template(error)),
        }
    }
    if text.is_empty() {
        text.push('\n');
    }
    Ok(text)
}
