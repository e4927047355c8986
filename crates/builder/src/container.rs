//! A container of the engine that a build runs a command in: how it is asked for, run, listened to and removed.
//!
//! Invariant: it goes with its [`Container`], however the build ends.

use crate::build::{Build, becomes_true};
use crate::error::{Doing, Error, Result};
use crate::progress::{Event, StepNumber};
use crate::request::Request;
use engine::model::{
    CreateRequest, Echo, Isolation, Lifecycle, LogDriver, LogSpec, Mount, NetworkMode, NetworkSpec,
    ProcessSpec,
};
use engine::{Attached, Condition, Exit, Stream, Streams};
use oci::Digest;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::io::AsyncReadExt;

/// Bytes of output that are passed on at once.
const OUTPUT_BYTES: usize = 32 << 10;
/// Bytes before each piece of a container's output: the stream, three zeros, the length.
const FRAME_BYTES: usize = 8;
/// Bytes that are kept of what a command says that is no step.
const SAID_BYTES_MAX: usize = 4 << 10;

/// What holds a command.
pub(crate) struct Confinement {
    pub(crate) network: NetworkMode,
    pub(crate) privileged: bool,
}

/// A command as it will run.
pub(crate) struct Order<'o> {
    /// The layers that it stands on, the lowest first.
    pub(crate) on: &'o [Digest],
    pub(crate) argv: Vec<String>,
    pub(crate) process: ProcessSpec,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) confinement: Confinement,
}

impl Order<'_> {
    /// The container, as it is asked for.
    pub(crate) fn request(self, build: &Request) -> CreateRequest {
        let Confinement {
            network,
            privileged,
        } = self.confinement;
        let on = self.on.last().map(ToString::to_string);
        CreateRequest {
            name: None,
            image: on.unwrap_or_else(|| "scratch".to_owned()),
            platform: None,
            entrypoint: Some(Vec::new()),
            command: Some(self.argv),
            process: self.process,
            isolation: Isolation {
                privileged,
                shm_bytes: build.shm_bytes,
                cgroup_parent: build.cgroup_parent.clone(),
                ..Isolation::default()
            },
            limits: build.limits.clone(),
            mounts: self.mounts,
            volumes: Vec::new(),
            network: NetworkSpec {
                mode: network,
                extra_hosts: build.extra_hosts.clone(),
                ..NetworkSpec::default()
            },
            lifecycle: Lifecycle::default(),
            log: LogSpec {
                driver: LogDriver::None,
                options: BTreeMap::new(),
                max_bytes: None,
                files_max: 1,
            },
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            wishes: Vec::new(),
            health: None,
            volumes_from: Vec::new(),
            storage: BTreeMap::new(),
            echo: Echo::default(),
        }
    }
}

/// The container of a command. It goes with this value.
pub(crate) struct Container<'s, 'a> {
    build: &'s Build<'a>,
    /// The step that is told of it.
    step: Option<StepNumber>,
    pub(crate) id: String,
    /// The last of what was said, where that is told with no step.
    said: Mutex<Vec<u8>>,
}

impl<'s, 'a> Container<'s, 'a> {
    /// Makes one that stands on these layers.
    pub(crate) fn create(
        build: &'s Build<'a>,
        step: Option<StepNumber>,
        layers: Vec<Digest>,
        request: CreateRequest,
    ) -> Result<Self> {
        let created = build
            .handle
            .block_on(async { build.engine.create_on(layers, request) });
        let created = created.doing(|| "make the command's container".to_owned())?;
        Ok(Self {
            build,
            step,
            id: created.spec.id.clone(),
            said: Mutex::default(),
        })
    }

    /// Runs it to its end, passing on what it says; returns the exit code.
    pub(crate) fn run(&self) -> Result<i32> {
        if let Some(step) = self.step {
            let container = &self.id;
            self.build.tell(&Event::Running { step, container });
        }
        self.build.handle.block_on(async {
            // A start that is broken off would undo nothing: who wants the build to end waits for it.
            let (attached, ended) = self.start().await?;
            tokio::select! {
                code = self.follow(attached, ended) => code,
                () = self.build.stopped() => Err(Error::Cancelled),
            }
        })
    }

    /// Starts it: its streams, and its end.
    async fn start(&self) -> Result<(Attached, impl Future<Output = Exit>)> {
        self.build.check_stop()?;
        let engine = self.build.engine;
        let streams = Streams {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let attached = engine.attach(&self.id, streams).await;
        let attached = attached.doing(|| "attach to the command".to_owned())?;
        let ended = engine.wait(&self.id, Condition::NextExit);
        let ended = ended.doing(|| "wait for the command".to_owned())?;
        engine
            .start(&self.id, None)
            .await
            .doing(|| "start the command".to_owned())?;
        Ok((attached, ended))
    }

    async fn follow(&self, attached: Attached, ended: impl Future<Output = Exit>) -> Result<i32> {
        let stream = match attached {
            Attached::Now(stream) => Some(stream),
            Attached::WhenStarted(ready) => ready.await.ok(),
        };
        if let Some(stream) = stream {
            self.pass_on(stream).await?;
        }
        let exit = ended.await;
        match exit.error {
            Some(error) => Err(Error::Invalid(error)),
            None => Ok(exit.code),
        }
    }

    /// Passes the output on until the command and all that it has left running have closed it.
    async fn pass_on(&self, stream: Stream) -> Result<()> {
        let Stream {
            mut socket,
            mut received,
        } = stream;
        let mut buffer = vec![0; OUTPUT_BYTES];
        loop {
            let taken = self.frames(&received);
            received.drain(..taken);
            let count = socket.read(&mut buffer).await;
            match count.doing(|| "read the command's output".to_owned())? {
                0 => return Ok(()),
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Passes whole frames on; returns how many bytes they were.
    fn frames(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some((header, rest)) = bytes[at..].split_first_chunk::<FRAME_BYTES>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let Some(content) = rest.get(..length) else {
                break;
            };
            // A slow client holds the command back; that must not hold the engine's other work back.
            tokio::task::block_in_place(|| match self.step {
                Some(step) => self.build.tell(&Event::Output {
                    step,
                    is_error: header[0] == 2,
                    bytes: content,
                }),
                None => self.keep(content),
            });
            at += FRAME_BYTES + length;
        }
        at
    }

    fn keep(&self, bytes: &[u8]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(bytes);
        let surplus = said.len().saturating_sub(SAID_BYTES_MAX);
        said.drain(..surplus);
    }

    /// The last of what a command has said that is no step.
    pub(crate) fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// Waits until the client has removed it, in whatever way it has used it.
    pub(crate) fn lend(self) -> Result<()> {
        let removed = self.build.engine.wait(&self.id, Condition::Removed);
        let removed = removed.doing(|| "wait for the client".to_owned())?;
        let mut stop = self.build.request.stop.clone();
        self.build.handle.block_on(async {
            tokio::select! {
                _ = removed => Ok(()),
                () = becomes_true(&mut stop) => Err(Error::Cancelled),
            }
        })?;
        // There is nothing to remove any more.
        std::mem::forget(self);
        Ok(())
    }

    pub(crate) fn remove(self) -> Result<()> {
        let removed = self
            .build
            .handle
            .block_on(self.build.engine.remove(&self.id, true, true));
        let id = self.id.clone();
        let (build, step) = (self.build, self.step);
        // It is gone, or cannot be removed: trying again changes nothing.
        std::mem::forget(self);
        removed.doing(|| "remove the command's container".to_owned())?;
        if let Some(step) = step {
            build.tell(&Event::Removed {
                step,
                container: &id,
            });
        }
        Ok(())
    }
}

impl Container<'_, '_> {
    /// Gives back the room of what the command has written: on a full disk, nothing can be recorded before that.
    fn discard(&self) {
        // Where there is no layer, there is nothing to give back; where it stays, the removal says so.
        if let Ok(snapshot) = self.build.engine.writable_layer(&self.id) {
            for entry in std::fs::read_dir(&snapshot.upper)
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = entry.path();
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}

impl Drop for Container<'_, '_> {
    fn drop(&mut self) {
        let remove = || {
            let removed = self.build.engine.remove(&self.id, true, true);
            self.build.handle.block_on(removed)
        };
        let removed = remove().or_else(|_| {
            self.discard();
            remove()
        });
        if let Err(error) = removed {
            tracing::error!(
                container = self.id,
                error = error.chain(),
                "cannot remove a build's container"
            );
        }
    }
}
