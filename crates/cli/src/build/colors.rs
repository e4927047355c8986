//! The colours of a build on a terminal: none with `NO_COLOR`, others by `BUILDKIT_COLORS` (`run=green:error=255,0,0`).
//!
//! Source: moby/buildkit `util/progress/progressui/colors.go`, `init.go`; https://no-color.org.

use crate::output;
use std::env;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that goes on, which has no colour.
    Open,
    /// Something that is done.
    Done,
    Canceled,
    Failed,
    Warning,
    /// What a step says.
    Said,
}

/// Names of colours, and how terminals know them.
const NAMES: [(&str, u8); 17] = [
    ("default", 39),
    ("black", 30),
    ("red", 31),
    ("green", 32),
    ("yellow", 33),
    ("blue", 34),
    ("magenta", 35),
    ("cyan", 36),
    ("white", 37),
    ("light-black", 90),
    ("light-red", 91),
    ("light-green", 92),
    ("light-yellow", 93),
    ("light-blue", 94),
    ("light-magenta", 95),
    ("light-cyan", 96),
    ("light-white", 97),
];

/// What begins each colour; empty: there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Colors {
    run: String,
    cancel: String,
    error: String,
    warning: String,
    faint: String,
}

impl Colors {
    /// As the environment says, with a line for each part of that which makes no sense.
    pub(super) fn of_environment() -> (Self, Vec<String>) {
        if !output::wants_colors() {
            return (Self::default(), Vec::new());
        }
        Self::read(&env::var("BUILDKIT_COLORS").unwrap_or_default())
    }

    fn read(text: &str) -> (Self, Vec<String>) {
        let named = |name| color(name).unwrap_or_default();
        let mut colors = Self {
            run: named("blue"),
            cancel: named("yellow"),
            error: named("red"),
            warning: named("yellow"),
            faint: "\u{1b}[2m".to_owned(),
        };
        let mut wrong = Vec::new();
        for part in text.split(':').filter(|part| !part.is_empty()) {
            let field = part.split_once('=').and_then(|(name, value)| {
                let color = color(&value.to_lowercase())?;
                let field = match name.to_lowercase().as_str() {
                    "run" => &mut colors.run,
                    "cancel" => &mut colors.cancel,
                    "error" => &mut colors.error,
                    "warning" => &mut colors.warning,
                    _ => return None,
                };
                Some((field, color))
            });
            match field {
                Some((field, color)) => *field = color,
                None => wrong.push(format!(
                    "BUILDKIT_COLORS: {part:?} is not run, cancel, error or warning with a colour or red,green,blue"
                )),
            }
        }
        (colors, wrong)
    }

    /// A text in the colour of what it is.
    pub(super) fn paint(&self, kind: Kind, text: &str) -> String {
        let begin = match kind {
            Kind::Open => "",
            Kind::Done => &self.run,
            Kind::Canceled => &self.cancel,
            Kind::Failed => &self.error,
            Kind::Warning => &self.warning,
            Kind::Said => &self.faint,
        };
        match begin {
            "" => text.to_owned(),
            begin => format!("{begin}{text}\u{1b}[0m"),
        }
    }
}

/// What begins a colour: one with a name, or of 256 by red, green and blue.
fn color(text: &str) -> Option<String> {
    if let Some((_, code)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Some(format!("\u{1b}[{code}m"));
    }
    let parts = text.split(',').map(|part| part.trim().parse::<u8>().ok());
    let parts = parts.collect::<Option<Vec<u8>>>()?;
    let [red, green, blue] = *parts.as_slice() else {
        return None;
    };
    // The cube of colours has six steps each way.
    let step = |value: u8| u16::from(value) * 6 / 256;
    let number = 16 + 36 * step(red) + 6 * step(green) + step(blue);
    Some(format!("\u{1b}[38;5;{number}m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_read_as_buildkit_reads_them() {
        let (colors, wrong) = Colors::read("run=Green:ERROR=255,0,0:cancel=none:x=red:warning");
        assert_eq!(colors.paint(Kind::Done, "a"), "\u{1b}[32ma\u{1b}[0m");
        assert_eq!(
            colors.paint(Kind::Failed, "a"),
            "\u{1b}[38;5;196ma\u{1b}[0m"
        );
        assert_eq!(colors.paint(Kind::Canceled, "a"), "\u{1b}[33ma\u{1b}[0m");
        assert_eq!(colors.paint(Kind::Open, "a"), "a");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert_eq!(Colors::default().paint(Kind::Done, "a"), "a");
    }
}
