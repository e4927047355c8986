//! What a new engine finds: containers that run, containers that ended meanwhile, and the rest of a crash.

use crate::Engine;
use crate::container::{Container, record};
use crate::error::{Context, Result};
use crate::link::Link;
use crate::model::Phase;
use std::sync::{Arc, PoisonError};
use tokio::task::block_in_place;

impl Engine {
    /// Brings the records and the machine into agreement, then does what the restart policies say.
    pub(crate) async fn restore(&self) -> Result<()> {
        self.restore_networks()?;
        for row in self.0.store.containers()? {
            let spec = record::decode_spec(&row.spec)?;
            let state = record::decode_state(&row.state, &spec.network.mode)?;
            let container = Container::new(spec, row.name, state);
            self.0.registry.insert(Arc::new(container));
        }
        let mut containers = self.0.registry.all();
        containers.sort_by_key(|container| container.spec.created);
        let mut adopted = Vec::new();
        for container in &containers {
            if let Some(base) = container.state().user_namespace_base {
                self.0
                    .user_namespaces
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(base);
            }
            let found = Link::find(&self.bundle(container.id())).await?;
            // One that was never told to start ends by itself, now that its launcher is gone.
            if let Some((link, status, events)) = found.filter(|(_, status, _)| status.started) {
                container.change(|state| {
                    state.phase = if status.paused {
                        Phase::Paused
                    } else {
                        Phase::Running
                    };
                    state.pid = Some(status.pid);
                    state.oom_killed = status.oom;
                    state.started_at = state.started_at.or(Some(jiff::Timestamp::now()));
                    let health = state.health.take();
                    state.health =
                        health.or_else(|| crate::health::at_start(&container.spec, None));
                });
                Self::adopt_execs(container, &status.execs);
                block_in_place(|| self.adopt_volumes(&container.spec))?;
                container.set_link(Some(link.clone()));
                adopted.push(container.id().to_owned());
                let run = crate::run::supervise(self.clone(), Arc::clone(container), link, events);
                tokio::spawn(run);
            }
        }
        block_in_place(|| self.adopt_endpoints())?;
        block_in_place(|| self.restore_names())?;
        for container in containers
            .iter()
            .filter(|container| container.phase().is_running())
        {
            self.renew_services(container).await;
        }
        for container in containers
            .iter()
            .filter(|container| !adopted.iter().any(|id| id == container.id()))
        {
            self.settle(container).await?;
        }
        block_in_place(|| self.sweep())?;
        for container in &containers {
            if let Err(error) = self.start_by_policy(container).await {
                tracing::error!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot start a container as its policy says"
                );
            }
        }
        Ok(())
    }

    /// A crash may have come between a connection and telling of it. One that cannot be told now has just ended, or keeps
    /// what it knows.
    async fn renew_services(&self, container: &Container) {
        let (Some(link), Some(pid)) = (container.link(), container.state().pid) else {
            return;
        };
        let renewed = match self.serve_names(container, &link, pid).await {
            Ok(()) => self.relay_ports(container, &link).await,
            failed => failed,
        };
        if let Err(error) = renewed {
            tracing::error!(
                container = container.id(),
                error = error.chain(),
                "cannot renew what a container's shim serves"
            );
        }
    }

    /// Concludes what was under way with a container that does not run.
    async fn settle(&self, container: &Arc<Container>) -> Result<()> {
        let phase = container.phase();
        let has_bundle = self.bundle(container.id()).exists();
        match phase {
            Phase::Removing => {
                // `rm` was interrupted; go on from where it was.
                self.end_run(container).await;
                block_in_place(|| self.remove_files(container, true))?;
                self.0.store.delete_container(container.id())?;
                self.0.registry.remove(container.id());
            }
            Phase::Running | Phase::Paused => {
                let record = self.find_exit(container);
                self.run_ended(container, record).await;
            }
            // An interrupted start, or the time between an end and its record.
            _ if has_bundle || container.state().endpoints().next().is_some() => {
                self.end_run(container).await;
                self.save_state(container)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Removes directories that no record knows.
    fn sweep(&self) -> Result<()> {
        let known = |name: &std::ffi::OsStr| {
            name.to_str().is_some_and(|name| {
                self.0
                    .registry
                    .find(name)
                    .is_ok_and(|found| found.id() == name)
            })
        };
        for dir in [
            self.0.config.run_root.join("containers"),
            self.0.config.data_root.join("containers"),
        ] {
            for entry in std::fs::read_dir(&dir).context(|| format!("list {dir:?}"))? {
                let entry = entry.context(|| format!("list {dir:?}"))?;
                if known(&entry.file_name()) {
                    continue;
                }
                let path = entry.path();
                shim::orphan::end(&path).context(|| format!("end what is left of {path:?}"))?;
                crate::start::remove_bundle(&path).context(|| format!("remove {path:?}"))?;
            }
        }
        for id in self
            .0
            .images
            .snapshots()
            .context(|| "list the writable layers")?
        {
            // Those of images that a container mounts are named after it.
            let owner = id.split('-').next().unwrap_or_default();
            if !known(owner.as_ref()) {
                self.remove_layer(&id)?;
            }
        }
        self.sweep_volumes()
    }
}
