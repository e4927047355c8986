//! `start`: the steps that bring a container to life, and their undoing.
//!
//! ```text
//! Layer    the writable layer's directories         undone by remove
//! Mounts   volumes made and filled                  undone by remove
//! Endpoint address and interface name reserved ─┐
//! Bundle   config.json and /etc files on tmpfs  │
//! Shim     namespaces, mounts, everything up to │   undone by `end_run`, which is also what follows a normal end
//!          the exec; the init waits             │
//! Connect  veth pairs in the network namespace, │
//!          names                                │
//! Ports    published                            │
//! Attach   waiting clients get their streams    │
//! Go       the init executes the command, or    │
//!          everything is restored in its place ─┘
//! ```
//! The endpoint is written to the record before anything of it exists, so a new engine finds it after kill -9. A shim
//! whose launcher dies before `Go` kills its container.

mod bundle;

pub(crate) use bundle::remove_bundle;

use crate::checkpoint::{CRIU_TIMEOUT, Checkpoint};
use crate::container::{Attaching, Container, record};
use crate::error::{Context, Error, Kind, Result};
use crate::link::{EventReceiver, Link, REPLY_TIMEOUT};
use crate::model::{ImageSource, Phase, Spec, State};
use crate::spec::USER_NAMESPACE_IDS;
use crate::{Engine, etc, quota};
use images::Snapshot;
use jiff::Timestamp;
use shim::protocol::{self, Launch, Reply, Request, Restore};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use tokio::task::block_in_place;

/// The host ids that containers' user namespaces are taken from: above what systemd-nspawn and subordinate ids use.
const USER_NAMESPACES_BASE: u32 = 0x7000_0000;

/// How many such ranges there are.
const USER_NAMESPACES_MAX: u32 = 4096;

/// A step of a start; a test can make each one fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Layer,
    Mounts,
    Endpoint,
    Bundle,
    Shim,
    Connect,
    Ports,
    Attach,
    Go,
}

impl Engine {
    /// Starts a container: its command, or from a checkpoint.
    ///
    /// # Errors
    /// No such container, it runs already, or whatever a step fails with; nothing of the attempt is left then.
    pub async fn start(&self, key: &str, checkpoint: Option<&Checkpoint>) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let _operation = container.operation.lock().await;
        match container.phase() {
            Phase::Created | Phase::Exited => {}
            Phase::Restarting => container.no_restart.notify_one(),
            Phase::Running => {
                return Err(Error::new(Kind::NotModified, "the container runs already"));
            }
            Phase::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Phase::Removing | Phase::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
        }
        let restore = match checkpoint {
            None => None,
            Some(checkpoint) => Some(Restore {
                images: self.find_checkpoint(&container, checkpoint)?,
                criu: shim::find_criu()?,
            }),
        };
        container.change(|state| state.restart_count = 0);
        self.start_or_restore(&container, restore).await
    }

    /// Needs the container's `operation`.
    pub(crate) async fn start_locked(&self, container: &Arc<Container>) -> Result<()> {
        self.start_or_restore(container, None).await
    }

    async fn start_or_restore(
        &self,
        container: &Arc<Container>,
        restore: Option<Restore>,
    ) -> Result<()> {
        match self.try_start(container, restore).await {
            Ok((link, events)) => {
                let engine = self.clone();
                tokio::spawn(crate::run::supervise(
                    engine,
                    Arc::clone(container),
                    link,
                    events,
                ));
                Ok(())
            }
            Err(error) => {
                let message = error.chain();
                // Attached clients see the end of their streams.
                drop(container.take_attaching());
                self.end_run(container).await;
                container.change(|state| {
                    state.error.clone_from(&message);
                    state.exit_code = match error.kind() {
                        Kind::CommandNotFound => crate::exec::EXIT_NOT_FOUND,
                        Kind::CommandNotExecutable => crate::exec::EXIT_CANNOT_EXECUTE,
                        _ => EXIT_NOT_STARTED,
                    };
                });
                self.save_state(container)?;
                if container.spec.lifecycle.auto_remove {
                    // Not awaited: it needs the lock that the caller holds.
                    let (engine, container) = (self.clone(), Arc::clone(container));
                    tokio::spawn(async move { engine.auto_remove(&container).await });
                }
                Err(error)
            }
        }
    }

    async fn try_start(
        &self,
        container: &Arc<Container>,
        restore: Option<Restore>,
    ) -> Result<(Link, EventReceiver)> {
        use fault::check as step;
        let spec = &container.spec;
        let limit = match restore {
            None => REPLY_TIMEOUT,
            Some(_) => CRIU_TIMEOUT,
        };
        let (snapshot, gids) = block_in_place(|| -> Result<_> {
            step(Step::Layer)?;
            let snapshot = self.ensure_layer(spec)?;
            step(Step::Mounts)?;
            let mounts = self.prepare_mounts(container, &snapshot)?;
            step(Step::Endpoint)?;
            self.reserve_endpoints(container)?;
            let user_namespace_base = self.reserve_user_namespace(container)?;
            self.save_state(container)?;
            step(Step::Bundle)?;
            let gids = self.prepare_bundle(container, mounts, user_namespace_base)?;
            Ok((snapshot, gids))
        })?;
        step(Step::Shim)?;
        let (link, status, events) = {
            let mut launch = self.launch(container, &snapshot, &gids)?;
            launch.restore = restore;
            Link::launch(self.0.executable.as_fd(), &launch).await?
        };
        container.set_link(Some(link.clone()));
        step(Step::Connect)?;
        block_in_place(|| self.connect(container, status.pid))?;
        self.serve_names(container, &link, status.pid).await?;
        step(Step::Ports)?;
        if block_in_place(|| self.publish(container))? {
            self.relay_ports(container, &link).await?;
            // Recorded before the container runs: a new engine publishes what is recorded, and nothing else.
            block_in_place(|| self.save_state(container))?;
        }
        block_in_place(|| self.update_links_to(&container.snapshot()))?;
        step(Step::Attach)?;
        for Attaching { streams, ready } in container.take_attaching() {
            let (_, stream) = link.open(&Request::Attach(streams)).await?;
            // A client that has gone meanwhile does not need it.
            let _ = ready.send(stream);
        }
        step(Step::Go)?;
        let pid = match link.ask_within(limit, Request::Start).await? {
            Reply::Done => status.pid,
            Reply::Started { pid } => pid,
            other => return Err(crate::link::unexpected(&other)),
        };
        block_in_place(|| self.unstage(container.id()))?;
        container.change(|state| {
            *state = State {
                phase: Phase::Running,
                pid: Some(pid),
                started_at: Some(Timestamp::now()),
                finished_at: state.finished_at,
                restart_count: state.restart_count,
                exits: state.exits,
                attachments: std::mem::take(&mut state.attachments),
                user_namespace_base: state.user_namespace_base,
                limits: state.limits.take(),
                published: state.published.take(),
                links: state.links.take(),
                restart: state.restart,
                health: crate::health::at_start(spec, state.health.take()),
                ..State::created()
            };
        });
        self.save_state(container)?;
        self.container_event(container, "start", []);
        Ok((link, events))
    }

    /// Writes what the state is now.
    pub(crate) fn save_state(&self, container: &Container) -> Result<()> {
        let text = record::encode_state(&container.state())?;
        Ok(self.0.store.set_container_state(container.id(), &text)?)
    }

    /// The container's writable layer, made when it is not there yet.
    pub(crate) fn ensure_layer(&self, spec: &Spec) -> Result<Snapshot> {
        let images = &self.0.images;
        let found = images.snapshot(&spec.id);
        let snapshot = match found.context(|| "find the writable layer")? {
            Some(snapshot) => snapshot,
            None => self.make_layer(spec)?,
        };
        let (Some(bytes), Some(whole)) = (quota::storage_bytes(spec)?, snapshot.upper.parent())
        else {
            return Ok(snapshot);
        };
        let tree = [whole, &snapshot.work, &snapshot.upper];
        self.limit_tree(&tree, bytes)?;
        Ok(snapshot)
    }

    fn make_layer(&self, spec: &Spec) -> Result<Snapshot> {
        let images = &self.0.images;
        let made = match &spec.image {
            ImageSource::Image(id) => {
                let id = id.parse().context(|| format!("read the image id {id}"))?;
                images.prepare(&spec.id, &id)
            }
            ImageSource::Directory(path) => images.prepare_directory(&spec.id, path),
            ImageSource::Layers(layers) => images.prepare_on(&spec.id, layers),
        };
        made.context(|| "make the writable layer")
    }

    fn reserve_user_namespace(&self, container: &Container) -> Result<Option<u32>> {
        if !container.spec.isolation.user_namespace {
            return Ok(None);
        }
        let mut taken = self
            .0
            .user_namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let bases = (0..USER_NAMESPACES_MAX).map(|n| USER_NAMESPACES_BASE + n * USER_NAMESPACE_IDS);
        let base = { bases }.find(|base| !taken.contains(base));
        let base = base
            .ok_or_else(|| Error::conflict("every range of ids for user namespaces is in use"))?;
        taken.insert(base);
        drop(taken);
        container.change(|state| state.user_namespace_base = Some(base));
        Ok(Some(base))
    }

    fn launch(&self, container: &Container, snapshot: &Snapshot, gids: &[u32]) -> Result<Launch> {
        let spec = &container.spec;
        let mut groups = spec.process.groups.clone();
        groups.extend(gids.iter().map(ToString::to_string));
        // Without a user nobody looks at groups.
        let user = match (spec.process.user.as_str(), &groups[..]) {
            ("", []) => None,
            ("", _) => Some("0".to_owned()),
            (user, _) => Some(user.to_owned()),
        };
        let directory = self.container_dir(&spec.id);
        let (log, remote_log) = crate::log_options::launch(spec, &container.name(), &directory)?;
        if let Some(log) = &log {
            crate::logs::make_directory(&log.path)?;
        }
        Ok(Launch {
            version: protocol::VERSION,
            id: spec.id.clone(),
            bundle: self.bundle(&spec.id),
            lowers: snapshot
                .lowers
                .iter()
                .cloned()
                .chain(self.mountpoints(spec))
                .collect(),
            upper: snapshot.upper.clone(),
            work: snapshot.work.clone(),
            user,
            groups,
            stdin: spec.process.open_stdin,
            stdin_once: spec.process.stdin_once,
            reaper: spec.isolation.init,
            log,
            remote_log,
            restore: None,
        })
    }

    /// A layer below every image, of what every container has mounted over: without it the mount points would be made in
    /// the container's own layer, and seem to be changes that the container has made. A directory of the host that holds
    /// this one, such as `/`, has those places itself, and overlayfs refuses a layer within another.
    fn mountpoints(&self, spec: &Spec) -> Option<PathBuf> {
        let path = self.0.config.data_root.join("mountpoints");
        match &spec.image {
            ImageSource::Directory(root) if path.starts_with(root) => None,
            _ => Some(path),
        }
    }

    /// Makes what [`Engine::mountpoints`] gives.
    pub(crate) fn make_mountpoints(root: &Path) -> Result<()> {
        let make = || -> std::io::Result<()> {
            for dir in ["dev", "proc", "sys", "etc"] {
                std::fs::create_dir_all(root.join(dir))?;
            }
            for name in etc::FILES {
                std::fs::File::create(root.join("etc").join(name))?;
            }
            // Container processes that are not root pass through it.
            let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(root, open(0o755))
        };
        make().context(|| format!("make {root:?}"))
    }

    /// Undoes everything that a run has made, as far as it was made: after an end as after a failed start.
    pub(crate) async fn end_run(&self, container: &Container) {
        container.set_link(None);
        let bundle = self.bundle(container.id());
        // A shim that was launched and not started ends by itself once its launcher's connection is closed, which the
        // line above did. One that hangs is ended here.
        if let Err(error) = tokio::task::spawn_blocking({
            let bundle = bundle.clone();
            move || shim::orphan::end(&bundle)
        })
        .await
        .map_err(|error| error.to_string())
        .and_then(|result| result.map_err(|error| error.to_string()))
        {
            tracing::error!(
                container = container.id(),
                error,
                "cannot end what is left of a container"
            );
        }
        block_in_place(|| {
            self.disconnect(container);
            if let Some(base) = container.state().user_namespace_base {
                self.0
                    .user_namespaces
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&base);
                container.change(|state| state.user_namespace_base = None);
            }
            if let Err(error) = self.release_volumes(&container.spec) {
                tracing::error!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot release a container's volumes"
                );
            }
            if let Err(error) = remove_bundle(&bundle) {
                tracing::error!(container = container.id(), %error, "cannot remove a container's bundle");
            }
        });
    }
}

/// The exit code of a container that could not be started, as Docker's.
const EXIT_NOT_STARTED: i32 = 128;

/// Lets a test fail any step: development builds fail the one that `HULL_FAIL_AT` names.
mod fault {
    use super::Step;
    use crate::error::Result;

    #[cfg(debug_assertions)]
    pub(super) fn check(step: Step) -> Result<()> {
        let fails = std::env::var("HULL_FAIL_AT").is_ok_and(|name| name == format!("{step:?}"));
        if fails {
            let message = format!("{step:?} was made to fail");
            return Err(crate::Error::new(crate::Kind::System, message));
        }
        Ok(())
    }

    #[cfg(not(debug_assertions))]
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the development build's twin can fail"
    )]
    pub(super) fn check(_step: Step) -> Result<()> {
        Ok(())
    }
}
