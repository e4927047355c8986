//! RUN --mount=type=ssh: a socket at which the client's SSH agent answers while a command runs.

use crate::error::{Doing, Result};
use crate::request::{Client, Forwarding};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// An agent that answers until this value goes.
pub(crate) struct Agent(
    #[expect(dead_code, reason = "it forwards as long as it is held")] Box<dyn Forwarding>,
);

impl Agent {
    /// Has the client's agent answer at a path of the host that is not there yet. `None`: it has none of that ID.
    pub(crate) fn open(
        client: &dyn Client,
        id: &str,
        path: &Path,
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<Option<Self>> {
        let doing = || "make the socket of an SSH agent".to_owned();
        let listener = UnixListener::bind(path).doing(doing)?;
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).doing(doing)?;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).doing(doing)?;
        Ok(client.agent(id, listener)?.map(Self))
    }
}
