//! What a build tells, as lines: `#3 [stage 2/5] RUN make`, its output with seconds before it, and how it ended.

use super::elsewhere::Receiver;
use crate::error::{Error, Result};
use crate::output;
use api_types::{BuildEvent, BuildFinding, EVENT_ID, JsonMessage, from_value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::JsonLines;
use std::collections::BTreeMap;
use std::time::Instant;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Lines on standard error.
    Plain,
    /// The events as they come, on standard error.
    Raw,
    /// Nothing.
    Nothing,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The image's ID; empty where the engine keeps none.
    pub(crate) id: String,
    /// The descriptor of what went elsewhere.
    pub(crate) manifest: Option<serde_json::Value>,
}

/// Shows a build until its end.
pub(crate) async fn show(
    mut messages: JsonLines<JsonMessage>,
    show: Show,
    mut archives: Receiver,
) -> Result<Outcome> {
    let mut display = Display {
        show,
        begun: Instant::now(),
        steps: BTreeMap::new(),
        tasks: BTreeMap::new(),
        numbers: 0,
        found: Vec::new(),
    };
    let mut outcome = None;
    while let Some(message) = messages.next().await? {
        if message.error.is_some() {
            display.flush_all()?;
        }
        let Some((raw, event)) = event(message)? else {
            continue;
        };
        if let BuildEvent::Piece { stream, data } = &event {
            archives.take(stream, &decoded(data)?)?;
            continue;
        }
        if show == Show::Raw {
            output::write_stderr(format!("{raw}\n").as_bytes())?;
        }
        if let BuildEvent::Built { id, manifest, .. } = &event {
            outcome = Some(Outcome {
                id: id.clone(),
                manifest: manifest.clone(),
            });
        }
        display.event(&event)?;
    }
    let none = || Error::msg("the engine ended the build without saying how");
    let outcome = outcome.ok_or_else(none)?;
    archives.finish()?;
    Ok(outcome)
}

fn decoded(data: &str) -> Result<Vec<u8>> {
    let wrong = |error| Error::msg(format!("the engine sends what cannot be read: {error}"));
    BASE64.decode(data).map_err(wrong)
}

/// The event in a message, as it came and read; `None` where there is none.
///
/// # Errors
/// The build has failed.
pub(crate) fn event(message: JsonMessage) -> Result<Option<(serde_json::Value, BuildEvent)>> {
    if let Some(error) = message.error {
        return Err(Error::msg(error.message));
    }
    let Some(raw) = message.aux.filter(|_| message.id == EVENT_ID) else {
        return Ok(None);
    };
    let event = from_value(raw.clone()).map_err(|error| {
        Error::msg(format!(
            "the engine tells of the build what cannot be read: {error}"
        ))
    })?;
    Ok(Some((raw, event)))
}

struct Display {
    show: Show,
    begun: Instant,
    steps: BTreeMap<usize, Step>,
    /// What goes on besides steps: its number, and since when.
    tasks: BTreeMap<String, (usize, Instant)>,
    /// Steps that are shown.
    numbers: usize,
    found: Vec<BuildFinding>,
}

/// A step that goes on.
struct Step {
    /// Its number in what is shown; `None`: it is not.
    number: Option<usize>,
    begun: Instant,
    /// Output without the end of its line.
    rest: Vec<u8>,
}

impl Display {
    fn say(&self, text: &str) -> Result<()> {
        match self.show {
            Show::Plain => output::write_stderr(text.as_bytes()),
            Show::Raw | Show::Nothing => Ok(()),
        }
    }

    fn event(&mut self, event: &BuildEvent) -> Result<()> {
        match event {
            BuildEvent::Planned { .. } | BuildEvent::Checked | BuildEvent::Piece { .. } => Ok(()),
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
            BuildEvent::Output { step, data, .. } => self.output(*step, &decoded(data)?),
            BuildEvent::Explained { step, reason } => match self.number(*step) {
                Some(number) => self.say(&format!("#{number} {reason}\n")),
                None => Ok(()),
            },
            BuildEvent::Ended { step, cached, .. } => self.ended(*step, *cached),
            BuildEvent::Task { name } => {
                self.numbers += 1;
                let number = self.numbers;
                self.tasks.insert(name.clone(), (number, Instant::now()));
                self.say(&format!("#{number} {name}\n"))
            }
            BuildEvent::TaskEnded { name, error } => {
                let Some((number, begun)) = self.tasks.remove(name) else {
                    return Ok(());
                };
                match error {
                    None => {
                        let seconds = begun.elapsed().as_secs_f64();
                        self.say(&format!("#{number} DONE {seconds:.1}s\n\n"))
                    }
                    Some(error) => self.say(&format!("#{number} ERROR: {error}\n\n")),
                }
            }
            BuildEvent::Warning { text } => self.say(&format!("WARNING: {text}\n")),
            BuildEvent::Built {
                id,
                manifest: _,
                tags,
                steps,
                cached,
            } => {
                let seconds = self.begun.elapsed().as_secs_f64();
                let names = match tags.as_slice() {
                    [] => String::new(),
                    tags => format!(" as {}", tags.join(", ")),
                };
                let id = if id.is_empty() { "it" } else { id };
                self.say(&format!(
                    "built {id}{names}: {steps} steps, {cached} cached, {seconds:.1}s\n"
                ))?;
                self.findings()
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
                self.say(&format!("#{number} [{stage} {at}/{all}] {first}\n"))
            }
            _ => Ok(()),
        }
    }

    fn output(&mut self, step: usize, bytes: &[u8]) -> Result<()> {
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
            self.say(&format!("#{number} {seconds:.3} {line}\n"))?;
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
            true => self.say(&format!("#{number} CACHED\n\n")),
            false => self.say(&format!("#{number} DONE {seconds:.1}s\n\n")),
        }
    }

    /// What had better be written otherwise, a line each.
    fn findings(&self) -> Result<()> {
        let heading = match self.found.len() {
            0 => return Ok(()),
            1 => "1 warning found".to_owned(),
            count => format!("{count} warnings found"),
        };
        self.say(&format!("\n {heading} (--check shows the lines):\n"))?;
        for finding in &self.found {
            self.say(&format!(
                " - {}: {} (line {})\n",
                finding.rule, finding.detail, finding.first_line
            ))?;
        }
        Ok(())
    }

    /// What was said before a failure.
    fn flush_all(&mut self) -> Result<()> {
        self.findings()?;
        let open: Vec<usize> = self.steps.keys().copied().collect();
        for step in open {
            let rest = self
                .steps
                .get_mut(&step)
                .map(|state| std::mem::take(&mut state.rest));
            self.lines(step, &rest.unwrap_or_default())?;
            if let Some(number) = self.number(step) {
                self.say(&format!("#{number} ERROR\n"))?;
            }
        }
        Ok(())
    }
}
