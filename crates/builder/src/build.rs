//! A whole build: its stages, those that need nothing of each other at the same time, and the image in the end.

use crate::bundle::Part;
use crate::cache::Kept;
use crate::definition::Definition;
use crate::error::{Doing, Error, Result};
use crate::fetch::Fetcher;
use crate::lint::Finding;
use crate::output::Made;
use crate::plan::Plan;
use crate::progress::{Event, Progress, StepNumber};
use crate::remote::{self, CacheMode, CachePlace, Document, Imported};
use crate::request::{NamedContext, Request, STAGES_AT_ONCE_MAX};
use crate::scope::PROXIES;
use crate::stage::{Finished, Stage};
use engine::Engine;
use images::{Hold, Image, Images};
use oci::image::{ConfigFile, Descriptor, Platform};
use oci::{Digest, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use sys::root::Root;
use tokio::runtime::Handle;

/// What a build has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What became of it.
    pub made: Made,
    /// Steps that were done, base images included.
    pub steps: usize,
    /// Of those, taken from the cache.
    pub cached: usize,
    /// The manifest of the cache that the client has got, where it wanted one.
    pub cache: Option<Descriptor>,
}

/// Builds an image. Blocks, and runs on threads of its own; `handle` is the engine's runtime.
///
/// # Errors
/// A Dockerfile that cannot be read, a step that fails, a client that is gone. Nothing of the build is left then but what its
/// finished steps have put into the cache.
pub fn build(
    engine: &Engine,
    handle: &Handle,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Built> {
    let definition = Definition::read(request)?;
    let plan = definition.plan(request)?;
    if definition.check.error {
        let found = definition.findings(engine, request, &plan.stages);
        found
            .iter()
            .for_each(|finding| progress.tell(&Event::Found(finding)));
        refuse(&found)?;
    }
    let tell = |event: &Event<'_>| progress.tell(event);
    let imported = Imported::read(engine, handle, request, &tell)?;
    let build = Build {
        imported,
        kept: Mutex::default(),
        mounts_used: Mutex::default(),
        engine,
        images: engine.images(),
        handle,
        request,
        epoch: epoch(request)?,
        definition,
        progress,
        results: Results::default(),
        holds: Mutex::default(),
        asked: Mutex::default(),
        counted: Mutex::default(),
    };
    build.tell(&Event::Planned { steps: plan.steps });
    build.run(&plan)
}

/// What of a request's Dockerfile had better be written otherwise, without building it. Base images that are not here are not
/// looked at.
///
/// # Errors
/// A Dockerfile that cannot be read, or whose stages do not fit together.
pub fn check(engine: &Engine, request: &Request) -> Result<Vec<Finding>> {
    let definition = Definition::read(request)?;
    let plan = definition.plan(request)?;
    // Who names no stage means them all.
    let stages = match &request.target {
        Some(_) => plan.stages,
        None => (0..definition.file.stages.len()).collect(),
    };
    Ok(definition.findings(engine, request, &stages))
}

/// # Errors
/// There are any.
fn refuse(found: &[Finding]) -> Result<()> {
    let rules: BTreeSet<String> = found.iter().map(|finding| finding.rule.name()).collect();
    match rules.is_empty() {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "lint violation found for rules: {}",
            Vec::from_iter(rules).join(", ")
        ))),
    }
}

/// `SOURCE_DATE_EPOCH`: the time that everything younger gets.
fn epoch(request: &Request) -> Result<Option<i64>> {
    let Some(text) = request
        .build_args
        .get("SOURCE_DATE_EPOCH")
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let seconds = text.parse().ok().filter(|seconds| *seconds >= 0);
    let seconds = seconds.filter(|seconds| jiff::Timestamp::from_second(*seconds).is_ok());
    seconds.map(Some).ok_or_else(|| {
        Error::Invalid(format!(
            "invalid SOURCE_DATE_EPOCH {text:?}: it is seconds since 1970"
        ))
    })
}

/// A build that goes on.
pub(crate) struct Build<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) images: &'a Images,
    pub(crate) handle: &'a Handle,
    pub(crate) request: &'a Request,
    pub(crate) definition: Definition,
    /// Seconds since 1970 that no time of the image is after.
    pub(crate) epoch: Option<i64>,
    progress: &'a dyn Progress,
    /// Caches elsewhere.
    pub(crate) imported: Imported<'a>,
    /// The results of this build's steps.
    kept: Mutex<Vec<Kept>>,
    /// Cache mounts that were used, by their IDs.
    mounts_used: Mutex<BTreeMap<String, PathBuf>>,
    results: Results,
    /// Every layer that the build counts on.
    holds: Mutex<Vec<Hold<'a>>>,
    /// Arguments of the client that were declared.
    asked: Mutex<BTreeSet<String>>,
    /// Steps, and cached ones.
    counted: Mutex<(usize, usize)>,
}

/// The stages that are done.
#[derive(Default)]
struct Results {
    state: Mutex<ResultsState>,
    changed: Condvar,
}

#[derive(Default)]
struct ResultsState {
    done: BTreeMap<usize, Arc<Finished>>,
    failed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks here guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Build<'a> {
    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Event::Ended { cached, .. } = event {
            let mut counted = lock(&self.counted);
            counted.0 += 1;
            counted.1 += usize::from(*cached);
        }
        self.progress.tell(event);
    }

    pub(crate) fn check_stop(&self) -> Result<()> {
        match *self.request.stop.borrow() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    pub(crate) fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            engine: self.engine,
            handle: self.handle,
            client: &*self.request.client,
            stop: &self.request.stop,
        }
    }

    /// Counts on layers until the build's end.
    pub(crate) fn keep_held(&self, hold: Hold<'a>) {
        lock(&self.holds).push(hold);
    }

    /// Notes a result of a step.
    pub(crate) fn note_kept(&self, kept: Kept) {
        if !self.request.cache_to.is_empty() {
            lock(&self.kept).push(kept);
        }
    }

    /// The results of the steps that are done.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        lock(&self.kept).clone()
    }

    /// Notes that a cache mount is used, and where it is.
    pub(crate) fn note_mount(&self, id: &str, path: &Path) {
        lock(&self.mounts_used).insert(id.to_owned(), path.to_owned());
    }

    /// The cache mounts that were used.
    pub(crate) fn mounts_used(&self) -> BTreeMap<String, PathBuf> {
        lock(&self.mounts_used).clone()
    }

    /// Notes that arguments are declared.
    pub(crate) fn note_asked<'n>(&self, names: impl Iterator<Item = &'n str>) {
        lock(&self.asked).extend(names.map(str::to_owned));
    }

    /// The files of a named context, where it has files.
    pub(crate) fn named_files(&self, name: &str) -> Option<&'a crate::Context> {
        match self.request.contexts.get(name) {
            Some(NamedContext::Files(files)) => Some(files),
            _ => None,
        }
    }

    /// Waits for another stage.
    pub(crate) fn finished(&self, stage: usize) -> Result<Arc<Finished>> {
        let mut state = lock(&self.results.state);
        loop {
            if let Some(done) = state.done.get(&stage) {
                return Ok(Arc::clone(done));
            }
            if state.failed {
                return Err(Error::Cancelled);
            }
            state = { self.results.changed.wait(state) }.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, plan: &Plan) -> Result<Built> {
        let next = Mutex::new(plan.stages.iter().enumerate());
        let failure: Mutex<Option<Error>> = Mutex::default();
        let work = || {
            loop {
                // In their order: whatever a stage waits for is done, or is being done.
                let taken = lock(&next).next();
                let Some((place, at)) = taken else { return };
                if lock(&failure).is_some() {
                    return;
                }
                let first = plan.stages[..place]
                    .iter()
                    .map(|at| 1 + self.definition.file.stages[*at].steps.len());
                let first = StepNumber(1 + first.sum::<usize>());
                let result = Stage::build(self, *at, first);
                let mut state = lock(&self.results.state);
                match result {
                    Ok(finished) => {
                        state.done.insert(*at, Arc::new(finished));
                    }
                    Err(error) => {
                        state.failed = true;
                        let mut failure = lock(&failure);
                        // Stages that only waited for the one that failed have nothing to say.
                        if failure.is_none() {
                            *failure = Some(error);
                        }
                    }
                }
                self.results.changed.notify_all();
            }
        };
        let workers = self
            .request
            .stages_at_once
            .clamp(1, STAGES_AT_ONCE_MAX)
            .min(plan.stages.len());
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        self.check_stop()?;
        let target = plan.stages.last().expect("a plan has its target");
        let finished = self.finished(*target)?;
        // Only now every base image is here.
        let found = self
            .definition
            .findings(self.engine, self.request, &plan.stages);
        for finding in found {
            self.tell(&Event::Found(&finding));
        }
        self.publish(&finished)
    }

    fn publish(&self, finished: &Finished) -> Result<Built> {
        self.warn_of_arguments();
        self.tell(&Event::Publishing);
        let part = self.part(finished);
        let made = self.make_outputs(&[part], &[&finished.layers])?;
        self.tell(&Event::Published);
        let layers = finished.layers.iter().copied().collect();
        let cache = remote::export(self, &layers)?;
        let (steps, cached) = *lock(&self.counted);
        Ok(Built {
            made,
            steps,
            cached,
            cache,
        })
    }

    /// The image of what a stage has led to.
    fn part(&self, finished: &Finished) -> Part {
        let mut config = finished.config.clone();
        config.config.labels.extend(self.request.labels.clone());
        config.build_cache = self.inline_cache(finished);
        config.rootfs.diff_ids.clone_from(&finished.layers);
        Part {
            platform: config.platform.clone(),
            config: serde_json::to_vec(&config).expect("it has only strings as keys"),
            layers: finished.layers.clone(),
            predicates: Vec::new(),
        }
    }

    /// The results of the image's own layers, where they are to be in it.
    fn inline_cache(&self, finished: &Finished) -> Option<serde_json::Value> {
        let mut targets = self.request.cache_to.iter();
        targets.find(|target| matches!(target.place, CachePlace::Inline))?;
        let layers = finished.layers.iter().copied().collect();
        let results = remote::results(&self.kept(), CacheMode::Min, &layers);
        let document = Document::new(&results);
        Some(serde_json::to_value(document).expect("it has only strings as keys"))
    }

    fn warn_of_arguments(&self) {
        let asked = lock(&self.asked);
        let declared = |name: &&String| {
            asked.contains(*name)
                || PROXIES.contains(&name.as_str())
                || matches!(
                    name.as_str(),
                    "SOURCE_DATE_EPOCH" | "BUILDKIT_DOCKERFILE_CHECK"
                )
                || self
                    .definition
                    .file
                    .arguments()
                    .any(|arg| arg.name == **name)
        };
        let unused: Vec<&str> = { self.request.build_args.keys() }
            .filter(|name| !declared(name))
            .map(String::as_str)
            .collect();
        if !unused.is_empty() {
            let names = unused.join(" ");
            let text = format!("One or more build-args [{names}] were not consumed");
            self.progress.tell(&Event::Warning(&text));
        }
    }

    /// An image by its name, pulled where it is not here, with its layers held.
    pub(crate) fn image(&self, name: &str, platform: Option<Platform>) -> Result<Image> {
        let name = match self.request.contexts.get(name) {
            Some(NamedContext::Image(image)) => image,
            _ => name,
        };
        let here = self.images.get(name);
        let missing = matches!(&here, Err(error) if error.kind() == images::ErrorKind::NotFound);
        let is_id = name.starts_with("sha256:");
        let image = match here {
            Ok(image) if !self.request.pull || is_id => image,
            Err(error) if !missing => return Err(error).doing(|| format!("find the image {name}")),
            _ => {
                self.pull(name, platform.clone())?;
                self.images
                    .get(name)
                    .doing(|| format!("find the image {name}"))?
            }
        };
        let found = &image.config.platform;
        if let Some(wanted) = platform
            && (wanted.os != found.os || wanted.architecture != found.architecture)
        {
            return Err(Error::NotFound(format!(
                "image {name} was found but does not match the specified platform: wanted {wanted}, actual: {found}"
            )));
        }
        let hold = self.images.hold(image.layers());
        self.keep_held(hold.doing(|| format!("use the image {name}"))?);
        Ok(image)
    }

    fn pull(&self, name: &str, platform: Option<Platform>) -> Result<()> {
        let invalid = |error: oci::reference::ReferenceError| {
            Error::Invalid(format!("invalid reference format: {name:?}: {error}"))
        };
        let reference: Reference = name.parse().map_err(invalid)?;
        let credentials = self.request.client.credentials(reference.domain())?;
        let _runtime = self.handle.enter();
        let stop = self.request.stop.clone();
        let reference = reference.to_target();
        let pulled = self
            .engine
            .pull(&reference, platform, credentials, stop, &|_, _| {});
        pulled.map(drop).doing(|| format!("pull {name}"))
    }

    /// The tree of layers, to read from.
    pub(crate) fn view(&self, layers: &[Digest]) -> Result<View<'a>> {
        View::new(self.images, layers)
    }

    /// The ID that an image of a configuration would have.
    pub(crate) fn id_of(config: &ConfigFile, layers: &[Digest]) -> Digest {
        let mut config = config.clone();
        config.rootfs.diff_ids = layers.to_vec();
        let bytes = serde_json::to_vec(&config).expect("a configuration has only strings as keys");
        Digest::sha256(&bytes)
    }
}

/// Layers, mounted nowhere, and a writable one on top. Both go with this value.
#[derive(Debug)]
pub(crate) struct View<'a> {
    images: &'a Images,
    /// The lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) snapshot: images::Snapshot,
    pub(crate) root: Root,
}

impl<'a> View<'a> {
    fn new(images: &'a Images, layers: &[Digest]) -> Result<Self> {
        let id = engine::random_id().doing(|| "name a snapshot".to_owned())?;
        let doing = || "mount the layers of a stage".to_owned();
        let snapshot = images.prepare_on(&id, layers).doing(doing)?;
        let mounted = images.mount_detached(&snapshot).inspect_err(|_| {
            // The first error tells more; the next start removes what is left.
            let _ = images.remove_snapshot(&id);
        });
        Ok(Self {
            images,
            layers: layers.to_vec(),
            root: Root::from_fd(mounted.doing(doing)?),
            snapshot,
        })
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.images.remove_snapshot(&self.snapshot.id) {
            tracing::error!(%error, "cannot remove a snapshot of a build");
        }
    }
}
