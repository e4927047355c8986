//! A build as lines: `#3 [stage 2/5] RUN make`, its output with seconds before it, and how it ended; and what is said in the end.

use crate::error::Result;
use crate::go::units;
use crate::output;
use api_types::{BuildEvent, BuildFinding};
use std::collections::BTreeMap;
use std::time::Instant;

fn say(text: &str) -> Result<()> {
    output::write_stderr(text.as_bytes())
}

/// What had better be written otherwise, a line each.
pub(crate) fn findings(found: &[BuildFinding]) -> String {
    let heading = match found.len() {
        0 => return String::new(),
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let line = |finding: &BuildFinding| {
        let BuildFinding {
            rule,
            detail,
            first_line,
            ..
        } = finding;
        format!(" - {rule}: {detail} (line {first_line})\n")
    };
    let lines: String = found.iter().map(line).collect();
    format!("\n {heading} (--check shows the lines):\n{lines}")
}

/// What is said when all is built.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// The first lines of steps that go on.
    texts: BTreeMap<usize, String>,
    /// Layers: what made them, and their bytes.
    layers: Vec<(String, u64)>,
    text: String,
}

impl Summary {
    pub(crate) fn began(&mut self, step: usize, text: &str) {
        let first = text.lines().next().unwrap_or_default();
        self.texts.insert(step, first.to_owned());
    }

    pub(crate) fn ended(&mut self, step: usize, layer_bytes: Option<u64>) {
        if let (Some(text), Some(bytes)) = (self.texts.remove(&step), layer_bytes) {
            self.layers.push((text, bytes));
        }
    }

    /// Takes the event that ends a build.
    pub(crate) fn built(&mut self, event: &BuildEvent, begun: Instant) {
        let BuildEvent::Built {
            id,
            manifest: _,
            tags,
            steps,
            cached,
            largest,
        } = event
        else {
            return;
        };
        let seconds = begun.elapsed().as_secs_f64();
        let names = match tags.as_slice() {
            [] => String::new(),
            tags => format!(" as {}", tags.join(", ")),
        };
        let id = if id.is_empty() { "it" } else { id };
        self.text = format!(
            "{}{}built {id}{names}: {steps} steps, {cached} cached, {seconds:.1}s\n",
            sizes("layers", &self.layers),
            sizes("largest in the image", largest),
        );
    }

    /// What is to be said; nothing before that event.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Things with their sizes, below a heading.
fn sizes(heading: &str, all: &[(String, u64)]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let line = |(what, bytes): &(String, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
        let bytes = *bytes as f64;
        // A name in an image may have any characters.
        let what: String = what.chars().filter(|it| !it.is_control()).collect();
        format!(" {:>9}  {what}\n", units::human_size(bytes))
    };
    let lines: String = all.iter().map(line).collect();
    format!("{heading}:\n{lines}")
}

/// A build as lines.
#[derive(Debug)]
pub(crate) struct Plain {
    begun: Instant,
    steps: BTreeMap<usize, Step>,
    /// What goes on besides steps: its number, and since when.
    tasks: BTreeMap<String, (usize, Instant)>,
    /// Steps that are shown.
    numbers: usize,
    found: Vec<BuildFinding>,
    summary: Summary,
}

/// A step that goes on.
#[derive(Debug)]
struct Step {
    /// Its number in what is shown; `None`: it is not.
    number: Option<usize>,
    begun: Instant,
    /// Output without the end of its line.
    rest: Vec<u8>,
}

impl Plain {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            steps: BTreeMap::new(),
            tasks: BTreeMap::new(),
            numbers: 0,
            found: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &BuildEvent) -> Result<()> {
        match event {
            BuildEvent::Planned { .. }
            | BuildEvent::Checked
            | BuildEvent::Answered { .. }
            | BuildEvent::Output { .. }
            | BuildEvent::Shell { .. }
            | BuildEvent::Agent { .. }
            | BuildEvent::Piece { .. } => Ok(()),
            BuildEvent::Found(finding) => {
                self.found.push(finding.clone());
                Ok(())
            }
            BuildEvent::Began {
                step,
                stage,
                place,
                text,
            } => self.began(*step, stage, *place, text),
            BuildEvent::Explained { step, reason } => match self.number(*step) {
                Some(number) => say(&format!("#{number} {reason}\n")),
                None => Ok(()),
            },
            BuildEvent::Ended {
                step,
                cached,
                layer_bytes,
            } => {
                self.summary.ended(*step, *layer_bytes);
                self.ended(*step, *cached)
            }
            BuildEvent::Task { name } => {
                self.numbers += 1;
                let number = self.numbers;
                self.tasks.insert(name.clone(), (number, Instant::now()));
                say(&format!("#{number} {name}\n"))
            }
            BuildEvent::TaskEnded { name, error } => {
                let Some((number, begun)) = self.tasks.remove(name) else {
                    return Ok(());
                };
                match error {
                    None => {
                        let seconds = begun.elapsed().as_secs_f64();
                        say(&format!("#{number} DONE {seconds:.1}s\n\n"))
                    }
                    Some(error) => say(&format!("#{number} ERROR: {error}\n\n")),
                }
            }
            BuildEvent::Warning { text } => say(&format!("WARNING: {text}\n")),
            BuildEvent::Built { .. } => {
                self.summary.built(event, self.begun);
                say(self.summary.text())?;
                say(&findings(&self.found))
            }
        }
    }

    fn number(&self, step: usize) -> Option<usize> {
        self.steps.get(&step)?.number
    }

    fn began(
        &mut self,
        step: usize,
        stage: &str,
        place: Option<(usize, usize)>,
        text: &str,
    ) -> Result<()> {
        self.summary.began(step, text);
        let number = place.map(|_| {
            self.numbers += 1;
            self.numbers
        });
        self.steps.insert(
            step,
            Step {
                number,
                begun: Instant::now(),
                rest: Vec::new(),
            },
        );
        match (number, place) {
            (Some(number), Some((at, all))) => {
                let first = text.lines().next().unwrap_or_default();
                say(&format!("#{number} [{stage} {at}/{all}] {first}\n"))
            }
            _ => Ok(()),
        }
    }

    /// Shows what a step says.
    pub(crate) fn output(&mut self, step: usize, bytes: &[u8]) -> Result<()> {
        let Some(state) = self.steps.get_mut(&step) else {
            return Ok(());
        };
        state.rest.extend_from_slice(bytes);
        let Some(end) = state.rest.iter().rposition(|b| *b == b'\n') else {
            return Ok(());
        };
        let rest = state.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut state.rest, rest);
        self.lines(step, &lines)
    }

    fn lines(&self, step: usize, bytes: &[u8]) -> Result<()> {
        let Some(state) = self.steps.get(&step) else {
            return Ok(());
        };
        let number = state.number.unwrap_or_default();
        let seconds = state.begun.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines() {
            say(&format!("#{number} {seconds:.3} {line}\n"))?;
        }
        Ok(())
    }

    fn ended(&mut self, step: usize, cached: bool) -> Result<()> {
        let rest = self
            .steps
            .get_mut(&step)
            .map(|state| std::mem::take(&mut state.rest));
        self.lines(step, &rest.unwrap_or_default())?;
        let Some(state) = self.steps.remove(&step) else {
            return Ok(());
        };
        let Some(number) = state.number else {
            return Ok(());
        };
        let seconds = state.begun.elapsed().as_secs_f64();
        match cached {
            true => say(&format!("#{number} CACHED\n\n")),
            false => say(&format!("#{number} DONE {seconds:.1}s\n\n")),
        }
    }

    /// What was said before a failure.
    pub(crate) fn flush_all(&mut self) -> Result<()> {
        say(&findings(&self.found))?;
        let open: Vec<usize> = self.steps.keys().copied().collect();
        for step in open {
            let rest = self
                .steps
                .get_mut(&step)
                .map(|state| std::mem::take(&mut state.rest));
            self.lines(step, &rest.unwrap_or_default())?;
            if let Some(number) = self.number(step) {
                say(&format!("#{number} ERROR\n"))?;
            }
        }
        Ok(())
    }
}
