//! RUN --mount: what a command sees besides its stage's files, and how that leaves no trace in the layer.
//!
//! Invariant: a path of a context or stage becomes a path of the host only by a descriptor that `sys::root` has resolved
//! (CVE-2024-1753); what is written to a bind mount goes with its container; mount points that a mount has made are taken back
//! through the layer's own directory, never through the container's tree (CVE-2024-23652).

use crate::agent::Agent;
use crate::build::Build;
use crate::cache::Inputs;
use crate::cache_mount::{Beginning, Cache, cache, cache_id};
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::language::{Mount, MountKind};
use crate::plan::Namer;
use crate::source::layers_of;
use crate::stage::Stage;
use engine::model::{Mount as EngineMount, MountForm, MountSource};
use images::copy::{self, Found, Want};
use images::tar::Kind;
use images::{Scratch, changes};
use oci::Digest;
use rustix::fs::AtFlags;
use std::collections::BTreeMap;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use sys::root::Root;

/// Mounts of one command.
const MOUNTS_MAX: usize = 128;
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
    /// What bind mounts show, by what people call it.
    shown: Vec<(String, String)>,
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
        let mut shown = Vec::new();
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
                shown.extend(shown_files(stage, from, source)?);
            }
            all.push((mount, text));
        }
        Ok(Self { all, shown })
    }

    /// Adds what the command sees to what it depends on: of caches and secrets only that they are there.
    pub(crate) fn add_to(&self, inputs: &mut Inputs) {
        for (at, (_, text)) in self.all.iter().enumerate() {
            inputs.add(format!("the options of mount {}", at + 1), text);
        }
        for (name, value) in &self.shown {
            inputs.add(name.clone(), value);
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

    fn mount(&mut self, target: String, source: MountSource, read_only: bool) {
        self.mounts.push(EngineMount {
            target,
            source,
            read_only,
            form: MountForm::Long,
        });
    }

    fn bind(&mut self, target: String, path: PathBuf, read_only: bool) {
        self.mount(target, bound(path, read_only), read_only);
    }

    fn tmpfs(&mut self, target: String, size: Option<u64>) {
        let options = size.map(|size| format!("size={size}"));
        let source = MountSource::Tmpfs {
            options: options.into_iter().collect(),
        };
        self.mount(target, source, false);
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
                let source = shown(stage, from.as_deref(), source, *writable)?;
                self.mount(target(given.unwrap_or("/")), source, !writable);
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

/// The context that a mount takes from; `None`: layers.
pub(crate) fn files_of<'b>(stage: &Stage<'b, '_>, from: Option<&str>) -> Option<&'b Context> {
    match from {
        None => Some(&stage.build.request.context),
        Some(from) => stage.build.named_files(from),
    }
}

pub(crate) fn found_in(root: &Root, source: &str) -> Result<(PathBuf, Vec<Found>)> {
    let start = PathBuf::from(changes::working_dir("/", source));
    let found = copy::find(root, &start, true, &|_| Want::Take);
    let found = found.doing(|| format!("read {source:?}, which is to be mounted"))?;
    Ok((start, found))
}

/// What a bind mount shows, file by file; of layers as a whole: they are what their names say.
fn shown_files(
    stage: &Stage<'_, '_>,
    from: Option<&str>,
    source: &str,
) -> Result<Vec<(String, String)>> {
    let Some(files) = files_of(stage, from) else {
        let from = from.unwrap_or_default();
        let layers = layers_of(stage.build, Namer::Other, from, stage.at)?;
        let names: Vec<String> = layers.iter().map(Digest::to_string).collect();
        return Ok(vec![(
            format!("the stage or image {from}"),
            names.join(" "),
        )]);
    };
    let (start, found) = found_in(files.root(), source)?;
    let at = |path: &Path| -> PathBuf { start.join(path).components().collect() };
    let regular = found.iter().filter(|found| found.entry.kind == Kind::File);
    let paths: Vec<PathBuf> = regular.map(|found| at(&found.path)).collect();
    let stop = || stage.build.is_stopped();
    let digests = files.digests(&paths, &stop);
    let digests = digests.doing(|| format!("read {source:?}, which is to be mounted"))?;
    let mut digests = digests.into_iter();
    let of = from.map(|from| format!(" of {from}")).unwrap_or_default();
    let told = found.iter().map(|Found { path, entry, .. }| {
        let content = match &entry.kind {
            Kind::File => digests.next().expect("every file has one").to_string(),
            kind => format!("{kind:?}"),
        };
        let value = format!("{:o} {} {} {content}", entry.mode, entry.uid, entry.gid);
        let name = format!("the mounted file {}{of}", at(path).display());
        (name, value)
    });
    Ok(told.collect())
}

/// What a bind mount shows. Nothing is copied: what the command writes is in a layer that goes with its container.
fn shown(
    stage: &Stage<'_, '_>,
    from: Option<&str>,
    source: &str,
    writable: bool,
) -> Result<MountSource> {
    let start = changes::working_dir("/", source);
    let subpath = start.trim_start_matches('/').to_owned();
    let Some(files) = files_of(stage, from) else {
        let layers = layers_of(
            stage.build,
            Namer::Other,
            from.unwrap_or_default(),
            stage.at,
        )?;
        return Ok(MountSource::Layers { layers, subpath });
    };
    if writable {
        let directory = files.path().to_owned();
        return Ok(MountSource::Overlaid { directory, subpath });
    }
    let fd = files
        .root()
        .resolve(Path::new(&start))
        .doing(|| format!("open {source:?}, which is to be mounted"))?;
    let real = std::fs::read_link(sys::root::fd_path(std::os::fd::AsFd::as_fd(&fd)));
    let real = real.doing(|| format!("find {source:?}, which is to be mounted"))?;
    // Nobody but the engine can have moved it.
    if !real.starts_with(files.path()) {
        return Err(Error::Invalid(format!("{source:?} is not in the context")));
    }
    Ok(bound(real, true))
}

/// A path of the host, in a container.
fn bound(path: PathBuf, read_only: bool) -> MountSource {
    MountSource::Bind {
        path,
        propagation: None,
        non_recursive: false,
        recursive_read_only: read_only,
        create: false,
        mode: String::new(),
    }
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
