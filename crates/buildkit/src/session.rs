//! Sessions: connections on which a client serves what its build needs of it.
//!
//! Invariant: a session is there from its handshake until its connection ends, and no longer; whoever waits for one waits
//! for a limited time.

use crate::grpc::{Channel, Code, Duplex, Status};
use crate::messages::{
    CheckAgentRequest, CredentialsRequest, CredentialsResponse, Empty, GetSecretRequest,
    GetSecretResponse,
};
use builder::ContextName;
use http::{HeaderMap, HeaderName, HeaderValue};
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
/// What the client calls the directory that it gives files of: the same for the next build.
const HEADER_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const HEADER_METHODS: &str = "x-docker-expose-session-grpc-method";

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Which of the client's agents is meant.
const HEADER_AGENT: HeaderName = HeaderName::from_static("buildkit.ssh.id");
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/// What a client says of a session that it is about to open.
#[derive(Debug)]
pub struct Announced {
    pub(crate) id: String,
    /// Lower case.
    pub(crate) methods: BTreeSet<String>,
    pub(crate) shared_key: String,
}

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
    /// Whose session it is, where that is known.
    owner: Option<Arc<str>>,
    shared_key: Arc<str>,
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
    pub(crate) fn announced(headers: &HeaderMap) -> Result<Announced, String> {
        let id = headers.get(HEADER_ID).and_then(|id| id.to_str().ok());
        let id = id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
        let id = id.ok_or_else(|| format!("a session has a name in {HEADER_ID}"))?;
        let methods = headers.get_all(HEADER_METHODS).iter();
        let methods: BTreeSet<String> = methods
            .filter_map(|method| method.to_str().ok())
            .map(str::to_ascii_lowercase)
            .take(METHODS_MAX)
            .collect();
        let shared_key = headers.get(HEADER_SHARED_KEY);
        let shared_key = shared_key.and_then(|key| key.to_str().ok());
        Ok(Announced {
            id: id.to_owned(),
            methods,
            shared_key: shared_key.unwrap_or_default().to_owned(),
        })
    }

    /// Keeps a session until its connection ends.
    pub(crate) async fn keep<I>(&self, announced: Announced, owner: Option<String>, connection: I)
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
            methods: Arc::new(announced.methods),
            owner: owner.map(Arc::from),
            shared_key: Arc::from(announced.shared_key),
            gone,
        };
        let id = announced.id;
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

    /// What a directory of the client is called from build to build, as far as it can be known.
    pub(crate) fn context_name(&self, directory: &str) -> Option<ContextName> {
        if self.shared_key.is_empty() {
            return None;
        }
        let owner = self.owner.as_deref()?.to_owned();
        ContextName::new(owner, &format!("{directory}:{}", self.shared_key))
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

    /// Whether the client has an SSH agent of that name.
    pub(crate) async fn has_agent(&self, id: &str) -> Result<bool, Status> {
        if !self.serves(CHECK_AGENT) || !self.serves(FORWARD_AGENT) {
            return Ok(false);
        }
        let request = CheckAgentRequest { id: id.to_owned() };
        match self.channel.call::<Empty>(CHECK_AGENT, &request).await {
            Ok(Empty {}) => Ok(true),
            // Agents that are not there are told as an unknown failure.
            Err(status) if matches!(status.code, Code::Unknown | Code::NotFound) => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// A connection to the client's SSH agent.
    pub(crate) fn agent(&self, id: &str) -> Result<Duplex, Status> {
        let value = HeaderValue::from_str(id);
        let value = value.map_err(|_| Status::new(Code::InvalidArgument, "a bad name of an agent"));
        let headers = HeaderMap::from_iter([(HEADER_AGENT, value?)]);
        let missing = || Status::new(Code::NotFound, "the client forwards no SSH agent");
        self.open(FORWARD_AGENT, headers).ok_or_else(missing)
    }
}
