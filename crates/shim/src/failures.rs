//! What an engine is told of a request that failed.

use crate::protocol::{Failure, FailureKind};
use std::io;

fn failure_of(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

pub(crate) fn conflict(message: &str) -> Failure {
    failure_of(FailureKind::Conflict, message)
}

pub(crate) fn invalid(error: &dyn std::error::Error) -> Failure {
    failure_of(FailureKind::Invalid, sys::chain(error))
}

pub(crate) fn failure(error: &dyn std::error::Error) -> Failure {
    failure_of(FailureKind::System, sys::chain(error))
}

pub(crate) fn system(what: &str, error: &io::Error) -> Failure {
    failure_of(
        FailureKind::System,
        format!("{what}: {}", sys::chain(error)),
    )
}

pub(crate) fn runtime_failure(error: &runtime::Error) -> Failure {
    let kind = match error.kind() {
        runtime::ErrorKind::NotFound => FailureKind::CommandNotFound,
        runtime::ErrorKind::NotExecutable => FailureKind::CommandNotExecutable,
        runtime::ErrorKind::InvalidSpec | runtime::ErrorKind::Unsupported => FailureKind::Invalid,
        _ => FailureKind::System,
    };
    failure_of(kind, sys::chain(error))
}
