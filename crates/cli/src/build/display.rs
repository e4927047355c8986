//! What a build tells, until its end, and how it is shown.

use super::plain::Plain;
use super::receive::Receiver;
use super::shell::Asked;
use super::tty::Screen;
use crate::error::{Error, Result};
use crate::output;
use api_types::{BuildEvent, EVENT_ID, JsonMessage, from_value};
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
enum Display {
    Plain(Plain),
    /// With the time when it was last drawn.
    Screen(Screen, Instant),
    Raw,
    Nothing,
}

/// Shows a build until its end.
pub(crate) async fn show(
    mut messages: JsonLines<JsonMessage>,
    show: Show,
    mut archives: Receiver,
    asked: &Asked<'_>,
) -> Result<Outcome> {
    let mut display = match show {
        Show::Plain => Display::Plain(Plain::new()),
        Show::Screen => Display::Screen(Screen::new(), Instant::now()),
        Show::Raw => Display::Raw,
        Show::Nothing => Display::Nothing,
    };
    let mut outcome = None;
    while let Some(message) = next(&mut messages, &mut display).await? {
        if message.error.is_some() {
            display.fail()?;
        }
        let Some((raw, event)) = event(message)? else {
            continue;
        };
        if let BuildEvent::Piece { stream, data } = &event {
            archives.take(stream, &decoded(data)?)?;
            continue;
        }
        if let BuildEvent::Shell {
            container, reason, ..
        } = &event
        {
            display.leave(&raw)?;
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
        display.event(&raw, &event)?;
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
                    if let Some((_, event)) = event(message)? {
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
        let is_drawn = matches!(display, Display::Screen(..));
        tokio::select! {
            message = &mut next => return Ok(message?),
            () = tokio::time::sleep(FRAME), if is_drawn => display.draw()?,
        }
    }
}

impl Display {
    fn event(&mut self, raw: &serde_json::Value, event: &BuildEvent) -> Result<()> {
        match (self, event) {
            (Self::Nothing, _) => Ok(()),
            (Self::Raw, _) => output::write_stderr(format!("{raw}\n").as_bytes()),
            (Self::Plain(plain), BuildEvent::Output { step, data, .. }) => {
                plain.output(*step, &decoded(data)?)
            }
            (Self::Plain(plain), event) => plain.event(event),
            (Self::Screen(screen, _), BuildEvent::Built { .. }) => {
                screen.event(event);
                screen.finish()
            }
            (display @ Self::Screen(..), event) => display.on_screen(event),
        }
    }

    fn on_screen(&mut self, event: &BuildEvent) -> Result<()> {
        let Self::Screen(screen, drawn) = self else {
            return Ok(());
        };
        match event {
            BuildEvent::Output { step, data, .. } => screen.output(*step, &decoded(data)?),
            event => screen.event(event),
        }
        match drawn.elapsed() >= FRAME {
            true => self.draw(),
            false => Ok(()),
        }
    }

    fn draw(&mut self) -> Result<()> {
        match self {
            Self::Screen(screen, drawn) => {
                *drawn = Instant::now();
                screen.draw(false)
            }
            Self::Plain(_) | Self::Raw | Self::Nothing => Ok(()),
        }
    }

    /// Leaves the terminal to others; the build has failed, and only programs are told what else it says.
    fn leave(&mut self, raw: &serde_json::Value) -> Result<()> {
        self.fail()?;
        match self {
            Self::Raw => output::write_stderr(format!("{raw}\n").as_bytes()),
            _ => {
                *self = Self::Nothing;
                Ok(())
            }
        }
    }

    /// What was said before a failure.
    fn fail(&mut self) -> Result<()> {
        match self {
            Self::Plain(plain) => plain.flush_all(),
            Self::Screen(screen, _) => screen.fail(),
            Self::Raw | Self::Nothing => Ok(()),
        }
    }
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
