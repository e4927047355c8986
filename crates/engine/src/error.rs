//! What can go wrong, by class: the API maps a class to a status, the command line to an exit code.

use std::fmt;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; somebody decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// What it names is in no state for it, or a name is taken.
    Conflict,
    /// Nobody may do that with what it names.
    Forbidden,
    /// It is so already: nothing was done.
    NotModified,
    /// The command does not exist in the container.
    CommandNotFound,
    /// The command cannot be executed.
    CommandNotExecutable,
    /// Not built yet, or not on this host.
    Unsupported,
    /// Everything else.
    System,
}

/// A failure: one sentence of what failed on what, perhaps its cause, perhaps a hint.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of a class.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Something in no state for it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Something that nobody may do.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    /// Something not built yet.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A failure below, and what was being done.
    pub fn system(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: Kind::System,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence and all its causes in one line.
    pub fn chain(&self) -> String {
        sys::chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::system("the engine's records", error)
    }
}

impl From<shim::protocol::Failure> for Error {
    fn from(failure: shim::protocol::Failure) -> Self {
        use shim::protocol::FailureKind;
        let kind = match failure.kind {
            FailureKind::CommandNotFound => Kind::CommandNotFound,
            FailureKind::CommandNotExecutable => Kind::CommandNotExecutable,
            FailureKind::Invalid => Kind::Invalid,
            FailureKind::Conflict => Kind::Conflict,
            FailureKind::System => Kind::System,
        };
        Self::new(kind, failure.message)
    }
}

/// Says what was being done when something below failed.
pub(crate) trait Context<T> {
    /// Adds what was being done; built only when it failed.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T>
    for std::result::Result<T, E>
{
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::system(doing(), error))
    }
}
