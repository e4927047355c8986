//! A mistake in a Dockerfile, with its place and the line it is on.

use std::fmt;

/// A place in a text. Both count from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// What is wrong, and where.
///
/// Its text is several lines: the sentence, the line of the source with a mark below the place, and a hint where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name, as the user knows it.
    pub file: String,
    /// Where.
    pub position: Position,
    /// The line of the text.
    pub source: String,
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "dockerfile parse error on line {line}: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        let number = line.to_string();
        let blank = " ".repeat(number.len());
        // Tabs stay tabs in the mark's line, so that it stands where it should however wide they are.
        let before = self.source.chars().take(column as usize - 1);
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        write!(f, "\n {blank}--> {}:{line}:{column}", self.file)?;
        write!(f, "\n {number} | {}\n {blank} | {indent}^", self.source)
    }
}

/// Lines that are shown before and after an instruction.
const LINES_AROUND: usize = 2;
/// What stands around an excerpt.
const RULE: &str = "--------------------";

/// The last line of the instruction that begins on a line, both counted from 1, as far as its lines say that they go on.
pub fn last_line(text: &str, first: usize, escape: char) -> usize {
    let lines = text.lines().skip(first - 1);
    let goes_on = |line: &&str| line.trim_end().ends_with(escape);
    first + lines.take_while(goes_on).count()
}

/// An instruction among its neighbours, each line with its number and those of the instruction marked, as BuildKit's clients show it.
pub fn excerpt(file: &str, text: &str, first: usize, escape: char) -> String {
    let last = last_line(text, first, escape);
    let mut shown = format!("{file}:{first}\n{RULE}\n");
    for (number, line) in (1..=last + LINES_AROUND).zip(text.lines()) {
        if number + LINES_AROUND >= first {
            let is_own = (first..=last).contains(&number);
            let mark = if is_own { ">>>" } else { "   " };
            shown.push_str(format!("{number:>4} | {mark} {line}").trim_end());
            shown.push('\n');
        }
    }
    shown + RULE
}

/// A mistake before the file's name and text are added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) position: Position,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Mistake {
    pub(crate) fn new(position: Position, message: impl Into<String>) -> Self {
        Self {
            position,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The mistake in a text.
    pub(crate) fn located(self, file: &str, text: &str) -> Diagnostic {
        let line = text.lines().nth(self.position.line as usize - 1);
        Diagnostic {
            file: file.to_owned(),
            position: self.position,
            source: line.unwrap_or_default().to_owned(),
            message: self.message,
            hint: self.hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_stands_among_its_neighbours() {
        let text = "FROM a\n\nRUN one \\\n  two\nCMD x\nCMD y\nCMD z\n";
        assert_eq!(
            excerpt("D", text, 3, '\\'),
            "D:3\n--------------------\n   1 |     FROM a\n   2 |\n   3 | >>> RUN one \\\n   4 | >>>   two\n   5 |     CMD x\n   \
             6 |     CMD y\n--------------------"
        );
        // One that ends in the middle of an instruction.
        assert_eq!(last_line("RUN a \\", 1, '\\'), 2);
        assert!(excerpt("D", "RUN a \\", 1, '\\').contains("1 | >>> RUN a"));
    }

    #[test]
    fn the_mark_stands_below_the_place() {
        let text = "FROM a\n\tCPOY . /\n";
        let mistake = Mistake::new(Position { line: 2, column: 2 }, "unknown instruction: CPOY")
            .hint(Some("did you mean COPY?".to_owned()));
        assert_eq!(
            mistake.located("Dockerfile", text).to_string(),
            "dockerfile parse error on line 2: unknown instruction: CPOY (did you mean COPY?)\n  \
             --> Dockerfile:2:2\n 2 | \tCPOY . /\n   | \t^"
        );
    }
}
