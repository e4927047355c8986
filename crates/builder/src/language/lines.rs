//! Physical lines to logical ones: comments, continuations, and the here-documents that follow.
//!
//! Invariant: every byte of a logical line knows where it came from, so that a mistake in it can be shown.

use super::diagnostic::{Mistake, Position};
use super::heredoc::{self, Heredoc};
use super::{HEREDOCS_MAX, INSTRUCTIONS_MAX};

/// An instruction as it is written, continuations joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logical {
    /// The text, without blanks around it.
    pub(crate) text: String,
    /// Where pieces of the text begin: offset in it, place in the file. Ascending.
    origins: Vec<(usize, Position)>,
    /// The documents that it announces.
    pub(crate) heredocs: Vec<Heredoc>,
    /// What checks look at.
    pub(crate) notes: Notes,
}

/// What is around an instruction, for checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The last line of the instruction, its here-documents included.
    pub last_line: u32,
    /// An empty line among the continued ones, which once ended an instruction, and is to be avoided.
    pub empty_continuation: bool,
    /// The comments that stand right above, without their `#`.
    pub comments: Vec<String>,
}

impl Logical {
    /// Where a byte of the text is in the file.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let piece = self.origins.partition_point(|(start, _)| *start <= offset);
        let (start, position) = self.origins[piece.saturating_sub(1)];
        let from = start.min(self.text.len());
        let to = offset.clamp(from, self.text.len());
        let columns = self
            .text
            .get(from..to)
            .map_or(0, |text| text.chars().count());
        Position {
            line: position.line,
            column: position.column + u32::try_from(columns).unwrap_or(0),
        }
    }

    /// The text with its documents, as it could be written again.
    pub(crate) fn written(&self) -> String {
        let mut text = self.text.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        text
    }
}

/// Takes a text apart. `escape` continues lines.
pub(crate) fn read(text: &str, escape: char) -> Result<Vec<Logical>, Mistake> {
    let mut reader = Lines {
        lines: text.split_inclusive('\n').collect(),
        next: 0,
        escape,
    };
    let mut logical = Vec::new();
    while let Some(line) = reader.instruction()? {
        if logical.len() == INSTRUCTIONS_MAX {
            let message = format!("a Dockerfile has at most {INSTRUCTIONS_MAX} instructions");
            return Err(Mistake::new(line.position(0), message));
        }
        logical.push(line);
    }
    Ok(logical)
}

struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
    escape: char,
}

impl Lines<'_> {
    fn instruction(&mut self) -> Result<Option<Logical>, Mistake> {
        let mut line = Logical {
            text: String::new(),
            origins: Vec::new(),
            heredocs: Vec::new(),
            notes: Notes::default(),
        };
        let mut continues = true;
        while continues && self.next < self.lines.len() {
            let raw = self.lines[self.next].trim_end_matches(['\n', '\r']);
            let number = u32::try_from(self.next + 1).unwrap_or(u32::MAX);
            self.next += 1;
            let first = line.text.is_empty();
            let trimmed = raw.trim_start();
            match trimmed.strip_prefix('#') {
                Some(comment) if first => line.notes.comments.push(comment.trim().to_owned()),
                None if trimmed.is_empty() && first => line.notes.comments.clear(),
                None if trimmed.is_empty() => line.notes.empty_continuation = true,
                _ => {}
            }
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            // Blanks at the beginning of a continued line belong to the instruction.
            let shown = if first { trimmed } else { raw };
            let skipped = raw[..raw.len() - shown.len()].chars().count();
            let position = Position {
                line: number,
                column: u32::try_from(skipped).unwrap_or(0) + 1,
            };
            let (piece, more) = self.continued(shown);
            continues = more;
            line.notes.last_line = number;
            line.origins.push((line.text.len(), position));
            line.text.push_str(piece);
        }
        let end = line.text.trim_end().len();
        line.text.truncate(end);
        if line.text.is_empty() {
            return Ok(None);
        }
        self.documents(&mut line)?;
        Ok(Some(line))
    }

    /// A line without the character that continues it, and whether it has one. A doubled one is no continuation.
    fn continued<'b>(&self, line: &'b str) -> (&'b str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(piece) if !piece.ends_with(self.escape) => (piece, true),
            _ => (line, false),
        }
    }

    fn documents(&mut self, line: &mut Logical) -> Result<(), Mistake> {
        if !line.text.contains("<<") || !takes_heredocs(&line.text) {
            return Ok(());
        }
        line.heredocs = heredoc::announced(&line.text);
        let wrong = |message: String| Err(Mistake::new(line.position(0), message));
        if line.heredocs.len() > HEREDOCS_MAX {
            return wrong(format!(
                "an instruction has at most {HEREDOCS_MAX} here-documents"
            ));
        }
        for at in 0..line.heredocs.len() {
            let heredoc = &mut line.heredocs[at];
            let rest = &self.lines[self.next..];
            let ends = |raw: &&str| {
                let raw = raw.trim_end_matches(['\n', '\r']);
                let raw = if heredoc.chomp {
                    raw.trim_start_matches('\t')
                } else {
                    raw
                };
                raw == heredoc.name
            };
            let Some(count) = rest.iter().position(ends) else {
                let message = format!("unterminated heredoc: no line is {:?}", heredoc.name);
                return Err(Mistake::new(line.position(0), message));
            };
            heredoc.content = rest[..count].concat();
            self.next += count + 1;
            line.notes.last_line = u32::try_from(self.next).unwrap_or(u32::MAX);
        }
        Ok(())
    }
}

/// Whether an instruction may have here-documents: RUN, COPY and ADD, also as triggers, and not as JSON.
fn takes_heredocs(text: &str) -> bool {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim_start();
    match word.to_ascii_uppercase().as_str() {
        "RUN" | "COPY" | "ADD" => !rest.starts_with('['),
        "ONBUILD" => takes_heredocs(rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let lines = read(text, '\\').unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_continued() {
        assert_eq!(texts("RUN a \\\n  b\nRUN c"), ["RUN a   b", "RUN c"]);
        assert_eq!(texts("RUN a\\ \t\n b"), ["RUN a b"]);
        assert_eq!(texts("RUN a\\\r\nb\r\n"), ["RUN ab"]);
        // Comments and empty lines in between are no part of it.
        assert_eq!(texts("RUN a \\\n# no\n\n  # no\nb"), ["RUN a b"]);
        assert_eq!(texts("RUN a\\\\\nRUN b"), ["RUN a\\\\", "RUN b"]);
        assert_eq!(texts("RUN a \\"), ["RUN a"]);
        assert_eq!(texts("\\\nRUN a"), ["RUN a"]);
        assert_eq!(texts(" \n# c\n\t FROM x \n"), ["FROM x"]);
        assert!(texts("").is_empty());
        assert!(
            read("RUN a \\\n\nb", '\\').unwrap()[0]
                .notes
                .empty_continuation
        );
        assert_eq!(read("RUN a `\nb \\", '`').unwrap()[0].text, "RUN a b \\");
    }

    #[test]
    fn what_is_around_an_instruction_is_noted() {
        let text = "# away\n\n# a\n#b\nRUN x \\\n# inside\n y\nRUN <<A\nz\nA\n";
        let lines = read(text, '\\').unwrap();
        assert_eq!(lines[0].notes.comments, ["a", "b"]);
        assert_eq!(lines[0].notes.last_line, 7);
        assert_eq!(
            (lines[1].notes.comments.len(), lines[1].notes.last_line),
            (0, 10)
        );
    }

    #[test]
    fn places_are_those_of_the_file() {
        let line = &read("\n  RUN ä \\\n   b", '\\').unwrap()[0];
        let at = |text: &str| line.position(line.text.find(text).unwrap());
        assert_eq!(at("RUN"), Position { line: 2, column: 3 });
        assert_eq!(at("ä"), Position { line: 2, column: 7 });
        assert_eq!(at("b"), Position { line: 3, column: 4 });
    }

    #[test]
    fn documents_follow_their_line() {
        let lines = read("RUN <<A cat <<-B\n1\n# 2\nA\n\t3 \\\n\tB\nRUN c", '\\').unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].heredocs[0].content, "1\n# 2\n");
        assert_eq!(lines[0].heredocs[1].body(), "3 \\\n");
        assert_eq!(texts("LABEL a=<<B\nRUN c").len(), 2);
        assert_eq!(texts("RUN [\"<<B\"]\nRUN c").len(), 2);
        assert_eq!(texts("ONBUILD RUN <<B\nx\nB\n").len(), 1);
        let error = read("FROM a\nRUN <<A\nx\n", '\\').unwrap_err();
        assert_eq!(error.position.line, 2);
    }
}
