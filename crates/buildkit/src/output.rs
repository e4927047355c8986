//! Where a build's result goes: into the engine's images, to registries, or to the client as files or as one archive.
//!
//! Source: moby/buildkit `session/filesync` (FileSend), `exporter/local`, `exporter/tar`, `exporter/oci`,
//! `exporter/containerimage/exptypes/keys.go`.

use crate::files::{Transfer, send};
use crate::grpc::{Duplex, Status};
use crate::messages::{BytesMessage, Empty, Exporter};
use crate::store::ClientStore;
use builder::{
    ArchiveOutput, Error, FilesOutput, LayoutOutput, LayoutTo, Output, OutputWish, Result, Tree,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::io::{self, BufWriter, Write};

const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const HEADER_EXPORTER: HeaderName = HeaderName::from_static("buildkit-attachable-exporter-id");
/// The client's store of blobs for an output.
const EXPORT: &str = "export";
/// Bytes of one message of an archive.
const ARCHIVE_BYTES: usize = 1 << 20;
/// Outputs of one build.
const OUTPUTS_MAX: usize = 64;
/// Reads what a client asks for; nothing but what the cache keeps where that is nothing.
///
/// # Errors
/// What is not supported, by its name.
pub(crate) fn targets(exporters: &[Exporter]) -> Result<Vec<OutputWish>> {
    if exporters.len() > OUTPUTS_MAX {
        let text = format!("a build has at most {OUTPUTS_MAX} outputs");
        return Err(Error::Invalid(text));
    }
    let read = |it: &Exporter| OutputWish::read(&it.kind, &it.attributes);
    exporters.iter().map(read).collect()
}

/// What the outputs are called together.
pub(crate) fn title(targets: &[OutputWish]) -> &'static str {
    match targets {
        [] => "keeping the result in the cache",
        [OutputWish::Image(_)] => "exporting to image",
        [OutputWish::Directory(_)] => "exporting to client directory",
        [OutputWish::Tar(_)] => "exporting to client tarball",
        [OutputWish::Layout { docker: true, .. }] => "exporting to docker image format",
        [OutputWish::Layout { .. }] => "exporting to oci image format",
        _ => "exporting to several outputs",
    }
}

/// The output that the builder makes of a wish; `number` is its place among all.
pub(crate) fn output(
    wish: OutputWish,
    number: usize,
    store: impl Fn(String) -> ClientStore,
) -> Output {
    let client = || ToClient {
        client: store(EXPORT.to_owned()),
        number,
    };
    match wish {
        OutputWish::Image(image) => Output::Image(image),
        OutputWish::Directory(form) => Output::Files {
            to: Box::new(client()),
            form,
        },
        OutputWish::Tar(form) => Output::Tar {
            to: Box::new(client()),
            form,
        },
        OutputWish::Layout {
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
    fn take(&self, trees: &[Tree<'_>]) -> Result<()> {
        send(&self.client.transfer(), self.open()?, trees)
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
