//! What ends a command, and with which exit code.

use crate::flags::FlagError;
use std::io;

/// The result of a command or a part of it.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Docker's exit code for a container that did not start, and for flags that do not parse.
pub(crate) const EXIT_NOT_RUN: u8 = 125;
/// Docker's exit code for a command that cannot be executed.
pub(crate) const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Docker's exit code for a command that is not found.
pub(crate) const EXIT_NOT_FOUND: u8 = 127;
/// Docker's exit code for a template that does not parse where one object is shown.
const EXIT_TEMPLATE: u8 = 64;

/// Why a command ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A container's or a wait's exit code; nothing is to be said.
    #[error("exit code {0}")]
    Exit(u8),
    /// Flags that do not parse.
    #[error("{source}\n\nUsage:  {usage}\n\nRun '{command} --help' for more information")]
    Flags {
        source: FlagError,
        usage: String,
        command: String,
    },
    /// Flags that do not parse before the command is known.
    #[error("{0}")]
    BadFlag(#[from] FlagError),
    /// Arguments of the wrong number.
    #[error(
        "{program}: '{command}' {problem}\n\nUsage:  {usage}\n\nRun '{command} --help' for more information"
    )]
    Arguments {
        program: String,
        command: String,
        problem: String,
        usage: String,
    },
    /// A command that does not exist.
    #[error("{program}: unknown command: {command}\n\nRun '{group} --help' for more information")]
    UnknownCommand {
        program: String,
        command: String,
        group: String,
    },
    /// A command of Docker that does not exist here yet.
    #[error(
        "{program}: '{command}' is not supported yet\n\nRun '{program} --help' for the supported commands"
    )]
    Unsupported { program: String, command: String },
    /// The container was not run; shown with a hint to the command's help.
    #[error("{program}: {message}\n\nRun '{program} {command} --help' for more information")]
    NotRun {
        program: String,
        command: &'static str,
        message: String,
        code: u8,
    },
    /// A container's end could not be waited for.
    #[error("error waiting for container: {0}")]
    Wait(String),
    /// The engine did not start a container.
    #[error(transparent)]
    NotStarted(client::Error),
    /// The engine refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A template that does not parse or render.
    #[error("template parsing error: {0}")]
    Template(String),
    /// A template of one object that does not parse.
    #[error("template parsing error: {0}")]
    InspectTemplate(String),
    /// A file or stream of this machine.
    #[error("{call}")]
    Io { call: String, source: io::Error },
    /// Anything else that is wrong with what was asked.
    #[error("{0}")]
    Message(String),
}

impl Error {
    /// An error in words.
    pub(crate) fn msg(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }

    /// What the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exit(code) | Self::NotRun { code, .. } => *code,
            Self::Flags { .. } | Self::BadFlag(_) | Self::Wait(_) => EXIT_NOT_RUN,
            Self::InspectTemplate(_) => EXIT_TEMPLATE,
            _ => 1,
        }
    }

    /// The error and its causes in one line, or nothing where there is nothing to say.
    pub(crate) fn report(&self) -> Option<String> {
        match self {
            Self::Exit(_) => None,
            // Whoever closed our output knows why.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => None,
            // Its cause is part of the text already.
            Self::Flags { .. } => Some(self.to_string()),
            _ => Some(chain(self)),
        }
    }
}

/// An error's text and its causes' texts.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = match cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            Some(errno) => format!("{text}: {}", errno_text(errno)),
            None => format!("{text}: {cause}"),
        };
        source = cause.source();
    }
    text
}

/// An errno as other tools write it: `no such file or directory`.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text
        .rsplit_once(" (os error")
        .map_or(text.as_str(), |(text, _)| text);
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// Names what was done to a file.
pub(crate) trait IoContext<T> {
    /// Adds the call, built only when it failed.
    fn during<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::Io {
            call: call().into(),
            source,
        })
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn during<S: Into<String>>(self, call: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|errno| Error::Io {
            call: call().into(),
            source: errno.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_in_one_line() {
        let source = io::Error::from_raw_os_error(2);
        let error = Error::Io {
            call: "open /x".to_owned(),
            source,
        };
        assert_eq!(
            error.report().unwrap(),
            "open /x: no such file or directory"
        );
        assert_eq!(error.exit_code(), 1);
        let source = io::ErrorKind::BrokenPipe.into();
        assert_eq!(
            Error::Io {
                call: "write".to_owned(),
                source
            }
            .report(),
            None
        );
        assert_eq!(
            (Error::Exit(7).report(), Error::Exit(7).exit_code()),
            (None, 7)
        );
    }
}
