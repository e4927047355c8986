//! `hull create`, and the part of `run` that is the same.

use crate::app::{Arity, Command};
use crate::container::options::{CONTAINER_FLAGS, CREATE_FLAGS};
use crate::container::request;
use crate::error::{EXIT_NOT_RUN, Error, IoContext, Result};
use crate::flags::Matches;
use crate::output;
use crate::session::Session;
use crate::stdio;
use api_types::{CreateRequest, CreateResponse};
use client::{Client, Request};
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
    let id = send(client, matches, request).await?;
    output::line(&id)
}

/// The request, from flags alone.
pub(crate) fn prepare(
    session: &Session,
    client: &Client,
    matches: &Matches,
) -> Result<CreateRequest> {
    let pull = matches.text("pull");
    match pull {
        "" | "missing" | "never" => {}
        "always" => return Err(Error::msg("--pull=always is not supported yet")),
        _ => {
            return Err(Error::msg(format!(
                "invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    }
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
    let request = Request::post(&["containers", "create"])
        .query_some("name", matches.get("name").filter(|name| !name.is_empty()))
        .query_some("platform", platform(&wished_platform(matches))?)
        .json(&body);
    let response: CreateResponse = match client.json(&request).await {
        Err(error) if error.is_not_found() && matches.text("pull") != "never" => {
            if !matches.on("quiet") {
                output::complain(&format!(
                    "Unable to find image '{}' locally",
                    with_tag(&body.image)
                ));
            }
            return Err(error.into());
        }
        result => result?,
    };
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

/// An image's name as Docker shows it: with the tag it means.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    match image.starts_with('/') || last.contains([':', '@']) {
        true => image.to_owned(),
        false => format!("{image}:latest"),
    }
}

/// What `--platform` says, or the environment.
fn wished_platform(matches: &Matches) -> String {
    match matches.get("platform") {
        Some(platform) => platform.to_owned(),
        None => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
    }
}

/// `os[/arch[/variant]]` or `arch`, in the names images use.
fn platform(text: &str) -> Result<Option<String>> {
    let architecture = |name: &str| match name {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "i686" => "386".to_owned(),
        "armhf" => "arm/v7".to_owned(),
        "armel" => "arm/v6".to_owned(),
        name => name.to_owned(),
    };
    let lower = text.to_lowercase();
    let plain = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let parts: Vec<&str> = lower.split('/').collect();
    match parts[..] {
        [""] => Ok(None),
        [os @ ("linux" | "windows" | "darwin" | "freebsd")] => Ok(Some(os.to_owned())),
        [arch] if plain(&arch) => Ok(Some(format!("linux/{}", architecture(arch)))),
        [_, _] | [_, _, _] if parts.iter().all(plain) => {
            let variant = parts
                .get(2)
                .map(|variant| format!("/{variant}"))
                .unwrap_or_default();
            Ok(Some(format!(
                "{}/{}{variant}",
                parts[0],
                architecture(parts[1])
            )))
        }
        _ => Err(Error::msg(format!(
            "error parsing specified platform: {text:?}"
        ))),
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
    fn platforms_are_normalised() {
        for (text, expected) in [
            ("", None),
            ("linux", Some("linux")),
            ("arm64", Some("linux/arm64")),
            ("Linux/x86_64", Some("linux/amd64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
        ] {
            assert_eq!(platform(text).unwrap().as_deref(), expected, "{text}");
        }
        for text in ["/", "linux/", "a/b/c/d", "li nux/amd64"] {
            assert!(platform(text).is_err(), "{text}");
        }
    }

    #[test]
    fn missing_images_are_named_with_their_tag() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("host:5000/x"), "host:5000/x:latest");
        assert_eq!(with_tag("x@sha256:0"), "x@sha256:0");
        assert_eq!(with_tag("/"), "/");
    }

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
