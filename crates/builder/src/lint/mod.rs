//! Checks of a Dockerfile: what works, but had better be written otherwise.
//!
//! Source: the build checks of docker/dockerfile 1.20, whose names and sentences these are. A comment `# check=skip=RULE` above
//! an instruction leaves rules out for it alone, one at the top of the file for all.

mod froms;
mod rule;
mod steps;

pub use rule::Rule;

use crate::language::expand::{ExpandError, Expander};
use crate::language::{
    CheckDirective, Dockerfile, Instruction, Notes, Position, Stage, Step, suggest,
};
use crate::scope::Scope;
use oci::image::Platform;
use patterns::Ignore;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is at odds with it.
    pub detail: String,
    /// The first line of the instruction, from 1.
    pub first_line: u32,
    /// The last line.
    pub last_line: u32,
}

impl Finding {
    /// All of it in a line.
    pub fn short(&self) -> String {
        format!(
            "{:?}: {} (line {})",
            self.rule, self.detail, self.first_line
        )
    }
}

/// What is known of a base image.
#[derive(Debug, Clone)]
pub(crate) struct BaseImage {
    /// Its variables.
    pub(crate) env: Vec<String>,
    /// It says itself what the shell is.
    pub(crate) has_shell: bool,
    /// Its platform.
    pub(crate) platform: Platform,
}

/// What a Dockerfile is built with.
pub(crate) struct World<'a> {
    /// The client's arguments.
    pub(crate) build_args: &'a BTreeMap<String, String>,
    /// Arguments that need no declaration before FROM.
    pub(crate) known: &'a BTreeMap<String, String>,
    /// The arguments before the first FROM.
    pub(crate) global: &'a Scope,
    /// What each stage's FROM names.
    pub(crate) bases: &'a [String],
    /// The platform to build for.
    pub(crate) platform: &'a Platform,
    /// What is left out of the context.
    pub(crate) ignore: &'a Ignore,
    /// The stages that are built, whose instructions are looked at one by one.
    pub(crate) stages: &'a [usize],
    /// A base image by its name; `None` where it is not here.
    pub(crate) image: &'a dyn Fn(&str) -> Option<BaseImage>,
}

/// Checks a Dockerfile. What is found is in the order of its lines.
pub(crate) fn check(
    file: &Dockerfile,
    directive: &CheckDirective,
    world: &World<'_>,
) -> Vec<Finding> {
    let mut lint = Lint {
        directive,
        found: Vec::new(),
    };
    lines(&mut lint, file);
    froms::check(&mut lint, file, world);
    steps::check(&mut lint, file, world);
    lint.found
        .sort_by_key(|finding| (finding.first_line, finding.rule));
    lint.found
}

/// Where something is.
#[derive(Clone, Copy)]
struct Place<'a> {
    position: Position,
    notes: &'a Notes,
}

impl<'a> From<&'a Stage> for Place<'a> {
    fn from(stage: &'a Stage) -> Self {
        Self {
            position: stage.position,
            notes: &stage.notes,
        }
    }
}

impl<'a> From<&'a Step> for Place<'a> {
    fn from(step: &'a Step) -> Self {
        Self {
            position: step.position,
            notes: &step.notes,
        }
    }
}

struct Lint<'a> {
    directive: &'a CheckDirective,
    found: Vec<Finding>,
}

impl Lint<'_> {
    fn say(&mut self, rule: Rule, place: Place<'_>, detail: String) {
        let own = directive_of(place.notes);
        if !rule.is_wanted(&own.merged(self.directive)) {
            return;
        }
        self.found.push(Finding {
            rule,
            detail,
            first_line: place.position.line,
            last_line: place.notes.last_line.max(place.position.line),
        });
    }
}

/// What the comments above an instruction ask for; a comment that only looks like a directive asks for nothing.
fn directive_of(notes: &Notes) -> CheckDirective {
    let asked = notes.comments.iter().find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        let value = value.split_whitespace().next()?;
        (name.trim() == "check").then(|| CheckDirective::parse(value).ok())?
    });
    asked.unwrap_or_default()
}

/// A word with its variables replaced, and the names of those that nobody has set.
fn expanded(
    text: &str,
    escape: char,
    get: &dyn Fn(&str) -> Option<String>,
) -> (Option<String>, Vec<String>) {
    expanded_as(|expander, text| expander.word(text), text, escape, get)
}

/// What an expander makes of a text, and the names of variables that nobody has set.
fn expanded_as(
    expand: fn(&Expander<'_>, &str) -> Result<String, ExpandError>,
    text: &str,
    escape: char,
    get: &dyn Fn(&str) -> Option<String>,
) -> (Option<String>, Vec<String>) {
    let missing: RefCell<Vec<String>> = RefCell::default();
    let lookup = |name: &str| {
        let value = get(name);
        if value.is_none() && !missing.borrow().iter().any(|known| known == name) {
            missing.borrow_mut().push(name.to_owned());
        }
        value
    };
    let expander = Expander {
        escape,
        lookup: &lookup,
    };
    // What cannot be replaced fails the build, which says so better.
    match expand(&expander, text) {
        Ok(made) => (Some(made), missing.into_inner()),
        Err(ExpandError::Wanting(_)) => (None, missing.into_inner()),
        Err(ExpandError::Unreadable(_)) => (None, Vec::new()),
    }
}

/// ` (did you mean X?)`, or nothing.
fn meant<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let hint = suggest::hint(word, known);
    hint.map_or_else(String::new, |hint| format!(" ({hint})"))
}

/// The word that an instruction begins with, as it is written.
fn word_of(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// What is wrong with lines whatever they say.
fn lines(lint: &mut Lint<'_>, file: &Dockerfile) {
    let froms = file.stages.iter();
    let froms = froms.map(|stage| (Place::from(stage), stage.text.as_str()));
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    let steps = steps.map(|step| (Place::from(step), step.text.as_str()));
    let all: Vec<(Place<'_>, &str)> = froms.chain(steps).collect();
    let preamble = file.preamble.iter().map(Place::from);
    for place in preamble.chain(all.iter().map(|(place, _)| *place)) {
        if place.notes.empty_continuation {
            let detail = "Empty continuation line".to_owned();
            // It is told where the instruction ends.
            let end = Position {
                line: place.notes.last_line,
                ..place.position
            };
            let place = Place {
                position: end,
                ..place
            };
            lint.say(Rule::NoEmptyContinuation, place, detail);
        }
    }
    let is_lower = |text: &str| text == text.to_ascii_lowercase();
    let is_upper = |text: &str| text == text.to_ascii_uppercase();
    let words = || all.iter().map(|(_, text)| word_of(text));
    let majority_is_lower = words().filter(|word| is_lower(word)).count()
        > words().filter(|word| is_upper(word)).count();
    for (place, text) in &all {
        let word = word_of(text);
        let (fits, wanted) = match majority_is_lower {
            true => (is_lower(word), "lowercase"),
            false => (is_upper(word), "uppercase"),
        };
        if !fits {
            let detail = format!(
                "Command '{word}' should match the case of the command majority ({wanted})"
            );
            lint.say(Rule::ConsistentInstructionCasing, *place, detail);
        }
    }
    descriptions(lint, file);
}

/// Comments above what can be described.
fn descriptions(lint: &mut Lint<'_>, file: &Dockerfile) {
    let mut described = |word: &str, names: &[&str], place: Place<'_>| {
        let Some(comment) = place.notes.comments.last() else {
            return;
        };
        let first = word_of(comment);
        if names.is_empty() || names.contains(&first) || first.contains('=') {
            return;
        }
        let example = match names {
            [name] => *name,
            _ => "<arg_key>",
        };
        let detail =
            format!("Comment for {word} should follow the format: `# {example} <description>`");
        lint.say(Rule::InvalidDefinitionDescription, place, detail);
    };
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    for step in file.preamble.iter().chain(steps) {
        if let Instruction::Arg(arguments) = &step.instruction {
            let names: Vec<&str> = arguments.iter().map(|arg| arg.name.as_str()).collect();
            described("ARG", &names, Place::from(step));
        }
    }
    for stage in &file.stages {
        let names: Vec<&str> = stage.from.name.as_deref().into_iter().collect();
        described("FROM", &names, Place::from(stage));
    }
}

#[cfg(test)]
mod tests;
