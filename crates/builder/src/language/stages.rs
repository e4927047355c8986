//! A whole Dockerfile: what is before the first FROM, and the stages.

use super::DOCKERFILE_BYTES_MAX;
use super::diagnostic::{Diagnostic, Mistake, Position};
use super::directives::{self, Directives};
use super::instruction::{self, ArgDeclaration, From, Instruction};
use super::lines::{self, Logical, Notes};
use super::options::{Arguments, Wrong};

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What its top says of it.
    pub directives: Directives,
    /// What is before the first stage: ARG alone.
    pub preamble: Vec<Step>,
    /// The stages; there is at least one.
    pub stages: Vec<Stage>,
}

/// What one FROM begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What it stands on, and its name.
    pub from: From,
    /// The FROM line as it is written.
    pub text: String,
    /// Where that is.
    pub position: Position,
    /// What is around it.
    pub notes: Notes,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub instruction: Instruction,
    /// As it is written, continuations joined, without here-documents.
    pub text: String,
    /// Where it begins.
    pub position: Position,
    /// What is around it.
    pub notes: Notes,
}

impl Dockerfile {
    /// Arguments that FROM lines may use, in their order.
    pub fn arguments(&self) -> impl Iterator<Item = &ArgDeclaration> {
        self.preamble
            .iter()
            .flat_map(|step| match &step.instruction {
                Instruction::Arg(arguments) => arguments.as_slice(),
                _ => &[],
            })
    }

    /// The number of the last stage with a name, of those before `before`. Their names are in lower case: FROM means them as they
    /// are, everything else in any case.
    pub fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.stages[..before.min(self.stages.len())];
        { stages.iter() }.rposition(|stage| stage.from.name.as_deref() == Some(name))
    }
}

/// Parses a Dockerfile. `file` is its name in messages.
///
/// # Errors
/// The first mistake in it.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Dockerfile, Diagnostic> {
    let start = Position { line: 1, column: 1 };
    let unreadable = |message: String| Mistake::new(start, message).located(file, "");
    if bytes.len() > DOCKERFILE_BYTES_MAX {
        let message = format!("a Dockerfile has at most {DOCKERFILE_BYTES_MAX} bytes");
        return Err(unreadable(message));
    }
    let (text, replaced) = decoded(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let parsed = read(text).and_then(|dockerfile| {
        for step in dockerfile.stages.iter().flat_map(|stage| &stage.steps) {
            check_text(step, &replaced)?;
        }
        Ok(dockerfile)
    });
    parsed.map_err(|mistake| mistake.located(file, text))
}

/// What stands in the place of a byte that is no text.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The text, and the lines in which bytes that are none were replaced.
fn decoded(bytes: &[u8]) -> (String, Vec<u32>) {
    let mut text = String::with_capacity(bytes.len());
    let (mut line, mut replaced) = (1, Vec::new());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        line += chunk.valid().matches('\n').count();
        if !chunk.invalid().is_empty() {
            text.extend(chunk.invalid().iter().map(|_| REPLACEMENT));
            replaced.push(u32::try_from(line).unwrap_or(u32::MAX));
        }
    }
    (text, replaced)
}

/// Fails where a byte was replaced that is to get through as it is.
fn check_text(step: &Step, replaced: &[u32]) -> Result<(), Mistake> {
    let lines = step.position.line..=step.notes.last_line;
    let Some(line) = replaced.iter().find(|line| lines.contains(line)) else {
        return Ok(());
    };
    let is_kept = match &step.instruction {
        Instruction::Run(run) => {
            let documents = run.documents.iter();
            step.text.contains(REPLACEMENT) || { documents }
                .any(|document| document.content.contains(REPLACEMENT))
        }
        Instruction::Copy(transfer) | Instruction::Add(transfer) => {
            let mut documents = transfer.documents.iter();
            documents.any(|document| !document.expand && document.content.contains(REPLACEMENT))
        }
        _ => false,
    };
    match is_kept {
        false => Ok(()),
        true => {
            let place = Position {
                line: *line,
                column: 1,
            };
            let message = "a command, or a file that is written here, has to be text (UTF-8)";
            Err(Mistake::new(place, message))
        }
    }
}

fn read(text: &str) -> Result<Dockerfile, Mistake> {
    let directives = directives::read(text)?;
    let mut dockerfile = Dockerfile {
        preamble: Vec::new(),
        stages: Vec::new(),
        directives,
    };
    for line in lines::read(text, dockerfile.directives.escape)? {
        let step = step(&line, dockerfile.directives.escape)?;
        match (step.instruction, dockerfile.stages.last_mut()) {
            (Instruction::From(from), _) => dockerfile.stages.push(Stage {
                from,
                text: step.text,
                position: step.position,
                notes: step.notes,
                steps: Vec::new(),
            }),
            (instruction, Some(stage)) => stage.steps.push(Step {
                instruction,
                ..step
            }),
            (Instruction::Arg(arguments), None) => dockerfile.preamble.push(Step {
                instruction: Instruction::Arg(arguments),
                ..step
            }),
            (_, None) => {
                let message = "no build stage in current context: only ARG may be before FROM";
                return Err(Mistake::new(step.position, message));
            }
        }
    }
    if dockerfile.stages.is_empty() {
        let message = match dockerfile.preamble.is_empty() {
            true => "file with no instructions",
            false => "no build stage: there is no FROM",
        };
        let start = Position { line: 1, column: 1 };
        return Err(Mistake::new(start, message));
    }
    Ok(dockerfile)
}

fn step(line: &Logical, escape: char) -> Result<Step, Mistake> {
    let arguments = Arguments::new(line, escape);
    let instruction = instruction::parse(&arguments);
    Ok(Step {
        instruction: instruction.map_err(|wrong| {
            let Wrong {
                offset,
                message,
                hint,
            } = wrong;
            Mistake::new(line.position(offset), message).hint(hint)
        })?,
        text: line.text.clone(),
        position: line.position(0),
        notes: line.notes.clone(),
    })
}

/// Parses an instruction that an image has as trigger (ONBUILD). It is not in the Dockerfile: `position` is that of the FROM.
///
/// # Errors
/// A trigger that is none.
pub fn parse_trigger(text: &str, position: Position) -> Result<Step, Diagnostic> {
    let wrong = |mistake: Mistake| mistake.located("ONBUILD", text);
    let mut lines = lines::read(text, '\\').map_err(wrong)?;
    if lines.len() != 1 {
        let start = Position { line: 1, column: 1 };
        return Err(wrong(Mistake::new(
            start,
            "a trigger is exactly one instruction",
        )));
    }
    let parsed = step(&lines.remove(0), '\\').map_err(wrong)?;
    if let Instruction::From(_) | Instruction::Onbuild(_) | Instruction::Maintainer(_) =
        parsed.instruction
    {
        let message = "FROM, ONBUILD and MAINTAINER aren't allowed as ONBUILD triggers";
        return Err(wrong(Mistake::new(parsed.position, message)));
    }
    Ok(Step { position, ..parsed })
}

#[cfg(test)]
mod tests;
