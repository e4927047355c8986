//! What is asked of a Dockerfile that is not to be built: which stages it has, and what a build of it takes.
//!
//! Answers are documents for programs, and texts for people. Source: moby/buildkit `frontend/subrequests/targets` and
//! `frontend/subrequests/outline`.

use crate::definition::{self, Definition};
use crate::error::Result;
use crate::language::{Dockerfile, Instruction, Mount, MountKind, Notes, Position};
use crate::request::Request;
use crate::scope::Scope;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Spaces between the columns of texts.
const TARGETS_PADDING: usize = 1;
const OUTLINE_PADDING: usize = 3;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inquiry {
    /// The stages that can be built.
    Targets,
    /// The arguments, secrets and SSH agents that a target takes.
    Outline,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For programs.
    pub document: Value,
    /// For people.
    pub text: String,
}

/// Answers what is asked of a request's Dockerfile. Nothing is fetched or built for it.
///
/// # Errors
/// A Dockerfile that cannot be read, or whose stages do not fit together.
pub fn inquire(request: &Request, inquiry: Inquiry) -> Result<Answer> {
    let platforms = definition::platforms(request)?;
    let definition = Definition::read(request, &platforms[0])?;
    match inquiry {
        Inquiry::Targets => Ok(targets(&definition.file)),
        Inquiry::Outline => outline(request, &definition),
    }
}

/// What the comments above an instruction say of a name.
fn description<'n>(notes: &'n Notes, name: &str) -> Option<&'n str> {
    let of_name = |line: &'n String| line.trim_start().strip_prefix(name)?.strip_prefix(' ');
    notes.comments.iter().find_map(of_name).map(str::trim)
}

fn location(first: u32, last: u32) -> Value {
    json!({ "ranges": [{ "start": { "line": first }, "end": { "line": last } }] })
}

/// Adds a text to an object, unless it is empty.
fn add(object: &mut Value, name: &str, text: &str) {
    if !text.is_empty() {
        object[name] = text.into();
    }
}

/// Rows as a table, whose last column is as wide as its text.
fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + padding
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<&str>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at + 1 == row.len() {
            true => (*cell).to_owned(),
            false => format!("{cell:width$}"),
        });
        cells.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}

fn targets(file: &Dockerfile) -> Answer {
    let last = file.stages.len() - 1;
    let stages = { file.stages.iter().enumerate() }
        .filter(|(at, stage)| stage.from.name.is_some() || *at == last);
    let mut documents = Vec::new();
    let mut words = Vec::new();
    for (at, stage) in stages {
        let name = stage.from.name.as_deref().unwrap_or_default();
        let said = description(&stage.notes, name).unwrap_or_default();
        let mut document = json!({
            "base": stage.from.image,
            "location": location(stage.position.line, stage.notes.last_line),
        });
        add(&mut document, "name", name);
        add(&mut document, "description", said);
        if at == last {
            document["default"] = true.into();
        }
        documents.push(document);
        let word = match (name, at == last) {
            ("", _) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        words.push((word, said));
    }
    let heading = vec!["TARGET", "DESCRIPTION"];
    let rows = words.iter().map(|(word, said)| vec![word.as_str(), *said]);
    let rows: Vec<Vec<&str>> = std::iter::once(heading).chain(rows).collect();
    Answer {
        document: json!({ "targets": documents, "sources": [] }),
        text: table(&rows, TARGETS_PADDING),
    }
}

/// Something that a build takes.
#[derive(Debug, Default)]
struct Taken {
    name: String,
    value: String,
    description: String,
    required: bool,
    first_line: u32,
    last_line: u32,
}

impl Taken {
    fn at(name: &str, position: Position, notes: &Notes) -> Self {
        Self {
            name: name.to_owned(),
            description: description(notes, name).unwrap_or_default().to_owned(),
            first_line: position.line,
            last_line: notes.last_line,
            ..Self::default()
        }
    }
}

/// What a target takes, of each kind.
#[derive(Debug, Default)]
struct Outline {
    args: Vec<Taken>,
    secrets: Vec<Taken>,
    agents: Vec<Taken>,
}

impl Outline {
    /// Arguments before the first FROM that stages use.
    fn global(&mut self, request: &Request, definition: &Definition, stages: &[usize]) {
        let file = &definition.file;
        let is_used = |name: &str| {
            stages.iter().map(|at| &file.stages[*at]).any(|stage| {
                let platform = stage.from.platform.as_deref().unwrap_or_default();
                let inherits = stage.steps.iter().any(|step| {
                    matches!(&step.instruction, Instruction::Arg(all)
                        if all.iter().any(|arg| arg.name == name && arg.default.is_none()))
                });
                inherits || mentions(&stage.from.image, name) || mentions(platform, name)
            })
        };
        for step in &file.preamble {
            let Instruction::Arg(declared) = &step.instruction else {
                continue;
            };
            for arg in declared.iter().filter(|arg| is_used(&arg.name)) {
                let value = definition.global.get(&arg.name, &[]);
                let given = request.build_args.get(&arg.name).cloned();
                self.args.push(Taken {
                    value: value.or(given).unwrap_or_default(),
                    ..Taken::at(&arg.name, step.position, &step.notes)
                });
            }
        }
    }

    fn stage(&mut self, request: &Request, definition: &Definition, at: usize) -> Result<()> {
        let file = &definition.file;
        let mut known = definition.known.clone();
        let global = definition.global.args();
        known.extend(global.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut scope = Scope::new(file.directives.escape);
        for step in &file.stages[at].steps {
            match &step.instruction {
                Instruction::Arg(declared) => {
                    scope.declare_all(declared, &[], &request.build_args, &known)?;
                    let is_own = |name: &str| {
                        !definition.known.contains_key(name)
                            && !file.arguments().any(|arg| arg.name == name)
                    };
                    for arg in declared {
                        if arg.default.is_some() || is_own(&arg.name) {
                            self.args.push(Taken {
                                value: scope.get(&arg.name, &[]).unwrap_or_default(),
                                ..Taken::at(&arg.name, step.position, &step.notes)
                            });
                        }
                    }
                }
                Instruction::Run(run) => {
                    // One that needs what is not known before the build cannot be told.
                    let mounts = { run.mounts.iter() }
                        .filter_map(|text| Mount::parse(&scope.word(text, &[]).ok()?).ok());
                    for mount in mounts {
                        let (id, required, all) = match mount.kind {
                            MountKind::Secret { id, required, .. } => {
                                (id, required, &mut self.secrets)
                            }
                            MountKind::Ssh { id, required, .. } => (id, required, &mut self.agents),
                            _ => continue,
                        };
                        all.push(Taken {
                            required,
                            ..Taken::at(&id, step.position, &step.notes)
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Each name once, in the order of the file.
    fn settle(&mut self) {
        for all in [&mut self.args, &mut self.secrets, &mut self.agents] {
            all.sort_by_key(|taken| taken.first_line);
            let mut seen = BTreeSet::new();
            all.retain(|taken| seen.insert(taken.name.clone()));
        }
    }
}

/// Whether a text has a variable.
fn mentions(text: &str, name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split('$').skip(1).any(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name)
            .is_some_and(|after| !after.starts_with(is_name))
    })
}

fn outline(request: &Request, definition: &Definition) -> Result<Answer> {
    let stages = definition.plan(request)?.stages;
    let mut outline = Outline::default();
    outline.global(request, definition, &stages);
    for at in &stages {
        outline.stage(request, definition, *at)?;
    }
    outline.settle();
    let target = stages.last().map(|at| &definition.file.stages[*at]);
    let name = target
        .and_then(|stage| stage.from.name.as_deref())
        .unwrap_or_default();
    let said = target
        .and_then(|stage| description(&stage.notes, name))
        .unwrap_or_default();
    let mut document = json!({ "sources": [] });
    add(&mut document, "name", name);
    add(&mut document, "description", said);
    let described = |taken: &Taken| {
        let mut one =
            json!({ "name": taken.name, "location": location(taken.first_line, taken.last_line) });
        add(&mut one, "description", &taken.description);
        add(&mut one, "value", &taken.value);
        if taken.required {
            one["required"] = true.into();
        }
        one
    };
    for (kind, all) in [
        ("args", &outline.args),
        ("secrets", &outline.secrets),
        ("ssh", &outline.agents),
    ] {
        if !all.is_empty() {
            document[kind] = all.iter().map(described).collect();
        }
    }
    Ok(Answer {
        document,
        text: in_words(name, said, &outline),
    })
}

fn in_words(name: &str, said: &str, outline: &Outline) -> String {
    let mut text = String::new();
    if !name.is_empty() {
        let mut rows = vec![vec!["TARGET:", name]];
        if !said.is_empty() {
            rows.push(vec!["DESCRIPTION:", said]);
        }
        text = table(&rows, TARGETS_PADDING) + "\n";
    }
    if !outline.args.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        let row = |it| {
            let Taken {
                name,
                value,
                description,
                ..
            }: &Taken = it;
            vec![name.as_str(), value, description]
        };
        rows.extend(outline.args.iter().map(row));
        text += &(table(&rows, OUTLINE_PADDING) + "\n");
    }
    for (heading, all) in [("SECRET", &outline.secrets), ("SSH", &outline.agents)] {
        if !all.is_empty() {
            let mut rows = vec![vec![heading, "REQUIRED"]];
            let row = |it: &'_ Taken| if it.required { "true" } else { "" };
            rows.extend(all.iter().map(|it| vec![it.name.as_str(), row(it)]));
            text += &(table(&rows, OUTLINE_PADDING) + "\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::parse;

    #[test]
    fn targets_are_listed() {
        let file = "# one is the first\nFROM a AS one\nFROM b\nFROM one AS two\n";
        let answer = targets(&parse("Dockerfile", file.as_bytes()).unwrap());
        assert_eq!(
            answer.text,
            "TARGET        DESCRIPTION\none           is the first\ntwo (default) \n"
        );
        assert_eq!(answer.document["targets"][1]["base"], "one");
        assert_eq!(answer.document["targets"][0]["description"], "is the first");
    }

    #[test]
    fn variables_are_found_in_texts() {
        for (text, found) in [
            ("$A", true),
            ("x:${A:-1}", true),
            ("$AB", false),
            ("A", false),
            ("$B-$A", true),
        ] {
            assert_eq!(mentions(text, "A"), found, "{text}");
        }
    }
}
