//! One stage, step by step.

use crate::build::Build;
use crate::cache::{self, Inputs};
use crate::config;
use crate::error::{Doing, Error, Result};
use crate::language::{self, Instruction, Position, Step, Transfer};
use crate::plan::{self, Origin};
use crate::progress::{Event, StepNumber};
use crate::run;
use crate::scope::Scope;
use crate::transfer;
use images::tar::{Entry, Kind, Time};
use images::{Hold, changes, copy::Copy};
use jiff::Timestamp;
use oci::Digest;
use oci::image::{ConfigFile, History, LAYERS_MAX};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// What commands find programs by where nothing says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The comment of history entries, by which tools know the form of `created_by`.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// Triggers of one base image.
const TRIGGERS_MAX: usize = 1024;

/// What a stage has led to.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its layers, the lowest first; the build holds them.
    pub(crate) layers: Vec<Digest>,
    /// Its configuration, without the layers.
    pub(crate) config: ConfigFile,
    /// Its arguments, which stages on top of it have as well.
    scope: Scope,
    /// When its last layer was made, as RFC 3339.
    pub(crate) time: String,
}

impl Finished {
    /// The value of an argument of the stage.
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        { self.scope.args() }
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

/// A stage that is being built.
pub(crate) struct Stage<'b, 'a> {
    pub(crate) build: &'b Build<'a>,
    /// Its number in the file.
    pub(crate) at: usize,
    /// Steps that may make a layer: how many have begun, and how many there are.
    layer_steps: (usize, usize),
    /// Its name, or its number.
    name: String,
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ConfigFile,
    pub(crate) scope: Scope,
    /// It has set a command itself.
    cmd_set: bool,
    time: String,
    /// The step that is being done.
    pub(crate) number: StepNumber,
}

/// What a step that may make a layer has led to.
pub(crate) type Made<'a> = Option<(Digest, Hold<'a>)>;

/// A step that may make a layer, before it is looked up.
pub(crate) struct LayerStep<'t> {
    /// As it is written.
    pub(crate) text: &'t str,
    /// As it is in the history.
    pub(crate) told: String,
    /// What it depends on.
    pub(crate) inputs: Inputs,
    /// What it leads to is its layer alone, whatever that is put on.
    pub(crate) is_apart: bool,
}

impl<'b, 'a> Stage<'b, 'a> {
    /// Builds stage `at`. `first` is the number of its FROM.
    pub(crate) fn build(build: &'b Build<'a>, at: usize, first: StepNumber) -> Result<Finished> {
        let file = &build.definition.file;
        let from = &file.stages[at].from;
        let has_image = from.image != "scratch" && file.stage(&from.image, at).is_none();
        let mut stage = Self {
            build,
            at,
            layer_steps: (
                0,
                usize::from(has_image) + { file.stages[at].steps.iter() }
                    .filter(|step| may_make_layer(step))
                    .count(),
            ),
            name: from.name.clone().unwrap_or_else(|| format!("stage-{at}")),
            layers: Vec::new(),
            config: ConfigFile::default(),
            scope: Scope::new(build.definition.file.directives.escape),
            cmd_set: false,
            time: Timestamp::UNIX_EPOCH.to_string(),
            number: first,
        };
        let file = &build.definition.file.stages[at];
        stage.begin(&file.text, file.position, false, has_image);
        let within = |error: Error| in_step(error, &file.text, file.position);
        stage.base(&file.text).map_err(within)?;
        stage.triggers(file.position).map_err(within)?;
        for step in &file.steps {
            stage.number.0 += 1;
            stage.step(step, false)?;
        }
        Ok(Finished {
            layers: stage.layers,
            config: stage.config,
            scope: stage.scope,
            time: stage.time,
        })
    }

    /// What it is called beside others; nothing where it is alone.
    fn told_name(&self) -> &str {
        match self.build.definition.file.stages.len() {
            1 => "",
            _ => &self.name,
        }
    }

    fn begin(&mut self, text: &str, position: Position, trigger: bool, layer: bool) {
        let counts = layer && !trigger;
        self.layer_steps.0 += usize::from(counts);
        self.build.tell(&Event::Began {
            step: self.number,
            stage: self.told_name(),
            platform: self.build.told_platform(),
            place: Some(self.layer_steps).filter(|_| counts),
            text,
            position,
            trigger,
        });
    }

    fn end(&self, cached: bool, layer_bytes: Option<u64>) {
        self.build.tell(&Event::Ended {
            step: self.number,
            cached,
            id: &Build::id_of(&self.config, &self.layers).to_string(),
            layer_bytes,
        });
    }

    /// Takes what the stage stands on, which ends the step `text`.
    fn base(&mut self, text: &str) -> Result<()> {
        let build = self.build;
        let name = &build.definition.bases[self.at];
        let written = build.definition.file.stages[self.at].from.platform.as_ref();
        let platform = written
            .map(|text| build.definition.global.word(text, &[]))
            .transpose()?;
        if let (Some(""), Some(from)) = (platform.as_deref(), written.filter(|it| !it.is_empty())) {
            let text = format!("empty platform value from expression {from}");
            return Err(Error::Invalid(text));
        }
        let platform = platform
            .filter(|text| !text.is_empty())
            .map(|text| text.parse())
            .transpose()
            .map_err(|error: oci::image::PlatformError| Error::Invalid(error.to_string()))?;
        if let Origin::Stage(stage) = plan::base(&build.definition.file, name, self.at)? {
            let finished = build.finished(stage)?;
            self.layers.clone_from(&finished.layers);
            self.config = finished.config.clone();
            self.scope = finished.scope.on_top(&self.config.config.env);
            self.time.clone_from(&finished.time);
            build.tell(&Event::Based {
                step: self.number,
                image: None,
            });
            self.end(false, None);
            return Ok(());
        }
        let is_files = build.named_files(name).is_some();
        if is_files || name == "scratch" && !build.request.contexts.contains_key(name) {
            // Nothing is for every platform.
            self.config.platform = build.definition.platform.clone();
            "/".clone_into(&mut self.config.config.working_dir);
            build.tell(&Event::Based {
                step: self.number,
                image: None,
            });
        } else {
            let platform = platform.unwrap_or_else(|| build.definition.platform.clone());
            let image = build.image(name, Some(platform))?;
            self.layers = image.layers().to_vec();
            self.config = (*image.config).clone();
            if let Some(created) = &self.config.created {
                self.time.clone_from(created);
            }
            let id = image.id.to_string();
            build.tell(&Event::Based {
                step: self.number,
                image: Some((name, &id)),
            });
        }
        self.config.rootfs.diff_ids.clear();
        self.config.docker_version.clear();
        self.config.comment.clear();
        self.config.build_cache = None;
        self.time = self.not_after_epoch(self.time.clone());
        if self
            .config
            .config
            .env
            .iter()
            .all(|variable| !variable.starts_with("PATH="))
        {
            self.config.config.env.insert(0, PATH.to_owned());
        }
        if is_files {
            return self.base_of_files(text, name);
        }
        self.end(false, None);
        Ok(())
    }

    /// Takes all files of a named context as what the stage stands on, as a step does that copies them.
    fn base_of_files(&mut self, text: &str, name: &str) -> Result<()> {
        let all = Transfer {
            from: Some(name.to_owned()),
            sources: vec!["/".to_owned()],
            target: "/".to_owned(),
            ..Transfer::default()
        };
        transfer::transfer(self, text, &all, false)
    }

    /// Does what the base image has left for builds on top of it.
    fn triggers(&mut self, position: Position) -> Result<()> {
        let triggers = std::mem::take(&mut self.config.config.on_build);
        if triggers.len() > TRIGGERS_MAX {
            return Err(Error::Invalid(format!(
                "the base image has more than {TRIGGERS_MAX} triggers"
            )));
        }
        for text in triggers {
            let step = language::parse_trigger(&text, position)?;
            self.step(&step, true)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step, trigger: bool) -> Result<()> {
        self.build.check_stop()?;
        let told = |error| in_step(error, &step.text, step.position);
        self.wait_for_origins(step).map_err(told)?;
        self.begin(&step.text, step.position, trigger, may_make_layer(step));
        self.instruction(step).map_err(told)
    }

    /// A step begins when the stages are there that it takes files from: its time is its own.
    fn wait_for_origins(&self, step: &Step) -> Result<()> {
        for (namer, name) in plan::uses(step)? {
            let is_context = self.build.named_files(&name).is_some();
            let origin = plan::origin(&self.build.definition.file, namer, &name, self.at)?;
            if let (Origin::Stage(stage), false) = (origin, is_context) {
                self.build.finished(stage)?;
            }
        }
        Ok(())
    }

    fn instruction(&mut self, step: &Step) -> Result<()> {
        match &step.instruction {
            Instruction::Run(instruction) => return run::run(self, &step.text, instruction),
            Instruction::Copy(transfer) => {
                return transfer::transfer(self, &step.text, transfer, false);
            }
            Instruction::Add(transfer) => {
                return transfer::transfer(self, &step.text, transfer, true);
            }
            Instruction::Workdir(path) => return self.working_dir(&step.text, path),
            Instruction::Arg(declarations) => {
                self.build
                    .note_asked(declarations.iter().map(|arg| arg.name.as_str()));
                let env = self.config.config.env.clone();
                let mut known = self.build.definition.known.clone();
                let global = self.build.definition.global.args();
                known.extend(global.map(|(name, value)| (name.to_owned(), value.to_owned())));
                let given = &self.build.request.build_args;
                let declared = self.scope.declare_all(declarations, &env, given, &known)?;
                let told = declared.into_iter().map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => name.to_owned(),
                });
                let told: Vec<String> = told.collect();
                self.tell_history(format!("ARG {}", told.join(" ")), true);
            }
            // What it is for becomes a step of its own where it is done.
            Instruction::Onbuild(text) => self.config.config.on_build.push(text.clone()),
            Instruction::Maintainer(name) => {
                self.config.author.clone_from(name);
                self.tell_history(format!("MAINTAINER {name}"), true);
            }
            instruction => {
                let config = &mut self.config.config;
                let told = config::apply(config, &mut self.scope, instruction, &mut self.cmd_set)?;
                self.tell_history(told.expect("every other instruction is above"), true);
            }
        }
        self.end(false, None);
        Ok(())
    }

    fn tell_history(&mut self, created_by: String, empty_layer: bool) {
        self.config.created = Some(self.time.clone());
        self.config.history.push(History {
            created: Some(self.time.clone()),
            created_by,
            author: String::new(),
            comment: COMMENT.to_owned(),
            empty_layer,
        });
    }

    /// The time of what is made now, as RFC 3339.
    fn now(&self) -> String {
        self.not_after_epoch(Timestamp::now().to_string())
    }

    fn not_after_epoch(&self, time: String) -> String {
        let epoch = self
            .build
            .epoch
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        match (epoch, time.parse::<Timestamp>()) {
            (Some(epoch), Ok(at)) if at > epoch => epoch.to_string(),
            _ => time,
        }
    }

    /// The time of files that nothing gives one: that of what is below, in seconds since 1970.
    pub(crate) fn time_s(&self) -> i64 {
        self.time
            .parse::<Timestamp>()
            .map_or(0, Timestamp::as_second)
    }

    /// Takes a step's layer from the cache, or makes it.
    pub(crate) fn layer_step(
        &mut self,
        step: LayerStep<'_>,
        make: impl FnOnce(&Self) -> Result<Made<'a>>,
    ) -> Result<()> {
        let LayerStep {
            text,
            told,
            inputs,
            is_apart,
        } = step;
        let kept_from = if is_apart { self.layers.len() } else { 0 };
        let build = self.build;
        if !self.skips_cache()
            && let Some(hit) = cache::look_up(build, &inputs)?
        {
            build.keep_held(hit.hold);
            self.layers.truncate(kept_from);
            self.layers.extend(hit.layers);
            self.check_layers()?;
            self.time = self.not_after_epoch(hit.created);
            self.tell_history(told, !hit.made_layer);
            let bytes = self.top_bytes(hit.made_layer)?;
            self.explain("it was built before, and nothing that it depends on has changed");
            self.end(true, bytes);
            return Ok(());
        }
        if build.request.explain {
            let reason = match self.skips_cache() {
                true => "the cache is not to be used".to_owned(),
                false => cache::explain(build, &inputs, text)?,
            };
            self.explain(&reason);
        }
        let made = make(self)?;
        self.time = self.now();
        let made_layer = made.is_some();
        if let Some((layer, hold)) = made {
            build.keep_held(hold);
            self.layers.push(layer);
            self.check_layers()?;
        }
        let kept = &self.layers[kept_from..];
        cache::remember(build, &inputs, text, kept, made_layer, &self.time)?;
        self.tell_history(told, !made_layer);
        let bytes = self.top_bytes(made_layer)?;
        self.end(false, bytes);
        Ok(())
    }

    fn check_layers(&self) -> Result<()> {
        match self.layers.len() <= LAYERS_MAX {
            true => Ok(()),
            false => {
                let text = format!("an image has at most {LAYERS_MAX} layers");
                Err(Error::Invalid(text))
            }
        }
    }

    fn skips_cache(&self) -> bool {
        let request = self.build.request;
        let named =
            |name: &String| name.eq_ignore_ascii_case(&self.name) || *name == self.at.to_string();
        request.no_cache || request.no_cache_stages.iter().any(named)
    }

    fn explain(&self, reason: &str) {
        if self.build.request.explain {
            self.build.tell(&Event::Explained {
                step: self.number,
                reason,
            });
        }
    }

    fn top_bytes(&self, made_layer: bool) -> Result<Option<u64>> {
        let Some(layer) = self.layers.last().filter(|_| made_layer) else {
            return Ok(None);
        };
        let bytes = self.build.images.layer_bytes(layer);
        bytes.map(Some).doing(|| "measure a layer".to_owned())
    }

    /// A word with its variables replaced.
    pub(crate) fn word(&self, text: &str) -> Result<String> {
        self.scope.word(text, &self.config.config.env)
    }

    fn working_dir(&mut self, text: &str, path: &str) -> Result<()> {
        let path = self.word(path)?;
        let path = changes::working_dir(&self.config.config.working_dir, &path);
        self.config.config.working_dir.clone_from(&path);
        let mut inputs = Inputs::new("workdir", &self.layers);
        inputs.add("the directory", &path);
        inputs.add("the user", &self.config.config.user);
        let step = LayerStep {
            text,
            told: format!("WORKDIR {path}"),
            inputs,
            is_apart: false,
        };
        self.layer_step(step, |stage| stage.make_directory(Path::new(&path)))
    }

    fn make_directory(&self, path: &Path) -> Result<Made<'a>> {
        let view = self.build.view(&self.layers)?;
        if view.root.resolve(path).is_ok() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = view.root.open_at(path, flags, Mode::empty());
            opened.doing(|| format!("change the directory to {path:?}"))?;
            return Ok(None);
        }
        let user = engine::resolve_user(&view.root, &self.config.config.user, &[])
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let mut copy = Copy::new(&view.root);
        let entry = Entry {
            uid: user.uid,
            gid: user.gid,
            mtime: Time {
                seconds: self.time_s(),
                nanoseconds: 0,
            },
            ..Entry::new("", Kind::Directory, 0o755)
        };
        let doing = || format!("make the directory {path:?}");
        // The directories on the way are the user's, too.
        let on_the_way: Vec<&Path> = path.ancestors().collect();
        for path in on_the_way.into_iter().rev() {
            if view.root.resolve(path).is_err() {
                copy.put_bytes(&[], path, &entry).doing(doing)?;
            }
        }
        let rest = copy.rest();
        let times = self.build.epoch.unwrap_or_else(|| self.time_s());
        let made = view.into_layer(rest, times, &|| self.build.is_stopped());
        made.doing(|| "make the layer of WORKDIR".to_owned())
    }
}

/// Whether a step does more than change the configuration.
fn may_make_layer(step: &Step) -> bool {
    use Instruction::{Add, Copy, Run, Workdir};
    matches!(step.instruction, Run(_) | Copy(_) | Add(_) | Workdir(_))
}

/// Says in which step something went wrong, unless that is known.
fn in_step(error: Error, text: &str, position: Position) -> Error {
    match error {
        Error::Step { .. } | Error::Cancelled | Error::Language(_) => error,
        source => Error::Step {
            text: text.to_owned(),
            position,
            source: Box::new(source),
        },
    }
}
