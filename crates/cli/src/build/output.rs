//! `--output`: what this side makes of an image that the engine keeps.

use crate::container::cp::extract;
use crate::error::{Error, IoContext, Result};
use crate::go::csv;
use crate::image::save::write_archive;
use crate::session::Session;
use api_types::{CreateRequest, CreateResponse};
use client::Request;
use std::path::Path;

/// An output that this side makes of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The files as a tar.
    Tar(String),
    /// The files.
    Directory(String),
}

impl Output {
    /// Reads `type=tar,dest=path`, or a directory alone; `None`: the engine makes it.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let bad = |what: String| Error::msg(format!("invalid --output {text:?}: {what}"));
        if text == "-" {
            return Ok(Some(Self::Tar(String::new())));
        }
        if !text.contains('=') {
            return Ok(Some(Self::Directory(text.to_owned())));
        }
        let fields = csv::record(text).map_err(|error| bad(error.to_string()))?;
        let field = |wanted: &str| {
            let pairs = fields.iter().filter_map(|field| field.split_once('='));
            let mut pairs = pairs.filter(|(name, _)| *name == wanted);
            pairs.next().map(|(_, value)| value)
        };
        let kind = field("type").ok_or_else(|| bad("it needs a type".to_owned()))?;
        if !matches!(kind, "tar" | "local") {
            return Ok(None);
        }
        let known = |field: &&String| field.starts_with("type=") || field.starts_with("dest=");
        if let Some(other) = fields.iter().find(|field| !known(field)) {
            return Err(bad(format!("{other} is not supported yet")));
        }
        match (kind, field("dest")) {
            ("tar", None | Some("-")) => Ok(Some(Self::Tar(String::new()))),
            ("tar", Some(path)) => Ok(Some(Self::Tar(path.to_owned()))),
            (_, Some(path)) => Ok(Some(Self::Directory(path.to_owned()))),
            (_, None) => Err(bad("it needs a dest".to_owned())),
        }
    }

    /// Writes it.
    pub(crate) async fn write(&self, session: &Session, id: &str) -> Result<()> {
        match self {
            Self::Tar(path) => {
                let container = Container::create(session, id).await?;
                let request = Request::get(&["containers", &container, "export"]);
                let written = write_archive(session, path, &request).await;
                Container::remove(session, &container).await?;
                written
            }
            Self::Directory(path) => {
                let container = Container::create(session, id).await?;
                let written = directory(session, &container, Path::new(path)).await;
                Container::remove(session, &container).await?;
                written
            }
        }
    }
}

/// A container that is never started: a way to the files of an image.
struct Container;

impl Container {
    async fn create(session: &Session, id: &str) -> Result<String> {
        let body = CreateRequest {
            image: id.to_owned(),
            cmd: Some(vec!["-".to_owned()].into()),
            ..CreateRequest::default()
        };
        let request = Request::post(&["containers", "create"]).json(&body);
        let made: CreateResponse = session.client().await?.json(&request).await?;
        Ok(made.id)
    }

    async fn remove(session: &Session, id: &str) -> Result<()> {
        let request = Request::delete(&["containers", id]).query_flag("v", true);
        Ok(session.client().await?.call(&request).await?)
    }
}

async fn directory(session: &Session, container: &str, path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).during(|| format!("make {}", path.display()))?;
    let request = Request::get(&["containers", container, "export"]);
    let response = session.client().await?.send(&request).await?;
    let options = extract::Options {
        strip_first: false,
        name: None,
        keep_owners: rustix::process::geteuid().is_root(),
    };
    extract::receive(response.reader(), path, options)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read() {
        for (text, expected) in [
            ("type=tar,dest=a", Output::Tar("a".to_owned())),
            ("-", Output::Tar(String::new())),
            ("out", Output::Directory("out".to_owned())),
            ("type=local,dest=out", Output::Directory("out".to_owned())),
        ] {
            assert_eq!(Output::parse(text).unwrap(), Some(expected), "{text}");
        }
        for text in ["type=oci,dest=a", "type=image", "type=registry,name=x"] {
            assert_eq!(Output::parse(text).unwrap(), None, "{text}");
        }
        for bad in [
            "type=local",
            "type=tar,compression=zstd",
            "dest=x",
            "type=tar,x",
        ] {
            Output::parse(bad).unwrap_err();
        }
    }
}
