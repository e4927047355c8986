//! Starts a container that this terminal is attached to, and stays until its end: the common part of `run` and `start -a`.
//!
//! The order is what makes no byte and no exit code get lost: attach, then wait, then start.

use crate::error::{Error, Result};
use crate::stdio::{self, Attach, End, Signals};
use api_types::WaitResponse;
use client::{ApiVersion, Client, Hijacked, Request};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Before this API version a wait ends at once for a container that does not run yet, so it must follow the start.
const WAIT_HAS_CONDITIONS: ApiVersion = ApiVersion::new(1, 30);

/// An engine that answers a wait only when it is over must not keep the container from being started.
const WAIT_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an engine may take to remove a container that did not start.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// After the detach keys, how long a container that ended may take to say so. One that did not is detached from.
const DETACHED_GRACE: Duration = Duration::from_millis(100);

/// Whom this terminal is attached to, and how.
#[derive(Debug)]
pub(crate) struct Follow<'a> {
    pub(crate) client: &'a Client,
    pub(crate) id: &'a str,
    pub(crate) attach: Attach,
    /// The engine removes the container at its end.
    pub(crate) auto_remove: bool,
}

impl Follow<'_> {
    /// Starts the container, by a request as [`start_request`] makes it, and stays until its end, or until the user detaches; returns the
    /// exit code.
    pub(crate) async fn start(&self, request: &Request, signals: Signals) -> Result<u8> {
        let connection = self.connect().await?;
        let condition = if self.auto_remove {
            "removed"
        } else {
            "next-exit"
        };
        let mut wait = Wait::new(self.client, self.id, condition);
        if self.client.version() >= WAIT_HAS_CONDITIONS {
            wait.begin().await;
        }
        if let Err(error) = start(self.client, request).await {
            drop(connection);
            if self.auto_remove {
                // The engine removes what did not start; its name is free when this command ends. The start's error is
                // what matters.
                let _ = timeout(REMOVAL_TIMEOUT, wait.end()).await;
            }
            return Err(error);
        }
        self.stay(connection, wait, signals).await
    }

    /// Attaches to the running container and stays, as [`Follow::start`] does.
    pub(crate) async fn join(&self, signals: Signals) -> Result<u8> {
        // A container that is removed as it ends could not be waited for any more after that.
        let mut wait = Wait::new(self.client, self.id, "");
        wait.begin().await;
        let connection = self.connect().await?;
        if self.attach.tty && stdio::is_terminal() {
            stdio::make_redraw(self.client, &["containers", self.id]).await;
        }
        self.stay(connection, wait, signals).await
    }

    /// `POST /containers/{id}/attach`.
    async fn connect(&self) -> Result<Hijacked> {
        let keys = Some(&self.attach.detach_keys).filter(|keys| !keys.is_empty());
        let request = Request::post(&["containers", self.id, "attach"])
            .query_flag("stream", true)
            .query_flag("stdin", self.attach.stdin)
            .query_flag("stdout", self.attach.stdout)
            .query_flag("stderr", self.attach.stderr)
            .query_some("detachKeys", keys);
        Ok(self.client.hijack(&request).await?)
    }

    /// Copies streams, forwards signals and sizes, until the container has ended and said everything.
    async fn stay(&self, connection: Hijacked, wait: Wait<'_>, mut signals: Signals) -> Result<u8> {
        let end = self.end(connection, wait.end());
        tokio::pin!(end);
        tokio::select! {
            result = &mut end => result,
            never = signals.forward(self.client, self.id) => match never {},
            never = self.keep_size() => match never {},
        }
    }

    async fn keep_size(&self) -> Infallible {
        match self.attach.tty && stdio::is_terminal() {
            true => stdio::keep_size(self.client, &["containers", self.id]).await,
            false => std::future::pending().await,
        }
    }

    async fn end(
        &self,
        connection: Hijacked,
        wait: impl Future<Output = Result<u8>>,
    ) -> Result<u8> {
        let streams = self.attach.run(connection);
        tokio::pin!(streams, wait);
        let output = self.attach.stdout || self.attach.stderr;
        tokio::select! {
            biased;
            end = &mut streams => match end? {
                End::Closed => wait.await,
                End::Detached => timeout(DETACHED_GRACE, wait).await.unwrap_or(Ok(0)),
            },
            code = &mut wait => {
                if output {
                    // What the container said last may still be on its way.
                    streams.await?;
                }
                code
            }
        }
    }
}

/// `POST /containers/{id}/start`.
pub(crate) fn start_request(id: &str) -> Request {
    Request::post(&["containers", id, "start"])
}

/// Starts a container.
pub(crate) async fn start(client: &Client, request: &Request) -> Result<()> {
    client.call(request).await.map_err(Error::NotStarted)
}

/// A wait for a container's end.
struct Wait<'a> {
    answer: Pin<Box<dyn Future<Output = Result<u8>> + 'a>>,
    /// Told once the engine has begun to wait.
    registered: oneshot::Receiver<()>,
    ended: Option<Result<u8>>,
}

impl<'a> Wait<'a> {
    fn new(client: &'a Client, id: &'a str, condition: &'a str) -> Self {
        let (sender, registered) = oneshot::channel();
        let answer = Box::pin(wait(client, id, condition, sender));
        Self {
            answer,
            registered,
            ended: None,
        }
    }

    /// Sends the request and returns when the engine has begun to wait.
    async fn begin(&mut self) {
        tokio::select! {
            result = &mut self.answer => self.ended = Some(result),
            _ = &mut self.registered => {}
            () = sleep(WAIT_HEAD_TIMEOUT) => {}
        }
    }

    /// Waits, and returns the exit code.
    async fn end(self) -> Result<u8> {
        match self.ended {
            Some(result) => result,
            None => self.answer.await,
        }
    }
}

async fn wait(
    client: &Client,
    id: &str,
    condition: &str,
    registered: oneshot::Sender<()>,
) -> Result<u8> {
    let failed = |error: client::Error| Error::Wait(crate::error::chain(&error));
    let condition = Some(condition).filter(|condition| !condition.is_empty());
    let request = Request::post(&["containers", id, "wait"]).query_some("condition", condition);
    let response = client.send(&request).await.map_err(failed)?;
    // Nobody listens any more where the start did not wait for it.
    let _ = registered.send(());
    let answer: WaitResponse = response.json().await.map_err(failed)?;
    match answer.error {
        Some(error) => Err(Error::Wait(error.message)),
        None => Ok(exit_code(answer.status_code)),
    }
}

/// An exit code as a process can have it.
pub(crate) fn exit_code(code: i64) -> u8 {
    u8::try_from(code & 0xff).expect("masked to eight bits")
}

/// An exit code as the result of a command.
pub(crate) fn finish(code: u8) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::Exit(code))
    }
}
