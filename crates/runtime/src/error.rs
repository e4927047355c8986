//! What can go wrong, and how a caller should take it.
//!
//! Invariant: an error's text names what was being done and never repeats its source; the edge prints the chain once
//! ([`Error::chain`]). Errors of the container's side cross to the caller as that chain and their [`ErrorKind`].

use crate::dbus::BusError;
use std::borrow::Cow;
use std::fmt::Write;

/// The result of a runtime operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller needs to know of an error to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorKind {
    /// The command does not exist: a shell would exit with 127.
    NotFound = 1,
    /// The command cannot be executed: a shell would exit with 126.
    NotExecutable = 2,
    /// The configuration contradicts the specification or itself.
    InvalidSpec = 3,
    /// This runtime, kernel or host lacks what was asked for.
    Unsupported = 4,
    /// The container's state does not allow the operation.
    State = 5,
    /// A system call failed.
    System = 6,
}

impl ErrorKind {
    /// The kind that was sent as this byte; an unknown one is [`Self::System`].
    pub(crate) fn from_byte(byte: u8) -> Self {
        const KINDS: [ErrorKind; 5] = [
            ErrorKind::NotFound,
            ErrorKind::NotExecutable,
            ErrorKind::InvalidSpec,
            ErrorKind::Unsupported,
            ErrorKind::State,
        ];
        KINDS
            .into_iter()
            .find(|&kind| kind as u8 == byte)
            .unwrap_or(Self::System)
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program without a slash is nowhere in `PATH`.
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NotInPath {
        /// As it was asked for.
        program: String,
    },
    /// A program named by path does not exist.
    #[error("exec: {program:?}: stat {program}: no such file or directory")]
    NoProgram {
        /// As it was asked for.
        program: String,
    },
    /// A program may not be executed.
    #[error("exec: {program:?}: {reason}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// As Docker's users know it: `permission denied`, `is a directory`, `exec format error`.
        reason: String,
    },
    /// The configuration contradicts the specification or itself.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// This runtime, kernel or host lacks what was asked for.
    #[error("not supported: {0}")]
    Unsupported(Cow<'static, str>),
    /// The container's state does not allow the operation.
    #[error("{0}")]
    State(Cow<'static, str>),
    /// A system call failed.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: Cow<'static, str>,
        /// The call.
        #[source]
        source: sys::Error,
    },
    /// A call over D-Bus failed.
    #[error("{doing}")]
    Bus {
        /// What was being done.
        doing: Cow<'static, str>,
        /// The call's failure.
        #[source]
        source: BusError,
    },
    /// A document is not what it should be.
    #[error("{doing}")]
    Json {
        /// What was being read or written.
        doing: Cow<'static, str>,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// What had been done before an error could not be undone.
    #[error("{failed}; undoing it failed too")]
    Undo {
        /// The error's kind.
        kind: ErrorKind,
        /// The error's chain.
        failed: String,
        /// What remains.
        #[source]
        source: Box<Error>,
    },
    /// The container's side failed; the text is its whole chain.
    #[error("{message}")]
    Container {
        /// Its kind.
        kind: ErrorKind,
        /// Its chain.
        message: String,
    },
}

impl Error {
    /// How a caller should take it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInPath { .. } | Self::NoProgram { .. } => ErrorKind::NotFound,
            Self::NotExecutable { .. } => ErrorKind::NotExecutable,
            Self::Invalid(_) | Self::Json { .. } => ErrorKind::InvalidSpec,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::State(_) => ErrorKind::State,
            Self::System { .. } | Self::Bus { .. } => ErrorKind::System,
            Self::Undo { kind, .. } | Self::Container { kind, .. } => *kind,
        }
    }

    /// The error and its sources on one line, for people.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(text, ": {error}").expect("a String takes whatever is written");
            source = error.source();
        }
        text
    }

    /// The error, with that of undoing what was done before it.
    pub(crate) fn undone(self, undo: Result<()>) -> Self {
        match undo {
            Ok(()) => self,
            Err(error) => Self::Undo {
                kind: self.kind(),
                failed: self.chain(),
                source: Box::new(error),
            },
        }
    }

    /// An invalid configuration.
    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }

    /// A failed call over D-Bus.
    pub(crate) fn bus(doing: impl Into<Cow<'static, str>>, source: BusError) -> Self {
        Self::Bus {
            doing: doing.into(),
            source,
        }
    }

    /// Something this runtime, kernel or host lacks.
    pub(crate) fn unsupported(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(text.into())
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait Doing<T> {
    /// Adds what was being done.
    fn doing(self, doing: impl Into<Cow<'static, str>>) -> Result<T>;
    /// Adds what was being done, built only when it failed.
    fn doing_with(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for sys::Result<T> {
    fn doing(self, doing: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|source| Error::System {
            doing: doing.into(),
            source,
        })
    }

    fn doing_with(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System {
            doing: doing().into(),
            source,
        })
    }
}
