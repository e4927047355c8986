//! What has happened: the latest events, and those to come.

use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// How many past events are remembered for `--since`.
const PAST_EVENTS_MAX: usize = 1024;

/// How many events a slow listener may lag behind before it misses the oldest.
const LAG_MAX: usize = 1024;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what kind of object.
    pub kind: EventKind,
    /// What, in Docker's word: `create`, `exec_start: ls` …
    pub action: String,
    /// The object's id, or name where it has no id.
    pub id: String,
    /// More about it: `name`, `image`, `exitCode` …
    pub attributes: BTreeMap<String, String>,
}

/// The kinds of objects that events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The engine.
    Daemon,
    /// What builds have left.
    Builder,
}

impl EventKind {
    /// The word Docker's clients know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
            Self::Builder => "builder",
        }
    }
}

/// The engine's events.
#[derive(Debug)]
pub(crate) struct Events {
    past: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            past: Mutex::default(),
            sender: broadcast::Sender::new(LAG_MAX),
        }
    }

    pub(crate) fn emit(
        &self,
        kind: EventKind,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, id) = (action.into(), id.to_owned());
        let event = Arc::new(Event {
            time: Timestamp::now(),
            kind,
            action,
            id,
            attributes,
        });
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == PAST_EVENTS_MAX {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Nobody listening is no error. Sent under the lock, so that a listener gets every event exactly once.
        let _ = self.sender.send(event);
    }

    /// The remembered events, oldest first, and a receiver of all that come after them.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.sender.subscribe())
    }
}
