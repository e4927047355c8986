//! Asking: the checks of one run, each an exec, and what follows from their results.

use super::{Check, CheckResult, OnUnhealthy, Status, TIMEOUT_NS, duration, or_default};
use crate::container::Container;
use crate::error::{Kind, Result};
use crate::exec::ExecConfig;
use crate::model::Phase;
use crate::{Engine, Streams};
use jiff::Timestamp;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// How much of a check's output is kept.
const OUTPUT_BYTES_MAX: usize = 4096;

/// The exit code of a check that could not be made, or took too long.
const EXIT_NO_RESULT: i32 = -1;

/// Checks a running container again and again; it never ends by itself.
pub(crate) async fn monitor(engine: &Engine, container: &Arc<Container>) -> Infallible {
    let spec = Arc::clone(&container.spec);
    let checked = spec.health.as_ref();
    let Some((check, command)) = checked.and_then(|check| Some((check, check.command()?))) else {
        return std::future::pending().await;
    };
    loop {
        let state = container.state();
        let (Some(health), Some(started_at)) = (&state.health, state.started_at) else {
            // The run has just ended.
            return std::future::pending().await;
        };
        tokio::time::sleep(check.wait(health.status, started_at, Timestamp::now())).await;
        unpaused(container).await;
        if let Some(result) = engine.probe(container, check, &command).await {
            engine.check_ended(container, check, result, started_at);
        }
    }
}

/// Waits until the container is not frozen.
async fn unpaused(container: &Container) {
    let mut state = container.watch();
    // The sender is in `container`.
    let _ = state.wait_for(|state| state.phase != Phase::Paused).await;
}

/// Waits until so much time has passed in which the container was not frozen.
async fn running_for(container: &Container, time: Duration) {
    let mut left = time;
    let mut state = container.watch();
    loop {
        unpaused(container).await;
        let began = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            _ = state.wait_for(|state| state.phase == Phase::Paused) => {}
        }
        left = left.saturating_sub(began.elapsed());
    }
}

impl Engine {
    /// Makes one check. None: the container is about to end, or was frozen, so that nothing can be said of it.
    async fn probe(
        &self,
        container: &Arc<Container>,
        check: &Check,
        command: &[String],
    ) -> Option<CheckResult> {
        let start = Timestamp::now();
        let (exit_code, output) = match self.try_probe(container, check, command).await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::Conflict => return None,
            Err(error) => (EXIT_NO_RESULT, error.chain()),
        };
        Some(CheckResult {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        })
    }

    async fn try_probe(
        &self,
        container: &Arc<Container>,
        check: &Check,
        command: &[String],
    ) -> Result<(i32, String)> {
        let exec = self.exec_create(
            container.id(),
            ExecConfig {
                command: command.to_vec(),
                streams: Streams {
                    stdin: false,
                    stdout: true,
                    stderr: true,
                },
                ..ExecConfig::default()
            },
        )?;
        // Forgotten when this is over, also when it is dropped on the way: there are many.
        let _forget = Forget {
            container,
            exec: &exec.id,
        };
        let stream = self.exec_start(&exec.id, false, None).await?;
        let mut output = Output::default();
        let timeout = duration(or_default(check.timeout_ns, TIMEOUT_NS));
        let done = async {
            if let Some(mut stream) = stream {
                output.receive(&stream.received);
                output.read(&mut stream.socket).await;
            }
            exec.wait().await
        };
        let code = tokio::select! {
            code = done => Some(code),
            () = running_for(container, timeout) => None,
        };
        if let Some(code) = code {
            return Ok((code, output.text()));
        }
        match self.exec_signal(&exec.id, crate::stop::SIGKILL).await {
            // It ends just now.
            Err(error) if error.kind() == Kind::Conflict => {}
            result => result?,
        }
        exec.wait().await;
        Ok((EXIT_NO_RESULT, timed_out(timeout, &output.text())))
    }

    /// Keeps a check's result, and does what follows.
    fn check_ended(
        &self,
        container: &Arc<Container>,
        check: &Check,
        result: CheckResult,
        started_at: Timestamp,
    ) {
        let mut statuses = None;
        container.change(|state| {
            if let Some(health) = &mut state.health {
                let before = health.status;
                health.add(result, check, started_at);
                statuses = Some((before, health.status));
            }
        });
        self.save_or_log(container);
        let Some((_, status)) = statuses.filter(|(before, after)| before != after) else {
            return;
        };
        let action = format!("health_status: {}", status.as_str());
        self.container_event(container, action, []);
        if status == Status::Unhealthy {
            self.became_unhealthy(container, check.on_unhealthy);
        }
    }

    /// In a task of its own: what follows ends the run, and with it the one that this is called from.
    fn became_unhealthy(&self, container: &Arc<Container>, action: OnUnhealthy) {
        let (engine, container) = (self.clone(), Arc::clone(container));
        tokio::spawn(async move {
            let id = container.id();
            let done = match action {
                OnUnhealthy::Nothing => Ok(()),
                OnUnhealthy::Restart => engine.restart(id, None, None).await,
                OnUnhealthy::Stop => engine.stop(id, None, None).await,
                OnUnhealthy::Kill => engine.signal_init(&container, crate::stop::SIGKILL).await,
            };
            match done {
                Err(error) if error.kind() != Kind::NotModified => tracing::error!(
                    container = id,
                    error = error.chain(),
                    "cannot act on an unhealthy container"
                ),
                _ => {}
            }
        });
    }
}

fn timed_out(timeout: Duration, output: &str) -> String {
    let sentence = format!("Health check exceeded timeout ({timeout:?})");
    if output.is_empty() {
        sentence
    } else {
        format!("{sentence}: {output}")
    }
}

/// Takes an exec out of its container's when it is dropped.
struct Forget<'a> {
    container: &'a Container,
    exec: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.container.execs().remove(self.exec);
    }
}

/// The output of a check, out of Docker's multiplexed stream, up to its limit.
#[derive(Debug, Default)]
struct Output {
    /// Bytes that are no whole header yet.
    header: Vec<u8>,
    /// Bytes of the present piece that are to come.
    left: usize,
    text: Vec<u8>,
    cut: bool,
}

impl Output {
    async fn read(&mut self, socket: &mut tokio::net::UnixStream) {
        let mut buffer = [0; 4096];
        // A stream that breaks off has ended.
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            self.receive(&buffer[..count]);
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        const HEADER_BYTES: usize = 8;
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = HEADER_BYTES - self.header.len();
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header.extend_from_slice(taken);
                bytes = rest;
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            let room = OUTPUT_BYTES_MAX - self.text.len();
            self.cut |= piece.len() > room;
            self.text.extend_from_slice(&piece[..piece.len().min(room)]);
            self.left -= piece.len();
            bytes = rest;
        }
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        if self.cut {
            format!("{text}...")
        } else {
            text.into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_whatever_pieces_it_comes_in() {
        let mut stream = Vec::new();
        for _ in 0..5 {
            stream.extend([1, 0, 0, 0, 0, 0, 4, 0]);
            stream.extend([b'x'; 1024]);
        }
        for piece in [1, 7, 1000, stream.len()] {
            let mut output = Output::default();
            for bytes in stream.chunks(piece) {
                output.receive(bytes);
            }
            assert_eq!(output.text().len(), OUTPUT_BYTES_MAX + 3);
        }
        let mut output = Output::default();
        output.receive(b"\x02\0\0\0\0\0\0\x03no\n");
        assert_eq!(output.text(), "no\n");
    }
}
