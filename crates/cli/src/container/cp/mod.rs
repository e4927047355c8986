//! `hull cp`, with the rules of `cp -a` for what the destination is called.

pub(crate) mod extract;
pub(crate) mod tree;

use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::go::units;
use crate::image::load::Blocking;
use crate::objects;
use crate::output;
use crate::session::Session;
use crate::stdio;
use api_types::PathStat;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Request, Response};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use tree::TarStream;

const FLAGS: &[Flag] = &[
    Flag::bool("archive", "Keep owners").short('a'),
    Flag::bool("follow-link", "Follow a symbolic link in SRC_PATH").short('L'),
    Flag::bool("quiet", "Do not say what was copied").short('q'),
];

pub(crate) const CP: Command = Command {
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files between a container and this machine; - is a tar archive on standard input or output",
    aliases: &["container cp", "cp"],
    flags: &[FLAGS],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// One side of the copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Local(&'a str),
    Container { name: &'a str, path: &'a str },
}

impl<'a> Side<'a> {
    /// A container's name ends at the first colon. What starts with a slash or a dot is a path here.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) => Self::Container { name, path },
            _ => Self::Local(text),
        }
    }
}

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let (source, target) = (&matches.args[0], &matches.args[1]);
    if source.is_empty() || target.is_empty() {
        return Err(Error::msg("neither source nor destination can be empty"));
    }
    let copied = match (Side::parse(source), Side::parse(target)) {
        (Side::Container { .. }, Side::Container { .. }) => {
            return Err(Error::msg("copying between containers is not supported"));
        }
        (Side::Local(_), Side::Local(_)) => {
            return Err(Error::msg("must specify at least one container source"));
        }
        (Side::Container { name, path }, Side::Local(target)) => {
            check(name, path)?;
            from_container(session.client().await?, name, path, target, matches).await?
        }
        (Side::Local(source), Side::Container { name, path }) => {
            check(name, path)?;
            to_container(session.client().await?, name, path, source, matches).await?
        }
    };
    let quiet = matches.on("quiet") || !std::io::stderr().is_terminal();
    if let (Some(bytes), false) = (copied, quiet) {
        #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
        let size = units::human_size(bytes as f64);
        output::complain(&format!("Successfully copied {size} to {target}"));
    }
    Ok(())
}

fn check(name: &str, path: &str) -> Result<()> {
    objects::check_name(name)?;
    if path.is_empty() {
        Err(Error::msg(format!("the path in {name} cannot be empty")))
    } else {
        Ok(())
    }
}

/// The last component, where it is a name: not for `/`, `.`, and `a/.`, which mean a directory's content.
fn base_name(path: &str) -> Option<&str> {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("" | "." | "..") | None => None,
        name => name,
    }
}

/// The directory that a path is in; the path must have a base name.
fn directory(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        None => ".",
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
    }
}

/// Whether a path can only be a directory.
fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.")
}

/// Where a copy goes: into a directory, under a name; without a name the source's content.
#[derive(Debug, PartialEq, Eq)]
struct Placement {
    directory: String,
    name: Option<String>,
}

/// Decides by `cp`'s rules. `target` has its links resolved; `exists` tells whether it is there and a directory.
fn place(
    source: &str,
    source_is_dir: bool,
    target: &str,
    exists: Option<bool>,
) -> Result<Placement> {
    let named = |directory: &str, name: Option<&str>| {
        Ok(Placement {
            directory: directory.to_owned(),
            name: name.map(str::to_owned),
        })
    };
    match exists {
        Some(true) => named(target, base_name(source)),
        Some(false) if source_is_dir => Err(Error::msg(format!(
            "cannot copy a directory over the file {target}"
        ))),
        None if !source_is_dir && asserts_directory(target) => {
            Err(Error::msg(format!("no such directory: {target}")))
        }
        _ => {
            let target = target.strip_suffix("/.").unwrap_or(target);
            named(directory(target), base_name(target))
        }
    }
}

async fn from_container(
    client: &Client,
    container: &str,
    source: &str,
    target: &str,
    matches: &Matches,
) -> Result<Option<u64>> {
    let mut path = source.to_owned();
    if matches.on("follow-link")
        && let Some(link) = link_target(source, &stat(client, container, source).await?)
    {
        path = link;
    }
    let request = Request::get(&["containers", container, "archive"]).query("path", &path);
    let response = client.send(&request).await?;
    if target == "-" {
        stdio::copy_raw(response.reader()).await?;
        return Ok(None);
    }
    let stat = path_stat(&response)?;
    let target = local_target(target)?;
    let placement = place(source, stat.is_dir(), &target.path, target.exists)?;
    // A tar archive of a directory's content has no directory of its own around it.
    let strip_first = base_name(&path).is_some();
    let options = extract::Options {
        strip_first,
        name: placement.name,
        keep_owners: matches.on("archive"),
    };
    let bytes =
        extract::receive(response.reader(), Path::new(&placement.directory), options).await?;
    Ok(Some(bytes))
}

/// The local destination with its links resolved.
struct LocalTarget {
    path: String,
    /// Whether it is there, and a directory.
    exists: Option<bool>,
}

fn local_target(target: &str) -> Result<LocalTarget> {
    let call = || format!("stat {target}");
    let text = |path: PathBuf| {
        path.into_os_string()
            .into_string()
            .map_err(|path| Error::msg(format!("{}: not UTF-8", path.display())))
    };
    match std::fs::canonicalize(target) {
        Ok(path) => {
            let is_dir = path.is_dir();
            if !is_dir && asserts_directory(target) {
                return Err(Error::msg(format!("{target}: not a directory")));
            }
            Ok(LocalTarget {
                path: text(path)?,
                exists: Some(is_dir),
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match std::fs::read_link(target) {
                // A link that points nowhere yet: the file is made where it points to.
                Ok(link) => {
                    let parent = Path::new(target).parent().unwrap_or(Path::new("."));
                    Ok(LocalTarget {
                        path: text(parent.join(link))?,
                        exists: None,
                    })
                }
                Err(_) => Ok(LocalTarget {
                    path: target.to_owned(),
                    exists: None,
                }),
            }
        }
        Err(error) => Err(error).during(call),
    }
}

async fn to_container(
    client: &Client,
    container: &str,
    target: &str,
    source: &str,
    matches: &Matches,
) -> Result<Option<u64>> {
    let (target, exists) = container_target(client, container, target).await?;
    let put = |path: &str| {
        Request::put(&["containers", container, "archive"])
            .query("path", path)
            .query("noOverwriteDirNonDir", "true")
            .query_some("copyUIDGID", matches.on("archive").then_some("true"))
    };
    const TYPE: &str = "application/x-tar";
    if source == "-" {
        if exists != Some(true) {
            return Err(Error::msg(format!(
                "destination \"{container}:{target}\" must be a directory"
            )));
        }
        let response = client
            .upload(&put(&target), TYPE, Blocking(std::io::stdin()))
            .await?;
        response.bytes().await?;
        return Ok(None);
    }
    let follow = matches.on("follow-link") || asserts_directory(source);
    let metadata = if follow {
        std::fs::metadata(source)
    } else {
        std::fs::symlink_metadata(source)
    };
    let is_dir = metadata.during(|| format!("stat {source}"))?.is_dir();
    let placement = place(source, is_dir, &target, exists)?;
    let root = match follow {
        true => std::fs::canonicalize(source).during(|| format!("resolve {source}"))?,
        false => PathBuf::from(source),
    };
    let tar = TarStream::of_path(root, placement.name)?;
    let (failure, count) = (tar.failure(), tar.count());
    let result = client.upload(&put(&placement.directory), TYPE, tar).await;
    failure.or(result)?.bytes().await?;
    Ok(Some(count.get()))
}

/// A destination in the container with its link resolved, and whether it is there and a directory.
async fn container_target(
    client: &Client,
    container: &str,
    target: &str,
) -> Result<(String, Option<bool>)> {
    let mut path = target.to_owned();
    let mut found = stat(client, container, &path).await;
    if let Ok(stat) = &found
        && let Some(link) = link_target(&path, stat)
    {
        path = link;
        found = self::stat(client, container, &path).await;
    }
    match found {
        Ok(stat) => Ok((path, Some(stat.is_dir()))),
        // Whether it is the path or the container that is not there, the copy will tell.
        Err(Error::Client(error)) if error.is_not_found() => Ok((path, None)),
        Err(error) => Err(error),
    }
}

/// Where a symlink in the container points to.
fn link_target(path: &str, stat: &PathStat) -> Option<String> {
    match stat.link_target.as_str() {
        _ if !stat.is_symlink() => None,
        "" => None,
        link if link.starts_with('/') => Some(link.to_owned()),
        link => Some(format!("{}/{link}", directory(path))),
    }
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<PathStat> {
    let request = Request::head(&["containers", container, "archive"]).query("path", path);
    match client.send(&request).await {
        Ok(response) => path_stat(&response),
        // An answer to HEAD has no words.
        Err(client::Error::Status { status, .. }) if status == 404 => {
            Err(Error::Client(client::Error::Status {
                status,
                message: format!("Could not find the file {path} in container {container}"),
            }))
        }
        Err(error) => Err(error.into()),
    }
}

fn path_stat(response: &Response) -> Result<PathStat> {
    let header = response
        .header(api_types::HEADER_PATH_STAT)
        .unwrap_or_default();
    let stat = STANDARD
        .decode(header)
        .ok()
        .and_then(|json| api_types::from_slice(&json).ok());
    stat.ok_or_else(|| {
        Error::msg(format!(
            "cannot decode the engine's {}",
            api_types::HEADER_PATH_STAT
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        assert_eq!(
            Side::parse("c:/a:b"),
            Side::Container {
                name: "c",
                path: "/a:b"
            }
        );
        for local in ["/a:b", "./a:b", "../a:b", "a", "-", "."] {
            assert_eq!(Side::parse(local), Side::Local(local));
        }
    }

    #[test]
    fn placements_are_those_of_cp() {
        for (source, is_dir, target, exists, expected) in [
            ("/s/f", false, "/d", Some(true), Some(("/d", Some("f")))),
            ("/s/f", false, "/d/g", Some(false), Some(("/d", Some("g")))),
            ("/s/f", false, "/d/g", None, Some(("/d", Some("g")))),
            ("/s/f", false, "/d/g/", None, None),
            ("/s/f", false, "g", None, Some((".", Some("g")))),
            ("/s/e", true, "/d", Some(true), Some(("/d", Some("e")))),
            ("/s/e/", true, "/d", Some(true), Some(("/d", Some("e")))),
            ("/s/e/.", true, "/d", Some(true), Some(("/d", None))),
            ("/", true, "/d", Some(true), Some(("/d", None))),
            ("/s/e", true, "/d/f", Some(false), None),
            ("/s/e", true, "/d/f", None, Some(("/d", Some("f")))),
            ("/s/e/.", true, "/d/f", None, Some(("/d", Some("f")))),
            ("/s/e", true, "/f/", None, Some(("/", Some("f")))),
            ("/s/e", true, "/d/f/.", None, Some(("/d", Some("f")))),
        ] {
            let placement = place(source, is_dir, target, exists).ok();
            let expected = expected.map(|(directory, name)| Placement {
                directory: directory.to_owned(),
                name: name.map(str::to_owned),
            });
            assert_eq!(placement, expected, "{source} -> {target} ({exists:?})");
        }
    }
}
