//! Signals: `stop`, `kill`, `restart`, `pause`, `unpause`, `resize`, `update`.

use crate::Engine;
use crate::container::Container;
use crate::error::{Error, Kind, Result};
use crate::model::Phase;
use shim::protocol::{Request, Target};
use std::sync::Arc;
use std::time::Duration;

/// Seconds until `stop` kills, unless the container or the request says otherwise.
const STOP_TIMEOUT_S: i64 = 10;

/// How long the kernel may take to end a killed container.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// The signals of signal(7) on this architecture, by name without `SIG`.
const SIGNALS: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first and the last real-time signal a program can use.
const REAL_TIME: (i32, i32) = (34, 64);

/// Reads a signal: a number, or a name with or without `SIG`, `RTMIN+n` and `RTMAX-n` included.
///
/// # Errors
/// No such signal.
pub fn parse_signal(text: &str) -> Result<i32> {
    let invalid = || Error::invalid(format!("Invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return Some(number)
            .filter(|number| (1..=REAL_TIME.1).contains(number))
            .ok_or_else(invalid);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits
            .parse::<i32>()
            .ok()
            .filter(|n| (0..=REAL_TIME.1 - REAL_TIME.0).contains(n)),
        None => rest.is_empty().then_some(0),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+')
            .map(|n| REAL_TIME.0 + n)
            .ok_or_else(invalid);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-')
            .map(|n| REAL_TIME.1 - n)
            .ok_or_else(invalid);
    }
    let known = SIGNALS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(invalid)
}

impl Engine {
    /// Sends a signal to a container's init; SIGKILL unless another is named.
    ///
    /// # Errors
    /// No such container or signal, not running.
    pub async fn kill(&self, key: &str, signal: Option<&str>) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let number = signal
            .filter(|signal| !signal.is_empty())
            .map_or(Ok(SIGKILL), parse_signal)?;
        let not_running = || {
            Error::conflict(format!(
                "cannot kill container: {key}: container {} is not running",
                container.id()
            ))
        };
        let link = container
            .link()
            .filter(|_| container.phase().is_running())
            .ok_or_else(not_running)?;
        // A policy must not bring back what was killed, or asked to end, by hand.
        if number == SIGKILL || number == stop_signal(&container)? {
            container.change(|state| state.stopped_by_hand = true);
        }
        link.tell(Request::Signal {
            signal: number,
            to: Target::Init,
        })
        .await?;
        self.container_event(&container, "kill", [("signal", number.to_string())]);
        if number == SIGKILL {
            // So that whoever comes next finds it ended, as with Docker.
            self.wait_ended(&container, KILL_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Stops a container: its stop signal, then, after `timeout_s`, SIGKILL. Negative: never.
    ///
    /// # Errors
    /// No such container, not running ([`Kind::NotModified`]), or it cannot be ended.
    pub async fn stop(
        &self,
        key: &str,
        signal: Option<&str>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        self.stop_locked(&container, signal, timeout_s).await
    }

    /// Needs the container's `operation`.
    pub(crate) async fn stop_locked(
        &self,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        match container.phase() {
            Phase::Running | Phase::Paused => {}
            Phase::Restarting => {
                container.no_restart.notify_one();
                container.change(|state| {
                    state.phase = Phase::Exited;
                    state.stopped_by_hand = true;
                });
                self.save_or_log(container);
                return Ok(());
            }
            _ => {
                return Err(Error::new(
                    Kind::NotModified,
                    "the container is not running",
                ));
            }
        }
        let number = match signal.filter(|signal| !signal.is_empty()) {
            Some(signal) => parse_signal(signal)?,
            None => stop_signal(container)?,
        };
        container.change(|state| state.stopped_by_hand = true);
        let timeout_s = timeout_s
            .or(container.spec.lifecycle.stop_timeout_s)
            .unwrap_or(STOP_TIMEOUT_S);
        let link = container.running_link()?;
        if container.phase() == Phase::Paused {
            // A frozen process cannot follow a signal.
            link.tell(Request::Resume).await?;
            container.change(|state| state.phase = Phase::Running);
        }
        self.signal_init(container, number).await?;
        let ended = match u64::try_from(timeout_s) {
            Ok(timeout_s) => {
                self.wait_ended(container, Duration::from_secs(timeout_s))
                    .await
            }
            Err(_) => self.wait_ended(container, Duration::MAX).await,
        };
        if ended.is_err() {
            self.signal_init(container, SIGKILL).await?;
            self.wait_ended(container, KILL_TIMEOUT).await?;
        }
        self.container_event(container, "stop", []);
        Ok(())
    }

    /// That it has ended meanwhile is no error.
    pub(crate) async fn signal_init(&self, container: &Container, signal: i32) -> Result<()> {
        let Some(link) = container.link() else {
            return Ok(());
        };
        match link
            .tell(Request::Signal {
                signal,
                to: Target::Init,
            })
            .await
        {
            Err(error) if error.kind() != Kind::Conflict => return Err(error),
            _ => {}
        }
        self.container_event(container, "kill", [("signal", signal.to_string())]);
        Ok(())
    }

    /// Waits until a container's run is over and cleaned up.
    pub(crate) async fn wait_ended(&self, container: &Container, timeout: Duration) -> Result<()> {
        let mut state = container.watch();
        let ended = state.wait_for(|state| !state.phase.is_running() && state.told);
        let timed_out = || {
            Error::new(
                Kind::System,
                format!(
                    "container {} does not end: a process of it hangs in the kernel",
                    container.id()
                ),
            )
        };
        tokio::time::timeout(timeout, ended)
            .await
            .map_err(|_| timed_out())?
            .map(drop)
            .map_err(|_| timed_out())
    }

    /// Stops, if it runs, and starts.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub async fn restart(
        &self,
        key: &str,
        signal: Option<&str>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        match self.stop_locked(&container, signal, timeout_s).await {
            Err(error) if error.kind() != Kind::NotModified => return Err(error),
            _ => {}
        }
        if container.spec.lifecycle.auto_remove && container.state().removed {
            return Err(Error::not_found(format!("No such container: {key}")));
        }
        self.start_locked(&container).await?;
        self.container_event(&container, "restart", []);
        Ok(())
    }

    /// Freezes every process of a container.
    ///
    /// # Errors
    /// No such container, not running, frozen already.
    pub async fn pause(&self, key: &str) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        if container.phase() == Phase::Paused {
            return Err(Error::conflict(format!(
                "Container {key} is already paused"
            )));
        }
        container.running_link()?.tell(Request::Pause).await?;
        container.change(|state| state.phase = Phase::Paused);
        self.save_state(&container)?;
        self.container_event(&container, "pause", []);
        Ok(())
    }

    /// Undoes [`Engine::pause`].
    ///
    /// # Errors
    /// No such container, not paused.
    pub async fn unpause(&self, key: &str) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        if container.phase() != Phase::Paused {
            return Err(Error::conflict(format!("Container {key} is not paused")));
        }
        container.running_link()?.tell(Request::Resume).await?;
        container.change(|state| state.phase = Phase::Running);
        self.save_state(&container)?;
        self.container_event(&container, "unpause", []);
        Ok(())
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// No such container, not running, no terminal.
    pub async fn resize(&self, key: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let request = Request::Resize {
            exec: None,
            rows,
            columns,
        };
        container.running_link()?.tell(request).await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.container_event(&container, "resize", size);
        Ok(())
    }

    /// The resource usage of a running container.
    ///
    /// # Errors
    /// No such container, not running.
    pub async fn stats(&self, key: &str) -> Result<shim::Stats> {
        let container = self.0.registry.find(key)?;
        match container.running_link()?.ask(Request::Stats).await? {
            shim::protocol::Reply::Stats(stats) => Ok(*stats),
            other => Err(Error::new(
                Kind::System,
                format!("the container's shim answered something else: {other:?}"),
            )),
        }
    }
}

pub(crate) const SIGKILL: i32 = 9;

/// SIGTERM, unless the container names another.
fn stop_signal(container: &Container) -> Result<i32> {
    container
        .spec
        .lifecycle
        .stop_signal
        .as_deref()
        .map_or(Ok(15), parse_signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_number_and_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in [
            "", "0", "65", "-1", "FOO", "SIG", "RTMIN+40", "RTMIN-1", "RTMAX+1", "RTMIN+x",
        ] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
