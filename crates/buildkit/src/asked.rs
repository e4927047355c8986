//! What a build asks of its client while it goes on: secrets, credentials, SSH agents, and the rest of an archive.

use crate::agent;
use crate::files::Transfer;
use crate::grpc::{Duplex, Status};
use crate::messages::BytesMessage;
use crate::session::Session;
use builder::{Forwarding, Result};
use images::registry::Credentials;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// A client that is asked by its session.
#[derive(Debug)]
pub(crate) struct SessionClient {
    pub(crate) handle: Handle,
    pub(crate) session: Arc<Session>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl SessionClient {
    fn wait<T>(&self, what: impl Future<Output = std::result::Result<T, Status>>) -> Result<T> {
        let transfer = Transfer {
            handle: &self.handle,
            session: &self.session,
            stop: &self.stop,
        };
        transfer.wait(what)
    }
}

impl builder::Client for SessionClient {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        self.wait(self.session.secret(id))
    }

    fn credentials(&self, domain: &str) -> Result<Credentials> {
        self.wait(self.session.credentials(domain))
    }

    fn agent(&self, id: &str, listener: UnixListener) -> Result<Option<Box<dyn Forwarding>>> {
        if !self.wait(self.session.has_agent(id))? {
            return Ok(None);
        }
        let session = Arc::clone(&self.session);
        let agent = agent::forward(&self.handle, listener, session, id.to_owned())?;
        Ok(Some(Box::new(agent)))
    }
}

/// An archive that comes in messages.
pub(crate) struct Archive<'a> {
    transfer: Transfer<'a>,
    call: Duplex,
    piece: Vec<u8>,
    read: usize,
}

impl<'a> Archive<'a> {
    pub(crate) fn new(transfer: Transfer<'a>, call: Duplex) -> Self {
        Self {
            transfer,
            call,
            piece: Vec::new(),
            read: 0,
        }
    }
}

impl std::io::Read for Archive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.read == self.piece.len() {
            let next = self.transfer.wait(self.call.next::<BytesMessage>());
            match next.map_err(std::io::Error::other)? {
                Some(message) => (self.piece, self.read) = (message.data, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.read);
        buffer[..count].copy_from_slice(&self.piece[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}
