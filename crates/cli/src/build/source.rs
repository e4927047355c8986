//! What a build is made of: a directory, an archive from standard input, an address; and the Dockerfile.

use super::context::{Ignored, Parts, ignore};
use super::elsewhere::Elsewhere;
use crate::error::{Error, IoContext, Result};
use crate::flags::Matches;
use crate::output;
use patterns::Ignore;
use std::io::{Cursor, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// Bytes of a Dockerfile.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes by which an archive is told from a Dockerfile.
const MAGIC_BYTES: u64 = 512;
/// Before the name of an image that is a named context.
pub(crate) const IMAGE: &str = "docker-image://";

/// What a build is made of.
pub(crate) enum Source {
    /// An archive from standard input, which has begun with these bytes.
    Archive(Vec<u8>, std::io::Stdin),
    /// Something that the engine fetches.
    Address(String),
    Parts(Parts),
}

pub(crate) fn source(matches: &Matches) -> Result<Source> {
    let file = matches.get("file").filter(|file| !file.is_empty());
    let named = named_directories(matches.list("build-context"))?;
    let is_address = |text: &str| {
        text.contains("://")
            || text.starts_with("git@")
            || (text.starts_with("github.com/") && !Path::new(text).exists())
    };
    let parts = match (matches.args[0].as_str(), file) {
        ("-", Some("-")) => {
            return Err(Error::msg(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        ("-", _) => match standard_input()? {
            (start, input) if is_archive(&start) => {
                if !named.is_empty() {
                    return Err(Error::msg(
                        "--build-context together with a context from standard input is not supported yet",
                    ));
                }
                return Ok(Source::Archive(start, input));
            }
            (start, input) => Parts {
                dockerfile: read_dockerfile(Cursor::new(start).chain(input))?,
                context: None,
                ignored: Ignored::default(),
                named,
                caches: Vec::new(),
            },
        },
        (address, _) if is_address(address) => return Ok(Source::Address(address.to_owned())),
        (directory, Some("-")) => {
            let directory = context_directory(directory)?;
            Parts {
                ignored: ignore(&directory, None)?,
                dockerfile: read_dockerfile(std::io::stdin())?,
                context: Some(directory),
                named,
                caches: Vec::new(),
            }
        }
        (directory, file) => {
            let directory = context_directory(directory)?;
            let path = file.map_or_else(|| directory.join("Dockerfile"), PathBuf::from);
            let opened =
                std::fs::File::open(&path).during(|| format!("open {}", path.display()))?;
            Parts {
                ignored: ignore(&directory, Some(&path))?,
                dockerfile: read_dockerfile(opened)?,
                context: Some(directory),
                named,
                caches: Vec::new(),
            }
        }
    };
    Ok(Source::Parts(parts))
}

/// Adds the files of local caches to what is sent.
pub(crate) fn with_caches(mut source: Source, elsewhere: &mut Elsewhere) -> Result<Source> {
    let caches = std::mem::take(&mut elsewhere.caches);
    match &mut source {
        Source::Parts(parts) => parts.caches = caches,
        _ if caches.is_empty() => {}
        _ => {
            return Err(Error::msg(
                "--cache-from type=local together with a context that is no directory is not supported yet",
            ));
        }
    }
    Ok(source)
}

fn named_directories(contexts: &[String]) -> Result<Vec<(String, PathBuf, Ignore)>> {
    let mut named = Vec::new();
    for text in contexts {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::msg(format!(
                "invalid --build-context {text:?}: it is name=path or name=docker-image://image"
            )));
        };
        if value.starts_with(IMAGE) {
            continue;
        }
        if value.contains("://") || value.starts_with("target:") || value.starts_with("git@") {
            return Err(Error::msg(format!(
                "--build-context {text}: only directories and docker-image:// are supported yet"
            )));
        }
        if name.contains('/') || name.starts_with('.') {
            return Err(Error::msg(format!(
                "--build-context {text}: {name:?} is no name of a context"
            )));
        }
        let path = PathBuf::from(value);
        let ignored = ignore(&path, None)?;
        named.push((name.to_owned(), path, ignored.rules));
    }
    Ok(named)
}

/// What standard input begins with, and the rest of it.
fn standard_input() -> Result<(Vec<u8>, std::io::Stdin)> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        output::complain("reading a Dockerfile or a tar archive from standard input");
    }
    let mut start = Vec::new();
    let read = input.by_ref().take(MAGIC_BYTES).read_to_end(&mut start);
    read.during(|| "read standard input")?;
    Ok((start, input))
}

fn context_directory(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    match path.is_dir() {
        true => Ok(path.to_owned()),
        false => Err(Error::msg(format!(
            "unable to prepare context: path {:?} not found, or no directory",
            path.display().to_string()
        ))),
    }
}

fn read_dockerfile(reader: impl std::io::Read) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = reader.take(DOCKERFILE_BYTES_MAX + 1).read_to_end(&mut text);
    read.during(|| "read the Dockerfile")?;
    match text.len() as u64 <= DOCKERFILE_BYTES_MAX {
        true => Ok(text),
        false => Err(Error::msg(format!(
            "the Dockerfile has more than {DOCKERFILE_BYTES_MAX} bytes"
        ))),
    }
}

/// Whether bytes begin a tar archive, or something compressed.
fn is_archive(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
        || start.starts_with(&[0x1f, 0x8b])
        || start.starts_with(b"BZh")
        || start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0])
        || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        assert!(!is_archive(b"FROM x"));
        assert!(is_archive(&[0x1f, 0x8b, 8]));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
    }
}
