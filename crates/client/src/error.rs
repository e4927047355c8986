//! What can go wrong between this process and an engine.

use http::StatusCode;
use std::io;

/// The result of speaking to an engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the engine is not one.
    #[error("invalid engine address {address:?}: {reason}")]
    Host {
        /// As given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens.
    #[error("cannot connect to the engine at {host}: is it running?")]
    Connect {
        /// The engine's address.
        host: String,
        /// connect(2).
        source: io::Error,
    },
    /// The socket is not for this user.
    #[error("permission denied on the engine's socket {host}")]
    Permission {
        /// The engine's address.
        host: String,
        /// connect(2).
        source: io::Error,
    },
    /// The connection broke, or the other side does not speak HTTP.
    #[error("{call}: the connection to the engine failed")]
    Http {
        /// Method and path.
        call: String,
        /// What HTTP says.
        source: hyper::Error,
    },
    /// A stream of the engine broke.
    #[error("{call}: the engine's stream broke")]
    Stream {
        /// Method and path, or what was read.
        call: String,
        /// What the socket says.
        source: io::Error,
    },
    /// The engine refused.
    #[error("Error response from daemon: {message}")]
    Status {
        /// HTTP's status.
        status: StatusCode,
        /// The engine's words.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("{call}: cannot decode the engine's answer")]
    Decode {
        /// Method and path.
        call: String,
        /// Where the JSON is wrong.
        source: api_types::Error,
    },
    /// An answer, or a line of one, exceeds its limit.
    #[error("{call}: the engine's answer is longer than {limit} bytes")]
    TooLong {
        /// Method and path.
        call: String,
        /// The limit.
        limit: usize,
    },
    /// The engine did not hand over the connection.
    #[error("{call}: the engine answered {status} instead of upgrading the connection")]
    NotUpgraded {
        /// Method and path.
        call: String,
        /// HTTP's status.
        status: StatusCode,
    },
    /// A request that cannot be put into HTTP: an id with control characters, say.
    #[error("{call}: not a valid request")]
    Request {
        /// Method and path.
        call: String,
        /// What HTTP says.
        source: http::Error,
    },
    /// A multiplexed stream carries an error of the engine.
    #[error("error from daemon in stream: {message}")]
    Remote {
        /// The engine's words.
        message: String,
    },
    /// A multiplexed stream is not one.
    #[error("the engine's stream has a frame of unknown type {kind}")]
    Frame {
        /// The first byte of the frame's header.
        kind: u8,
    },
    /// The engine is older than anything this client speaks.
    #[error("the engine's API version {found} is too old: at least {oldest} is needed")]
    TooOld {
        /// What it says it speaks.
        found: String,
        /// The least this client speaks.
        oldest: crate::ApiVersion,
    },
}

impl Error {
    /// The engine's status, when it was the engine that refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Whether the engine knows no such object.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether no engine was there to answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
