//! What can go wrong with a build.

use crate::language::{Diagnostic, Position};

/// The result of a part of a build.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile cannot be read.
    #[error(transparent)]
    Language(#[from] Diagnostic),
    /// The request, or what an instruction says, makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is not there.
    #[error("{0}")]
    NotFound(String),
    /// Not built yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A step has failed.
    #[error("failed to build: line {}: {text}", position.line)]
    Step {
        /// The instruction.
        text: String,
        /// Where it is.
        position: Position,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A command has ended with another code than zero.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// What ran.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// The client is gone.
    #[error("the build was cancelled")]
    Cancelled,
    /// The client does not give, or take, what the build needs it to.
    #[error("{0}")]
    Client(String),
    /// The engine.
    #[error("{doing}")]
    Engine {
        /// What was being done.
        doing: String,
        /// Why not.
        #[source]
        source: engine::Error,
    },
    /// The image store.
    #[error("{doing}")]
    Images {
        /// What was being done.
        doing: String,
        /// Why not.
        #[source]
        source: images::Error,
    },
    /// The kernel.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The sentence and all its causes in one line.
    pub fn chain(&self) -> String {
        sys::chain(self)
    }

    /// The exit code of the command that failed the build, if one did.
    pub fn command_code(&self) -> Option<i32> {
        match self {
            Self::Command { code, .. } => Some(*code),
            Self::Step { source, .. } => source.command_code(),
            _ => None,
        }
    }

    /// Whether the request is at fault, and not the machine.
    pub fn is_of_request(&self) -> bool {
        match self {
            Self::Language(_) | Self::Invalid(_) => true,
            Self::Step { source, .. } => source.is_of_request(),
            _ => false,
        }
    }
}

/// Says what was being done when something below failed.
pub(crate) trait Doing<T> {
    /// Adds what was being done; built only when it failed.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for engine::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Engine {
            doing: doing(),
            source,
        })
    }
}

impl<T> Doing<T> for images::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| match source {
            images::Error::Stopped => Error::Cancelled,
            source => Error::Images {
                doing: doing(),
                source,
            },
        })
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System {
            doing: doing(),
            source,
        })
    }
}

impl<T> Doing<T> for sys::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(std::io::Error::other).doing(doing)
    }
}
