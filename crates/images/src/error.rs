//! The errors of this crate. None repeats its source: the chain is printed once, by whoever shows it.

use crate::records::RecordsError;
use oci::Digest;
use oci::image::DocumentError;
use oci::reference::ReferenceError;

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
        expected: Digest,
        /// What it is.
        found: Digest,
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
    /// What was given is wrong: a name, an archive, an instruction.
    Invalid,
    /// The machine failed.
    System,
}

impl Error {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchImage(_) => ErrorKind::NotFound,
            Self::Reference { .. } | Self::Document { .. } | Self::Digest { .. } => {
                ErrorKind::Invalid
            }
            Self::Sys(_) | Self::Records(_) => ErrorKind::System,
        }
    }
}
