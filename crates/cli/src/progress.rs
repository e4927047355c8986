//! Shows the progress of pull, push, load and import: bars that replace each other on a terminal, lines elsewhere.

use crate::error::{Error, Result};
use crate::go::units;
use crate::output;
use crate::stdio;
use api_types::{JsonMessage, JsonProgress};
use client::JsonLines;
use std::io::IsTerminal;

/// A terminal narrower than this gets numbers but no bar.
const BAR_TERMINAL_MIN: u32 = 110;
/// Characters of a full bar.
const BAR_WIDTH: i64 = 50;

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Stdout,
    /// Where standard output is for something else.
    Stderr,
    Nowhere,
}

/// Shows all messages; an error among them is the operation's.
pub(crate) async fn show(mut messages: JsonLines<JsonMessage>, to: To) -> Result<()> {
    let mut display = Display {
        terminal: match to {
            To::Stdout => stdio::is_terminal(),
            To::Stderr => std::io::stderr().is_terminal(),
            To::Nowhere => false,
        },
        columns: stdio::size()[1],
        ids: Vec::new(),
    };
    while let Some(message) = messages.next().await? {
        if let Some(error) = &message.error {
            return Err(Error::msg(error.message.clone()));
        }
        if !message.error_message.is_empty() {
            return Err(Error::Message(message.error_message));
        }
        match to {
            To::Stdout => output::print(&display.render(&message))?,
            To::Stderr => output::write_stderr(display.render(&message).as_bytes())?,
            To::Nowhere => {}
        }
    }
    Ok(())
}

struct Display {
    terminal: bool,
    columns: u32,
    /// What has a line of its own on the terminal, from the top.
    ids: Vec<String>,
}

impl Display {
    fn render(&mut self, message: &JsonMessage) -> String {
        if !message.stream.is_empty() {
            return message.stream.clone();
        }
        // Data for programs.
        if message.aux.is_some() {
            return String::new();
        }
        let bar = message
            .progress
            .as_ref()
            .map(|progress| bar(progress, self.columns))
            .unwrap_or_default();
        let id = if message.id.is_empty() {
            String::new()
        } else {
            format!("{}: ", message.id)
        };
        let space = if bar.is_empty() { "" } else { " " };
        let text = format!("{id}{}{space}{bar}", message.status);
        match (self.terminal, message.id.is_empty()) {
            // Elsewhere only steps are worth a line, not how far each is.
            (false, _) if !bar.is_empty() => String::new(),
            (false, _) | (true, true) => format!("{text}\n"),
            (true, false) => self.in_place(&message.id, &text),
        }
    }

    /// Rewrites the line of `id`, which is new at the bottom.
    fn in_place(&mut self, id: &str, text: &str) -> String {
        match self.ids.iter().position(|known| known == id) {
            Some(index) => {
                let up = self.ids.len() - index;
                format!("\u{1b}[{up}A\u{1b}[2K\r{text}\r\u{1b}[{up}B")
            }
            None => {
                self.ids.push(id.to_owned());
                format!("\u{1b}[2K\r{text}\n")
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
fn bar(progress: &JsonProgress, columns: u32) -> String {
    let (current, total) = (progress.current, progress.total);
    let number = |value: i64| match progress.units.as_str() {
        "" => units::human_size(value as f64),
        _ => value.to_string(),
    };
    let unit = if progress.units.is_empty() {
        String::new()
    } else {
        format!(" {}", progress.units)
    };
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return format!("{:>8}{unit}", number(current));
    }
    let done = current.clamp(0, total) / (total / BAR_WIDTH).max(1);
    let done = usize::try_from(done.min(BAR_WIDTH)).unwrap_or(0);
    let left = usize::try_from(BAR_WIDTH).unwrap_or(0) - done;
    let bar = match columns > BAR_TERMINAL_MIN {
        true => format!("[{}>{}] ", "=".repeat(done), " ".repeat(left)),
        false => String::new(),
    };
    match progress.hidecounts {
        true => bar,
        false if current > total => format!("{bar}{:>8}{unit}", number(current)),
        false => format!("{bar}{:>8}/{}{unit}", number(current), number(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, status: &str, current: i64) -> JsonMessage {
        let progress = (current > 0).then(|| JsonProgress {
            current,
            total: 2000,
            ..JsonProgress::default()
        });
        JsonMessage {
            id: id.to_owned(),
            status: status.to_owned(),
            progress,
            ..JsonMessage::default()
        }
    }

    #[test]
    fn a_terminal_has_one_line_for_each_id() {
        let mut display = Display {
            terminal: true,
            columns: 120,
            ids: Vec::new(),
        };
        assert_eq!(
            display.render(&message("a", "Loading", 0)),
            "\u{1b}[2K\ra: Loading\n"
        );
        assert_eq!(
            display.render(&message("b", "Loading", 0)),
            "\u{1b}[2K\rb: Loading\n"
        );
        let half = display.render(&message("a", "Loading", 1000));
        assert!(
            half.starts_with("\u{1b}[2A\u{1b}[2K\ra: Loading [") && half.ends_with("\u{1b}[2B"),
            "{half:?}"
        );
        assert!(
            half.contains(&format!(
                "[{}>{}]      1kB/2kB",
                "=".repeat(25),
                " ".repeat(25)
            )),
            "{half:?}"
        );
    }

    #[test]
    fn elsewhere_only_steps_are_shown() {
        let mut display = Display {
            terminal: false,
            columns: 0,
            ids: Vec::new(),
        };
        assert_eq!(display.render(&message("a", "Loading", 1000)), "");
        assert_eq!(display.render(&message("a", "Done", 0)), "a: Done\n");
        let stream = JsonMessage {
            stream: "Loaded\n".into(),
            ..JsonMessage::default()
        };
        assert_eq!(display.render(&stream), "Loaded\n");
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        for (current, total) in [(i64::MIN, 1), (i64::MAX / 64, 1), (5, -1), (-1, -1), (3, 2)] {
            bar(
                &JsonProgress {
                    current,
                    total,
                    ..JsonProgress::default()
                },
                200,
            );
        }
    }
}
