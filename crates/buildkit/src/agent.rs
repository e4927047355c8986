//! The client's SSH agent at a socket of a build: each connection is a call of `moby.sshforward.v1.SSH`.

use crate::grpc::{Duplex, Status};
use crate::messages::BytesMessage;
use crate::session::Session;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

/// Connections to one agent at the same time; further ones wait.
const CONNECTIONS_MAX: usize = 32;
/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 32 << 10;

/// Forwards connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Agent(JoinHandle<()>);

impl builder::Forwarding for Agent {}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Forwards what comes to a socket.
    ///
    /// # Errors
    /// The socket cannot be waited for.
    pub(crate) fn forward(
        handle: &Handle,
        listener: std::os::unix::net::UnixListener,
        session: Arc<Session>,
        id: String,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let _runtime = handle.enter();
        let listener = UnixListener::from_std(listener)?;
        Ok(Self(handle.spawn(accept(listener, session, id))))
    }
}

async fn accept(listener: UnixListener, session: Arc<Session>, id: String) {
    // Connections end with this set, and that with the task.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match (accepted, session.agent(&id)) {
            (Ok((socket, _)), Ok(call)) => {
                connections.spawn(async move {
                    if let Err(status) = connection(socket, call).await {
                        tracing::debug!(%status, "a connection to an SSH agent broke off");
                    }
                });
            }
            (Err(error), _) => {
                tracing::error!(%error, "cannot accept a connection to an SSH agent");
                return;
            }
            (_, Err(status)) => {
                tracing::debug!(%status, "the client forwards its SSH agent no more");
                return;
            }
        }
    }
}

async fn connection(mut socket: UnixStream, mut call: Duplex) -> Result<(), Status> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut ended = false;
    loop {
        tokio::select! {
            read = socket.read(&mut buffer), if !ended => match read {
                Ok(0) | Err(_) => {
                    ended = true;
                    call.finish();
                }
                Ok(count) => {
                    let data = buffer[..count].to_vec();
                    call.send(&BytesMessage { data }).await?;
                }
            },
            message = call.next::<BytesMessage>() => match message? {
                None => return Ok(()),
                // The command may have what it wanted.
                Some(message) => if socket.write_all(&message.data).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
