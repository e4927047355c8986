//! Cache mounts: directories that outlive their builds, shared, private or locked.
//!
//! Invariant: a cache is whole when it is seen, and stays where it is; who has it holds a lock on a file beside it.

use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::language::{CacheSharing, Mount, MountKind};
use crate::mounts::{files_of, found_in};
use crate::plan::Namer;
use crate::source::layers_of;
use crate::stage::Stage;
use crate::view::View;
use images::archive::{self, ExtractOptions};
use images::changes;
use images::copy::{Copy, Found};
use images::tar::Kind;
use oci::Digest;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::root::Root;

/// The directory of cache mounts in the engine's data.
pub(crate) const CACHES: &str = "build-caches";
/// How often is looked whether a locked cache is free.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// Private copies of one cache.
const PRIVATE_MAX: usize = 64;
/// A cache that a command has, until it is done with it.
pub(crate) struct Cache {
    pub(crate) data: PathBuf,
    _lock: File,
}

/// What a cache mount is called: its target, unless it says so itself.
pub(crate) fn cache_id(stage: &Stage<'_, '_>, mount: &Mount) -> String {
    let target = || {
        let from = &stage.config.config.working_dir;
        changes::working_dir(from, mount.target.as_deref().unwrap_or("/"))
    };
    match &mount.kind {
        MountKind::Cache { id: Some(id), .. } => id.clone(),
        _ => target(),
    }
}

/// What a cache mount is when it is made.
pub(crate) struct Beginning<'m> {
    /// A stage, image or context, and the path in it that it is a copy of; else it is empty.
    pub(crate) from: Option<(&'m str, &'m str)>,
    /// Mode, user and group of one that is not a copy.
    pub(crate) attributes: (u32, u32, u32),
}

/// Takes a cache, as soon as it may be had.
pub(crate) fn cache(
    stage: &Stage<'_, '_>,
    id: &str,
    sharing: CacheSharing,
    beginning: &Beginning<'_>,
) -> Result<Cache> {
    let build = stage.build;
    let root = build.engine.config().data_root.join(CACHES);
    let doing = || format!("make the cache mount {id:?}");
    std::fs::create_dir_all(&root).doing(doing)?;
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).doing(doing)?;
    let name = Digest::sha256(id.as_bytes()).hex();
    for number in 0..PRIVATE_MAX {
        let path = match number {
            0 => root.join(&name),
            number => root.join(format!("{name}.{number}")),
        };
        let lock = File::create(path.with_extension(format!("{number}.lock"))).doing(doing)?;
        loop {
            build.check_stop()?;
            let taken = match sharing {
                CacheSharing::Shared => lock.try_lock_shared(),
                CacheSharing::Private | CacheSharing::Locked => lock.try_lock(),
            };
            match taken {
                Ok(()) => {
                    let data = path.join("data");
                    make_cache(stage, &path, &data, id, beginning)?;
                    build.note_mount(id, &data);
                    return Ok(Cache { data, _lock: lock });
                }
                Err(TryLockError::WouldBlock) if sharing == CacheSharing::Private => break,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
                Err(TryLockError::Error(error)) => return Err(error).doing(doing),
            }
        }
    }
    Err(Error::Invalid(format!(
        "the cache {id:?} is in use {PRIVATE_MAX} times"
    )))
}

fn make_cache(
    stage: &Stage<'_, '_>,
    path: &Path,
    data: &Path,
    id: &str,
    beginning: &Beginning<'_>,
) -> Result<()> {
    let doing = || format!("make the cache mount {id:?}");
    std::fs::create_dir_all(path).doing(doing)?;
    // Its time says when it was last of use.
    std::fs::write(path.join("id"), id).doing(doing)?;
    if data.is_dir() {
        return Ok(());
    }
    // Whole when it is seen, and never replaced: who shares it may make it at the same time.
    let new = path.join(engine::random_id().doing(doing)?);
    std::fs::create_dir(&new).doing(doing)?;
    let made = fill(stage, id, &new, beginning);
    // Nobody has seen it yet.
    made.inspect_err(|_| drop(std::fs::remove_dir_all(&new)))?;
    let moved = renameat_with(CWD, &new, CWD, data, RenameFlags::NOREPLACE);
    let Err(error) = moved.map_err(std::io::Error::from) else {
        return Ok(());
    };
    std::fs::remove_dir_all(&new).doing(doing)?;
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error).doing(doing),
    }
}

/// Puts into a new cache mount what a cache elsewhere has of it, or else what it begins with.
fn fill(
    stage: &Stage<'_, '_>,
    id: &str,
    directory: &Path,
    beginning: &Beginning<'_>,
) -> Result<()> {
    let build = stage.build;
    let doing = || format!("fill the cache mount {id:?}");
    build.imported().mount(build, id, &|tar| {
        let root = Root::open(directory).doing(doing)?;
        let options = ExtractOptions::default();
        let extracted = archive::extract(&root, Path::new("/"), tar, &options).doing(doing);
        build.check_stop()?;
        // Half of one is none.
        extracted.or_else(|error| {
            std::fs::remove_dir_all(directory).doing(doing)?;
            std::fs::create_dir(directory).doing(doing)?;
            Err(error)
        })
    })?;
    let is_empty = std::fs::read_dir(directory).doing(doing)?.next().is_none();
    if let (true, Some((from, source))) = (is_empty, beginning.from) {
        let tree = tree(stage, from)?;
        let (_, found) = found_in(tree.root(), source)?;
        if !matches!(found.first(), Some(top) if top.entry.kind == Kind::Directory) {
            return Err(Error::Invalid(format!(
                "the cache mount {id:?} begins with {source:?} of {from}, which is no directory"
            )));
        }
        return copy_tree(&tree, source, directory);
    }
    let (mode, uid, gid) = beginning.attributes;
    std::os::unix::fs::chown(directory, Some(uid), Some(gid)).doing(doing)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode)).doing(doing)
}

/// The tree that a cache begins with.
enum Tree<'b, 'a> {
    Files(&'b Context),
    Layers(View<'a>),
}

impl Tree<'_, '_> {
    fn root(&self) -> &Root {
        match self {
            Self::Files(files) => files.root(),
            Self::Layers(view) => &view.root,
        }
    }
}

fn tree<'b, 'a>(stage: &Stage<'b, 'a>, from: &str) -> Result<Tree<'b, 'a>> {
    match files_of(stage, Some(from)) {
        Some(files) => Ok(Tree::Files(files)),
        None => {
            let layers = layers_of(stage.build, Namer::Other, from, stage.at)?;
            Ok(Tree::Layers(stage.build.view(&layers)?))
        }
    }
}

/// Copies what is at a path of a tree to a path of the host.
fn copy_tree(tree: &Tree<'_, '_>, source: &str, copy_to: &Path) -> Result<()> {
    let (start, found) = found_in(tree.root(), source)?;
    let parent = copy_to.parent().unwrap_or(Path::new("/")).to_owned();
    let name = copy_to.file_name().map(PathBuf::from).unwrap_or_default();
    let to = Root::open(&parent).doing(|| "open the room for mounts".to_owned())?;
    let mut filler = Copy::new(&to);
    for Found { path, entry, .. } in &found {
        let from: PathBuf = start.join(path).components().collect();
        let target: PathBuf = Path::new("/").join(&name).join(path).components().collect();
        filler
            .put(tree.root(), &from, &target, entry)
            .doing(|| format!("copy {from:?} for a mount"))?;
    }
    filler
        .finish()
        .doing(|| "copy files for a mount".to_owned())
}
