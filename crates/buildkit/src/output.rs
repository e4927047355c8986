//! Where a build's result goes: into the engine's images, or to the client as files or as one archive.
//!
//! Source: moby/buildkit `session/filesync` (FileSend), `exporter/local`, `exporter/tar`.

use crate::attributes::is_true;
use crate::files::send;
use crate::grpc::{Duplex, Status};
use crate::messages::{BytesMessage, Empty, Exporter};
use crate::session::Session;
use builder::{Error, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use images::archive;
use oci::Reference;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use sys::root::Root;
use tokio::runtime::Handle;
use tokio::sync::watch;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const HEADER_EXPORTER: HeaderName = HeaderName::from_static("buildkit-attachable-exporter-id");
/// Bytes of one message of an archive.
const ARCHIVE_BYTES: usize = 1 << 20;
/// Names of one image.
const NAMES_MAX: usize = 256;

/// What is made of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An image of these names.
    Image(Vec<Reference>),
    /// Files in a directory of the client.
    Directory,
    /// A tar for the client.
    Tar,
    /// Nothing but what the cache keeps.
    Nothing,
}

impl Target {
    /// Reads what a client asks for.
    ///
    /// # Errors
    /// What is not supported, by its name.
    pub(crate) fn read(exporters: &[Exporter]) -> Result<Self> {
        let exporter = match exporters {
            [] => return Ok(Self::Nothing),
            [exporter] => exporter,
            _ => return Err(Error::Unsupported("more than one output".to_owned())),
        };
        let target = match exporter.kind.as_str() {
            "moby" => Self::Image(Vec::new()),
            "local" => Self::Directory,
            "tar" => Self::Tar,
            other => return Err(Error::Unsupported(format!("the output {other}"))),
        };
        let mut names = Vec::new();
        for (name, value) in &exporter.attributes {
            match (name.as_str(), &target) {
                ("name", Self::Image(_)) => names = references(value)?,
                // The client pushes by itself what it has built here.
                ("push", Self::Image(_)) => {}
                ("mode", Self::Directory) if value == "copy" => {}
                (_, _) if value.is_empty() || value == "false" => {}
                ("unpack" | "store", Self::Image(_)) if is_true(value) => {}
                (name, _) => {
                    let text = format!("{name}={value} of the output {}", exporter.kind);
                    return Err(Error::Unsupported(text));
                }
            }
        }
        Ok(match target {
            Self::Image(_) => Self::Image(names),
            target => target,
        })
    }

    /// What the output is called.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Image(_) => "exporting to image",
            Self::Directory => "exporting to client directory",
            Self::Tar => "exporting to client tarball",
            Self::Nothing => "keeping the result in the cache",
        }
    }
}

fn references(value: &str) -> Result<Vec<Reference>> {
    let names = value.split(',').filter(|name| !name.is_empty());
    let names: Vec<Reference> = names
        .map(|name| {
            let reference = name.parse::<Reference>();
            let reference = reference
                .map_err(|error| Error::Invalid(format!("invalid tag {name:?}: {error}")))?;
            match reference.digest() {
                None => Ok(reference.to_target()),
                Some(_) => Err(Error::Invalid(format!(
                    "invalid tag {name:?}: it has a digest"
                ))),
            }
        })
        .collect::<Result<_>>()?;
    match names.len() <= NAMES_MAX {
        true => Ok(names),
        false => Err(Error::Invalid(format!(
            "an image gets at most {NAMES_MAX} names at once"
        ))),
    }
}

/// A client that takes files.
pub(crate) struct ToClient {
    pub(crate) handle: Handle,
    pub(crate) session: Arc<Session>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) target: Target,
}

impl fmt::Debug for ToClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToClient")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl builder::Output for ToClient {
    fn take(&self, files: &Root) -> Result<()> {
        if self.target == Target::Nothing {
            return Ok(());
        }
        let headers = HeaderMap::from_iter([(HEADER_EXPORTER, HeaderValue::from_static("0"))]);
        let call = self.session.open(DIFF_COPY, headers);
        let call = call.ok_or_else(|| Error::Client("the client takes no files".to_owned()))?;
        let transfer = crate::files::Transfer {
            handle: &self.handle,
            session: &self.session,
            stop: &self.stop,
        };
        match self.target {
            Target::Tar => tar(&transfer, call, files),
            _ => send(&transfer, call, files),
        }
    }
}

/// Sends a tree as one tar.
fn tar(transfer: &crate::files::Transfer<'_>, mut call: Duplex, files: &Root) -> Result<()> {
    let mut out = BufWriter::with_capacity(
        ARCHIVE_BYTES,
        Pieces {
            transfer,
            call: &call,
            failed: None,
        },
    );
    let exported = archive::export(files, &mut out);
    let flushed = out.flush();
    let failed = out.get_mut().failed.take();
    drop(out.into_parts());
    if let Some(error) = failed {
        return Err(error);
    }
    exported.map_err(|source| Error::Images {
        doing: "send the files".to_owned(),
        source,
    })?;
    flushed.map_err(|source| Error::System {
        doing: "send the files".to_owned(),
        source,
    })?;
    call.finish();
    // The client says when it has all.
    let end = async {
        while let Some(Empty {}) = call.next().await? {}
        Ok::<_, Status>(())
    };
    transfer.wait(end)
}

/// An archive in messages.
struct Pieces<'a> {
    transfer: &'a crate::files::Transfer<'a>,
    call: &'a Duplex,
    failed: Option<Error>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(ARCHIVE_BYTES)];
        let message = BytesMessage {
            data: bytes.to_vec(),
        };
        match self.transfer.wait(self.call.send(&message)) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, attributes: &[(&str, &str)]) -> Result<Target> {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Target::read(&[Exporter {
            kind: kind.to_owned(),
            attributes: attributes.collect(),
        }])
    }

    #[test]
    fn outputs_are_read() {
        let Target::Image(names) = read("moby", &[("name", "a,b:1"), ("push", "true")]).unwrap()
        else {
            panic!("it is an image");
        };
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        assert_eq!(read("local", &[]).unwrap(), Target::Directory);
        assert_eq!(read("tar", &[]).unwrap(), Target::Tar);
        assert_eq!(Target::read(&[]).unwrap(), Target::Nothing);
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for (kind, name, value) in [
            ("oci", "", ""),
            ("moby", "annotation.a", "b"),
            ("moby", "rewrite-timestamp", "true"),
            ("local", "platform-split", "true"),
            ("local", "mode", "delete"),
        ] {
            let error = read(kind, &[(name, value)]).unwrap_err();
            assert!(
                matches!(error, Error::Unsupported(_)),
                "{kind} {name}: {error}"
            );
        }
        read("moby", &[("name", "A B")]).unwrap_err();
    }
}
