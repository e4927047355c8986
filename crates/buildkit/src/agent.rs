//! The client's SSH agent at a socket of a build: each connection is a call of `moby.sshforward.v1.SSH`.

use crate::grpc::{Duplex, Status};
use crate::messages::BytesMessage;
use crate::session::Session;
use builder::Forwarder;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 32 << 10;

/// Forwards what comes to a socket.
///
/// # Errors
/// The socket cannot be waited for.
pub(crate) fn forward(
    handle: &Handle,
    listener: std::os::unix::net::UnixListener,
    session: Arc<Session>,
    id: String,
) -> builder::Result<Forwarder> {
    Forwarder::new(handle, listener, move |socket| {
        let call = session.agent(&id);
        async move {
            let forwarded = match call {
                Ok(call) => connection(socket, call).await,
                Err(status) => Err(status),
            };
            if let Err(status) = forwarded {
                tracing::debug!(%status, "a connection to an SSH agent broke off");
            }
        }
    })
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
