//! A running container: its shim's events, its end, and what the restart policy makes of it.

use crate::Engine;
use crate::container::Container;
use crate::error::Result;
use crate::health::Status;
use crate::link::{EventReceiver, Link};
use crate::model::{Phase, Restart};
use jiff::Timestamp;
use shim::protocol::{Event, ExitRecord};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The first wait before a restart; it doubles with each failure.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a restart.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(60);

/// A container that has run so long is healthy: the next restart waits the least again.
const RESTART_RESET_AFTER_S: i64 = 10;

/// The exit code of a container whose shim was killed: it died with it.
const EXIT_LOST: i32 = 137;

/// Follows a container through its run, and through the runs that its restart policy adds. Boxed, because a restart
/// spawns the next run's supervision from within.
pub(crate) fn supervise(
    engine: Engine,
    container: Arc<Container>,
    link: Link,
    events: EventReceiver,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let record = tokio::select! {
            record = follow(&engine, &container, events) => record,
            never = crate::health::monitor(&engine, &container) => match never {},
        };
        drop(link);
        let record = record.unwrap_or_else(|| engine.find_exit(&container));
        engine.run_ended(&container, record).await;
    })
}

/// Serves the shim's events until the last one. None: the shim ended without telling.
async fn follow(
    engine: &Engine,
    container: &Container,
    mut events: EventReceiver,
) -> Option<ExitRecord> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Exit(record) => return Some(record),
            Event::ExecExit { id, code } => engine.exec_ended(container, &id, code),
            Event::Oom => {
                container.change(|state| state.oom_killed = true);
                engine.container_event(container, "oom", []);
            }
        }
    }
    None
}

impl Engine {
    /// How a container ended whose shim is gone: as the shim wrote it down, or with the shim.
    pub(crate) fn find_exit(&self, container: &Container) -> ExitRecord {
        match shim::orphan::exit_record(&self.bundle(container.id())) {
            Ok(Some(record)) => record,
            other => ExitRecord {
                code: EXIT_LOST,
                oom: false,
                finished_at: Timestamp::now(),
                error: Some(match other {
                    Err(error) => format!("the exit record cannot be read: {error}"),
                    Ok(_) => {
                        "the container's shim was killed, and the container with it".to_owned()
                    }
                }),
            },
        }
    }

    /// A container's init has ended: clean up, tell everybody, start again or remove as the container says.
    pub(crate) async fn run_ended(&self, container: &Arc<Container>, record: ExitRecord) {
        self.end_run(container).await;
        for exec in container.execs().values() {
            if matches!(exec.state(), crate::exec::ExecState::Running(_)) {
                exec.end(EXIT_LOST);
            }
        }
        let delay = self.restart_delay(container, &record);
        container.change(|state| {
            state.phase = if delay.is_some() {
                Phase::Restarting
            } else {
                Phase::Exited
            };
            state.pid = None;
            state.exit_code = record.code;
            state.oom_killed |= record.oom;
            state.finished_at = Some(record.finished_at);
            state.error = record.error.clone().unwrap_or_default();
            state.exits += 1;
            state.told = false;
            if let Some(health) = &mut state.health {
                health.status = Status::Unhealthy;
            }
        });
        self.save_or_log(container);
        self.container_event(container, "die", [("exitCode", record.code.to_string())]);
        container.change(|state| state.told = true);
        match delay {
            Some(delay) => self.restart_after(container, delay).await,
            None if container.spec.lifecycle.auto_remove => self.auto_remove(container).await,
            None => {}
        }
    }

    pub(crate) fn save_or_log(&self, container: &Container) {
        if let Err(error) = self.save_state(container) {
            tracing::error!(
                container = container.id(),
                error = error.chain(),
                "cannot write a container's state"
            );
        }
    }

    pub(crate) async fn auto_remove(&self, container: &Arc<Container>) {
        match self.remove(container.id(), true, true).await {
            // Somebody else was faster.
            Err(error) if error.kind() == crate::Kind::NotFound => {}
            Err(error) => {
                tracing::error!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot remove a container"
                );
            }
            Ok(()) => {}
        }
    }

    /// How long to wait before the policy starts the container again; None: it does not.
    fn restart_delay(&self, container: &Container, record: &ExitRecord) -> Option<Duration> {
        let state = container.state();
        let wanted = match container.snapshot().restart() {
            Restart::No => false,
            Restart::OnFailure(max) => record.code != 0 && (max == 0 || state.restart_count < max),
            Restart::Always | Restart::UnlessStopped => true,
        };
        if !wanted || state.stopped_by_hand {
            return None;
        }
        let ran_s = state.started_at.map_or(0, |started| {
            record.finished_at.as_second() - started.as_second()
        });
        let doublings = if ran_s >= RESTART_RESET_AFTER_S {
            0
        } else {
            state.restart_count.min(16)
        };
        Some((RESTART_DELAY_MIN * 2_u32.pow(doublings)).min(RESTART_DELAY_MAX))
    }

    async fn restart_after(&self, container: &Arc<Container>, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = container.no_restart.notified() => return,
        }
        let _operation = container.operation.lock().await;
        // Meanwhile it may have been stopped, removed, or started by hand.
        if container.phase() != Phase::Restarting {
            return;
        }
        container.change(|state| state.restart_count += 1);
        if let Err(error) = self.start_locked(container).await {
            tracing::error!(
                container = container.id(),
                error = error.chain(),
                "cannot restart a container"
            );
            container.change(|state| state.phase = Phase::Exited);
            self.save_or_log(container);
        }
    }

    /// What the policies say when the engine starts.
    pub(crate) async fn start_by_policy(&self, container: &Arc<Container>) -> Result<()> {
        let state = container.state();
        let wanted = match container.snapshot().restart() {
            Restart::Always => state.phase != Phase::Created,
            Restart::UnlessStopped => state.phase != Phase::Created && !state.stopped_by_hand,
            Restart::No | Restart::OnFailure(_) => state.phase == Phase::Restarting,
        };
        if !wanted || container.phase().is_running() {
            return Ok(());
        }
        let _operation = container.operation.lock().await;
        self.start_locked(container).await
    }
}
