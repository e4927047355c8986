//! A build as BuildKit's clients see one: vertexes that begin and end, with parts, logs and warnings. All displays show this, and
//! `--progress rawjson` writes it, a line for each change, as `docker buildx build` does.
//!
//! Source: moby/buildkit `client/graph.go` (SolveStatus).

use crate::error::{Error, Result};
use api_types::{BuildEvent, BuildFinding};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use oci::Digest;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// What a vertex says that was ended for another one's failure.
pub(super) const CANCELED: &str = "context canceled";
/// The language of the source that warnings are of.
const LANGUAGE: &str = "Dockerfile";

/// A change.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) statuses: Vec<Part>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<Warning>,
}

/// A step, or something else that goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Vertex {
    pub(super) digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub(super) started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub(super) completed: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
}

impl Vertex {
    /// How long it has gone on, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        let until = self.completed.unwrap_or_else(Timestamp::now);
        let since = until.duration_since(self.started.unwrap_or(until));
        since.as_secs_f64().max(0.0)
    }
}

/// A part of a vertex with a progress of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Part {
    pub(super) id: String,
    pub(super) vertex: String,
    /// Bytes, where they are counted.
    pub(super) current: u64,
    #[serde(serialize_with = "time")]
    pub(super) timestamp: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub(super) started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub(super) completed: Option<Timestamp>,
}

impl Part {
    /// How long it took until the last that is known of it.
    pub(super) fn seconds(&self) -> f64 {
        let until = self.completed.or(self.timestamp).zip(self.started);
        until.map_or(0.0, |(until, since)| {
            until.duration_since(since).as_secs_f64()
        })
    }
}

/// What a vertex says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Log {
    pub(super) vertex: String,
    /// 1 is standard output, 2 is standard error.
    pub(super) stream: u8,
    #[serde(serialize_with = "base64")]
    pub(super) data: Vec<u8>,
    #[serde(serialize_with = "time")]
    pub(super) timestamp: Option<Timestamp>,
}

/// What had better be otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Warning {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) vertex: String,
    pub(super) level: u8,
    #[serde(serialize_with = "base64")]
    pub(super) short: Vec<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Source {
    filename: String,
    language: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Range {
    start: Line,
    end: Line,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    line: u32,
}

fn time<S: Serializer>(time: &Option<Timestamp>, to: S) -> std::result::Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_none(),
    }
}

fn base64<S: Serializer>(bytes: &[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&BASE64.encode(bytes))
}

/// Makes these changes of what an engine tells.
#[derive(Debug)]
pub(super) struct Trace {
    /// Makes the vertexes of this build others than those of any other.
    build: String,
    /// The Dockerfile's name.
    file: String,
    /// What making the result is called.
    output: &'static str,
    /// Steps that go on, and those that have not begun to be seen: FROMs whose image is looked for, and triggers.
    steps: BTreeMap<usize, Step>,
    /// What else goes on, by its name.
    tasks: BTreeMap<String, Vertex>,
    /// The last vertex of each stage.
    stages: BTreeMap<String, String>,
    /// The images that were looked for.
    looked_for: BTreeSet<String>,
    /// The vertex that was told last.
    last: String,
}

#[derive(Debug)]
enum Step {
    Shown(Vertex),
    /// What is before the image's name, the image, and since when it is looked for.
    Looking(String, String, Timestamp),
    /// It is seen if it says something.
    Hidden(String, Timestamp),
}

impl Trace {
    pub(super) fn new(file: &str, output: &'static str) -> Self {
        Self {
            build: format!("{} {}", std::process::id(), Timestamp::now()),
            file: file.to_owned(),
            output,
            steps: BTreeMap::new(),
            tasks: BTreeMap::new(),
            stages: BTreeMap::new(),
            looked_for: BTreeSet::new(),
            last: String::new(),
        }
    }

    fn vertex(&mut self, key: &str, name: String, started: Timestamp) -> Vertex {
        let digest = Digest::sha256(format!("{} {key}", self.build).as_bytes()).to_string();
        self.last.clone_from(&digest);
        Vertex {
            digest,
            name,
            started: Some(started),
            ..Vertex::default()
        }
    }

    /// Begins something that is no step.
    pub(super) fn begin(&mut self, name: &str) -> Status {
        let vertex = self.vertex(&format!("task {name}"), name.to_owned(), Timestamp::now());
        self.tasks.insert(name.to_owned(), vertex.clone());
        vertexes([vertex])
    }

    /// How far a part of something that is no step has come.
    pub(super) fn part(&self, task: &str, part: &str, bytes: u64, is_done: bool) -> Status {
        let Some(vertex) = self.tasks.get(task) else {
            return Status::default();
        };
        let now = Timestamp::now();
        Status {
            statuses: vec![Part {
                id: part.to_owned(),
                vertex: vertex.digest.clone(),
                current: bytes,
                timestamp: Some(now),
                started: vertex.started,
                completed: is_done.then_some(now),
            }],
            ..Status::default()
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self, task: &str, error: Option<&str>) -> Status {
        match self.tasks.remove(task) {
            Some(vertex) => vertexes([ended(vertex, false, error)]),
            None => Status::default(),
        }
    }

    /// What an event changes.
    ///
    /// # Errors
    /// What a step says cannot be read.
    pub(super) fn event(&mut self, event: &BuildEvent) -> Result<Status> {
        Ok(match event {
            BuildEvent::Began {
                step,
                stage,
                place,
                text,
            } => self.began(*step, stage, *place, text),
            BuildEvent::Based { step, image } => self.based(*step, image.as_deref()),
            BuildEvent::Output { step, error, data } => {
                self.said(*step, *error, super::display::decoded(data)?)
            }
            BuildEvent::Explained { step, reason } => self.explained(*step, reason),
            BuildEvent::Ended { step, cached, .. } => match self.steps.remove(step) {
                Some(Step::Shown(vertex)) => vertexes([ended(vertex, *cached, None)]),
                _ => Status::default(),
            },
            BuildEvent::Failed { step, error } => match self.steps.remove(step) {
                Some(Step::Shown(vertex)) => vertexes([ended(vertex, false, Some(error))]),
                Some(Step::Looking(_, image, started)) => {
                    let lookup = self.lookup(&image, started);
                    vertexes([ended(lookup, false, Some(error))])
                }
                Some(Step::Hidden(name, started)) => {
                    let vertex = self.vertex(&format!("step {step}"), name, started);
                    vertexes([ended(vertex, false, Some(error))])
                }
                None => Status::default(),
            },
            BuildEvent::Task { name } => self.begin(name),
            BuildEvent::TaskEnded { name, error } => self.end(name, error.as_deref()),
            BuildEvent::Warning { text } => self.warning(text, None),
            BuildEvent::Found(finding) => self.warning(&finding_line(finding), Some(finding)),
            BuildEvent::Publishing => self.begin(self.output),
            BuildEvent::Built {
                id, manifest, tags, ..
            } => self.built(id, manifest.as_ref(), tags),
            BuildEvent::Planned { .. }
            | BuildEvent::Checked
            | BuildEvent::Answered { .. }
            | BuildEvent::Shell { .. }
            | BuildEvent::Agent { .. }
            | BuildEvent::Piece { .. } => Status::default(),
        })
    }

    fn began(
        &mut self,
        step: usize,
        stage: &str,
        place: Option<(usize, usize)>,
        text: &str,
    ) -> Status {
        let now = Timestamp::now();
        let Some((at, all)) = place else {
            let hidden = Step::Hidden(format!("ONBUILD {text}"), now);
            self.steps.insert(step, hidden);
            return Status::default();
        };
        let digits = all.to_string().len();
        let blank = if stage.is_empty() { "" } else { " " };
        let place = format!("[{stage}{blank}{at:>digits$}/{all}]");
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let word = word.to_ascii_uppercase();
        if word == "FROM" {
            let image = rest.split_whitespace().find(|word| !word.starts_with("--"));
            let image = whole(image.unwrap_or_default());
            self.steps.insert(step, Step::Looking(place, image, now));
            return Status::default();
        }
        let mut vertex = self.vertex(
            &format!("step {step}"),
            format!("{place} {word} {rest}"),
            now,
        );
        let before = self.stages.insert(stage.to_owned(), vertex.digest.clone());
        vertex.inputs.extend(before);
        self.steps.insert(step, Step::Shown(vertex.clone()));
        vertexes([vertex])
    }

    /// A base image was found.
    fn based(&mut self, step: usize, image: Option<&str>) -> Status {
        let (Some(Step::Looking(place, _, started)), Some(image)) =
            (self.steps.remove(&step), image)
        else {
            return Status::default();
        };
        let image = whole(image);
        let lookup = ended(self.lookup(&image, started), false, None);
        let name = format!("{place} FROM {image}");
        let mut vertex = self.vertex(&format!("step {step}"), name, Timestamp::now());
        vertex.inputs.push(lookup.digest.clone());
        let stage = place.trim_start_matches('[').rsplit_once(' ');
        let stage = stage.map_or("", |(stage, _)| stage.trim_end());
        self.stages.insert(stage.to_owned(), vertex.digest.clone());
        self.steps.insert(step, Step::Shown(vertex.clone()));
        // Several stages may stand on it.
        let is_new = self.looked_for.insert(image);
        vertexes(Some(lookup).filter(|_| is_new).into_iter().chain([vertex]))
    }

    fn lookup(&mut self, image: &str, started: Timestamp) -> Vertex {
        let name = format!("[internal] load metadata for {image}");
        self.vertex(&format!("metadata {image}"), name, started)
    }

    fn said(&mut self, step: usize, is_error: bool, data: Vec<u8>) -> Status {
        let mut begun = None;
        if let Some(Step::Hidden(name, started)) = self.steps.get(&step) {
            let (name, started) = (name.clone(), *started);
            let vertex = self.vertex(&format!("step {step}"), name, started);
            self.steps.insert(step, Step::Shown(vertex.clone()));
            begun = Some(vertex);
        }
        let Some(Step::Shown(vertex)) = self.steps.get(&step) else {
            return Status::default();
        };
        Status {
            logs: vec![Log {
                vertex: vertex.digest.clone(),
                stream: if is_error { 2 } else { 1 },
                data,
                timestamp: Some(Timestamp::now()),
            }],
            ..vertexes(begun)
        }
    }

    fn explained(&mut self, step: usize, reason: &str) -> Status {
        let Some(Step::Shown(vertex)) = self.steps.get(&step) else {
            return Status::default();
        };
        let now = Timestamp::now();
        Status {
            statuses: vec![Part {
                id: reason.to_owned(),
                vertex: vertex.digest.clone(),
                current: 0,
                timestamp: Some(now),
                started: Some(now),
                completed: Some(now),
            }],
            ..Status::default()
        }
    }

    fn warning(&self, short: &str, finding: Option<&BuildFinding>) -> Status {
        let line = |line| Line { line };
        let range = finding.map(|finding| Range {
            start: line(finding.first_line),
            end: line(finding.last_line),
        });
        Status {
            warnings: vec![Warning {
                vertex: self.last.clone(),
                level: 1,
                short: short.as_bytes().to_vec(),
                detail: { finding.iter() }
                    .map(|finding| BASE64.encode(&finding.description))
                    .collect(),
                url: finding.and_then(|finding| finding.url.clone()),
                source: finding.map(|_| Source {
                    filename: self.file.clone(),
                    language: LANGUAGE,
                }),
                range: range.into_iter().collect(),
            }],
            ..Status::default()
        }
    }

    fn built(&mut self, id: &str, manifest: Option<&serde_json::Value>, tags: &[String]) -> Status {
        let digest = manifest.and_then(|manifest| manifest["digest"].as_str());
        let mut parts = Vec::new();
        if !id.is_empty() {
            parts.extend(["exporting layers".to_owned(), format!("writing image {id}")]);
            parts.extend(tags.iter().map(|tag| format!("naming to {}", whole(tag))));
        }
        parts.extend(digest.map(|digest| format!("exporting manifest {digest}")));
        let statuses = parts
            .iter()
            .map(|part| self.part(self.output, part, 0, true));
        let statuses = statuses.flat_map(|status| status.statuses).collect();
        Status {
            statuses,
            ..self.end(self.output, None)
        }
    }

    /// The build has failed: what goes on was ended for it.
    pub(super) fn fail(&mut self) -> Status {
        let steps = std::mem::take(&mut self.steps).into_values();
        let steps = steps.filter_map(|step| match step {
            Step::Shown(vertex) => Some(vertex),
            Step::Looking(..) | Step::Hidden(..) => None,
        });
        let tasks = std::mem::take(&mut self.tasks).into_values();
        vertexes(
            steps
                .chain(tasks)
                .map(|vertex| ended(vertex, false, Some(CANCELED))),
        )
    }
}

/// `Rule: detail (line 3)`
fn finding_line(finding: &BuildFinding) -> String {
    let BuildFinding {
        rule,
        detail,
        first_line,
        ..
    } = finding;
    format!("{rule}: {detail} (line {first_line})")
}

fn vertexes(all: impl IntoIterator<Item = Vertex>) -> Status {
    Status {
        vertexes: all.into_iter().collect(),
        ..Status::default()
    }
}

fn ended(vertex: Vertex, cached: bool, error: Option<&str>) -> Vertex {
    Vertex {
        completed: Some(Timestamp::now()),
        cached,
        error: error.unwrap_or_default().to_owned(),
        ..vertex
    }
}

/// An image's name with all its parts.
fn whole(name: &str) -> String {
    let parsed = name.parse::<oci::Reference>();
    parsed.map_or_else(|_| name.to_owned(), |name| name.to_target().to_string())
}

/// The line of rawjson.
///
/// # Errors
/// None: it has only strings as keys.
pub(super) fn raw(status: &Status) -> Result<String> {
    let text = serde_json::to_string(status);
    text.map_err(|error| Error::msg(format!("progress cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(step: usize, stage: &str, place: Option<(usize, usize)>, text: &str) -> BuildEvent {
        BuildEvent::Began {
            step,
            stage: stage.to_owned(),
            place,
            text: text.to_owned(),
        }
    }

    fn names(status: &Status) -> Vec<&str> {
        status.vertexes.iter().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn steps_have_buildkits_names() {
        let mut trace = Trace::new("Dockerfile", "exporting to image");
        let mut told = |event: &BuildEvent| trace.event(event).unwrap();
        assert_eq!(
            told(&began(1, "", Some((1, 10)), "FROM busybox AS x")),
            Status::default()
        );
        let based = told(&BuildEvent::Based {
            step: 1,
            image: Some("busybox".to_owned()),
        });
        let busybox = "docker.io/library/busybox:latest";
        assert_eq!(
            names(&based),
            [
                format!("[internal] load metadata for {busybox}"),
                format!("[ 1/10] FROM {busybox}")
            ]
        );
        let run = told(&began(2, "", Some((2, 10)), "run make"));
        assert_eq!(names(&run), ["[ 2/10] RUN make"]);
        assert_eq!(run.vertexes[0].inputs, [based.vertexes[1].digest.clone()]);
        let other = told(&began(3, "stage-1", Some((1, 1)), "COPY a b"));
        assert_eq!(names(&other), ["[stage-1 1/1] COPY a b"]);
        // What only changes the configuration is not seen; a trigger is when it says something.
        assert_eq!(told(&began(4, "", None, "RUN x")), Status::default());
        let said = told(&BuildEvent::Output {
            step: 4,
            error: true,
            data: BASE64.encode("hi\n"),
        });
        assert_eq!(names(&said), ["ONBUILD RUN x"]);
        assert_eq!(
            (said.logs[0].stream, said.logs[0].data.as_slice()),
            (2, &b"hi\n"[..])
        );
        let failed = told(&BuildEvent::Failed {
            step: 2,
            error: "no".to_owned(),
        });
        assert_eq!(failed.vertexes[0].error, "no");
        let rest = trace.fail();
        assert!(rest.vertexes.iter().all(|it| it.error == CANCELED));
        assert_eq!(rest.vertexes.len(), 3);
    }

    #[test]
    fn a_line_has_the_keys_of_buildx() {
        let mut trace = Trace::new("Dockerfile", "exporting to image");
        let line = |status: &Status| -> serde_json::Value {
            serde_json::from_str(&raw(status).unwrap()).unwrap()
        };
        let begun = line(&trace.event(&BuildEvent::Publishing).unwrap());
        let vertex = begun["vertexes"][0].as_object().unwrap();
        let keys: Vec<&str> = vertex.keys().map(String::as_str).collect();
        assert_eq!(keys, ["digest", "name", "started"]);
        assert!(vertex["digest"].as_str().unwrap().starts_with("sha256:"));
        let built = line(
            &trace
                .event(&BuildEvent::Built {
                    id: "sha256:1".to_owned(),
                    manifest: None,
                    tags: vec!["t".to_owned()],
                    steps: 1,
                    cached: 0,
                    largest: Vec::new(),
                })
                .unwrap(),
        );
        assert_eq!(
            built["statuses"][2]["id"],
            "naming to docker.io/library/t:latest"
        );
        assert_eq!(built["statuses"][2]["current"], 0);
        assert!(built["statuses"][2]["completed"].is_string());
        assert!(built["vertexes"][0]["completed"].is_string());
        let warned = line(&trace.warning("a", None));
        assert_eq!(warned["warnings"][0]["short"], BASE64.encode("a"));
    }
}
