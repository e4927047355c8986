//! The state of a container, as `state` prints it and hooks read it.

use super::Annotations;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The specification version the state complies with.
    pub oci_version: String,
    /// Unique among the containers of one state directory.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its init in the runtime's pid namespace; 0 when stopped.
    #[serde(default)]
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Those of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being created.
    Creating,
    /// Created; its process waits to be started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen: known to runc's callers, not in the specification.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// The word the state document has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is sent with a seccomp notify descriptor (`seccompFd` in `fds`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// The specification version.
    pub oci_version: String,
    /// Names of the descriptors sent along, in order.
    pub fds: Vec<String>,
    /// The process that has the filter, in the runtime's pid namespace.
    pub pid: i32,
    /// The filter's `listenerMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// The container's state.
    pub state: State,
}
