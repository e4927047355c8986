//! The steps of a build as vertexes, with the names that BuildKit gives them.

use crate::messages::{Place, Range, SourceInfo, Timestamp, VertexWarning};
use crate::vertex::{Part, Teller, Vertex};
use builder::language::{Dockerfile, Instruction, Position, Stage};
use builder::lint::Finding;
use builder::{Event, Progress, StepNumber};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a step that the client cancelled, or that only waited for one that failed, says.
const CANCELLED: &str = "context canceled";

/// Tells the steps of one build.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    teller: &'a Teller,
    /// What makes the vertexes of this build others than those of any other.
    build: &'a str,
    /// The names of steps that are told, by their places.
    names: BTreeMap<Position, String>,
    /// What stages stand on, by the places of their FROM.
    bases: BTreeMap<Position, String>,
    output: &'static str,
    source: SourceInfo,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Steps that go on, and where they are written.
    open: BTreeMap<StepNumber, (Vertex, Position)>,
    /// FROMs whose image is looked for.
    looking: BTreeMap<StepNumber, (Position, Option<String>, Timestamp)>,
    output: Option<(Vertex, Timestamp)>,
    /// What goes on besides steps, by its name.
    tasks: BTreeMap<String, Vertex>,
    triggers: usize,
    /// The last step that was told, for what belongs to none.
    last: Option<Vertex>,
}

impl<'a> Steps<'a> {
    /// `source` is the Dockerfile's text; `output` is the name of what the build leads to.
    pub(crate) fn new(
        teller: &'a Teller,
        build: &'a str,
        file: &Dockerfile,
        source: SourceInfo,
        output: &'static str,
    ) -> Self {
        let bases = file.stages.iter();
        let bases = bases.map(|stage| (stage.position, stage.from.image.clone()));
        Self {
            teller,
            build,
            names: names(file),
            bases: bases.collect(),
            output,
            source,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vertex(&self, step: StepNumber, name: String, started: Timestamp) -> Vertex {
        let key = format!("{} step {}", self.build, step.0);
        Vertex::begun(&key, name, started)
    }

    /// The name of a step, with its platform where there are several.
    fn name(&self, position: Position, platform: Option<&str>) -> Option<String> {
        let name = self.names.get(&position)?;
        Some(match (platform, name.strip_prefix('[')) {
            (Some(platform), Some(rest)) => format!("[{platform} {rest}"),
            _ => name.clone(),
        })
    }

    fn begin(
        &self,
        step: StepNumber,
        position: Position,
        platform: Option<String>,
        text: &str,
        trigger: bool,
    ) {
        let mut state = self.state();
        if self.bases.contains_key(&position) && !trigger {
            let looking = (position, platform, Timestamp::now());
            state.looking.insert(step, looking);
            return;
        }
        let vertex = if trigger {
            state.triggers += 1;
            let key = format!("{} trigger {}", self.build, state.triggers);
            Vertex::begin(&key, format!("ONBUILD {text}"))
        } else {
            let Some(name) = self.name(position, platform.as_deref()) else {
                return;
            };
            self.vertex(step, name, Timestamp::now())
        };
        state.last = Some(vertex.clone());
        state.open.insert(step, (vertex.clone(), position));
        drop(state);
        self.teller.begin(&vertex);
    }

    /// A base image was found.
    fn based(&self, step: StepNumber, image: Option<&str>) {
        let mut state = self.state();
        let Some((position, platform, started)) = state.looking.remove(&step) else {
            return;
        };
        let Some(image) = image.map(normal) else {
            return;
        };
        let name = self.name(position, platform.as_deref());
        let prefix = name
            .as_deref()
            .and_then(|name| name.split_once("FROM "))
            .map_or("", |(it, _)| it);
        let vertex = self.vertex(step, format!("{prefix}FROM {image}"), Timestamp::now());
        state.last = Some(vertex.clone());
        state.open.insert(step, (vertex.clone(), position));
        drop(state);
        let lookup = self.lookup(platform.as_deref(), &image, started);
        self.teller.begin(&lookup);
        self.teller.end(&lookup, false);
        self.teller.begin(&vertex);
    }

    fn lookup(&self, platform: Option<&str>, image: &str, started: Timestamp) -> Vertex {
        let platform = platform.unwrap_or_default();
        let key = format!("{} metadata {platform} {image}", self.build);
        Vertex::begun(
            &key,
            format!("[internal] load metadata for {image}"),
            started,
        )
    }

    fn warn(&self, warning: VertexWarning) {
        let last = self.state().last.clone();
        if let Some(vertex) = last {
            self.teller.warn(&vertex, warning);
        }
    }

    fn found(&self, finding: &Finding) {
        let place = |line: u32| {
            Some(Place {
                line: i32::try_from(line).unwrap_or(i32::MAX),
            })
        };
        self.warn(VertexWarning {
            short: finding.short().into_bytes(),
            detail: vec![finding.rule.description().into()],
            url: finding.rule.url().unwrap_or_default(),
            source: Some(self.source.clone()),
            ranges: vec![Range {
                start: place(finding.first_line),
                end: place(finding.last_line),
            }],
            ..VertexWarning::default()
        });
    }

    fn task(&self, name: &str) {
        let vertex = Vertex::begin(&format!("{} task {name}", self.build), name);
        self.teller.begin(&vertex);
        self.state().tasks.insert(name.to_owned(), vertex);
    }

    fn task_ended(&self, name: &str, why: Option<&str>) {
        let Some(vertex) = self.state().tasks.remove(name) else {
            return;
        };
        match why {
            None => self.teller.end(&vertex, false),
            Some(why) => self.teller.fail(&vertex, why),
        }
        self.state().last = Some(vertex);
    }

    fn output(&self) {
        let key = format!("{} output", self.build);
        let vertex = Vertex::begin(&key, self.output);
        self.teller.begin(&vertex);
        self.state().output = Some((vertex, Timestamp::now()));
    }

    /// The build went well: the parts of its output with their names.
    pub(crate) fn finish(&self, parts: &[String]) {
        let Some((vertex, started)) = self.state().output.take() else {
            return;
        };
        for name in parts {
            self.teller.part(
                &vertex,
                &Part {
                    name,
                    bytes: 0,
                    started,
                    is_done: true,
                },
            );
        }
        self.teller.end(&vertex, false);
    }

    /// The build failed, in a step at a place if in any.
    pub(crate) fn fail(&self, at: Option<Position>, error: &str) {
        let mut state = self.state();
        let open: Vec<_> = std::mem::take(&mut state.open).into_values().collect();
        let looking = std::mem::take(&mut state.looking);
        let output = state.output.take();
        drop(state);
        let reason = |position| {
            if at == Some(position) {
                error
            } else {
                CANCELLED
            }
        };
        for (vertex, position) in open {
            self.teller.fail(&vertex, reason(position));
        }
        for (position, platform, started) in looking.into_values() {
            let image = self.bases.get(&position).map(|image| normal(image));
            let vertex = self.lookup(platform.as_deref(), &image.unwrap_or_default(), started);
            self.teller.begin(&vertex);
            self.teller.fail(&vertex, reason(position));
        }
        if let Some((vertex, _)) = output {
            self.teller.fail(&vertex, error);
        }
    }
}

impl Progress for Steps<'_> {
    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Began {
                step,
                position,
                platform,
                text,
                trigger,
                ..
            } => {
                let platform = platform.map(ToString::to_string);
                self.begin(*step, *position, platform, text, *trigger);
            }
            Event::Based { step, image } => self.based(*step, image.map(|(name, _)| name)),
            Event::Output {
                step,
                is_error,
                bytes,
            } => {
                let vertex = self
                    .state()
                    .open
                    .get(step)
                    .map(|(vertex, _)| vertex.clone());
                if let Some(vertex) = vertex {
                    self.teller.log(&vertex, *is_error, bytes);
                }
            }
            Event::Ended { step, cached, .. } => {
                let ended = self.state().open.remove(step);
                if let Some((vertex, _)) = ended {
                    self.teller.end(&vertex, *cached);
                }
            }
            Event::Task(name) => self.task(name),
            Event::TaskEnded(name, why) => self.task_ended(name, *why),
            Event::Publishing => self.output(),
            Event::Found(finding) => self.found(finding),
            Event::Warning(text) => self.warn(VertexWarning {
                short: text.as_bytes().to_vec(),
                ..VertexWarning::default()
            }),
            Event::Planned { .. }
            | Event::Running { .. }
            | Event::Removed { .. }
            | Event::Shell { .. }
            | Event::Explained { .. } => {}
        }
    }
}

/// An image's name with all its parts.
pub(crate) fn normal(name: &str) -> String {
    let parsed = name.parse::<oci::Reference>();
    parsed.map_or_else(
        |_| name.to_owned(),
        |reference| {
            let reference = reference.to_target();
            match (reference.tag(), reference.digest()) {
                (_, Some(digest)) => format!("{}@{digest}", reference.name()),
                (Some(tag), None) => format!("{}:{tag}", reference.name()),
                (None, None) => reference.name(),
            }
        },
    )
}

/// The names of all steps that do more than change the configuration.
fn names(file: &Dockerfile) -> BTreeMap<Position, String> {
    let mut names = BTreeMap::new();
    for (at, stage) in file.stages.iter().enumerate() {
        let has_image =
            stage.from.image != "scratch" && file.stage(&stage.from.image, at).is_none();
        let from = has_image.then(|| (stage.position, format!("FROM {}", stage.from.image)));
        let told = stage.steps.iter().filter(|step| {
            use Instruction::{Add, Copy, Run, Workdir};
            matches!(step.instruction, Run(_) | Copy(_) | Add(_) | Workdir(_))
        });
        let told = told.map(|step| (step.position, upper(&step.text)));
        let all: Vec<(Position, String)> = from.into_iter().chain(told).collect();
        let digits = all.len().to_string().len();
        for (number, (position, text)) in (1..).zip(&all) {
            let total = all.len();
            let stage = stage_name(file, at, stage);
            let name = format!("[{stage}{number:>digits$}/{total}] {text}");
            names.insert(*position, name);
        }
    }
    names
}

/// A stage's name and a space, where there is more than one.
fn stage_name(file: &Dockerfile, at: usize, stage: &Stage) -> String {
    match (&stage.from.name, file.stages.len()) {
        (_, 1) => String::new(),
        (Some(name), _) => format!("{name} "),
        (None, _) => format!("stage-{at} "),
    }
}

/// The instruction's word in capitals.
fn upper(text: &str) -> String {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => format!("{} {rest}", word.to_ascii_uppercase()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use builder::language::parse;

    #[test]
    fn steps_are_named_as_buildkit_names_them() {
        let file = "FROM busybox\nrun a\nENV x=y\nCOPY a b";
        let named = |text: &str| -> Vec<String> {
            let file = parse("Dockerfile", text.as_bytes()).unwrap();
            names(&file).into_values().collect()
        };
        assert_eq!(
            named(file),
            ["[1/3] FROM busybox", "[2/3] RUN a", "[3/3] COPY a b"]
        );
        assert_eq!(
            named("FROM x AS one\nRUN a\nFROM one\nWORKDIR /a\nFROM scratch AS end\nADD a b"),
            [
                "[one 1/2] FROM x",
                "[one 2/2] RUN a",
                "[stage-1 1/1] WORKDIR /a",
                "[end 1/1] ADD a b"
            ]
        );
        let long = format!("FROM x\n{}", "RUN a\n".repeat(9));
        assert_eq!(named(&long)[0], "[ 1/10] FROM x");
    }

    #[test]
    fn images_have_whole_names() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("r.example/a:1"), "r.example/a:1");
        assert_eq!(normal("$BASE"), "$BASE");
    }
}
