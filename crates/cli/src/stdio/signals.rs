//! Signals that this process passes on to a container.

use crate::error::{IoContext, Result};
use client::{Client, Request};
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What people and service managers send. SIGCHLD, SIGPIPE and the job-control signals of a reader are this process' own.
const FORWARDED: [(&str, SignalKind); 9] = [
    ("HUP", SignalKind::hangup()),
    ("INT", SignalKind::interrupt()),
    ("QUIT", SignalKind::quit()),
    ("TERM", SignalKind::terminate()),
    ("USR1", SignalKind::user_defined1()),
    ("USR2", SignalKind::user_defined2()),
    ("ALRM", SignalKind::alarm()),
    (
        "CONT",
        SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()),
    ),
    (
        "TSTP",
        SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()),
    ),
];

/// Signals that are caught from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    caught: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// Catches the signals to forward, or none.
    pub(crate) fn catch(forward: bool) -> Result<Self> {
        let wanted = if forward { &FORWARDED[..] } else { &[] };
        let caught = wanted
            .iter()
            .map(|(name, kind)| {
                Ok((
                    *name,
                    signal(*kind).during(|| format!("sigaction(SIG{name})"))?,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Self { caught })
    }

    /// Passes every signal on to the container. Never returns.
    pub(crate) async fn forward(&mut self, client: &Client, id: &str) -> Infallible {
        loop {
            let name = self.next().await;
            let request = Request::post(&["containers", id, "kill"]).query("signal", name);
            // A container that has just ended cannot be signalled, and its end is about to be noticed.
            let _ = client.call(&request).await;
        }
    }

    async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            for (name, signal) in &mut self.caught {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}
