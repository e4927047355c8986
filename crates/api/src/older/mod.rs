//! What older versions of the API have otherwise: the bodies that their clients send, and the answers that they get.
//!
//! Each table names the version that brought a change and how that is undone for those before it. [`Version::lacks`] chooses.

mod answers;
mod create;

pub(crate) use answers::{CONTAINER, CONTAINERS, DISK_USAGE, IMAGE, IMAGES, INFO};
pub(crate) use create::Asked;

use crate::version::Version;
use api_types as types;

/// A change of a body or an answer, undone.
type Undo<T> = (Version, fn(&mut T));

/// What an update could not ask.
pub(crate) const UPDATE: &[Undo<types::UpdateRequest>] =
    &[(Version::of(40), |body| body.pids_limit = None)];

/// What the creation of an exec could not ask.
pub(crate) const EXEC: &[Undo<types::ExecCreateRequest>] =
    &[(Version::of(42), |body| body.console_size = None)];

/// Likewise its start.
pub(crate) const EXEC_START: &[Undo<types::ExecStartRequest>] =
    &[(Version::of(42), |body| body.console_size = None)];

/// What the creation of a network could not ask.
pub(crate) const NETWORK: &[Undo<types::NetworkCreateRequest>] =
    &[(Version::of(48), |body| body.enable_ipv4 = None)];
