//! The errors of this crate. None repeats its source: the chain is printed once, by whoever shows it.

use http::StatusCode;
use oci::Digest;
use oci::image::DocumentError;
use std::path::PathBuf;

/// The result of what may fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cause from a library, whatever its type.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of registries cannot be used.
    #[error("{path:?}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An address of a registry is none.
    #[error("{text:?} is no address of a registry: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// Why it is none.
        reason: &'static str,
    },
    /// No connection, or one that broke.
    #[error("{call}")]
    Transport {
        /// The method and the URL.
        call: String,
        /// What happened.
        #[source]
        source: Source,
    },
    /// Nothing came for too long.
    #[error("{call}: no answer for {seconds} s")]
    Timeout {
        /// The method and the URL.
        call: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The registry answers with an error.
    #[error("{call}: {status}{}", said(.message))]
    Status {
        /// The method and the URL.
        call: String,
        /// The status.
        status: StatusCode,
        /// What the registry says, shortened; it may be empty.
        message: String,
    },
    /// The registry wants other credentials, or none will do.
    #[error("access to {repository} is denied{}", said(.message))]
    Denied {
        /// The repository, as it is written.
        repository: String,
        /// What the registry says, shortened.
        message: String,
    },
    /// The policy does not let an image be pulled.
    #[error("policy {path:?}, rule {rule:?}: {image} may not be pulled: {reason}")]
    Policy {
        /// The policy's file.
        path: PathBuf,
        /// The rule that counts.
        rule: String,
        /// The image, as people write it.
        image: String,
        /// What is missing.
        reason: String,
    },
    /// A repository has no such manifest.
    #[error("manifest for {name} not found: {message}")]
    NoManifest {
        /// What was asked for, as people write it.
        name: String,
        /// What the registry says, shortened.
        message: String,
    },
    /// A registry has no such repository.
    #[error("repository {name} not found: {message}")]
    NoRepository {
        /// The repository, as people write it.
        name: String,
        /// What the registry says, shortened.
        message: String,
    },
    /// The registry breaks the rules of the protocol.
    #[error("{call}: the registry {what}")]
    Protocol {
        /// The method and the URL.
        call: String,
        /// What it does.
        what: String,
    },
    /// Content is not what its digest says.
    #[error("{what} has the digest {found}, not {expected}")]
    Digest {
        /// Of what.
        what: String,
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        found: Box<Digest>,
    },
    /// A manifest or index cannot be used.
    #[error("the manifest of {what} cannot be used")]
    Document {
        /// Of what.
        what: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A system call on the server's storage failed, or what is stored is not what it should be.
    #[error("{call}")]
    Storage {
        /// The call, as strace shows it.
        call: String,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// A file that the server is configured with cannot be used.
    #[error("{path:?}: {reason}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An upload is not there: never begun, finished, cancelled or expired.
    #[error("there is no upload {0}")]
    NoUpload(String),
    /// An upload is being written to by another request.
    #[error("another request writes to upload {0}")]
    UploadBusy(String),
    /// There are as many uploads as there may be.
    #[error("more than {0} uploads are under way")]
    TooManyUploads(usize),
    /// The certificates of an endpoint cannot be used.
    #[error("certificates for {host}: {reason}")]
    Certificates {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
}

/// Classes of errors, by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// Other credentials are needed.
    Denied,
    /// The policy forbids it.
    Forbidden,
    /// What was given is wrong.
    Invalid,
    /// The registry is not there, too busy, or misbehaves.
    Unavailable,
}

impl Error {
    /// The error's class.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoManifest { .. } | Self::NoRepository { .. } => ErrorKind::NotFound,
            Self::Status { status, .. } if *status == StatusCode::NOT_FOUND => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Policy { .. } => ErrorKind::Forbidden,
            Self::Config { .. } | Self::Address { .. } | Self::Document { .. } => {
                ErrorKind::Invalid
            }
            _ => ErrorKind::Unavailable,
        }
    }

    /// Whether the same may work when it is tried again.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Transport { source, .. } => !is_settled(source.as_ref()),
            Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            _ => false,
        }
    }
}

/// Whether a failure to connect stays so: a name that does not exist, nobody who listens, a certificate that is not trusted.
fn is_settled(source: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, InvalidData, NotFound};
    source
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| matches!(error.kind(), ConnectionRefused | InvalidData | NotFound))
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
