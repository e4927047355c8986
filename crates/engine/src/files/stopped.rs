//! The files of a container that does not run, with its volumes and the host's paths where it would have them.
//!
//! They are mounted in a mount namespace of their own, which no process is in and which is gone with the value: the host's
//! mount table stays as it is.

use crate::Engine;
use crate::error::{Context, Error, Kind, Result};
use crate::model::{Mount, MountSource, Spec};
use crate::mounts::{clone_tree, relative};
use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::mount::{Attributes, MOUNT_ATTR_RDONLY, set_attributes};
use sys::process::{Namespaces, unshare};
use sys::root::Root;

/// What a mount point gets that the image has not.
const MADE_DIRECTORY: Mode = Mode::from_raw_mode(0o755);
const MADE_FILE: Mode = Mode::from_raw_mode(0o644);

/// A container's root with all that is mounted in it.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) root: Root,
    /// Keeps the mounts.
    _namespace: Option<File>,
}

/// A path of the host that is seen in the container.
#[derive(Debug)]
struct Bound {
    host: PathBuf,
    /// Below `host`, where nothing may lead out of it.
    subpath: PathBuf,
    target: PathBuf,
    read_only: bool,
}

impl Engine {
    /// Mounts the volumes and paths of a container in its `layer`.
    pub(super) fn with_mounts(&self, spec: &Spec, layer: OwnedFd) -> Result<Stopped> {
        let mut bound = Vec::new();
        for mount in &spec.mounts {
            bound.extend(self.bound(mount)?);
        }
        if bound.is_empty() {
            return Ok(Stopped {
                root: Root::from_fd(layer),
                _namespace: None,
            });
        }
        // A mount below another comes after it.
        bound.sort_by_key(|bound| bound.target.components().count());
        let place = self.0.config.data_root.join("mountpoints");
        // A thread has its own mount namespace; this one would have it for good.
        std::thread::scope(|scope| {
            let mounting = scope.spawn(|| mount_all(layer, &place, &bound));
            mounting
                .join()
                .map_err(|_| Error::new(Kind::System, "the mounting thread panicked"))?
        })
    }

    /// What a mount shows of the host; nothing where it is memory, an image, or a volume that has a filesystem of its own and
    /// is mounted only while it is used.
    fn bound(&self, mount: &Mount) -> Result<Option<Bound>> {
        let (host, subpath) = match &mount.source {
            MountSource::Bind { path, .. } => (path.clone(), PathBuf::new()),
            MountSource::Volume { name, subpath, .. } => {
                (self.volume_path(name), relative(subpath)?)
            }
            MountSource::Image { .. }
            | MountSource::Layers { .. }
            | MountSource::Overlaid { .. }
            | MountSource::Secret(_)
            | MountSource::Tmpfs { .. } => return Ok(None),
        };
        Ok(host.exists().then(|| Bound {
            host,
            subpath,
            target: PathBuf::from(&mount.target),
            read_only: mount.read_only,
        }))
    }
}

fn mount_all(layer: OwnedFd, place: &Path, bound: &[Bound]) -> Result<Stopped> {
    unshare(Namespaces::MOUNT).context(|| "make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    call(mount_change("/", private), "make the mounts private")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let attached = move_mount(layer.as_fd(), "", CWD, place, flags);
    call(attached, "mount the container's filesystem")?;
    let root = Root::open(place).context(|| "open the container's filesystem")?;
    for bound in bound {
        bind(&root, bound)
            .map_err(|error| Error::system(format!("mount {}", bound.target.display()), error))?;
    }
    let namespace = File::open("/proc/thread-self/ns/mnt").context(|| "keep the mounts")?;
    Ok(Stopped {
        root,
        _namespace: Some(namespace),
    })
}

fn bind(root: &Root, bound: &Bound) -> Result<()> {
    let host = Root::from_fd(call(
        rustix::fs::open(&bound.host, rustix::fs::OFlags::PATH, Mode::empty()),
        "open it",
    )?);
    let inside = match bound.subpath.as_os_str().is_empty() {
        true => host.as_fd().try_clone_to_owned().context(|| "open it")?,
        false => host
            .resolve(&bound.subpath)
            .context(|| "find the subpath")?,
    };
    let kind = call(rustix::fs::fstat(&inside), "look at it")?.st_mode;
    let target = match FileType::from_raw_mode(kind) {
        FileType::Directory => root.create_dir_all(&bound.target, MADE_DIRECTORY),
        _ => root.create_file(&bound.target, MADE_FILE),
    };
    let target = target.context(|| "make the mount point")?;
    let tree = clone_tree(inside)?;
    if bound.read_only {
        let attributes = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), true, &attributes).context(|| "make it read-only")?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    call(
        move_mount(tree.as_fd(), "", target.as_fd(), "", flags),
        "attach it",
    )
}

fn call<T>(result: rustix::io::Result<T>, doing: &str) -> Result<T> {
    result.map_err(std::io::Error::from).context(|| doing)
}
