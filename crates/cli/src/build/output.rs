//! `--output`: what becomes of the image besides staying in the engine.

use crate::container::cp::extract;
use crate::error::{Error, IoContext, Result};
use crate::image::save::write_archive;
use crate::session::Session;
use api_types::{CreateRequest, CreateResponse};
use client::Request;
use std::path::Path;

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The engine keeps it.
    Engine,
    /// An archive of the image, as `save` writes it, which is an OCI layout as well.
    Archive(String),
    /// The files as a tar.
    Tar(String),
    /// The files.
    Directory(String),
}

impl Output {
    /// Reads `type=tar,dest=path`, or a directory alone.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| Error::msg(format!("invalid --output {text:?}: {what}"));
        if text == "-" {
            return Ok(Self::Tar(String::new()));
        }
        if !text.contains('=') {
            return Ok(Self::Directory(text.to_owned()));
        }
        let (mut kind, mut dest) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("dest", value)) => dest = Some(value),
                Some((other, _)) => return Err(bad(format!("{other} is not supported yet"))),
                None => return Err(bad(format!("{field:?} is not key=value"))),
            }
        }
        let file = || match dest {
            None | Some("-") => String::new(),
            Some(path) => path.to_owned(),
        };
        match (kind, dest) {
            (Some("docker" | "image"), None) => Ok(Self::Engine),
            (Some("docker" | "oci"), _) => Ok(Self::Archive(file())),
            (Some("tar"), _) => Ok(Self::Tar(file())),
            (Some("local"), Some(path)) => Ok(Self::Directory(path.to_owned())),
            (Some("local"), None) => Err(bad("it needs a dest".to_owned())),
            (Some(other), _) => Err(bad(format!("type {other} is not supported yet"))),
            (None, _) => Err(bad("it needs a type".to_owned())),
        }
    }

    /// Writes it.
    pub(crate) async fn write(&self, session: &Session, id: &str, tags: &[String]) -> Result<()> {
        match self {
            Self::Engine => Ok(()),
            Self::Archive(path) => {
                let mut request = Request::get(&["images", "get"]);
                match tags {
                    [] => request = request.query("names", id),
                    tags => {
                        for tag in tags {
                            request = request.query("names", tag);
                        }
                    }
                }
                write_archive(session, path, &request).await
            }
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
        let archive = |path: &str| Output::Archive(path.to_owned());
        for (text, expected) in [
            ("type=docker", Output::Engine),
            ("type=docker,dest=a.tar", archive("a.tar")),
            ("type=oci,dest=-", archive("")),
            ("type=tar,dest=a", Output::Tar("a".to_owned())),
            ("-", Output::Tar(String::new())),
            ("out", Output::Directory("out".to_owned())),
            ("type=local,dest=out", Output::Directory("out".to_owned())),
        ] {
            assert_eq!(Output::parse(text).unwrap(), expected, "{text}");
        }
        for bad in [
            "type=local",
            "type=registry",
            "type=tar,compression=zstd",
            "dest=x",
            "type=tar,x",
        ] {
            Output::parse(bad).unwrap_err();
        }
    }
}
