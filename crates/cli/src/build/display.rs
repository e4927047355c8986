//! What a build tells, until its end, and how it is shown.

use super::plain::Plain;
use super::receive::Receiver;
use super::shell::Asked;
use super::summary::{Summary, findings};
use super::trace::{Status, Trace, raw};
use super::tty::Screen;
use crate::container::cp::tree::Count;
use crate::error::{Error, Result};
use crate::output;
use api_types::{BuildEvent, BuildFinding, EVENT_ID, JsonMessage, from_value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::JsonLines;
use std::time::{Duration, Instant};

/// How often a terminal is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Lines on standard error.
    Plain,
    /// Steps with their times on standard error, which is a terminal.
    Screen,
    /// A line of JSON for each change, on standard error.
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

impl Outcome {
    /// What it is known by: the image's ID, or else the digest of what went elsewhere; empty where it is neither.
    pub(crate) fn id(&self) -> &str {
        let digest = self.manifest.as_ref().and_then(|it| it["digest"].as_str());
        match self.id.as_str() {
            "" => digest.unwrap_or_default(),
            id => id,
        }
    }
}

/// What shows a build.
#[derive(Debug)]
pub(super) struct Display {
    view: View,
    trace: Trace,
    summary: Summary,
    found: Vec<BuildFinding>,
    /// What the user is to know in the end.
    notes: Vec<String>,
    begun: Instant,
    /// When the view was last brought up to date by the clock.
    drawn: Instant,
}

#[derive(Debug)]
enum View {
    Plain(Plain),
    Screen(Screen),
    Raw,
    Nothing,
}

/// Shows a build until its end.
pub(super) async fn show(
    mut messages: JsonLines<JsonMessage>,
    mut display: Display,
    mut archives: Receiver,
    asked: &Asked<'_>,
) -> Result<Outcome> {
    let mut outcome = None;
    while let Some(message) = next(&mut messages, &mut display).await? {
        if message.error.is_some() {
            display.fail()?;
        }
        let Some(event) = event(message)? else {
            continue;
        };
        if let BuildEvent::Piece { stream, data } = &event {
            archives.take(stream, &decoded(data)?)?;
            continue;
        }
        if let BuildEvent::Shell {
            step,
            container,
            reason,
        } = &event
        {
            display.leave(*step, reason)?;
            beside(&mut messages, asked, asked.enter(container, reason)).await?;
            continue;
        }
        asked.agent(&event).await?;
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

/// Does something that has the terminal; of what is told meanwhile only what asks for something counts.
async fn beside(
    messages: &mut JsonLines<JsonMessage>,
    asked: &Asked<'_>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            // A message that has not come whole is kept for the next call.
            message = messages.next() => match message? {
                Some(message) => {
                    if let Some(event) = event(message)? {
                        asked.agent(&event).await?;
                    }
                }
                None => return work.await,
            }
        }
    }
}

/// The next message. Meanwhile times go on.
async fn next(
    messages: &mut JsonLines<JsonMessage>,
    display: &mut Display,
) -> Result<Option<JsonMessage>> {
    let next = messages.next();
    tokio::pin!(next);
    loop {
        let is_drawn = display.is_drawn();
        tokio::select! {
            message = &mut next => return Ok(message?),
            () = tokio::time::sleep(FRAME), if is_drawn => display.tick()?,
        }
    }
}

impl Display {
    /// `file` is the Dockerfile's name, `output` what making the result is called.
    pub(super) fn new(show: Show, file: &str, output: &'static str) -> Self {
        let view = match show {
            Show::Plain => View::Plain(Plain::default()),
            Show::Screen => View::Screen(Screen::new()),
            Show::Raw => View::Raw,
            Show::Nothing => View::Nothing,
        };
        Self {
            view,
            trace: Trace::new(file, output),
            summary: Summary::default(),
            found: Vec::new(),
            notes: Vec::new(),
            begun: Instant::now(),
            drawn: Instant::now(),
        }
    }

    /// Shows something that this side does, of which `count` tells the bytes.
    pub(super) async fn during<T>(
        &mut self,
        task: &str,
        part: &str,
        count: Count,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = self.trace.begin(task);
        self.update(&begun)?;
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(FRAME) => {
                    let status = self.trace.part(task, part, count.get(), false);
                    self.update(&status)?;
                    self.tick()?;
                }
            }
        };
        if done.is_ok() {
            let status = self.trace.part(task, part, count.get(), true);
            self.update(&status)?;
        }
        let error = done.as_ref().err();
        let error = error.map(|error| crate::error::chain(error));
        let ended = self.trace.end(task, error.as_deref());
        self.update(&ended)?;
        done
    }

    fn update(&mut self, status: &Status) -> Result<()> {
        if *status == Status::default() {
            return Ok(());
        }
        match &mut self.view {
            View::Plain(plain) => plain.update(status),
            View::Screen(screen) => {
                screen.update(status);
                match self.drawn.elapsed() >= FRAME {
                    true => self.tick(),
                    false => Ok(()),
                }
            }
            View::Raw => output::write_stderr(format!("{}\n", raw(status)?).as_bytes()),
            View::Nothing => Ok(()),
        }
    }

    fn event(&mut self, event: &BuildEvent) -> Result<()> {
        let status = self.trace.event(event)?;
        // People are told of warnings beside the steps.
        if !matches!(event, BuildEvent::Warning { .. }) || !self.is_drawn() {
            self.update(&status)?;
        }
        match event {
            BuildEvent::Began { step, text, .. } => self.summary.began(*step, text),
            BuildEvent::Ended {
                step, layer_bytes, ..
            } => self.summary.ended(*step, *layer_bytes),
            BuildEvent::Found(finding) => self.found.push(finding.clone()),
            BuildEvent::Warning { text } => self.note(format!("WARNING: {text}\n"))?,
            BuildEvent::Built { .. } => {
                self.summary.built(event, self.begun);
                self.finish()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Says something at once, or in the end where that would be drawn over.
    fn note(&mut self, text: String) -> Result<()> {
        match &self.view {
            View::Plain(_) => output::write_stderr(text.as_bytes()),
            View::Screen(_) => {
                self.notes.push(text);
                Ok(())
            }
            View::Raw | View::Nothing => Ok(()),
        }
    }

    /// Whether the clock changes what is seen.
    fn is_drawn(&self) -> bool {
        matches!(self.view, View::Plain(_) | View::Screen(_))
    }

    fn tick(&mut self) -> Result<()> {
        self.drawn = Instant::now();
        match &mut self.view {
            View::Plain(plain) => plain.tick(),
            View::Screen(screen) => screen.draw(false),
            View::Raw | View::Nothing => Ok(()),
        }
    }

    /// Leaves the terminal to others; a step has failed, and the build with it.
    fn leave(&mut self, step: usize, error: &str) -> Result<()> {
        self.event(&BuildEvent::Failed {
            step,
            error: error.to_owned(),
        })?;
        self.fail()?;
        if !matches!(self.view, View::Raw) {
            self.view = View::Nothing;
        }
        Ok(())
    }

    /// Everything is built.
    fn finish(&mut self) -> Result<()> {
        let text = format!(
            "{}{}{}",
            self.notes.concat(),
            self.summary.text(),
            findings(&self.found)
        );
        match &mut self.view {
            View::Screen(screen) => screen.draw(true)?,
            View::Plain(_) => output::write_stderr(b"\n")?,
            View::Raw | View::Nothing => return Ok(()),
        }
        output::write_stderr(text.as_bytes())
    }

    /// What was said before a failure.
    fn fail(&mut self) -> Result<()> {
        let status = self.trace.fail();
        self.update(&status)?;
        let failed = match &mut self.view {
            View::Screen(screen) => {
                screen.draw(true)?;
                screen.failed()
            }
            View::Plain(plain) => plain.failed(),
            View::Raw | View::Nothing => return Ok(()),
        };
        let text = format!("{}{}{failed}", self.notes.concat(), findings(&self.found));
        output::write_stderr(text.as_bytes())
    }
}

pub(super) fn decoded(data: &str) -> Result<Vec<u8>> {
    let wrong = |error| Error::msg(format!("the engine sends what cannot be read: {error}"));
    BASE64.decode(data).map_err(wrong)
}

/// The event in a message; `None` where there is none.
///
/// # Errors
/// The build has failed.
pub(crate) fn event(message: JsonMessage) -> Result<Option<BuildEvent>> {
    if let Some(error) = message.error {
        return Err(Error::msg(error.message));
    }
    let Some(raw) = message.aux.filter(|_| message.id == EVENT_ID) else {
        return Ok(None);
    };
    let event = from_value(raw).map_err(|error| {
        Error::msg(format!(
            "the engine tells of the build what cannot be read: {error}"
        ))
    })?;
    Ok(Some(event))
}
