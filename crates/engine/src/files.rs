//! A container's files from outside: `cp`, `diff`, `export`, `commit`, the size in `ps -s`.

mod image_config;
mod stopped;

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::model::ImageSource;
use images::archive::{self, ExtractOptions, Stat};
use images::{Change, CommitOptions, ImageId};
use oci::Reference;
use shim::protocol::Request;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use stopped::Stopped;
use sys::root::Root;
use tokio::task::block_in_place;

/// A container's root filesystem, with what is mounted in it: of a running one all of that, of another its volumes and the
/// host's paths, mounted for this value alone and nowhere visible. Its calls block.
#[derive(Debug)]
pub struct Archive {
    files: Files,
}

#[derive(Debug)]
enum Files {
    Running(Root),
    Stopped(Stopped),
}

impl Files {
    fn root(&self) -> &Root {
        match self {
            Self::Running(root) => root,
            Self::Stopped(stopped) => &stopped.root,
        }
    }
}

impl Archive {
    /// Describes a path.
    ///
    /// # Errors
    /// No such path.
    pub fn stat(&self, path: &Path) -> Result<Stat> {
        archive::stat(self.files.root(), path).map_err(|error| path_error(error, path))
    }

    /// Writes a path as tar.
    ///
    /// # Errors
    /// No such path, or the writer's.
    pub fn read(&self, path: &Path, out: impl Write) -> Result<()> {
        archive::read(self.files.root(), path, out).map_err(|error| path_error(error, path))
    }

    /// Extracts a tar into a directory.
    ///
    /// # Errors
    /// No such directory, a tar that is none, the reader's.
    pub fn extract(
        &self,
        dir: &Path,
        tar: impl Read + Send,
        options: &ExtractOptions,
    ) -> Result<()> {
        archive::extract(self.files.root(), dir, tar, options)
            .map_err(|error| path_error(error, dir))
    }

    /// Writes the whole filesystem as tar.
    ///
    /// # Errors
    /// The writer's.
    pub fn export(&self, out: impl Write) -> Result<()> {
        archive::export(self.files.root(), out).context(|| "export the container's filesystem")
    }
}

fn path_error(error: images::Error, path: &Path) -> Error {
    match error.kind() {
        images::ErrorKind::NotFound => Error::not_found(format!(
            "Could not find the file {} in container",
            path.display()
        )),
        images::ErrorKind::Invalid => Error::invalid(sys::chain(&error)),
        _ => Error::system(format!("access {} in the container", path.display()), error),
    }
}

impl Engine {
    /// Opens a container's filesystem.
    ///
    /// # Errors
    /// No such container.
    pub fn archive(&self, key: &str) -> Result<Archive> {
        let container = self.0.registry.find(key)?;
        block_in_place(|| self.open_root(&container))
    }

    /// Tells what was done with a container's filesystem: `export`, `archive-path`, `extract-to-dir`.
    pub fn archive_event(&self, key: &str, action: &str) {
        // One that is gone meanwhile is nothing to tell of.
        if let Ok(container) = self.0.registry.find(key) {
            self.container_event(&container, action, []);
        }
    }

    fn open_root(&self, container: &Container) -> Result<Archive> {
        let state = container.state();
        if let Some(pid) = state.pid.filter(|_| state.phase.is_running()) {
            let path = format!("/proc/{pid}/root");
            let root = Root::open(Path::new(&path)).context(|| "open the container's root")?;
            // The process id was still the container's when it was opened if it is so afterwards.
            if container.state().pid == Some(pid) {
                return Ok(Archive {
                    files: Files::Running(root),
                });
            }
        }
        let snapshot = self.ensure_layer(&container.spec)?;
        let mounted = self.0.images.mount_detached(&snapshot);
        let layer = mounted.context(|| "mount the container's filesystem")?;
        let stopped = self.with_mounts(&container.spec, layer)?;
        Ok(Archive {
            files: Files::Stopped(stopped),
        })
    }

    /// What the container has changed in its filesystem.
    ///
    /// # Errors
    /// No such container.
    pub fn changes(&self, key: &str) -> Result<Vec<Change>> {
        let container = self.0.registry.find(key)?;
        block_in_place(|| {
            let snapshot = self.ensure_layer(&container.spec)?;
            self.0
                .images
                .diff(&snapshot)
                .context(|| "compare the container's filesystem with its image's")
        })
    }

    /// Bytes the container has written to its own layer, and bytes of its image.
    ///
    /// # Errors
    /// No such container.
    pub fn size(&self, key: &str) -> Result<(u64, u64)> {
        let container = self.0.registry.find(key)?;
        block_in_place(|| {
            let own = match self
                .0
                .images
                .snapshot(container.id())
                .context(|| "find the writable layer")?
            {
                Some(snapshot) => self
                    .0
                    .images
                    .usage(&snapshot)
                    .context(|| "measure the writable layer")?,
                None => 0,
            };
            let image = match &container.spec.image {
                ImageSource::Image(id) => self.0.images.get(id).map_or(0, |image| image.size),
                ImageSource::Directory(_) | ImageSource::Layers(_) => 0,
            };
            Ok((own, image))
        })
    }

    /// Bytes on the disk of a container: its writable layer, its logs and what else belongs to it.
    ///
    /// # Errors
    /// No such container; it cannot be measured.
    pub fn disk_usage(&self, key: &str) -> Result<u64> {
        let container = self.0.registry.find(key)?;
        let own = self
            .0
            .config
            .data_root
            .join("containers")
            .join(container.id());
        block_in_place(|| {
            let snapshot = self.0.images.snapshot_disk_usage(container.id());
            Ok(snapshot.context(|| "measure the writable layer")?
                + images::disk_usage(&own).context(|| "measure the logs")?)
        })
    }

    /// Makes an image of a container; a running one is frozen meanwhile unless `pause` is off.
    ///
    /// # Errors
    /// No such container, bad options.
    pub async fn commit(
        &self,
        key: &str,
        mut options: CommitOptions,
        pause: bool,
    ) -> Result<ImageId> {
        let container = self.0.registry.find(key)?;
        let mut link = container
            .link()
            .filter(|_| pause && container.phase() == crate::model::Phase::Running);
        if let Some(running) = &link {
            match running.tell(Request::Pause).await {
                // It has ended meanwhile.
                Err(error) if error.kind() == Kind::Conflict => link = None,
                paused => {
                    paused?;
                    self.container_event(&container, "pause", []);
                }
            }
        }
        let reference = options.reference.as_ref().map(Reference::familiar);
        let comment = options.message.clone();
        options.created_by = container.spec.process.command.join(" ");
        options.config = Some(image_config::of(&container.spec));
        options.flatten = matches!(container.spec.image, ImageSource::Directory(_));
        let made = block_in_place(|| self.commit_blocking(&container, &options));
        if let Ok(id) = &made {
            self.commit_events(&container, &id.to_string(), reference, comment);
        }
        if let Some(link) = &link {
            self.container_event(&container, "unpause", []);
            // The image is made, whether or not the container has ended meanwhile.
            if let Err(error) = link.tell(Request::Resume).await {
                tracing::warn!(
                    container = container.id(),
                    error = error.chain(),
                    "cannot resume after a commit"
                );
            }
        }
        made
    }

    fn commit_events(
        &self,
        container: &Container,
        id: &str,
        reference: Option<String>,
        comment: String,
    ) {
        self.new_image_event(id);
        if let Some(name) = &reference {
            let attributes = BTreeMap::from([("name".to_owned(), name.clone())]);
            self.image_event("tag", id, attributes);
        }
        let told = [
            ("comment", comment),
            ("imageID", id.to_owned()),
            ("imageRef", reference.unwrap_or_default()),
        ];
        self.container_event(container, "commit", told);
    }

    fn commit_blocking(&self, container: &Container, options: &CommitOptions) -> Result<ImageId> {
        let snapshot = self.ensure_layer(&container.spec)?;
        let base = match &container.spec.image {
            ImageSource::Image(id) => {
                Some(id.parse().context(|| format!("read the image id {id}"))?)
            }
            ImageSource::Directory(_) => None,
            ImageSource::Layers(_) => {
                return Err(Error::conflict(
                    "the container is a step of a build: it becomes a layer, and no image",
                ));
            }
        };
        let made = self.0.images.commit(&snapshot, base.as_ref(), options);
        made.map_err(|error| match error.kind() {
            images::ErrorKind::Invalid => Error::invalid(sys::chain(&error)),
            _ => Error::system("make an image of the container", error),
        })
    }

    /// What a container has written, to make a layer of.
    ///
    /// # Errors
    /// No such container.
    pub fn writable_layer(&self, key: &str) -> Result<images::Snapshot> {
        let container = self.0.registry.find(key)?;
        block_in_place(|| self.ensure_layer(&container.spec))
    }

    /// The containers that use an image, for its removal.
    pub fn image_users(&self, id: &ImageId) -> Vec<images::User> {
        let source = ImageSource::Image(id.to_string());
        let containers = self.0.registry.all();
        let users = containers
            .iter()
            .filter(|container| container.spec.image == source);
        users
            .map(|container| images::User {
                container: container.id().to_owned(),
                running: container.phase().is_running()
                    || container.phase() == crate::model::Phase::Restarting,
            })
            .collect()
    }

    /// All containers, the youngest first.
    pub fn list(&self) -> Vec<crate::model::Snapshot> {
        self.list_where(|_| true)
    }

    /// Likewise of those whose state is wanted: of a thousand most do not run, and nothing of them is copied.
    pub fn list_where(
        &self,
        wanted: impl Fn(&crate::model::State) -> bool,
    ) -> Vec<crate::model::Snapshot> {
        let mut all = self.0.registry.select(|container| {
            let state = Some(container.state()).filter(|state| wanted(state))?;
            Some(container.snapshot_in(state))
        });
        all.sort_by_key(|container| std::cmp::Reverse(container.spec.created));
        all
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// No such container.
    pub fn inspect(&self, key: &str) -> Result<crate::model::Snapshot> {
        Ok(self.0.registry.find(key)?.snapshot())
    }
}
