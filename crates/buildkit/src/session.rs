//! Sessions: connections on which a client serves what its build needs of it.
//!
//! Invariant: a session is there from its handshake until its connection ends, and no longer; whoever waits for one waits
//! for a limited time.

use crate::grpc::{Channel, Code, Duplex, Status};
use crate::messages::{
    CredentialsRequest, CredentialsResponse, GetSecretRequest, GetSecretResponse,
};
use http::HeaderMap;
use images::registry::Credentials;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Sessions at the same time.
const SESSIONS_MAX: usize = 1024;
/// Methods that one client serves.
const METHODS_MAX: usize = 256;
/// Bytes of a session's name.
const ID_BYTES_MAX: usize = 256;
/// How long a build waits for its session: clients open both at the same time.
const SESSION_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a secret, as for secrets that come with the request.
const SECRET_BYTES_MAX: usize = 512 << 10;

const HEADER_ID: &str = "x-docker-expose-session-uuid";
const HEADER_METHODS: &str = "x-docker-expose-session-grpc-method";

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/// The sessions that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Session>>,
    changed: Notify,
}

/// A client's session.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    channel: Channel,
    /// Lower case.
    methods: Arc<BTreeSet<String>>,
    gone: watch::Receiver<bool>,
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client that opens a session says of it: its name and the methods it serves.
    ///
    /// # Errors
    /// A sentence on what is missing.
    pub(crate) fn announced(headers: &HeaderMap) -> Result<(String, BTreeSet<String>), String> {
        let id = headers.get(HEADER_ID).and_then(|id| id.to_str().ok());
        let id = id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
        let id = id.ok_or_else(|| format!("a session has a name in {HEADER_ID}"))?;
        let methods = headers.get_all(HEADER_METHODS).iter();
        let methods: BTreeSet<String> = methods
            .filter_map(|method| method.to_str().ok())
            .map(str::to_ascii_lowercase)
            .take(METHODS_MAX)
            .collect();
        Ok((id.to_owned(), methods))
    }

    /// Keeps a session until its connection ends.
    pub(crate) async fn keep<I>(&self, id: String, methods: BTreeSet<String>, connection: I)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (channel, drive) = match Channel::new(connection).await {
            Ok(made) => made,
            Err(error) => {
                tracing::debug!(%error, "a client has opened no session");
                return;
            }
        };
        let (ended, gone) = watch::channel(false);
        let session = Session {
            channel,
            methods: Arc::new(methods),
            gone,
        };
        let refused = {
            let mut open = self.open();
            let refused = open.len() >= SESSIONS_MAX || open.contains_key(&id);
            if !refused {
                open.insert(id.clone(), session);
            }
            refused
        };
        if refused {
            tracing::warn!("a session was refused: there are too many, or it is open already");
            return;
        }
        let _kept = Kept { sessions: self, id };
        self.changed.notify_waiters();
        drive.await;
        ended.send_replace(true);
    }

    /// A session by its name. It may be about to be opened.
    pub(crate) async fn get(&self, id: &str) -> Result<Session, Status> {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = self.open().get(id).cloned() {
                    return session;
                }
                changed.await;
            }
        };
        let found = tokio::time::timeout(SESSION_TIMEOUT, found).await;
        found.map_err(|_| Status::new(Code::Unavailable, format!("no active session for {id}")))
    }
}

/// Takes the session away when its connection is over, however that ends.
struct Kept<'a> {
    sessions: &'a Sessions,
    id: String,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.sessions.open().remove(&self.id);
    }
}

impl Session {
    fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Returns when the client is gone.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error is that the connection's task is gone, too.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Begins a call with messages in both directions. `None`: the client does not serve it.
    pub(crate) fn open(&self, path: &'static str, headers: HeaderMap) -> Option<Duplex> {
        self.serves(path).then(|| self.channel.open(path, headers))
    }

    /// Who the client is to a registry.
    pub(crate) async fn credentials(&self, domain: &str) -> Result<Credentials, Status> {
        if !self.serves(CREDENTIALS) {
            return Ok(Credentials::Anonymous);
        }
        // Docker's configuration knows its registry by another name.
        let host = match domain {
            oci::reference::DEFAULT_DOMAIN => "registry-1.docker.io",
            domain => domain,
        };
        let request = CredentialsRequest {
            host: host.to_owned(),
        };
        let known: CredentialsResponse = self.channel.call(CREDENTIALS, &request).await?;
        Ok(match (known.username, known.secret) {
            (_, secret) if secret.is_empty() => Credentials::Anonymous,
            // Without a user it is a token, which gets others.
            (user, secret) if user.is_empty() => {
                Credentials::known(String::new(), String::new(), secret, String::new())
            }
            (user, secret) => Credentials::known(user, secret, String::new(), String::new()),
        })
    }

    /// A secret; `None` where the client has none of that name.
    pub(crate) async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Status> {
        if !self.serves(SECRET) {
            return Ok(None);
        }
        let request = GetSecretRequest { id: id.to_owned() };
        let secret = self.channel.call::<GetSecretResponse>(SECRET, &request);
        match secret.await {
            Ok(secret) if secret.data.len() > SECRET_BYTES_MAX => Err(Status::new(
                Code::ResourceExhausted,
                format!("secret {id} has more than {SECRET_BYTES_MAX} bytes"),
            )),
            Ok(secret) => Ok(Some(secret.data)),
            Err(status) if status.code == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}
