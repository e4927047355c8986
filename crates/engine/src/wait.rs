//! Waiting for a container's end.

use crate::Engine;
use crate::error::Result;
use crate::model::State;
use std::sync::Arc;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// That it does not run; it may be so already.
    NotRunning,
    /// The next end.
    NextExit,
    /// That it is gone.
    Removed,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The container's exit code.
    pub code: i32,
    /// What went wrong at the end.
    pub error: Option<String>,
}

impl Engine {
    /// Begins to wait: what happens after this call is not missed, even if the future is polled later.
    ///
    /// # Errors
    /// No such container.
    pub fn wait(
        &self,
        key: &str,
        condition: Condition,
    ) -> Result<impl Future<Output = Exit> + Send + use<>> {
        let container = self.0.registry.find(key)?;
        let mut watch = container.watch();
        let exits = watch.borrow().exits;
        let met = move |state: &Arc<State>| match condition {
            _ if state.removed => true,
            Condition::NotRunning => !state.phase.is_running(),
            Condition::NextExit => state.exits > exits,
            Condition::Removed => false,
        };
        Ok(async move {
            // The container, and with it the sender, lives as long as this future.
            let _container = container;
            let state = watch
                .wait_for(met)
                .await
                .expect("the state's sender is kept by this future");
            // Of one that is gone, whoever started it has been told why.
            let error =
                Some(state.error.clone()).filter(|error| !error.is_empty() && !state.removed);
            Exit {
                code: state.exit_code,
                error,
            }
        })
    }
}
