//! Further processes in running containers.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::link::Stream;
use crate::model::Phase;
use crate::{Engine, ids};
use shim::protocol::{self, ExecStatus, Reply, Request, Streams, Target};
use std::sync::Arc;
use tokio::sync::watch;

/// How many execs of one container are remembered. The oldest that have ended go first.
const EXECS_MAX: usize = 1000;

/// What to execute.
#[derive(Debug, Clone, Default)]
pub struct ExecConfig {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, over the container's.
    pub environment: Vec<String>,
    /// Instead of the container's; empty: the container's.
    pub working_dir: String,
    /// Instead of the container's; empty: the container's.
    pub user: String,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Height and width of the terminal to begin with.
    pub console_size: Option<(u16, u16)>,
    /// With all capabilities.
    pub privileged: bool,
    /// The streams its client wants.
    pub streams: Streams,
    /// The key sequence that detaches; empty: the client's default.
    pub detach_keys: String,
}

/// How far an exec is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// It runs as this process of the host.
    Running(i32),
    /// It has ended with this code.
    Exited(i32),
}

/// An exec.
#[derive(Debug)]
pub struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// What it executes.
    pub config: ExecConfig,
    state: watch::Sender<ExecState>,
}

impl Exec {
    pub(crate) fn new(id: String, container: String, config: ExecConfig, state: ExecState) -> Self {
        Self {
            id,
            container,
            config,
            state: watch::Sender::new(state),
        }
    }

    /// How far it is.
    pub fn state(&self) -> ExecState {
        *self.state.borrow()
    }

    /// Waits for its end and returns the exit code.
    pub async fn wait(&self) -> i32 {
        let mut state = self.state.subscribe();
        let ended = state
            .wait_for(|state| matches!(state, ExecState::Exited(_)))
            .await;
        match ended.map(|state| *state) {
            Ok(ExecState::Exited(code)) => code,
            // The sender is in `self`.
            _ => unreachable!("the state outlives this call"),
        }
    }

    pub(crate) fn end(&self, code: i32) {
        self.state.send_replace(ExecState::Exited(code));
    }
}

impl Engine {
    /// Prepares an exec in a running container.
    ///
    /// # Errors
    /// No such container, not running, paused, no command.
    pub fn exec_create(&self, key: &str, config: ExecConfig) -> Result<Arc<Exec>> {
        let container = self.0.registry.find(key)?;
        match container.phase() {
            Phase::Running => {}
            Phase::Paused => {
                return Err(Error::conflict(format!(
                    "container {key} is paused, unpause the container before exec"
                )));
            }
            _ => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    container.id()
                )));
            }
        }
        if config.command.iter().all(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let action = action("exec_create", &config.command);
        let exec = Exec::new(
            ids::random_id()?,
            container.id().to_owned(),
            config,
            ExecState::Created,
        );
        let exec = Arc::new(exec);
        remember(&container, Arc::clone(&exec))?;
        self.exec_event(&container, action, &exec, None);
        Ok(exec)
    }

    /// The exec with this id.
    ///
    /// # Errors
    /// No such exec.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.find_exec(id).map(|(_, exec)| exec)
    }

    /// The ids of a container's execs that run.
    ///
    /// # Errors
    /// No such container.
    pub fn running_execs(&self, key: &str) -> Result<Vec<String>> {
        let container = self.0.registry.find(key)?;
        let execs = container.execs();
        let running = execs
            .values()
            .filter(|exec| matches!(exec.state(), ExecState::Running(_)));
        Ok(running.map(|exec| exec.id.clone()).collect())
    }

    fn find_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>)> {
        let containers = self.0.registry.all();
        let found = containers.into_iter().find_map(|container| {
            let exec = container.execs().get(id).cloned()?;
            Some((container, exec))
        });
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// The exec with this id, if it can be started as things are.
    ///
    /// # Errors
    /// No such exec, started already, the container does not run.
    pub fn exec_startable(&self, id: &str) -> Result<Arc<Exec>> {
        let (container, exec) = self.find_exec(id)?;
        container.running_link()?;
        if exec.state() != ExecState::Created {
            return Err(already_started(id));
        }
        Ok(exec)
    }

    /// Starts an exec. Detached, nothing is streamed.
    ///
    /// # Errors
    /// Started already, the container has ended, the command cannot be executed.
    pub async fn exec_start(
        &self,
        id: &str,
        detached: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<Option<Stream>> {
        let (container, exec) = self.find_exec(id)?;
        let link = container.running_link()?;
        let mut config = exec.config.clone();
        config.console_size = console_size.or(config.console_size);
        let request = Request::Exec(Box::new(protocol::Exec {
            id: exec.id.clone(),
            process: crate::spec::exec_process(
                &container.spec,
                &config,
                self.apparmor_profile(&container.spec),
            )?,
            user: Some(config.user.clone())
                .filter(|user| !user.is_empty())
                .or_else(|| Some(container.spec.process.user.clone())),
            streams: if detached {
                Streams::default()
            } else {
                config.streams
            },
        }));
        // Whoever claims it starts it: a second start of the same exec finds it taken.
        let claimed = exec.state.send_if_modified(|state| {
            let free = *state == ExecState::Created;
            if free {
                *state = ExecState::Running(0);
            }
            free
        });
        if !claimed {
            return Err(already_started(id));
        }
        let action = action("exec_start", &config.command);
        // Told before it is so: the end of a short command may be told before the answer is here.
        self.exec_event(&container, action, &exec, None);
        match link.open(&request).await {
            Ok((Reply::Started { pid }, stream)) => {
                exec.state.send_if_modified(|state| {
                    // A short command may have ended, and its end been heard of, already.
                    let running = *state == ExecState::Running(0);
                    if running {
                        *state = ExecState::Running(pid);
                    }
                    running
                });
                Ok((!detached && exec.config.streams.any()).then_some(stream))
            }
            Ok((other, _)) => {
                exec.end(EXIT_CANNOT_EXECUTE);
                Err(Error::new(
                    crate::Kind::System,
                    format!("the container's shim answered something else: {other:?}"),
                ))
            }
            Err(error) => {
                exec.end(match error.kind() {
                    crate::Kind::CommandNotFound => EXIT_NOT_FOUND,
                    _ => EXIT_CANNOT_EXECUTE,
                });
                Err(error)
            }
        }
    }

    /// Sets the size of an exec's terminal.
    ///
    /// # Errors
    /// No such exec, not running, no terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let (container, exec) = self.find_exec(id)?;
        if exec.state() == ExecState::Created {
            return Err(Error::conflict(format!("exec {id} is not running")));
        }
        let exec = Some(exec.id.clone());
        container
            .running_link()?
            .tell(Request::Resize {
                exec,
                rows,
                columns,
            })
            .await
    }

    /// Sends an exec a signal.
    ///
    /// # Errors
    /// No such exec, not running.
    pub async fn exec_signal(&self, id: &str, signal: i32) -> Result<()> {
        let (container, exec) = self.find_exec(id)?;
        let to = Target::Exec(exec.id.clone());
        container
            .running_link()?
            .tell(Request::Signal { signal, to })
            .await
    }

    /// An exec's end, told by the shim.
    pub(crate) fn exec_ended(&self, container: &Container, id: &str, code: i32) {
        let exec = container.execs().get(id).cloned();
        if let Some(exec) = exec {
            exec.end(code);
            self.exec_event(container, "exec_die".to_owned(), &exec, Some(code));
        }
    }

    /// What an earlier engine started, told by the shim.
    pub(crate) fn adopt_execs(container: &Container, statuses: &[ExecStatus]) {
        for status in statuses {
            let state = match status.code {
                Some(code) => ExecState::Exited(code),
                None => ExecState::Running(status.pid),
            };
            let exec = Exec::new(
                status.id.clone(),
                container.id().to_owned(),
                ExecConfig::default(),
                state,
            );
            container.execs().insert(status.id.clone(), Arc::new(exec));
        }
    }

    fn exec_event(&self, container: &Container, action: String, exec: &Exec, code: Option<i32>) {
        let mut more = vec![("execID", exec.id.clone())];
        more.extend(code.map(|code| ("exitCode", code.to_string())));
        self.container_event(container, action, more);
    }
}

/// What a shell says of a command it cannot find.
pub(crate) const EXIT_NOT_FOUND: i32 = 127;

/// What a shell says of a command it cannot execute.
pub(crate) const EXIT_CANNOT_EXECUTE: i32 = 126;

fn already_started(id: &str) -> Error {
    Error::conflict(format!("exec command {id} is already running or has ended"))
}

/// What is told of an exec, in Docker's form: the program, and its arguments behind a space of their own.
fn action(what: &str, command: &[String]) -> String {
    let (program, arguments) = match command {
        [program, arguments @ ..] => (program.as_str(), arguments),
        [] => ("", command),
    };
    format!("{what}: {program} {}", arguments.join(" "))
}

/// Keeps an exec, at the cost of an ended one when there are many.
fn remember(container: &Container, exec: Arc<Exec>) -> Result<()> {
    let mut execs = container.execs();
    if execs.len() >= EXECS_MAX {
        let ended = execs
            .iter()
            .find(|(_, exec)| matches!(exec.state(), ExecState::Exited(_)));
        let ended = ended.map(|(id, _)| id.clone());
        let ended = ended.ok_or_else(|| {
            Error::conflict(format!(
                "container {} has {EXECS_MAX} execs that have not ended",
                container.id()
            ))
        })?;
        execs.remove(&ended);
    }
    execs.insert(exec.id.clone(), exec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_command_is_in_dockers_form() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(action("exec_start", &words("true")), "exec_start: true ");
        assert_eq!(
            action("exec_start", &words("echo a b")),
            "exec_start: echo a b"
        );
    }
}
