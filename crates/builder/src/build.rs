//! A whole build: its stages, those that need nothing of each other at the same time, and the image in the end.

use crate::attest::{self, Account, Material, Sbom};
use crate::bundle::{Part, Predicate};
use crate::cache::Kept;
use crate::definition::{self, Definition};
use crate::error::{Doing, Error, Result};
use crate::fetch::Fetcher;
use crate::lint::Finding;
use crate::output::{self, Made};
use crate::plan::Plan;
use crate::progress::{Event, Progress, StepNumber};
use crate::remote::{self, CacheMode, CachePlace, Document, Imported};
use crate::request::{NamedContext, Request, STAGES_AT_ONCE_MAX};
use crate::scope::PROXIES;
use crate::stage::{Finished, Stage};
use crate::view::View;
use engine::Engine;
use images::{Hold, Images};
use oci::Digest;
use oci::image::{ConfigFile, Descriptor, Platform};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;

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
    /// The largest files of the image with their bytes, as many as were asked for.
    pub largest: Vec<(String, u64)>,
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
    let built = build_all(engine, handle, request, progress);
    // An image made it all durable; without one, what the steps have led to is there for the next build.
    let settled = engine.images().settle();
    let built = built?;
    settled.doing(|| "write what was built to the disk".to_owned())?;
    Ok(built)
}

fn build_all(
    engine: &Engine,
    handle: &Handle,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Built> {
    let platforms = definition::platforms(request)?;
    output::check(request, platforms.len())?;
    let read = |platform| {
        let definition = Definition::read(request, platform)?;
        definition.check_bases()?;
        let plan = definition.plan(request)?;
        Ok((definition, plan))
    };
    let all = platforms.iter().map(read).collect::<Result<Vec<_>>>()?;
    for (definition, plan) in all.iter().filter(|(it, _)| it.check.error) {
        let found = definition.findings(engine, request, &plan.stages);
        let tell = |finding| progress.tell(&Event::Found(finding));
        found.iter().for_each(tell);
        refuse(&found)?;
    }
    let steps = all.iter().map(|(_, plan)| plan.steps).sum::<usize>();
    progress.tell(&Event::Planned { steps });
    let imported = Imported::read(engine, handle, request, &|event| progress.tell(event))?;
    let id = engine::random_id().doing(|| "name the build".to_owned())?;
    let common = Arc::new(Common::new(imported, id, steps));
    let epoch = epoch(request)?;
    // One shell at a time is enough for a terminal.
    let platforms_at_once = match request.shell_on_failure {
        true => 1,
        false => platforms.len().min(request.stages_at_once.max(1)),
    };
    let stages_at_once = request.stages_at_once.clamp(1, STAGES_AT_ONCE_MAX);
    let mut builds = Vec::new();
    let mut begun = 0;
    for (definition, plan) in all {
        let steps = plan.steps;
        let build = Build {
            engine,
            images: engine.images(),
            handle,
            request,
            definition,
            is_one_of_several: platforms.len() > 1,
            epoch,
            progress,
            common: Arc::clone(&common),
            materials: Mutex::default(),
            results: Results::default(),
            sboms: Mutex::default(),
            given_up: watch::Sender::new(false),
            stages_at_once: stages_at_once.div_ceil(platforms_at_once),
        };
        builds.push((build, plan, begun));
        begun += steps;
    }
    let finished = run_all(&builds, platforms_at_once)?;
    let builds = builds.into_iter().map(|(build, ..)| build);
    publish(&builds.zip(finished).collect::<Vec<_>>())
}

/// Builds for all platforms, some at the same time; the number is of the steps before them. What comes of them is in the same order.
fn run_all(builds: &[(Build<'_>, Plan, usize)], at_once: usize) -> Result<Vec<Arc<Finished>>> {
    side_by_side(builds.iter(), at_once, |(build, plan, begun)| {
        let built = build.run(plan, *begun);
        if built.is_err() {
            for (other, ..) in builds {
                other.give_up();
            }
        }
        built
    })?;
    let finished = |(build, plan, _): &(Build<'_>, Plan, usize)| build.target(plan);
    builds.iter().map(finished).collect()
}

/// Does `work` on all, so many at the same time, begun in their order. After a failure none is begun any more, and it is returned;
/// what was ended for something that has failed has nothing to say.
fn side_by_side<I: Send>(
    items: impl Iterator<Item = I> + Send,
    at_once: usize,
    work: impl Fn(I) -> Result<()> + Sync,
) -> Result<()> {
    let next = Mutex::new(items);
    let failure: Mutex<Option<Error>> = Mutex::default();
    let labour = || {
        loop {
            let taken = lock(&next).next();
            let Some(item) = taken.filter(|_| lock(&failure).is_none()) else {
                return;
            };
            if let Err(error) = work(item) {
                let mut failure = lock(&failure);
                if matches!(*failure, None | Some(Error::Cancelled)) {
                    *failure = Some(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once {
            scope.spawn(labour);
        }
        labour();
    });
    lock(&failure).take().map_or(Ok(()), Err)
}

/// What of a request's Dockerfile had better be written otherwise, without building it. Base images that are not here are not
/// looked at.
///
/// # Errors
/// A Dockerfile that cannot be read, or whose stages do not fit together.
pub fn check(engine: &Engine, request: &Request) -> Result<Vec<Finding>> {
    let platforms = definition::platforms(request)?;
    let definition = Definition::read(request, &platforms[0])?;
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

/// A build that goes on, for one platform.
pub(crate) struct Build<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) images: &'a Images,
    pub(crate) handle: &'a Handle,
    pub(crate) request: &'a Request,
    pub(crate) definition: Definition,
    /// The request is for other platforms, too.
    is_one_of_several: bool,
    /// Seconds since 1970 that no time of the image is after.
    pub(crate) epoch: Option<i64>,
    progress: &'a dyn Progress,
    common: Arc<Common<'a>>,
    /// What the image is made of.
    materials: Mutex<BTreeSet<Material>>,
    results: Results,
    /// What was found to be in the image.
    sboms: Mutex<Option<Vec<Predicate>>>,
    /// A step has failed, and what goes on beside it is of no use.
    given_up: watch::Sender<bool>,
    /// Stages that are built at the same time.
    stages_at_once: usize,
}

/// What the builds for all platforms have in common.
struct Common<'a> {
    /// Caches elsewhere.
    imported: Imported<'a>,
    /// The results of steps.
    kept: Mutex<Vec<Kept>>,
    /// Cache mounts that were used, by their IDs.
    mounts_used: Mutex<BTreeMap<String, PathBuf>>,
    /// Every layer that the builds count on.
    holds: Mutex<Vec<Hold<'a>>>,
    /// Arguments of the client that were declared.
    asked: Mutex<BTreeSet<String>>,
    /// The IDs of secrets that commands have got.
    secrets: Mutex<BTreeSet<String>>,
    /// Names the build.
    id: String,
    /// Steps that have a number, the planned ones first.
    numbered: Mutex<usize>,
    /// When it began, and when all was built.
    started: jiff::Timestamp,
    finished: OnceLock<jiff::Timestamp>,
    /// Steps, and cached ones.
    counted: Mutex<(usize, usize)>,
}

impl<'a> Common<'a> {
    fn new(imported: Imported<'a>, id: String, steps: usize) -> Self {
        Self {
            imported,
            numbered: Mutex::new(steps),
            kept: Mutex::default(),
            mounts_used: Mutex::default(),
            holds: Mutex::default(),
            asked: Mutex::default(),
            secrets: Mutex::default(),
            id,
            started: jiff::Timestamp::now(),
            finished: OnceLock::new(),
            counted: Mutex::default(),
        }
    }
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
    /// The stages that somebody builds, or will build.
    taken: BTreeSet<usize>,
    failed: bool,
}

/// Returns when a value has become true.
pub(crate) async fn becomes_true(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|value| *value).await.is_err() {
        // Nobody can make it so any more.
        std::future::pending::<()>().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks here guard is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Build<'a> {
    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Event::Ended { cached, .. } = event {
            let mut counted = lock(&self.common.counted);
            counted.0 += 1;
            counted.1 += usize::from(*cached);
        }
        self.progress.tell(event);
    }

    /// Whether nobody waits for it any more.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.request.stop.borrow() || *self.given_up.borrow()
    }

    pub(crate) fn check_stop(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Returns when the build is to end.
    pub(crate) async fn stopped(&self) {
        let (mut stop, mut given_up) = (self.request.stop.clone(), self.given_up.subscribe());
        tokio::select! {
            () = becomes_true(&mut stop) => {}
            () = becomes_true(&mut given_up) => {}
        }
    }

    /// Ends all other stages. False: they are being ended.
    pub(crate) fn give_up(&self) -> bool {
        !self.given_up.send_replace(true)
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
        lock(&self.common.holds).push(hold);
    }

    /// Caches elsewhere.
    pub(crate) fn imported(&self) -> &Imported<'a> {
        &self.common.imported
    }

    /// The platform that is built for, where there are others.
    pub(crate) fn told_platform(&self) -> Option<&Platform> {
        self.is_one_of_several.then_some(&self.definition.platform)
    }

    /// Notes something that the image is made of.
    pub(crate) fn note_material(&self, uri: String, digest: &Digest) {
        let sha256 = digest.hex();
        lock(&self.materials).insert(Material { uri, sha256 });
    }

    /// Notes that a command gets a secret.
    pub(crate) fn note_secret(&self, id: &str) {
        lock(&self.common.secrets).insert(id.to_owned());
    }

    /// What is attested of an image of these layers. `inline`: it is pushed.
    pub(crate) fn predicates(&self, layers: &[Digest], inline: bool) -> Result<Vec<Predicate>> {
        let wanted = &self.request.attestations;
        let mut all = Vec::new();
        if let Some(sbom) = &wanted.sbom {
            // Every output has the same.
            let mut made = lock(&self.sboms);
            let known = made.take();
            let sboms = known.map_or_else(|| self.list_contents(sbom, layers), Ok)?;
            all.extend(sboms.iter().cloned());
            *made = Some(sboms);
        }
        if let Some(provenance) = wanted.provenance_for(inline) {
            let account = Account {
                request: self.request,
                platform: &self.definition.platform,
                materials: &lock(&self.materials).clone(),
                secrets: &lock(&self.common.secrets).clone(),
                id: &self.common.id,
                started: self.common.started,
                finished: *self.common.finished.get_or_init(jiff::Timestamp::now),
            };
            all.push(attest::provenance(provenance, &account));
        }
        Ok(all)
    }

    /// What is in layers, as a generator says, or as the databases of packages do.
    fn list_contents(&self, sbom: &Sbom, layers: &[Digest]) -> Result<Vec<Predicate>> {
        if let Some(generator) = &sbom.generator {
            return self.generate(generator, &sbom.parameters, layers);
        }
        let created = self
            .epoch
            .and_then(|it| jiff::Timestamp::from_second(it).ok());
        let created = created.unwrap_or(self.common.started).to_string();
        let view = self.view(layers)?;
        let (predicate, untold) = attest::sbom(&view.root, layers, &created)?;
        if let Some(text) = untold {
            self.tell(&Event::Warning(&text));
        }
        Ok(vec![predicate])
    }

    /// The stages that are done, by their numbers; the last is the target.
    pub(crate) fn stages_done(&self) -> Vec<(usize, Arc<Finished>)> {
        let state = lock(&self.results.state);
        let done = state.done.iter();
        done.map(|(at, stage)| (*at, Arc::clone(stage))).collect()
    }

    /// Notes a result of a step.
    pub(crate) fn note_kept(&self, kept: Kept) {
        if !self.request.cache_to.is_empty() {
            lock(&self.common.kept).push(kept);
        }
    }

    /// The results of the steps that are done.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        lock(&self.common.kept).clone()
    }

    /// Notes that a cache mount is used, and where it is.
    pub(crate) fn note_mount(&self, id: &str, path: &Path) {
        lock(&self.common.mounts_used).insert(id.to_owned(), path.to_owned());
    }

    /// The cache mounts that were used.
    pub(crate) fn mounts_used(&self) -> BTreeMap<String, PathBuf> {
        lock(&self.common.mounts_used).clone()
    }

    /// Notes that arguments are declared.
    pub(crate) fn note_asked<'n>(&self, names: impl Iterator<Item = &'n str>) {
        lock(&self.common.asked).extend(names.map(str::to_owned));
    }

    /// The files of a named context, where it has files.
    pub(crate) fn named_files(&self, name: &str) -> Option<&'a crate::Context> {
        match self.request.contexts.get(name) {
            Some(NamedContext::Files(files)) => Some(files),
            _ => None,
        }
    }

    /// Waits for another stage; one that nobody builds, which only triggers name, is built now.
    pub(crate) fn finished(&self, stage: usize) -> Result<Arc<Finished>> {
        let mut state = lock(&self.results.state);
        loop {
            if let Some(done) = state.done.get(&stage) {
                return Ok(Arc::clone(done));
            }
            if state.failed {
                return Err(Error::Cancelled);
            }
            if state.taken.insert(stage) {
                break;
            }
            state = { self.results.changed.wait(state) }.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let steps = 1 + self.definition.file.stages[stage].steps.len();
        let mut numbered = lock(&self.common.numbered);
        let first = StepNumber(*numbered + 1);
        *numbered += steps;
        drop(numbered);
        self.build_stage(stage, first)
    }

    /// Builds a stage, and lets go whoever waits for it. Those that wait in vain end with [`Error::Cancelled`].
    fn build_stage(&self, at: usize, first: StepNumber) -> Result<Arc<Finished>> {
        let result = Stage::build(self, at, first).map(Arc::new);
        let mut state = lock(&self.results.state);
        match &result {
            Ok(finished) => drop(state.done.insert(at, Arc::clone(finished))),
            Err(_) => {
                state.failed = true;
                self.give_up();
            }
        }
        self.results.changed.notify_all();
        result
    }

    /// Builds all stages; `begun` is the number of steps before them.
    fn run(&self, plan: &Plan, begun: usize) -> Result<()> {
        lock(&self.results.state).taken.extend(&plan.stages);
        let workers = self.stages_at_once.min(plan.stages.len());
        // In their order: whatever a stage waits for is done, or is being done.
        side_by_side(plan.stages.iter().enumerate(), workers, |(place, at)| {
            let first = plan.stages[..place]
                .iter()
                .map(|at| 1 + self.definition.file.stages[*at].steps.len());
            let first = StepNumber(1 + begun + first.sum::<usize>());
            self.build_stage(*at, first).map(drop)
        })?;
        self.check_stop()?;
        // Only now every base image is here.
        let found = self
            .definition
            .findings(self.engine, self.request, &plan.stages);
        // Those of another platform would be the same once more.
        for finding in found.iter().filter(|_| begun == 0) {
            self.tell(&Event::Found(finding));
        }
        Ok(())
    }

    /// What its target has led to.
    fn target(&self, plan: &Plan) -> Result<Arc<Finished>> {
        let target = plan.stages.last().expect("a plan has its target");
        self.finished(*target)
    }

    /// The largest files of a tree, as many as are asked for.
    fn largest(&self, layers: &[Digest]) -> Result<Vec<(String, u64)>> {
        if self.request.largest == 0 {
            return Ok(Vec::new());
        }
        let view = self.view(layers)?;
        let found = images::largest_files(&view.root, self.request.largest);
        let found = found.doing(|| "look for the largest files".to_owned())?;
        let told = |(path, bytes): (PathBuf, u64)| (path.display().to_string(), bytes);
        Ok(found.into_iter().map(told).collect())
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
        let asked = lock(&self.common.asked);
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

/// Makes of what was built what is asked for.
fn publish(done: &[(Build<'_>, Arc<Finished>)]) -> Result<Built> {
    let (first, _) = done.first().expect("a build is for a platform");
    first.warn_of_arguments();
    first.tell(&Event::Publishing);
    let parts: Vec<Part> = done
        .iter()
        .map(|(build, finished)| build.part(finished))
        .collect();
    let builds: Vec<&Build<'_>> = done.iter().map(|(build, _)| build).collect();
    let made = first.make_outputs(&parts, &builds)?;
    let largest = first.largest(&parts[0].layers)?;
    let layers = done
        .iter()
        .flat_map(|(_, finished)| &finished.layers)
        .copied();
    let cache = remote::export(first, &layers.collect())?;
    let (steps, cached) = *lock(&first.common.counted);
    Ok(Built {
        made,
        steps,
        cached,
        cache,
        largest,
    })
}
