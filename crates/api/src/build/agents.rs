//! SSH agents of clients of `POST /build?events=1`: when something connects to one, the client is told so, opens
//! `POST /build/agent?connection=…`, and what is said goes between the two.
//!
//! Invariant: a connection is known from when its client is told of it until that has come, or the wait for it is over.

use super::tell;
use crate::http::{Error, Pieces, Reply, empty};
use crate::images::line;
use crate::server::Call;
use api_types as types;
use builder::{Client, Forwarder, Forwarding, Result, Told};
use engine::images::registry::Credentials;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How long a client may take to open a connection.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections that clients were told of, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Awaited(Arc<Mutex<HashMap<String, oneshot::Sender<Upgraded>>>>);

impl Awaited {
    fn all(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Upgraded>>> {
        // It is whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `POST /build/agent`
pub(crate) fn connect(mut call: Call<'_>) -> Reply {
    let name = call.query.get("connection").unwrap_or_default();
    if !call.request.headers().contains_key(header::UPGRADE) {
        return Err(Error::bad_request("the connection is to be upgraded"));
    }
    let awaited = call.awaited.all().remove(name);
    let Some(awaited) = awaited else {
        return Err(Error::not_found(format!(
            "nothing waits for the connection {name:?} to an SSH agent"
        )));
    };
    let upgrade = hyper::upgrade::on(&mut call.request);
    tokio::spawn(async move {
        match upgrade.await {
            // What has connected to the agent may be gone.
            Ok(connection) => drop(awaited.send(connection)),
            Err(error) => {
                tracing::debug!(%error, "a client left before its connection was upgraded");
            }
        }
    });
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

/// A client with agents, that has told everything else with its request.
#[derive(Debug)]
pub(crate) struct WithAgents {
    pub(crate) told: Told,
    /// The agents' names.
    pub(crate) agents: BTreeSet<String>,
    pub(crate) awaited: Awaited,
    pub(crate) pieces: Pieces,
    pub(crate) handle: Handle,
}

impl Client for WithAgents {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        self.told.secret(id)
    }

    fn credentials(&self, domain: &str) -> Result<Credentials> {
        self.told.credentials(domain)
    }

    fn agent(&self, id: &str, listener: UnixListener) -> Result<Option<Box<dyn Forwarding>>> {
        if !self.agents.contains(id) {
            return Ok(None);
        }
        let (id, awaited, pieces) = (id.to_owned(), self.awaited.clone(), self.pieces.clone());
        let forwarder = Forwarder::new(&self.handle, listener, move |socket| {
            let (id, awaited, pieces) = (id.clone(), awaited.clone(), pieces.clone());
            async move {
                if let Err(why) = forward(id, &awaited, &pieces, socket).await {
                    tracing::debug!(why, "a connection to an SSH agent broke off");
                }
            }
        });
        Ok(Some(Box::new(forwarder?)))
    }
}

async fn forward(
    id: String,
    awaited: &Awaited,
    pieces: &Pieces,
    mut socket: UnixStream,
) -> std::result::Result<(), String> {
    let connection = engine::random_id().map_err(|error| error.chain())?;
    let (sender, opened) = oneshot::channel();
    awaited.all().insert(connection.clone(), sender);
    let _forgets = Forgets(awaited, connection.clone());
    let event = tell::event(&types::BuildEvent::Agent { id, connection });
    let told = pieces.send(Ok(line(&event))).await;
    told.map_err(|_| "the client is gone".to_owned())?;
    let opened = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
    let opened = opened.map_err(|_| "the client does not open it".to_owned())?;
    let opened = opened.map_err(|_| "the client has left it".to_owned())?;
    let copied = tokio::io::copy_bidirectional(&mut socket, &mut TokioIo::new(opened)).await;
    copied.map(drop).map_err(|error| error.to_string())
}

/// Takes a connection from those that are awaited, however the wait for it ends.
struct Forgets<'a>(&'a Awaited, String);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.all().remove(&self.1);
    }
}
