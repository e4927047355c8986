//! Clients at a container's streams.

use crate::Engine;
use crate::container::Attaching;
use crate::error::{Error, Result};
use crate::link::Stream;
use crate::model::Phase;
use shim::protocol::{Request, Streams};
use tokio::sync::oneshot;

/// A client's streams, now or when the container is started.
#[derive(Debug)]
pub enum Attached {
    /// The container runs.
    Now(Stream),
    /// It will, or the sender is dropped: the start failed, or the container was removed.
    WhenStarted(oneshot::Receiver<Stream>),
}

impl Engine {
    /// Attaches to a container's init. To one that does not run, from its start on: no byte is missed.
    ///
    /// # Errors
    /// No such container, paused, being removed.
    pub async fn attach(&self, key: &str, streams: Streams) -> Result<Attached> {
        let container = self.0.registry.find(key)?;
        let attached = match container.phase() {
            Phase::Running => {
                let (_, stream) = container
                    .running_link()?
                    .open(&Request::Attach(streams))
                    .await?;
                Attached::Now(stream)
            }
            Phase::Paused => {
                return Err(Error::conflict(format!(
                    "container {key} is paused, unpause the container before attach"
                )));
            }
            Phase::Created | Phase::Exited | Phase::Restarting => {
                let (ready, receiver) = oneshot::channel();
                container.push_attaching(Attaching { streams, ready });
                Attached::WhenStarted(receiver)
            }
            Phase::Removing | Phase::Dead => {
                return Err(Error::conflict(format!("container {key} is being removed")));
            }
        };
        self.container_event(&container, "attach", []);
        Ok(attached)
    }
}
