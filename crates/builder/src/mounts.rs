//! RUN --mount: what a command sees besides its stage's files, and how that leaves no trace in the layer.
//!
//! Invariant: a path of a context or stage becomes a path of the host only by a descriptor that `sys::root` has resolved
//! (CVE-2024-1753); what is written to a bind mount is written to a copy; mount points that a mount has made are taken back
//! through the layer's own directory, never through the container's tree (CVE-2024-23652).

use crate::agent::Agent;
use crate::build::Build;
use crate::cache::Inputs;
use crate::error::{Doing, Error, Result};
use crate::language::{CacheSharing, Mount, MountKind};
use crate::stage::Stage;
use crate::transfer::layers_of;
use engine::model::{Mount as EngineMount, MountForm, MountSource};
use images::archive::{self, ExtractOptions};
use images::copy::{self, Copy, Found, Want};
use images::tar::Kind;
use images::{Scratch, changes};
use oci::Digest;
use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::root::Root;

/// How often is looked whether a locked cache is free.
const LOCK_LOOK: Duration = Duration::from_millis(20);
/// Private copies of one cache.
const PRIVATE_MAX: usize = 64;
/// Mounts of one command.
const MOUNTS_MAX: usize = 128;
/// The directory of cache mounts in the engine's data.
pub(crate) const CACHES: &str = "build-caches";
/// The directory of secrets in the engine's directory for what does not last.
pub(crate) const SECRETS: &str = "build-secrets";
/// Where SSH agents are in containers, before their number.
const AGENTS_TARGET: &str = "/run/buildkit/ssh_agent";
/// Where secrets are in containers.
const SECRETS_TARGET: &str = "/run/secrets";

/// A file of the command itself.
pub(crate) struct Document {
    /// Where it is in the container.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) body: String,
}

/// The mounts of one command, variables replaced.
pub(crate) struct Mounts {
    all: Vec<(Mount, String)>,
    /// What bind mounts show, with the digest of it.
    digests: Vec<(String, String)>,
}

impl Mounts {
    /// Reads the mounts of a command.
    pub(crate) fn read(stage: &Stage<'_, '_>, texts: &[String]) -> Result<Self> {
        if texts.len() > MOUNTS_MAX {
            return Err(Error::Invalid(format!(
                "a command has at most {MOUNTS_MAX} mounts"
            )));
        }
        let mut all = Vec::new();
        let mut digests = Vec::new();
        for text in texts {
            let text = stage.word(text)?;
            let mount = Mount::parse(&text).map_err(Error::Invalid)?;
            let source = match &mount.kind {
                MountKind::Bind { from, source, .. } => Some((from.as_deref(), source)),
                // What a cache begins with.
                MountKind::Cache {
                    from: Some(from),
                    source,
                    ..
                } => Some((Some(from.as_str()), source)),
                _ => None,
            };
            if let Some((from, source)) = source {
                let shown = digest_of(stage, from, source)?;
                digests.push((format!("the mount of {source}"), shown));
            }
            all.push((mount, text));
        }
        Ok(Self { all, digests })
    }

    /// Adds what the command sees to what it depends on: of caches and secrets only that they are there.
    pub(crate) fn add_to(&self, inputs: &mut Inputs) {
        for (at, (_, text)) in self.all.iter().enumerate() {
            inputs.add(format!("the mount {}", at + 1), text);
        }
        for (name, digest) in &self.digests {
            inputs.add(name.clone(), digest);
        }
    }

    /// The caches that the command has, each once, however often it is mounted.
    ///
    /// All commands take them in the same order: none has a cache that another one waits for while it waits for that one's.
    fn caches(&self, stage: &Stage<'_, '_>) -> Result<BTreeMap<String, Cache>> {
        let mut wanted = BTreeMap::new();
        for (mount, _) in &self.all {
            if let MountKind::Cache {
                sharing,
                from,
                source,
                mode,
                uid,
                gid,
                ..
            } = &mount.kind
            {
                let beginning = Beginning {
                    from: from.as_deref().map(|from| (from, source.as_str())),
                    attributes: (*mode, *uid, *gid),
                };
                let id = cache_id(stage, mount);
                wanted.entry(id).or_insert((*sharing, beginning));
            }
        }
        let taken = wanted.into_iter().map(|(id, (sharing, beginning))| {
            let cache = cache(stage, &id, sharing, &beginning)?;
            Ok((id, cache))
        });
        taken.collect()
    }

    /// Makes everything that is mounted.
    pub(crate) fn make(&self, stage: &Stage<'_, '_>, documents: &[Document]) -> Result<Mounted> {
        let mut mounted = Mounted {
            mounts: Vec::new(),
            variables: Vec::new(),
            files: None,
            secrets: None,
            agents: Vec::new(),
            caches: self.caches(stage)?,
        };
        for (at, document) in documents.iter().enumerate() {
            let path = mounted.files(stage.build)?.join(format!("document-{at}"));
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o755).open(&path);
            let mut file = file.doing(|| "write a here-document".to_owned())?;
            std::io::Write::write_all(&mut file, document.body.as_bytes())
                .doing(|| "write a here-document".to_owned())?;
            mounted.bind(document.path.clone(), path, true);
        }
        for (at, (mount, _)) in self.all.iter().enumerate() {
            mounted.add(stage, at, mount)?;
        }
        Ok(mounted)
    }
}

/// What is mounted in one container, and goes with this value.
pub(crate) struct Mounted {
    pub(crate) mounts: Vec<EngineMount>,
    /// Secrets, and where an SSH agent is, as `NAME=value`.
    pub(crate) variables: Vec<String>,
    files: Option<Scratch>,
    secrets: Option<SecretFiles>,
    agents: Vec<Agent>,
    /// By their IDs.
    caches: BTreeMap<String, Cache>,
}

impl Mounted {
    /// A private directory for copies.
    fn files(&mut self, build: &Build<'_>) -> Result<&Path> {
        if self.files.is_none() {
            let scratch = build.images.scratch();
            let scratch = scratch.doing(|| "make room for mounts".to_owned())?;
            // Processes of the container that are not root pass through it.
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(scratch.path(), open)
                .doing(|| "open the room for mounts".to_owned())?;
            self.files = Some(scratch);
        }
        Ok(self.files.as_ref().expect("it was just made").path())
    }

    fn bind(&mut self, target: String, path: PathBuf, read_only: bool) {
        self.mounts.push(EngineMount {
            target,
            source: MountSource::Bind {
                path,
                propagation: None,
                non_recursive: false,
                recursive_read_only: read_only,
                create: false,
                mode: String::new(),
            },
            read_only,
            form: MountForm::Long,
        });
    }

    fn tmpfs(&mut self, target: String, size: Option<u64>) {
        let options = size.map(|size| format!("size={size}"));
        self.mounts.push(EngineMount {
            target,
            source: MountSource::Tmpfs {
                options: options.into_iter().collect(),
            },
            read_only: false,
            form: MountForm::Long,
        });
    }

    fn add(&mut self, stage: &Stage<'_, '_>, at: usize, mount: &Mount) -> Result<()> {
        let from = &stage.config.config.working_dir;
        let target = |given: &str| changes::working_dir(from, given);
        let given = mount.target.as_deref();
        match &mount.kind {
            MountKind::Bind {
                from,
                source,
                writable,
            } => {
                let path = self.files(stage.build)?.join(format!("bind-{at}"));
                let path = shown(stage, from.as_deref(), source, *writable, path)?;
                self.bind(target(given.unwrap_or("/")), path, !writable);
            }
            MountKind::Cache { read_only, .. } => {
                let cache = &self.caches[&cache_id(stage, mount)];
                let data = cache.data.clone();
                self.bind(target(given.unwrap_or("/")), data, *read_only);
            }
            MountKind::Tmpfs { size } => self.tmpfs(target(given.unwrap_or("/")), *size),
            MountKind::Secret { id, required, .. } => {
                stage.build.note_secret(id);
                match (stage.build.request.client.secret(id)?, required) {
                    (Some(content), _) => {
                        self.secret(stage, at, given.map(target), &mount.kind, &content)?;
                    }
                    (None, false) => {}
                    (None, true) => {
                        return Err(Error::NotFound(format!("secret {id}: not found")));
                    }
                }
            }
            MountKind::Ssh {
                id,
                required,
                mode,
                uid,
                gid,
            } => {
                let path = self.files(stage.build)?.join(format!("agent-{at}"));
                let client = &*stage.build.request.client;
                let agent = Agent::open(client, id, &path, (*mode, *uid, *gid))?;
                match (agent, required) {
                    (Some(agent), _) => self.agent(agent, given.map(target), path),
                    (None, false) => {}
                    (None, true) => {
                        return Err(Error::NotFound(format!("ssh agent {id}: not found")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives an agent to the command: as a socket, and as the variable that SSH knows, for the first of them.
    fn agent(&mut self, agent: Agent, target: Option<String>, path: PathBuf) {
        let number = self.agents.len();
        let target = target.unwrap_or_else(|| format!("{AGENTS_TARGET}.{number}"));
        if number == 0 {
            self.variables.push(format!("SSH_AUTH_SOCK={target}"));
        }
        self.agents.push(agent);
        self.bind(target, path, true);
    }

    /// Gives a secret to the command: as a variable, and as a file where there is no variable or a target is named.
    fn secret(
        &mut self,
        stage: &Stage<'_, '_>,
        at: usize,
        target: Option<String>,
        kind: &MountKind,
        content: &[u8],
    ) -> Result<()> {
        let MountKind::Secret {
            id,
            env,
            mode,
            uid,
            gid,
            ..
        } = kind
        else {
            return Ok(());
        };
        if let Some(name) = env {
            let value = std::str::from_utf8(content).ok();
            let value = value.filter(|value| !value.contains('\0') && !name.is_empty());
            let value = value
                .filter(|_| !name.contains(['=', '\0']))
                .ok_or_else(|| {
                    Error::Invalid(format!("secret {id} cannot be the variable {name:?}"))
                })?;
            self.variables.push(format!("{name}={value}"));
            if target.is_none() {
                return Ok(());
            }
        }
        if self.secrets.is_none() {
            self.secrets = Some(SecretFiles::new(stage.build)?);
        }
        let files = self.secrets.as_ref().expect("it was just made");
        let path = files.write(at, content, (*mode, *uid, *gid))?;
        let target = target.unwrap_or_else(|| format!("{SECRETS_TARGET}/{id}"));
        self.bind(target, path, true);
        Ok(())
    }

    /// Which parts of the targets' paths are not there yet: mounting makes them.
    pub(crate) fn missing_targets(&self, build: &Build<'_>, layers: &[Digest]) -> Result<Stubs> {
        let mut missing = Vec::new();
        if self.mounts.is_empty() {
            return Ok(Stubs(missing));
        }
        let view = build.view(layers)?;
        for mount in &self.mounts {
            for path in Path::new(&mount.target).ancestors() {
                if path != Path::new("/") && view.root.resolve_nofollow(path).is_err() {
                    missing.push(path.to_owned());
                }
            }
        }
        // What is in a directory goes before it.
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Ok(Stubs(missing))
    }
}

/// Places that mounting has made.
pub(crate) struct Stubs(Vec<PathBuf>);

impl Stubs {
    /// Takes back those that the command has left empty.
    pub(crate) fn remove_from(&self, upper: &Path) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let root = Root::open(upper).doing(|| "open the layer".to_owned())?;
        for path in &self.0 {
            // The command may have put something else in its place, or removed it.
            let Ok((parent, name)) = root.parent(path) else {
                continue;
            };
            let Ok(stat) = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_directory = stat.st_mode & 0o170_000 == 0o040_000;
            let is_empty_file = stat.st_mode & 0o170_000 == 0o100_000 && stat.st_size == 0;
            let flags = if is_directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            if is_directory || is_empty_file {
                // One that is not empty stays: it is the command's own now.
                let _ = rustix::fs::unlinkat(&parent, &name, flags);
            }
        }
        Ok(())
    }
}

/// The tree that a bind mount takes from.
enum Tree<'b, 'a> {
    Files(&'b crate::Context),
    Layers(crate::view::View<'a>),
}

impl Tree<'_, '_> {
    fn root(&self) -> &Root {
        match self {
            Self::Files(files) => files.root(),
            Self::Layers(view) => &view.root,
        }
    }
}

fn tree<'b, 'a>(stage: &Stage<'b, 'a>, from: Option<&str>) -> Result<Tree<'b, 'a>> {
    let build = stage.build;
    match from {
        None => Ok(Tree::Files(&build.request.context)),
        Some(from) => match build.named_files(from) {
            Some(files) => Ok(Tree::Files(files)),
            None => Ok(Tree::Layers(
                build.view(&layers_of(build, from, stage.at)?)?,
            )),
        },
    }
}

fn found_in(root: &Root, source: &str) -> Result<(PathBuf, Vec<Found>)> {
    let start = PathBuf::from(changes::working_dir("/", source));
    let found = copy::find(root, &start, true, &|_| Want::Take);
    let found = found.doing(|| format!("read {source:?}, which is to be mounted"))?;
    Ok((start, found))
}

/// The digest of what a bind mount shows.
fn digest_of(stage: &Stage<'_, '_>, from: Option<&str>, source: &str) -> Result<String> {
    let tree = tree(stage, from)?;
    if let Tree::Layers(view) = &tree {
        // Layers are what their names say.
        let layers: Vec<String> = view.layers.iter().map(Digest::to_string).collect();
        return Ok(layers.join(" "));
    }
    let (start, found) = found_in(tree.root(), source)?;
    let mut text = String::new();
    for Found { path, entry } in &found {
        let content = match entry.kind {
            Kind::File => {
                let at: PathBuf = start.join(path).components().collect();
                copy::digest(tree.root(), &at)
                    .doing(|| format!("read {at:?}"))?
                    .to_string()
            }
            _ => format!("{:?}", entry.kind),
        };
        let line = format!(
            "{path:?} {:o} {} {} {content}\n",
            entry.mode, entry.uid, entry.gid
        );
        text.push_str(&line);
    }
    Ok(Digest::sha256(text.as_bytes()).to_string())
}

/// The path of the host that a bind mount shows: of a context's files, read-only, their own; of anything else a copy.
fn shown(
    stage: &Stage<'_, '_>,
    from: Option<&str>,
    source: &str,
    writable: bool,
    copy_to: PathBuf,
) -> Result<PathBuf> {
    let tree = tree(stage, from)?;
    let start = PathBuf::from(changes::working_dir("/", source));
    if let (Tree::Files(files), false) = (&tree, writable) {
        let fd = files
            .root()
            .resolve(&start)
            .doing(|| format!("open {source:?}, which is to be mounted"))?;
        let real = std::fs::read_link(sys::root::fd_path(std::os::fd::AsFd::as_fd(&fd)));
        let real = real.doing(|| format!("find {source:?}, which is to be mounted"))?;
        // Nobody but the engine can have moved it.
        if !real.starts_with(files.path()) {
            return Err(Error::Invalid(format!("{source:?} is not in the context")));
        }
        return Ok(real);
    }
    copy_tree(&tree, source, &copy_to)?;
    Ok(copy_to)
}

/// Copies what is at a path of a tree to a path of the host.
fn copy_tree(tree: &Tree<'_, '_>, source: &str, copy_to: &Path) -> Result<()> {
    let (start, found) = found_in(tree.root(), source)?;
    let parent = copy_to.parent().unwrap_or(Path::new("/")).to_owned();
    let name = copy_to.file_name().map(PathBuf::from).unwrap_or_default();
    let to = Root::open(&parent).doing(|| "open the room for mounts".to_owned())?;
    let mut filler = Copy::new(&to);
    for Found { path, entry } in &found {
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

/// A cache that a command has, until it is done with it.
struct Cache {
    data: PathBuf,
    _lock: File,
}

/// What a cache mount is called: its target, unless it says so itself.
fn cache_id(stage: &Stage<'_, '_>, mount: &Mount) -> String {
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
struct Beginning<'m> {
    /// A stage, image or context, and the path in it that it is a copy of; else it is empty.
    from: Option<(&'m str, &'m str)>,
    /// Mode, user and group of one that is not a copy.
    attributes: (u32, u32, u32),
}

/// Takes a cache, as soon as it may be had.
fn cache(
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
        let tree = tree(stage, Some(from))?;
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

/// Secrets of one command, in memory. They go with this value.
struct SecretFiles {
    path: PathBuf,
}

impl SecretFiles {
    fn new(build: &Build<'_>) -> Result<Self> {
        let id = engine::random_id().doing(|| "name a directory of secrets".to_owned())?;
        let parent = build.engine.config().run_root.join(SECRETS);
        let doing = || "make a directory for secrets".to_owned();
        let path = parent.join(id);
        std::fs::create_dir_all(&path).doing(doing)?;
        let this = Self { path };
        std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(0o700)).doing(doing)?;
        Ok(this)
    }

    fn write(
        &self,
        at: usize,
        content: &[u8],
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<PathBuf> {
        let path = self.path.join(at.to_string());
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            std::io::Write::write_all(&mut file, content)?;
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            file.set_permissions(std::fs::Permissions::from_mode(mode))
        };
        write().doing(|| "write a secret".to_owned())?;
        Ok(path)
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::error!(%error, "cannot remove a build's secrets");
        }
    }
}
