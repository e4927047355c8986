//! SSH agents of the client, at sockets of the host: for RUN --mount=type=ssh, and for git.
//!
//! How a connection gets to the client is its own matter ([`Client::agent`]); [`Forwarder`] has what is common to that.

use crate::error::{Doing, Result};
use crate::request::{Client, Forwarding};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

/// Connections to one agent at the same time; further ones wait.
const CONNECTIONS_MAX: usize = 32;

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

/// Takes what comes to a socket until it is dropped.
#[derive(Debug)]
pub struct Forwarder(JoinHandle<()>);

impl Forwarding for Forwarder {}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Forwarder {
    /// Calls `connected` for each connection; what that returns is polled as long as this value is there.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub fn new<F>(
        handle: &Handle,
        listener: UnixListener,
        connected: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let doing = || "listen for connections to an SSH agent".to_owned();
        listener.set_nonblocking(true).doing(doing)?;
        let _runtime = handle.enter();
        let listener = tokio::net::UnixListener::from_std(listener).doing(doing)?;
        Ok(Self(handle.spawn(async move {
            // Connections end with this set, and that with the task.
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
                    Some(_) = connections.join_next() => continue,
                };
                match accepted {
                    Ok((socket, _)) => drop(connections.spawn(connected(socket))),
                    Err(error) => {
                        tracing::error!(%error, "cannot accept a connection to an SSH agent");
                        return;
                    }
                }
            }
        })))
    }
}
