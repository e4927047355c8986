//! `hull create`, and the part of `run` that is the same.

use crate::app::{Arity, Command};
use crate::container::options::{CONTAINER_FLAGS, CREATE_FLAGS};
use crate::container::request;
use crate::error::{EXIT_NOT_RUN, Error, IoContext, Result};
use crate::flags::Matches;
use crate::output;
use crate::parse::platform;
use crate::registry::pull;
use crate::session::Session;
use crate::stdio;
use api_types::{CreateRequest, CreateResponse};
use client::{Client, Request};
use oci::Reference;
use std::fs::File;
use std::io::Write;

pub(crate) const CREATE: Command = Command {
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a container from an image, or from a directory named with a leading / or .",
    aliases: &["container create", "create"],
    flags: &[CONTAINER_FLAGS, CREATE_FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: false,
    run: |session, matches| Box::pin(create(session, matches)),
};

async fn create(session: &Session, matches: &Matches) -> Result<()> {
    let client = session.client().await?;
    let request = prepare(session, client, matches)
        .map_err(|error| not_run(session, "create", EXIT_NOT_RUN, &error))?;
    let id = send(session, client, matches, request).await?;
    output::line(&id)
}

/// The request, from flags alone.
pub(crate) fn prepare(
    session: &Session,
    client: &Client,
    matches: &Matches,
) -> Result<CreateRequest> {
    Pull::of(matches)?;
    for flag in [
        "cpu-count",
        "cpu-percent",
        "io-maxbandwidth",
        "io-maxiops",
        "isolation",
    ] {
        let default = flag == "isolation" && matches!(matches.text(flag), "" | "default");
        if matches.given(flag) && !default {
            return Err(Error::msg(format!("--{flag} is only supported on Windows")));
        }
    }
    if !matches.on_unless("disable-content-trust") {
        return Err(Error::msg(
            "--disable-content-trust=false is not supported yet",
        ));
    }
    request::build(session, client, matches)
}

/// Makes the container and returns its id.
pub(crate) async fn send(
    session: &Session,
    client: &Client,
    matches: &Matches,
    mut body: CreateRequest,
) -> Result<String> {
    let mut id_file = IdFile::create(matches.text("cidfile"))?;
    request::adapt(client, &mut body).await?;
    if matches.on("use-api-socket") {
        request::mount_api_socket(client, &mut body)?;
    }
    let host = body.host_config.get_or_insert_default();
    host.console_size = stdio::size();
    let loopback = request::loopback_dns(host).map(str::to_owned);
    let platform = platform::normal(&platform::wished(matches))?;
    let image = body.image.clone();
    let request = Request::post(&["containers", "create"])
        .query_some("name", matches.get("name").filter(|name| !name.is_empty()))
        .query_some("platform", platform)
        .json(&body);
    let response = pulled_for(session, client, matches, &image, &request).await?;
    for warning in &response.warnings {
        output::complain(&format!("WARNING: {warning}"));
    }
    if let Some(address) = loopback {
        output::complain(&format!(
            "WARNING: Localhost DNS ({address}) may fail in containers."
        ));
    }
    id_file.write(&response.id)?;
    Ok(response.id)
}

/// When an image is pulled before a container is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pull {
    Always,
    Missing,
    Never,
}

impl Pull {
    fn of(matches: &Matches) -> Result<Self> {
        match matches.text("pull") {
            "always" => Ok(Self::Always),
            "" | "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            other => Err(Error::msg(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }
}

/// Makes the container, with the image pulled before as `--pull` says.
async fn pulled_for(
    session: &Session,
    client: &Client,
    matches: &Matches,
    image: &str,
    request: &Request,
) -> Result<CreateResponse> {
    let quiet = matches.on("quiet");
    let platform = Some(platform::wished(matches)).filter(|platform| !platform.is_empty());
    let pull = || pull::for_container(session, client, image, platform, quiet);
    // A directory, or an image's ID, is in no registry.
    let named: Option<Reference> = image.parse().ok();
    match (Pull::of(matches)?, named) {
        (Pull::Always, _) => pull().await?,
        (Pull::Missing, Some(named)) => match client.json(request).await {
            Err(error) if error.is_not_found() => {
                if !quiet {
                    let named = named.to_target().familiar();
                    output::complain(&format!("Unable to find image '{named}' locally"));
                }
                pull().await?;
            }
            result => return Ok(result?),
        },
        (Pull::Missing | Pull::Never, _) => {}
    }
    Ok(client.json(request).await?)
}

/// An error before the container ran, with the hint that Docker gives.
pub(crate) fn not_run(session: &Session, command: &'static str, code: u8, error: &Error) -> Error {
    let program = session.program.clone();
    Error::NotRun {
        program,
        command,
        message: crate::error::chain(error),
        code,
    }
}

/// The file of `--cidfile`. It is made before the container, so that two containers never share one, and removed again when
/// there is no container.
struct IdFile<'a> {
    path: &'a str,
    file: Option<File>,
}

impl<'a> IdFile<'a> {
    fn create(path: &'a str) -> Result<Self> {
        if path.is_empty() {
            return Ok(Self { path, file: None });
        }
        match File::create_new(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::msg(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )))
            }
            result => Ok(Self {
                path,
                file: Some(result.during(|| format!("create {path}"))?),
            }),
        }
    }

    fn write(&mut self, id: &str) -> Result<()> {
        match self.file.take() {
            Some(mut file) => file
                .write_all(id.as_bytes())
                .during(|| format!("write {}", self.path)),
            None => Ok(()),
        }
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // The error that brought us here is the one to tell.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_file_without_a_container_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cid");
        let path = path.to_str().unwrap();
        drop(IdFile::create(path).unwrap());
        assert!(!std::path::Path::new(path).exists());
        let mut file = IdFile::create(path).unwrap();
        file.write("abc").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "abc");
        assert!(IdFile::create(path).is_err());
    }
}
