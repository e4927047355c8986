//! Where a build's result goes: into the engine's images, to registries, or to the client as files or as one archive.
//!
//! Source: moby/buildkit `session/filesync` (FileSend), `exporter/local`, `exporter/tar`, `exporter/oci`,
//! `exporter/containerimage/exptypes/keys.go`.

use crate::attributes::is_true;
use crate::files::{Transfer, send};
use crate::grpc::{Duplex, Status};
use crate::messages::{BytesMessage, Empty, Exporter};
use crate::store::ClientStore;
use builder::{
    Annotation, ArchiveOutput, Error, FilesOutput, ImageOutput, LayoutOutput, LayoutTo, Manifests,
    Output, Result,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use oci::Reference;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use sys::root::Root;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const HEADER_EXPORTER: HeaderName = HeaderName::from_static("buildkit-attachable-exporter-id");
/// The client's store of blobs for an output.
const EXPORT: &str = "export";
/// Bytes of one message of an archive.
const ARCHIVE_BYTES: usize = 1 << 20;
/// Outputs of one build.
const OUTPUTS_MAX: usize = 64;
/// Names of one image.
const NAMES_MAX: usize = 256;

/// One thing that is made of the result.
#[derive(Debug)]
pub(crate) enum Target {
    /// An image.
    Image(ImageOutput),
    /// Files in a directory of the client.
    Directory,
    /// A tar for the client.
    Tar,
    /// An OCI layout for the client.
    Layout {
        names: Vec<Reference>,
        manifests: Manifests,
        /// `docker load` is to read it, too.
        docker: bool,
        /// It is one archive, and no directory.
        tar: bool,
    },
}

/// Reads what a client asks for; nothing but what the cache keeps where that is nothing.
///
/// # Errors
/// What is not supported, by its name.
pub(crate) fn targets(exporters: &[Exporter]) -> Result<Vec<Target>> {
    if exporters.len() > OUTPUTS_MAX {
        let text = format!("a build has at most {OUTPUTS_MAX} outputs");
        return Err(Error::Invalid(text));
    }
    exporters.iter().map(Target::read).collect()
}

/// What the outputs are called together.
pub(crate) fn title(targets: &[Target]) -> &'static str {
    match targets {
        [] => "keeping the result in the cache",
        [Target::Image(_)] => "exporting to image",
        [Target::Directory] => "exporting to client directory",
        [Target::Tar] => "exporting to client tarball",
        [Target::Layout { docker: true, .. }] => "exporting to docker image format",
        [Target::Layout { .. }] => "exporting to oci image format",
        _ => "exporting to several outputs",
    }
}

impl Target {
    fn read(exporter: &Exporter) -> Result<Self> {
        let kind = exporter.kind.as_str();
        let attributes = exporter.attributes.iter();
        let mut left: BTreeMap<&str, &str> = attributes
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let target = match kind {
            "moby" | "image" => Self::Image(image(&mut left)?),
            "oci" | "docker" => Self::Layout {
                names: references(left.remove("name").unwrap_or_default())?,
                tar: left
                    .remove("tar")
                    .is_none_or(|value| value.is_empty() || is_true(value)),
                docker: kind == "docker",
                manifests: manifests(&mut left)?,
            },
            "local" => {
                if left.get("mode").is_some_and(|mode| *mode == "copy") {
                    left.remove("mode");
                }
                Self::Directory
            }
            "tar" => Self::Tar,
            other => return Err(Error::Unsupported(format!("the output {other}"))),
        };
        let given = |(_, value): &(&&str, &&str)| !value.is_empty() && **value != "false";
        match left.iter().find(given) {
            Some((name, value)) => Err(Error::Unsupported(format!(
                "{name}={value} of the output {kind}"
            ))),
            None => Ok(target),
        }
    }

    /// The output that the builder makes; `number` is its place among all.
    pub(crate) fn into_output(
        self,
        number: usize,
        store: impl Fn(String) -> ClientStore,
    ) -> Output {
        let client = || ToClient {
            client: store(EXPORT.to_owned()),
            number,
        };
        match self {
            Self::Image(image) => Output::Image(image),
            Self::Directory => Output::Files(Box::new(client())),
            Self::Tar => Output::Tar(Box::new(client())),
            Self::Layout {
                names,
                manifests,
                docker,
                tar,
            } => Output::Layout(LayoutOutput {
                names,
                docker,
                manifests,
                to: match tar {
                    true => LayoutTo::Archive(Box::new(client())),
                    false => LayoutTo::Blobs(Box::new(store(EXPORT.to_owned()))),
                },
            }),
        }
    }

    /// The names of the image.
    pub(crate) fn names(&self) -> &[Reference] {
        match self {
            Self::Image(ImageOutput { names, .. }) | Self::Layout { names, .. } => names,
            Self::Directory | Self::Tar => &[],
        }
    }
}

/// An image, of the attributes that are known of it, which are taken.
fn image<'a>(left: &mut BTreeMap<&'a str, &'a str>) -> Result<ImageOutput> {
    let is_on = |value: Option<&str>| value.is_some_and(is_true);
    let push = is_on(left.remove("push"));
    let by_digest = is_on(left.remove("push-by-digest"));
    // Every image that is pushed is also known by its digest; others have none that a registry knows.
    if push {
        left.remove("name-canonical");
    }
    // An image is loaded and unpacked as soon as it is built here, and found by what it is said to be.
    for name in ["load", "unpack", "prefer-image-digest"] {
        left.remove(name);
    }
    Ok(ImageOutput {
        names: references(left.remove("name").unwrap_or_default())?,
        store: { left.remove("store") }
            .filter(|value| !value.is_empty())
            .map(is_true),
        push: push || by_digest,
        by_digest,
        manifests: manifests(left)?,
    })
}

/// How manifests are to be, of the attributes that are known of them, which are taken.
fn manifests<'a>(left: &mut BTreeMap<&'a str, &'a str>) -> Result<Manifests> {
    let form = builder::form(left)?;
    let types = left.remove("oci-mediatypes");
    // What a build makes has no times after SOURCE_DATE_EPOCH here, whether that is asked for or not.
    left.remove("rewrite-timestamp");
    let mut annotations = Vec::new();
    for (name, value) in std::mem::take(left) {
        match Annotation::read(name, value)? {
            Some(annotation) => annotations.push(annotation),
            None => drop(left.insert(name, value)),
        }
    }
    Ok(Manifests {
        form,
        docker_types: types.is_some_and(|value| !value.is_empty() && !is_true(value)),
        annotations,
        index: false,
        attestations: left.remove("attestation-inline").is_some_and(is_true),
    })
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

/// The client, as it takes one of its build's outputs.
#[derive(Debug)]
struct ToClient {
    client: ClientStore,
    /// The output's place among all.
    number: usize,
}

impl ToClient {
    fn open(&self) -> Result<Duplex> {
        let number = HeaderValue::from(self.number);
        let headers = HeaderMap::from_iter([(HEADER_EXPORTER, number)]);
        let call = self.client.session.open(DIFF_COPY, headers);
        call.ok_or_else(|| Error::Client("the client takes no files".to_owned()))
    }
}

impl FilesOutput for ToClient {
    fn take(&self, files: &Root) -> Result<()> {
        send(&self.client.transfer(), self.open()?, files)
    }
}

impl ArchiveOutput for ToClient {
    fn take(&self, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut call = self.open()?;
        let transfer = self.client.transfer();
        let pieces = Pieces {
            transfer: &transfer,
            call: &call,
            failed: None,
        };
        let mut out = BufWriter::with_capacity(ARCHIVE_BYTES, pieces);
        let written = write(&mut out);
        let flushed = out.flush();
        let failed = out.get_mut().failed.take();
        drop(out.into_parts());
        if let Some(error) = failed {
            return Err(error);
        }
        written?;
        flushed.map_err(|source| Error::System {
            doing: "send the archive".to_owned(),
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
}

/// An archive in messages.
struct Pieces<'a> {
    transfer: &'a Transfer<'a>,
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
    use images::Form;

    fn read(kind: &str, attributes: &[(&str, &str)]) -> Result<Target> {
        let attributes = attributes.iter();
        let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Target::read(&Exporter {
            kind: kind.to_owned(),
            attributes: attributes.collect(),
        })
    }

    #[test]
    fn outputs_are_read() {
        let Target::Image(image) = read(
            "moby",
            &[
                ("name", "a,b:1"),
                ("push", "true"),
                ("load", "true"),
                ("compression", "zstd"),
                ("annotation-manifest[linux/amd64].a.b", "c"),
            ],
        )
        .unwrap() else {
            panic!("it is an image");
        };
        let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:1"]);
        assert!(image.push && image.store.is_none());
        assert_eq!(image.manifests.form, Some(Form::Zstd(None)));
        assert_eq!(image.manifests.annotations[0].key, "a.b");
        assert!(matches!(read("local", &[]).unwrap(), Target::Directory));
        assert!(matches!(read("tar", &[]).unwrap(), Target::Tar));
        let layout = read("oci", &[("tar", "false"), ("oci-mediatypes", "false")]);
        let Target::Layout { tar, manifests, .. } = layout.unwrap() else {
            panic!("it is a layout");
        };
        assert!(!tar && manifests.docker_types);
        assert!(targets(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_supported_is_told() {
        for (kind, name, value) in [
            ("containerd", "", ""),
            ("moby", "name-canonical", "true"),
            ("moby", "compression", "estargz"),
            ("oci", "oci-artifact", "true"),
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
        read("moby", &[("annotation-other.a", "b")]).unwrap_err();
    }
}
