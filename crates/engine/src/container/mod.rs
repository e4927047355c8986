//! One container in the engine: what is known of it, and who waits for it.
//!
//! Locks are private and held for moments: the state is in a watch channel, so that `list` and `inspect` read it while
//! a start or stop is under way. Only `operation` is held longer: it keeps the calls that change a container's life
//! (start, stop, remove …) in a row, for this container alone.

pub(crate) mod record;

use crate::error::Result;
use crate::exec::Exec;
use crate::link::{Link, Stream};
use crate::model::{Phase, Snapshot, Spec, State};
use shim::protocol::Streams;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot, watch};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) spec: Arc<Spec>,
    name: Mutex<String>,
    state: watch::Sender<Arc<State>>,
    /// Held through every call that changes the container's life.
    pub(crate) operation: tokio::sync::Mutex<()>,
    link: Mutex<Option<Link>>,
    attaching: Mutex<Vec<Attaching>>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
    /// Ends the wait before a policy's restart.
    pub(crate) no_restart: Notify,
}

/// A client that attached before the container was started.
#[derive(Debug)]
pub(crate) struct Attaching {
    pub(crate) streams: Streams,
    pub(crate) ready: oneshot::Sender<Stream>,
}

/// Panics while a lock is held leave nothing half-done behind these locks: each guards one value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    pub(crate) fn new(spec: Spec, name: String, state: State) -> Self {
        Self {
            spec: Arc::new(spec),
            name: Mutex::new(name),
            state: watch::Sender::new(Arc::new(state)),
            operation: tokio::sync::Mutex::default(),
            link: Mutex::default(),
            attaching: Mutex::default(),
            execs: Mutex::default(),
            no_restart: Notify::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.spec.id
    }

    pub(crate) fn name(&self) -> String {
        lock(&self.name).clone()
    }

    pub(crate) fn has_name(&self, name: &str) -> bool {
        *lock(&self.name) == name
    }

    pub(crate) fn set_name(&self, name: String) {
        *lock(&self.name) = name;
    }

    /// How it is now. What is told of a thousand containers is no thousand copies.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state.borrow().phase
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// Changes the state; everybody waiting sees it. The change of phase has to be one that the table allows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) -> Arc<State> {
        let mut new = None;
        self.state.send_modify(|state| {
            let before = state.phase;
            change(Arc::make_mut(state));
            let allowed = before == state.phase || before.may_become(state.phase);
            debug_assert!(allowed, "{before:?} became {:?}", state.phase);
            if !allowed {
                tracing::error!(?before, after = ?state.phase, "a container changed its phase in an unforeseen way");
            }
            new = Some(Arc::clone(state));
        });
        new.expect("send_modify calls its closure")
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_in(self.state())
    }

    /// How it was when its state was this.
    pub(crate) fn snapshot_in(&self, state: Arc<State>) -> Snapshot {
        Snapshot {
            name: self.name(),
            spec: Arc::clone(&self.spec),
            state,
        }
    }

    pub(crate) fn link(&self) -> Option<Link> {
        lock(&self.link).clone()
    }

    /// The shim, of a container that runs.
    pub(crate) fn running_link(&self) -> Result<Link> {
        let link = self.link().filter(|_| self.phase().is_running());
        link.ok_or_else(|| {
            crate::Error::conflict(format!("container {} is not running", self.id()))
        })
    }

    pub(crate) fn set_link(&self, link: Option<Link>) {
        *lock(&self.link) = link;
    }

    pub(crate) fn push_attaching(&self, attaching: Attaching) {
        lock(&self.attaching).push(attaching);
    }

    pub(crate) fn take_attaching(&self) -> Vec<Attaching> {
        std::mem::take(&mut *lock(&self.attaching))
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        lock(&self.execs)
    }
}
