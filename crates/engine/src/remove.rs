//! `rm`: everything of a container goes, its record last, so that a crash on the way is finished by the next engine.

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::model::{MountSource, Phase};
use shim::protocol::{Request, Target};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

/// How long the kernel may take to end a killed container.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

impl Engine {
    /// Removes a container; a running one only with `force`. `volumes`: its anonymous volumes, too.
    ///
    /// # Errors
    /// No such container, it runs, or something of it cannot be removed: then it is [`Phase::Dead`].
    pub async fn remove(&self, key: &str, force: bool, volumes: bool) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        if container.state().removed {
            return Err(Error::not_found(format!("No such container: {key}")));
        }
        self.end_for_removal(&container, force).await?;
        container.change(|state| state.phase = Phase::Removing);
        self.save_state(&container)?;
        // Attached clients of a container that will never start see the end of their streams.
        drop(container.take_attaching());
        match block_in_place(|| self.remove_files(&container, volumes)) {
            Ok(()) => {}
            Err(error) => {
                container.change(|state| {
                    state.phase = Phase::Dead;
                    state.error = error.chain();
                });
                self.save_or_log(&container);
                return Err(error);
            }
        }
        self.0.store.delete_container(container.id())?;
        self.0.registry.remove(container.id());
        self.container_event(&container, "destroy", []);
        container.change(|state| state.removed = true);
        Ok(())
    }

    async fn end_for_removal(&self, container: &Arc<Container>, force: bool) -> Result<()> {
        let phase = container.phase();
        if phase.is_running() || phase == Phase::Restarting {
            if !force {
                let first = match phase {
                    Phase::Paused => "Unpause and then stop",
                    _ => "Stop",
                };
                return Err(Error::conflict(format!(
                    "You cannot remove a {} container {}. {first} the container before attempting removal or force remove",
                    phase.as_str(),
                    container.id(),
                )));
            }
            container.change(|state| state.stopped_by_hand = true);
        }
        if phase == Phase::Restarting {
            container.no_restart.notify_one();
        } else if phase.is_running() {
            if let Some(link) = container.link() {
                match link
                    .tell(Request::Signal {
                        signal: 9,
                        to: Target::Init,
                    })
                    .await
                {
                    // It has ended meanwhile.
                    Err(error) if error.kind() == Kind::Conflict => {}
                    result => {
                        result?;
                        let signal = crate::stop::SIGKILL.to_string();
                        self.container_event(container, "kill", [("signal", signal)]);
                    }
                }
            }
            self.wait_ended(container, KILL_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Removes a container's writable layer. That it is gone is no error.
    pub(crate) fn remove_layer(&self, id: &str) -> Result<()> {
        let images = &self.0.images;
        let doing = || format!("remove the writable layer of container {id}");
        let remove = || images.remove_snapshot(id).context(doing);
        match images.snapshot(id).context(doing)? {
            Some(snapshot) => self.remove_limited(&snapshot.upper, remove),
            None => remove(),
        }
    }

    /// Removes the files of a container that does not run. What is gone already is no error.
    pub(crate) fn remove_files(&self, container: &Container, volumes: bool) -> Result<()> {
        let id = container.id();
        self.remove_layer(id)?;
        for (at, mount) in container.spec.mounts.iter().enumerate() {
            if matches!(
                mount.source,
                MountSource::Image { .. }
                    | MountSource::Layers { .. }
                    | MountSource::Overlaid { .. }
            ) {
                self.0
                    .images
                    .remove_snapshot(&crate::mounts::image_snapshot(id, at))
                    .context(|| format!("remove what is mounted in container {id}"))?;
            }
        }
        for dir in [self.container_dir(id), self.bundle(id)] {
            crate::start::remove_bundle(&dir).context(|| format!("remove {dir:?}"))?;
        }
        if !volumes {
            return Ok(());
        }
        for mount in &container.spec.mounts {
            let MountSource::Volume {
                name,
                anonymous: true,
                ..
            } = &mount.source
            else {
                continue;
            };
            let others = self.volume_users(name).iter().any(|user| user != id);
            if !others {
                self.remove_anonymous_volume(name)?;
            }
        }
        Ok(())
    }
}
