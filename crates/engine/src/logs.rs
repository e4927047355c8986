//! Reading a container's log.

use crate::Engine;
use crate::error::{Context, Error, Result};
use crate::model::{Spec, State};
use shim::log::{Entry, ReadOptions, Reader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Entries of a container's log, one after the other.
#[derive(Debug)]
pub struct LogStream {
    reader: Reader,
    /// Waits for more while the container runs; None: the present entries only.
    follow: Option<Follow>,
}

#[derive(Debug)]
struct Follow {
    changed: AsyncFd<OwnedFd>,
    state: watch::Receiver<Arc<State>>,
    /// The log of the run that was followed is complete.
    ended: bool,
}

/// Makes the directory that a log is in.
pub(crate) fn make_directory(log: &Path) -> Result<()> {
    let directory = log.parent().unwrap_or(log);
    std::fs::create_dir_all(directory).context(|| format!("make {directory:?}"))
}

impl Engine {
    /// The current file of the log that can be read. None: there is none.
    pub fn log_path(&self, spec: &Spec) -> Option<PathBuf> {
        let name = spec.log.file_name(&spec.id)?;
        Some(self.container_dir(&spec.id).join(name))
    }

    /// Opens a container's log.
    ///
    /// # Errors
    /// No such container, a log driver that cannot be read.
    pub fn logs(&self, key: &str, options: ReadOptions, follow: bool) -> Result<LogStream> {
        let container = self.0.registry.find(key)?;
        let path = self
            .log_path(&container.spec)
            .ok_or_else(|| Error::invalid("configured logging driver does not support reading"))?;
        let state = container.watch();
        make_directory(&path)?;
        let reader = Reader::open(&path, options).context(|| "open the log")?;
        let follow = match follow {
            true => {
                let fd = reader
                    .wait_fd()
                    .try_clone_to_owned()
                    .context(|| "follow the log")?;
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe for descriptors that are not owned; this one is"
                )]
                let changed =
                    AsyncFd::with_interest(fd, Interest::READABLE).context(|| "follow the log")?;
                Some(Follow {
                    changed,
                    state,
                    ended: false,
                })
            }
            false => None,
        };
        Ok(LogStream { reader, follow })
    }
}

impl LogStream {
    /// The next entry; None at the end, which a followed log reaches when its container has ended.
    ///
    /// # Errors
    /// As reading the files.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            self.reader.clear_wait().context(|| "read the log")?;
            if let Some(entry) = self.reader.next().context(|| "read the log")? {
                return Ok(Some(entry));
            }
            let Some(follow) = self.follow.as_mut().filter(|follow| !follow.ended) else {
                return Ok(None);
            };
            let over = |state: &Arc<State>| !state.phase.is_running() || state.removed;
            tokio::select! {
                ready = follow.changed.readable() => {
                    ready.context(|| "follow the log")?.clear_ready();
                }
                ended = follow.state.wait_for(over) => {
                    // The shim has recorded everything before the engine heard of the end: one more round finds it.
                    drop(ended);
                    follow.ended = true;
                }
            }
        }
    }
}
