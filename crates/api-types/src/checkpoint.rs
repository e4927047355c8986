//! Checkpoints of containers.

use serde::{Deserialize, Serialize};

/// The body of `POST /containers/{id}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointCreateRequest {
    /// Its name.
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    /// Where it goes; empty for the container's own directory.
    pub checkpoint_dir: String,
    /// End the container.
    pub exit: bool,
}

/// One of `GET /containers/{id}/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointSummary {
    /// Its name.
    pub name: String,
}
