//! The errors of this crate. None repeats its source: the chain is printed once, by whoever shows it.

use crate::records::RecordsError;
use crate::tar::TarError;
use oci::Digest;
use oci::image::DocumentError;
use oci::reference::ReferenceError;
use rustix::io::Errno;
use std::path::PathBuf;

/// The result of what may fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No image has this name or ID.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The name is none.
    #[error("{text:?} is no image reference")]
    Reference {
        /// What was given.
        text: String,
        /// Why it is none.
        #[source]
        source: ReferenceError,
    },
    /// A manifest, index or configuration cannot be used.
    #[error("{what} cannot be used")]
    Document {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A digest is not that of the content.
    #[error("{what} has the digest {found}, not {expected}")]
    Digest {
        /// Of what.
        what: String,
        /// What was said.
        expected: Box<Digest>,
        /// What it is.
        found: Box<Digest>,
    },
    /// What should be an archive is none, or a broken one.
    #[error("the archive cannot be read")]
    Tar(#[source] TarError),
    /// An entry of an archive cannot be extracted.
    #[error("{path:?} in the archive is refused: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        reason: String,
    },
    /// Something in an archive fails.
    #[error("{what} of the archive")]
    In {
        /// Which part.
        what: String,
        /// How.
        #[source]
        source: Box<Error>,
    },
    /// An archive lacks something it refers to, or refers to something strange.
    #[error("the archive is invalid: {0}")]
    Archive(String),
    /// Compressed bytes cannot be decompressed.
    #[error("the compressed data is invalid")]
    Decompress(#[source] std::io::Error),
    /// The source of an archive failed.
    #[error("reading the archive failed")]
    Input(#[source] std::io::Error),
    /// The sink of an archive failed.
    #[error("writing the archive failed")]
    Output(#[source] std::io::Error),
    /// A layer of the store is damaged.
    #[error("the stored layer at {path:?} is damaged")]
    Layer {
        /// Its directory.
        path: PathBuf,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// A file of the store is damaged.
    #[error("the stored file {path:?} is damaged: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// A layer that an image needs is not in the store.
    #[error("layer {0} is not in the store")]
    MissingLayer(Box<Digest>),
    /// The start of an ID is that of several images.
    #[error("image ID prefix {0:?} is ambiguous")]
    AmbiguousId(String),
    /// A name cannot be removed.
    #[error(
        "conflict: unable to remove repository reference {reference:?} (must force) - container {container} is using \
         its referenced image {image}"
    )]
    ReferenceInUse {
        /// The name as it was given.
        reference: String,
        /// The container, shortened.
        container: String,
        /// The image, shortened.
        image: String,
    },
    /// An image cannot be removed.
    #[error("conflict: unable to delete {image} ({must}) - {reason}")]
    ImageInUse {
        /// The image, shortened.
        image: String,
        /// `must be forced` or `cannot be forced`.
        must: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// A registry failed, or was not understood.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// No image has a name that is to be pushed.
    #[error("An image does not exist locally with the tag: {0}")]
    NotTagged(String),
    /// An image is for another platform than the one that is asked for.
    #[error(
        "image with reference {name} was found but its platform ({found}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// The image's name, as people write it.
        name: String,
        /// The platform that it is for.
        found: String,
        /// The platform that is asked for.
        wanted: String,
    },
    /// A registry does not give an image to whoever asked.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login'{}{message}",
        if message.is_empty() { "" } else { ": " }
    )]
    PullDenied {
        /// The repository, as people write it.
        name: String,
        /// What the registry says.
        message: String,
    },
    /// A registry does not take an image from whoever pushes.
    #[error("{message}")]
    PushDenied {
        /// What the registry says.
        message: String,
    },
    /// An image of a registry cannot be used.
    #[error("{name}: {reason}")]
    Refused {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A layer of a registry cannot be unpacked.
    #[error("layer {digest} cannot be unpacked")]
    InLayer {
        /// The digest of its blob.
        digest: Box<Digest>,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Whoever asked for something has gone.
    #[error("stopped: nobody waits for it any more")]
    Stopped,
    /// Something that was asked for makes no sense.
    #[error("{0}")]
    Argument(String),
    /// An identifier of a snapshot is none.
    #[error("{0:?} is no identifier of a snapshot")]
    SnapshotId(String),
    /// No snapshot has this name.
    #[error("no such snapshot: {0}")]
    NoSuchSnapshot(String),
    /// An instruction of `--change` cannot be applied.
    #[error("change {instruction:?}: {reason}")]
    Change {
        /// The instruction.
        instruction: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A path in a container is not what the operation needs.
    #[error("{path:?}: {reason}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// The records failed.
    #[error("the records of images failed")]
    Records(#[source] RecordsError),
}

/// Classes of errors, by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// The state forbids it.
    Conflict,
    /// A policy forbids it.
    Forbidden,
    /// What was given is wrong: a name, an archive, an instruction.
    Invalid,
    /// The machine failed.
    System,
}

impl Error {
    /// Whether a registry wants other credentials, or none will do.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Registry(error) => error.kind() == registry::ErrorKind::Denied,
            Self::PullDenied { .. } | Self::PushDenied { .. } => true,
            _ => false,
        }
    }

    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchImage(_)
            | Self::NotTagged(_)
            | Self::OtherPlatform { .. }
            | Self::NoSuchSnapshot(_)
            | Self::PullDenied { .. }
            | Self::PushDenied { .. } => ErrorKind::NotFound,
            Self::ReferenceInUse { .. } | Self::ImageInUse { .. } => ErrorKind::Conflict,
            Self::In { source, .. } | Self::InLayer { source, .. } => source.kind(),
            Self::Registry(error) => match error.kind() {
                registry::ErrorKind::NotFound | registry::ErrorKind::Denied => ErrorKind::NotFound,
                registry::ErrorKind::Forbidden => ErrorKind::Forbidden,
                registry::ErrorKind::Invalid => ErrorKind::Invalid,
                registry::ErrorKind::Unavailable => ErrorKind::System,
            },
            Self::Sys(error) if error.errno == Errno::NOENT => ErrorKind::NotFound,
            Self::Reference { .. }
            | Self::Document { .. }
            | Self::Digest { .. }
            | Self::Tar(_)
            | Self::Entry { .. }
            | Self::Archive(_)
            | Self::Decompress(_)
            | Self::AmbiguousId(_)
            | Self::Argument(_)
            | Self::SnapshotId(_)
            | Self::Change { .. }
            | Self::Refused { .. }
            | Self::Path { .. } => ErrorKind::Invalid,
            Self::Input(_)
            | Self::Output(_)
            | Self::Layer { .. }
            | Self::Damaged { .. }
            | Self::MissingLayer(_)
            | Self::Stopped
            | Self::Sys(_)
            | Self::Records(_) => ErrorKind::System,
        }
    }
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

/// An error with all its causes in one line, for where it becomes part of another's text.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
