//! What a build tells, as the text of Docker's classic builder or as events.

use crate::http::Pieces;
use crate::images::line;
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::language::Position;
use builder::lint::Finding;
use builder::{Event, Progress};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Digits of IDs that people see.
const SHORT_DIGITS: usize = 12;

/// The classic builder's text.
#[derive(Debug)]
pub(crate) struct Text {
    pieces: Pieces,
    quiet: bool,
    steps: Mutex<usize>,
}

impl Text {
    pub(crate) fn new(pieces: Pieces, quiet: bool) -> Self {
        Self {
            pieces,
            quiet,
            steps: Mutex::default(),
        }
    }

    fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        let message = types::JsonMessage {
            stream: text.to_owned(),
            ..types::JsonMessage::default()
        };
        // A client that has gone ends the build otherwise.
        let _ = self.pieces.blocking_send(Ok(line(&message)));
    }
}

fn short(id: &str) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.chars().take(SHORT_DIGITS).collect()
}

impl Progress for Text {
    fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Planned { steps } => {
                *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = *steps;
            }
            Event::Began {
                text,
                trigger: true,
                ..
            } => {
                self.say(&format!("# Executing build trigger: {text}\n"));
            }
            Event::Began { step, text, .. } => {
                let steps = *self.steps.lock().unwrap_or_else(PoisonError::into_inner);
                self.say(&format!("Step {}/{steps} : {text}", step.0));
                self.say("\n");
            }
            Event::Running { container, .. } => {
                self.say(&format!(" ---> Running in {}\n", short(container)));
            }
            Event::Output {
                is_error, bytes, ..
            } => {
                let text = String::from_utf8_lossy(bytes);
                match is_error {
                    true => self.say(&format!("\u{1b}[91m{text}\u{1b}[0m")),
                    false => self.say(&text),
                }
            }
            Event::Removed { container, .. } => {
                self.say(&format!(
                    "Removing intermediate container {}\n",
                    short(container)
                ));
            }
            Event::Ended { cached, id, .. } => {
                if *cached {
                    self.say(" ---> Using cache\n");
                }
                self.say(&format!(" ---> {}\n", short(id)));
            }
            Event::Warning(text) => self.say(&format!("[Warning] {text}\n")),
            Event::Based { .. }
            | Event::Shell { .. }
            | Event::Explained { .. }
            | Event::Found(_)
            | Event::Task(_)
            | Event::TaskEnded(..)
            | Event::Publishing => {}
        }
    }
}

/// Events for this engine's own client.
#[derive(Debug)]
pub(crate) struct Events {
    pieces: Pieces,
    /// Where the steps are written that go on.
    positions: Mutex<BTreeMap<usize, Position>>,
}

impl Events {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            positions: Mutex::default(),
        }
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<usize, Position>> {
        // It is whole after every statement.
        { self.positions.lock() }.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells which step has failed, where one has.
    pub(crate) fn failed(&self, error: &builder::Error) {
        let builder::Error::Step { position, .. } = error else {
            return;
        };
        let open = self.positions().clone();
        let mut failed = open.into_iter().filter(|(_, it)| it == position);
        if let Some((step, _)) = failed.next_back() {
            self.say(&types::BuildEvent::Failed {
                step,
                error: buildkit::sentence(error),
            });
        }
    }

    fn say(&self, told: &types::BuildEvent) {
        // A client that has gone ends the build otherwise.
        let _ = self.pieces.blocking_send(Ok(line(&event(told))));
    }
}

/// What a check has found, over the wire.
pub(crate) fn found(finding: &Finding) -> types::BuildFinding {
    types::BuildFinding {
        rule: finding.rule.name(),
        description: finding.rule.description().to_owned(),
        url: finding.rule.url(),
        detail: finding.detail.clone(),
        first_line: finding.first_line,
        last_line: finding.last_line,
    }
}

/// The message that carries an event.
pub(crate) fn event(event: &types::BuildEvent) -> types::JsonMessage {
    types::JsonMessage {
        id: types::EVENT_ID.to_owned(),
        aux: serde_json::to_value(event).ok(),
        ..types::JsonMessage::default()
    }
}

/// An event over the wire; `None`: nobody is told.
fn wire(told: &Event<'_>) -> Option<types::BuildEvent> {
    Some(match told {
        Event::Planned { steps } => types::BuildEvent::Planned { steps: *steps },
        Event::Began {
            step,
            stage,
            platform,
            place,
            text,
            ..
        } => types::BuildEvent::Began {
            step: step.0,
            stage: match platform {
                Some(platform) => format!("{platform} {stage}").trim_end().to_owned(),
                None => (*stage).to_owned(),
            },
            place: *place,
            text: (*text).to_owned(),
        },
        Event::Output {
            step,
            is_error,
            bytes,
        } => types::BuildEvent::Output {
            step: step.0,
            error: *is_error,
            data: BASE64.encode(bytes),
        },
        Event::Shell {
            step,
            container,
            reason,
        } => types::BuildEvent::Shell {
            step: step.0,
            container: (*container).to_owned(),
            reason: (*reason).to_owned(),
        },
        Event::Explained { step, reason } => types::BuildEvent::Explained {
            step: step.0,
            reason: (*reason).to_owned(),
        },
        Event::Ended {
            step,
            cached,
            layer_bytes,
            ..
        } => types::BuildEvent::Ended {
            step: step.0,
            cached: *cached,
            layer_bytes: *layer_bytes,
        },
        Event::Found(finding) => types::BuildEvent::Found(found(finding)),
        Event::Warning(text) => types::BuildEvent::Warning {
            text: (*text).to_owned(),
        },
        Event::Task(name) => types::BuildEvent::Task {
            name: (*name).to_owned(),
        },
        Event::TaskEnded(name, error) => types::BuildEvent::TaskEnded {
            name: (*name).to_owned(),
            error: error.map(str::to_owned),
        },
        Event::Based { step, image } => types::BuildEvent::Based {
            step: step.0,
            image: image.map(|(name, _)| name.to_owned()),
        },
        Event::Publishing => types::BuildEvent::Publishing,
        Event::Running { .. } | Event::Removed { .. } => return None,
    })
}

impl Progress for Events {
    fn tell(&self, told: &Event<'_>) {
        match told {
            Event::Began { step, position, .. } => {
                self.positions().insert(step.0, *position);
            }
            Event::Ended { step, .. } => {
                self.positions().remove(&step.0);
            }
            _ => {}
        }
        if let Some(wire) = wire(told) {
            self.say(&wire);
        }
    }
}
