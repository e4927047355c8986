//! What a build is made of: a directory, an archive from standard input, an address; and the Dockerfile.

use super::context::{Parts, ignore};
use super::named::Named;
use crate::error::{Error, IoContext, Result};
use crate::flags::Matches;
use crate::output;
use std::fs::File;
use std::io::{Cursor, IsTerminal as _, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a Dockerfile.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes by which an archive is told from a Dockerfile.
const MAGIC_BYTES: u64 = 512;

/// What a build is made of.
pub(crate) enum Source {
    /// An archive from standard input, which has begun with these bytes.
    Archive(Vec<u8>, std::io::Stdin),
    /// Something that the engine fetches.
    Address(String),
    Parts(Box<Parts>),
}

/// What a build is made of, with the named contexts and the files of caches.
pub(crate) fn source(
    matches: &Matches,
    named: Named,
    caches: Vec<Vec<(String, PathBuf)>>,
) -> Result<Source> {
    let file = matches.get("file").filter(|file| !file.is_empty());
    let is_sent = named.is_sent() || !caches.is_empty();
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
                if !is_sent {
                    return Ok(Source::Archive(start, input));
                }
                Parts {
                    archive: Some(kept(Cursor::new(start).chain(input))?),
                    ..Parts::default()
                }
            }
            (start, input) => Parts {
                dockerfile: Some(read_dockerfile(Cursor::new(start).chain(input))?),
                ..Parts::default()
            },
        },
        (address, file) if is_address(address) => {
            let is_input = file == Some("-");
            if !is_input && !is_sent {
                return Ok(Source::Address(address.to_owned()));
            }
            let dockerfile = is_input.then(|| read_dockerfile(std::io::stdin()));
            Parts {
                remote: Some(address.to_owned()),
                dockerfile: dockerfile.transpose()?,
                ..Parts::default()
            }
        }
        (directory, Some("-")) => {
            let directory = context_directory(directory)?;
            Parts {
                ignored: ignore(&directory, None)?,
                dockerfile: Some(read_dockerfile(std::io::stdin())?),
                context: Some(directory),
                ..Parts::default()
            }
        }
        (directory, file) => {
            let directory = context_directory(directory)?;
            let path = file.map_or_else(|| directory.join("Dockerfile"), PathBuf::from);
            let opened =
                std::fs::File::open(&path).during(|| format!("open {}", path.display()))?;
            Parts {
                ignored: ignore(&directory, Some(&path))?,
                dockerfile: Some(read_dockerfile(opened)?),
                context: Some(directory),
                ..Parts::default()
            }
        }
    };
    Ok(Source::Parts(Box::new(Parts {
        named,
        caches,
        ..parts
    })))
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

/// What is read, in a file without a name: what is sent beside other things has to say first how much it is.
fn kept(mut input: impl std::io::Read) -> Result<File> {
    let call = || "keep what standard input brings";
    let path = std::env::temp_dir().join(format!("hull-context-{}", std::process::id()));
    let mut options = File::options();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let mut file = options.open(&path).during(call)?;
    std::fs::remove_file(&path).during(call)?;
    std::io::copy(&mut input, &mut file).during(call)?;
    file.rewind().during(call)?;
    Ok(file)
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
