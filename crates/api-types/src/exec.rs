//! Further processes in a running container.

use crate::is_default;
use serde::{Deserialize, Serialize};

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecCreateRequest {
    /// `user[:group]`; empty for the container's.
    pub user: String,
    /// All capabilities.
    pub privileged: bool,
    /// Give the process a terminal.
    pub tty: bool,
    /// The terminal's first size: rows, columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
    /// Attach stdin.
    pub attach_stdin: bool,
    /// Attach stderr.
    pub attach_stderr: bool,
    /// Attach stdout.
    pub attach_stdout: bool,
    /// The keys that detach; empty for the default.
    pub detach_keys: String,
    /// Further environment.
    pub env: Option<Vec<String>>,
    /// The working directory; empty for the container's.
    pub working_dir: String,
    /// The command and its arguments.
    pub cmd: Option<Vec<String>>,
    /// Obsolete: the start request decides.
    pub detach: bool,
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStartRequest {
    /// Do not attach.
    pub detach: bool,
    /// Whether the stream is a terminal's; must be as in the create request.
    pub tty: bool,
    /// The terminal's first size: rows, columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u32; 2]>,
}

/// The answer of `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecInspect {
    /// The exec's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// `None` until it ended.
    pub exit_code: Option<i64>,
    /// The process.
    pub process_config: ExecProcessConfig,
    /// Stdin is attached.
    pub open_stdin: bool,
    /// Stderr is attached.
    pub open_stderr: bool,
    /// Stdout is attached.
    pub open_stdout: bool,
    /// Nobody waits for it any more.
    pub can_remove: bool,
    /// The container.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The keys that detach, as bytes in base64.
    pub detach_keys: Option<String>,
    /// In the engine's PID namespace; 0 before the start.
    pub pid: i64,
}

/// The process of an exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    /// Has a terminal.
    pub tty: bool,
    /// The command.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Option<Vec<String>>,
    /// Has all capabilities; `None` where not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// The user, as the request named it.
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
}
