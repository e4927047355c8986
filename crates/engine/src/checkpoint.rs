//! Checkpoints: images of a container's processes, made and restored by criu.
//!
//! ```text
//! containers/<id>/checkpoints/<name>/    the images, as criu and the runtime leave them
//! ```
//! or `<name>` in a directory that was asked for. Invariant: no such directory is there after a failure, and none is removed
//! that is not one of a checkpoint. The writable layer and the volumes are no part of it: they are as they
//! are when it is restored.

use crate::container::Container;
use crate::error::{Context, Error, Result};
use crate::ids::check_name;
use crate::model::{Phase, Spec};
use crate::{Engine, link};
use shim::protocol::{Reply, Request};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::block_in_place;

/// How long criu may take: it writes the container's whole memory to the disk, or reads it.
pub(crate) const CRIU_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// As many checkpoints as are listed.
const CHECKPOINTS_MAX: usize = 4096;

/// A checkpoint's name, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// An absolute directory of checkpoints; None: the container's own.
    pub directory: Option<PathBuf>,
}

impl Engine {
    /// Makes a checkpoint of a running container. Unless it is left running, it has ended then, and no policy starts it
    /// again.
    ///
    /// # Errors
    /// No such container, not running, a bad or taken name, no criu, or something that criu cannot keep: then the container
    /// goes on, and nothing is left.
    pub async fn create_checkpoint(
        &self,
        key: &str,
        checkpoint: &Checkpoint,
        leave_running: bool,
    ) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let images = self.checkpoint_path(&container, checkpoint)?;
        let _operation = container.operation.lock().await;
        if container.phase() == Phase::Paused {
            return Err(Error::conflict(format!(
                "container {key} is paused, unpause the container before a checkpoint"
            )));
        }
        let link = container.running_link()?;
        check_can_be_kept(&container.spec)?;
        let criu = shim::find_criu()?;
        block_in_place(|| make(&images, checkpoint, &container))?;
        let by_hand = container.state().stopped_by_hand;
        if !leave_running {
            container.change(|state| state.stopped_by_hand = true);
        }
        let asked = Request::Checkpoint {
            criu,
            images: images.clone(),
            leave_running,
        };
        let answer = link.open_within(CRIU_TIMEOUT, &asked).await;
        let made = answer.and_then(|(reply, _)| match reply {
            Reply::Done => Ok(()),
            other => Err(link::unexpected(&other)),
        });
        if let Err(error) = made {
            container.change(|state| state.stopped_by_hand = by_hand);
            let message = format!("Cannot checkpoint container {key}: {}", error.chain());
            block_in_place(|| remove(&images))?;
            return Err(Error::new(error.kind(), message));
        }
        if !leave_running {
            self.wait_ended(&container, crate::stop::KILL_TIMEOUT)
                .await?;
        }
        self.container_event(&container, "checkpoint", []);
        Ok(())
    }

    /// The names of a container's checkpoints, sorted, or of those in a directory.
    ///
    /// # Errors
    /// No such container, a directory that cannot be read.
    pub fn checkpoints(&self, key: &str, directory: Option<&Path>) -> Result<Vec<String>> {
        let container = self.0.registry.find(key)?;
        let directory = self.checkpoint_directory(&container, directory)?;
        let doing = || format!("list the checkpoints in {directory:?}");
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(doing)?,
        };
        let mut names = Vec::new();
        for entry in entries.take(CHECKPOINTS_MAX) {
            let entry = entry.context(doing)?;
            if entry.path().join(shim::CHECKPOINT_MARK).exists() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes a checkpoint.
    ///
    /// # Errors
    /// No such container or checkpoint, or its files cannot be removed.
    pub async fn remove_checkpoint(&self, key: &str, checkpoint: &Checkpoint) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let images = self.find_checkpoint(&container, checkpoint)?;
        // Nobody fills or restores it now.
        let _operation = container.operation.lock().await;
        block_in_place(|| remove(&images))
    }

    /// The images of a checkpoint that is there.
    pub(crate) fn find_checkpoint(
        &self,
        container: &Container,
        checkpoint: &Checkpoint,
    ) -> Result<PathBuf> {
        let path = self.checkpoint_path(container, checkpoint)?;
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() && path.join(shim::CHECKPOINT_MARK).exists() => Ok(path),
            Ok(found) if found.is_dir() => Err(Error::conflict(format!(
                "{} has no checkpoint in it",
                path.display()
            ))),
            Ok(_) => Err(not_a_directory(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::not_found(format!(
                "checkpoint {} does not exist for container {}",
                checkpoint.name,
                container.name()
            ))),
            Err(error) => Err(Error::system(format!("stat {path:?}"), error)),
        }
    }

    fn checkpoint_path(&self, container: &Container, checkpoint: &Checkpoint) -> Result<PathBuf> {
        check_name("checkpoint", &checkpoint.name)?;
        let directory = self.checkpoint_directory(container, checkpoint.directory.as_deref())?;
        Ok(directory.join(&checkpoint.name))
    }

    fn checkpoint_directory(
        &self,
        container: &Container,
        directory: Option<&Path>,
    ) -> Result<PathBuf> {
        match directory {
            None => Ok(self.container_dir(container.id()).join("checkpoints")),
            Some(directory) if directory.is_absolute() => Ok(directory.to_owned()),
            Some(directory) => Err(Error::invalid(format!(
                "the directory of checkpoints {directory:?} is no absolute path"
            ))),
        }
    }
}

/// Names what criu cannot keep of a container, before it is asked.
fn check_can_be_kept(spec: &Spec) -> Result<()> {
    let isolation = &spec.isolation;
    let reasons = [
        (
            spec.process.terminal,
            "checkpoint not support on containers with tty",
        ),
        (
            isolation.user_namespace,
            "a checkpoint of a container with a user namespace (--userns private)",
        ),
        (
            isolation.init,
            "a checkpoint of a container with --init: its init is a program of the engine, which is not in the container",
        ),
    ];
    match reasons.iter().find(|(is_so, _)| *is_so) {
        Some((_, reason)) => Err(Error::unsupported(*reason)),
        None => Ok(()),
    }
}

fn not_a_directory(path: &Path) -> Error {
    Error::conflict(format!("{} exists and is not a directory", path.display()))
}

/// Makes the directory of images, which hold the container's memory: root's alone.
fn make(images: &Path, checkpoint: &Checkpoint, container: &Container) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(parent) = images.parent() {
        let made = builder.recursive(true).create(parent);
        made.context(|| format!("make the directory {parent:?}"))?;
    }
    match builder.recursive(false).create(images) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && images.is_dir() => {
            Err(Error::conflict(format!(
                "checkpoint with name {} already exists for container {}",
                checkpoint.name,
                container.name()
            )))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(not_a_directory(images)),
        made => made.context(|| format!("make the directory {images:?}")),
    }
}

fn remove(images: &Path) -> Result<()> {
    std::fs::remove_dir_all(images).context(|| format!("remove {images:?}"))
}
