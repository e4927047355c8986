//! Starts hull's own engine when a command needs one and none runs.
//!
//! Invariant: this happens only when nobody named an engine. Two clients at once may both start one; the engine's own lock
//! lets one of them live, and both clients then use it.

use crate::error::{Error, IoContext, Result};
use crate::output;
use client::Client;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How long an engine may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to go on when the engine that was started has ended: another client's may be about to answer.
const LOSER_TIMEOUT: Duration = Duration::from_secs(1);
/// The first and the longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How much of the log a failure shows.
const LOG_LINES_MAX: usize = 10;
const LOG_BYTES_MAX: u64 = 8 << 10;

/// The directory of the engine's socket and log: `/run/hull`, or the user's.
pub(crate) fn runtime_directory() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/hull".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory).join("hull"),
        _ => format!("/run/user/{}/hull", uid.as_raw()).into(),
    }
}

/// Connects to hull's own engine, and starts it when there is none.
pub(crate) async fn ensure(program: &str, client: &Client) -> Result<()> {
    match client.connect().await {
        Err(error) if error.is_unreachable() => {}
        result => return Ok(result?),
    }
    let directory = runtime_directory();
    let mut engine = Engine::start(&directory)?;
    engine.wait(client).await?;
    output::complain(&format!(
        "{program}: started the engine (pid {}, log {})",
        engine.child.id(),
        engine.log_path.display()
    ));
    Ok(())
}

struct Engine {
    child: Child,
    log_path: PathBuf,
    /// Where in the log this engine's lines begin.
    log_start: u64,
}

impl Engine {
    fn start(directory: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .during(|| format!("mkdir {}", directory.display()))?;
        let log_path = directory.join("hull.log");
        let call = || format!("open {}", log_path.display());
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log_path)
            .during(call)?;
        let log_start = log.metadata().during(call)?.len();
        let errors = log.try_clone().during(call)?;
        let child = Command::new("/proc/self/exe")
            .arg0("hull")
            .args(["daemon", "--idle-exit"])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .current_dir("/")
            // The terminal's signals are for the client.
            .process_group(0)
            .spawn()
            .during(|| "start the engine: execve(/proc/self/exe, daemon)")?;
        Ok(Self {
            child,
            log_path,
            log_start,
        })
    }

    async fn wait(&mut self, client: &Client) -> Result<()> {
        let mut deadline = Instant::now() + START_TIMEOUT;
        let mut pause = PAUSE_MIN;
        let mut ended = None;
        loop {
            match client.connect().await {
                Err(error) if error.is_unreachable() => {}
                result => return Ok(result?),
            }
            if ended.is_none() {
                ended = self.child.try_wait().during(|| "waitpid(the engine)")?;
                if ended.is_some() {
                    deadline = deadline.min(Instant::now() + LOSER_TIMEOUT);
                }
            }
            if Instant::now() >= deadline {
                let what = match ended {
                    Some(status) => format!("the engine ended at its start ({status})"),
                    None => format!(
                        "the engine does not answer after {} s",
                        START_TIMEOUT.as_secs()
                    ),
                };
                return Err(Error::msg(format!(
                    "{what}; its log {}:{}",
                    self.log_path.display(),
                    self.log_end()
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The last lines this engine logged, each on a line of its own.
    fn log_end(&self) -> String {
        match read_end(&self.log_path, self.log_start) {
            Ok(lines) if lines.is_empty() => " is empty".to_owned(),
            Ok(lines) => lines.iter().map(|line| format!("\n  {line}")).collect(),
            Err(error) => format!(" cannot be read: {error}"),
        }
    }
}

fn read_end(path: &Path, start: u64) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        start.max(length.saturating_sub(LOG_BYTES_MAX)),
    ))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_MAX);
    Ok(lines[first..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Host;

    #[test]
    fn only_the_last_lines_of_this_engine_are_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let old = "old\n".repeat(3);
        let new: String = (0..30).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, format!("{old}{new}")).unwrap();
        let lines = read_end(&path, 12).unwrap();
        assert_eq!(lines.len(), LOG_LINES_MAX);
        assert_eq!(
            (lines[0].as_str(), lines[9].as_str()),
            ("line 20", "line 29")
        );
        std::fs::write(&path, &old).unwrap();
        assert!(read_end(&path, 12).unwrap().is_empty());
    }

    /// The program of a test takes `daemon --idle-exit` for a mistake, and ends: an engine that fails.
    #[tokio::test]
    async fn an_engine_that_ends_shows_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(Host::Unix(directory.path().join("hull.sock")), None);
        let mut engine = Engine::start(directory.path()).unwrap();
        let error = engine.wait(&client).await.unwrap_err().to_string();
        assert!(
            error.starts_with("the engine ended at its start (exit status: "),
            "{error}"
        );
        assert!(error.contains("idle-exit"), "{error}");
    }

    #[tokio::test]
    async fn another_clients_engine_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("hull.sock");
        let client = Client::new(Host::Unix(socket.clone()), None);
        let mut engine = Engine::start(directory.path()).unwrap();
        while engine.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(PAUSE_MIN).await;
        }
        let (waited, _listener) = tokio::join!(engine.wait(&client), async {
            tokio::time::sleep(PAUSE_MAX).await;
            tokio::net::UnixListener::bind(&socket).unwrap()
        });
        waited.unwrap();
    }
}
