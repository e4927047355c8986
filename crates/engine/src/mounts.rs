//! What a start mounts: the host's paths, volumes, images, memory.
//!
//! The runtime takes what it binds by path. Where a path could be changed under it, as one inside a volume that another container
//! writes to, it is resolved here, to a descriptor, and that is mounted in the bundle ([`STAGE`]) until the container has its own copy
//! of the mount (CVE-2023-2253 and its kin: a symlink put there in between leads nowhere).

mod secret;

pub use secret::Secret;

use crate::Engine;
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::model::{ImageSource, Mount, MountSource, Spec};
use crate::volumes::NewVolume;
use images::Snapshot;
use oci::runtime as rt;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use sys::root::Root;

/// Where in a bundle mounts wait for the container.
const STAGE: &str = "mounts";

/// How many mounts one place may have over another until it is no accident.
const UNMOUNTS_MAX: usize = 16;

impl Engine {
    /// What a start has to mount; empty volumes are filled with what the image has in their place.
    pub(crate) fn prepare_mounts(
        &self,
        container: &Container,
        snapshot: &Snapshot,
    ) -> Result<Vec<rt::Mount>> {
        let mut mounts: Vec<(usize, &Mount)> = container.spec.mounts.iter().enumerate().collect();
        // A mount below another comes after it, whatever the order of the request.
        mounts.sort_by_key(|(_, mount)| Path::new(&mount.target).components().count());
        let spec = &container.spec;
        mounts
            .into_iter()
            .map(|(at, mount)| self.prepare_mount(at, mount, spec, snapshot))
            .collect()
    }

    fn prepare_mount(
        &self,
        at: usize,
        mount: &Mount,
        spec: &Spec,
        snapshot: &Snapshot,
    ) -> Result<rt::Mount> {
        let mode = if mount.read_only { "ro" } else { "rw" };
        match &mount.source {
            MountSource::Bind {
                path,
                propagation,
                non_recursive,
                recursive_read_only,
                create,
                ..
            } => {
                prepare_bind_source(path, *create)?;
                let bind = if *non_recursive { "bind" } else { "rbind" };
                let mut options = vec![bind, mode, propagation.as_deref().unwrap_or("rprivate")];
                if mount.read_only && *recursive_read_only {
                    options.push("rro");
                }
                Ok(crate::spec::bind(path, &mount.target, &options))
            }
            MountSource::Volume { .. } => {
                let source = self.prepare_volume(at, mount, spec, snapshot)?;
                // A filesystem that is read-only by the volume's own options stays so.
                let options: &[&str] = match mount.read_only {
                    true => &["rbind", "ro", "rprivate"],
                    false => &["rbind", "rprivate"],
                };
                Ok(crate::spec::bind(&source, &mount.target, options))
            }
            MountSource::Image { id, subpath, .. } => {
                let image = id.parse().context(|| format!("read the image id {id}"))?;
                let snapshot = self
                    .0
                    .images
                    .prepare(&image_snapshot(&spec.id, at), &image)
                    .context(|| format!("prepare the image {id}"))?;
                self.mount_snapshot((at, "ro"), mount, &snapshot, subpath, spec)
            }
            MountSource::Layers { layers, subpath } => {
                let snapshot = self
                    .0
                    .images
                    .prepare_on(&image_snapshot(&spec.id, at), layers)
                    .context(|| "prepare layers to be mounted")?;
                self.mount_snapshot((at, mode), mount, &snapshot, subpath, spec)
            }
            MountSource::Overlaid { directory, subpath } => {
                let snapshot = self
                    .0
                    .images
                    .prepare_directory(&image_snapshot(&spec.id, at), directory)
                    .context(|| "prepare a directory to be mounted")?;
                self.mount_snapshot((at, mode), mount, &snapshot, subpath, spec)
            }
            MountSource::Secret(secret) => {
                let whole = self.stage(&spec.id, at, secret.mount()?)?;
                let root = Root::open(&whole).context(|| "open a secret's memory")?;
                let file = root.resolve(Path::new(secret::FILE));
                let file = file.context(|| "find a secret in its memory")?;
                let source = self.stage(&spec.id, at, clone_tree(file)?)?;
                let options = ["rbind", "ro", "rprivate"];
                Ok(crate::spec::bind(&source, &mount.target, &options))
            }
            MountSource::Tmpfs { options } => Ok(tmpfs(mount, options)),
        }
    }

    /// The path of a volume, or of what is mounted of it.
    fn prepare_volume(
        &self,
        at: usize,
        mount: &Mount,
        spec: &Spec,
        snapshot: &Snapshot,
    ) -> Result<PathBuf> {
        let MountSource::Volume {
            name,
            no_copy,
            subpath,
            labels,
            options,
            ..
        } = &mount.source
        else {
            unreachable!("called for volumes");
        };
        let mut users = self.lock_volumes();
        let data = self.volume_path(name);
        let new = NewVolume {
            labels: labels.clone(),
            options: options.clone(),
            anonymous: false,
        };
        // It may have been removed by force since the container was created.
        let volume = self.ensure_volume(name, new)?;
        self.mount_volume(&volume, &spec.id, &mut users)?;
        let told = [
            ("container", spec.id.clone()),
            ("destination", mount.target.clone()),
            ("read/write", (!mount.read_only).to_string()),
            ("propagation", String::new()),
        ];
        self.volume_event("mount", name, told);
        if !subpath.is_empty() {
            let root = Root::open(&data).context(|| format!("open volume {name}"))?;
            let inside = root
                .resolve(&relative(subpath)?)
                .context(|| format!("find {subpath:?} in volume {name}"))?;
            return self.stage(&spec.id, at, clone_tree(inside)?);
        }
        if !no_copy {
            self.fill_volume(&data, &mount.target, spec, snapshot)?;
        }
        Ok(data)
    }

    /// Mounts a snapshot, or what a path in it leads to. Read-only ones have a writable layer, too, that nobody writes to: whoever
    /// may make the mount in the container writable must not reach the files that others have.
    fn mount_snapshot(
        &self,
        (at, mode): (usize, &str),
        mount: &Mount,
        snapshot: &Snapshot,
        subpath: &str,
        spec: &Spec,
    ) -> Result<rt::Mount> {
        let mounted = self.0.images.mount_detached(snapshot);
        let mounted = mounted.context(|| "mount the files of layers")?;
        // The whole is attached first: a part of a mount that is attached nowhere cannot be cloned.
        let mut source = self.stage(&spec.id, at, mounted)?;
        if !subpath.is_empty() {
            let root = Root::open(&source).context(|| "open the files of layers")?;
            let inside = root
                .resolve(&relative(subpath)?)
                .context(|| format!("find {subpath:?} in what is to be mounted"))?;
            source = self.stage(&spec.id, at, clone_tree(inside)?)?;
        }
        let options = ["rbind", mode, "rprivate"];
        Ok(crate::spec::bind(&source, &mount.target, &options))
    }

    /// Attaches a detached mount in the bundle.
    fn stage(&self, id: &str, at: usize, mount: OwnedFd) -> Result<PathBuf> {
        let dir = self.bundle(id).join(STAGE);
        std::fs::create_dir_all(&dir).context(|| format!("make {dir:?}"))?;
        let stat = rustix::fs::fstat(&mount).map_err(std::io::Error::from);
        let stat = stat.context(|| "stat what is mounted")?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let path = dir.join(format!("{at}{}", if is_directory { "" } else { "f" }));
        let made = if is_directory {
            std::fs::create_dir_all(&path)
        } else {
            std::fs::write(&path, "")
        };
        made.context(|| format!("make {path:?}"))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount.as_fd(), "", rustix::fs::CWD, &path, flags)
            .map_err(std::io::Error::from)
            .context(|| format!("mount on {path:?}"))?;
        Ok(path)
    }

    /// Takes away what [`Engine::prepare_mounts`] has staged: the container has its own mounts now.
    pub(crate) fn unstage(&self, id: &str) -> Result<()> {
        let dir = self.bundle(id).join(STAGE);
        unmount_staged(&self.bundle(id)).context(|| format!("unmount what is in {dir:?}"))
    }

    /// Copies what the image has at `target` into an empty volume, owner and mode of the directory included.
    fn fill_volume(
        &self,
        data: &Path,
        target: &str,
        spec: &Spec,
        snapshot: &Snapshot,
    ) -> Result<()> {
        if matches!(spec.image, ImageSource::Directory(_)) {
            return Ok(());
        }
        let mut entries = std::fs::read_dir(data).context(|| format!("list {data:?}"))?;
        if entries.next().is_some() {
            return Ok(());
        }
        let mounted = self.0.images.mount_detached(snapshot);
        let root = Root::from_fd(mounted.context(|| "mount the image to fill a volume")?);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(source) = root.open_at(Path::new(target), flags, Mode::empty()) else {
            // The image has nothing there.
            return Ok(());
        };
        copy_tree(&Root::from_fd(source), data).context(|| format!("fill the volume for {target}"))
    }
}

/// The snapshot of an image that a container mounts.
pub(crate) fn image_snapshot(container: &str, at: usize) -> String {
    format!("{container}-{at}")
}

/// Unmounts what waits in a bundle. That there is nothing is no error.
pub(crate) fn unmount_staged(bundle: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(bundle.join(STAGE)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        unmount_all(&entry?.path())?;
    }
    Ok(())
}

/// Unmounts everything that is mounted at a path itself.
pub(crate) fn unmount_all(path: &Path) -> std::io::Result<()> {
    use rustix::io::Errno;
    for _ in 0..UNMOUNTS_MAX {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(path, flags) {
            Ok(()) => {}
            // Not a mount point, or not there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(std::io::Error::other(format!(
        "more than {UNMOUNTS_MAX} mounts at {}",
        path.display()
    )))
}

/// A copy of the mount at a descriptor, with what is mounted below.
pub(crate) fn clone_tree(inside: OwnedFd) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(inside.as_fd(), "", flags)
        .map_err(std::io::Error::from)
        .context(|| "copy the mount")
}

/// A path inside a volume or an image.
pub(crate) fn relative(subpath: &str) -> Result<PathBuf> {
    let path = Path::new(subpath);
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(inside) {
        return Ok(path.to_owned());
    }
    Err(Error::invalid(format!(
        "invalid subpath {subpath:?}: it must be a relative path within the volume, without '..'"
    )))
}

fn tmpfs(mount: &Mount, options: &[String]) -> rt::Mount {
    let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    // What is asked for wins over the default of the same kind.
    all.retain(|default| {
        !options
            .iter()
            .any(|option| default.strip_prefix("no") == Some(option))
    });
    all.extend(options.iter().filter(|option| !option.is_empty()).cloned());
    if mount.read_only {
        all.push("ro".to_owned());
    }
    rt::Mount {
        destination: PathBuf::from(&mount.target),
        kind: Some("tmpfs".to_owned()),
        source: Some(PathBuf::from("tmpfs")),
        options: all,
        ..rt::Mount::default()
    }
}

/// Copies the content of a directory through a pipe of tar; the two ends run at once.
fn copy_tree(source: &Root, target: &Path) -> Result<()> {
    let (reader, mut writer) = std::io::pipe().context(|| "make a pipe")?;
    let target_root = Root::open(target).context(|| "open the volume")?;
    let metadata = rustix::fs::fstat(source)
        .map_err(std::io::Error::from)
        .context(|| "stat the image's directory")?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            images::archive::export(source, &mut writer).context(|| "read the original")?;
            writer.flush().context(|| "read the original")
        });
        let options = images::archive::ExtractOptions::default();
        let received = images::archive::extract(&target_root, Path::new("/"), reader, &options);
        let sent = sender
            .join()
            .map_err(|_| Error::new(Kind::System, "the copying thread panicked"))?;
        received.context(|| "write the copy")?;
        sent
    })?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(metadata.st_mode & 0o7777);
    std::os::unix::fs::chown(target, Some(metadata.st_uid), Some(metadata.st_gid))
        .context(|| "chown the volume")?;
    std::fs::set_permissions(target, mode).context(|| "chmod the volume")
}

fn prepare_bind_source(path: &Path, create: bool) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path)
                .context(|| format!("error while creating mount source path {path:?}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        ))),
        Err(error) => Err(Error::system(
            format!("stat the mount source {path:?}"),
            error,
        )),
    }
}
