//! `hull completion`, and what the shells' scripts ask for while a command line is written.
//!
//! ```text
//! hull.bash hull.zsh hull.fish   the scripts: they pass the words on, and show what comes back
//! place                          which word of which command is being written
//! values                         what may stand there: words that are known, or names of which the engine tells
//! ```
//!
//! The scripts call `hull __complete WORD...`, the last word being the one that is written. The answer is a line for each word
//! that may stand there, with a tab before its description, and at last a colon and a sum of [`NO_SPACE`] and [`NO_FILES`]: the
//! protocol of Go's cobra, so that scripts made for docker's client work with this one, too.
//!
//! Invariants: a question of a shell starts no engine, takes no longer than [`TIMEOUT`], and writes nothing on standard error.

mod place;
mod values;

use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::pages::{self, Face, Page};
use crate::session::{GLOBAL_FLAGS, Session};
use place::Place;
use std::time::Duration;

/// The words that the scripts ask by; with the second one the answer has no descriptions.
pub(crate) const QUESTION: &str = "__complete";
pub(crate) const PLAIN_QUESTION: &str = "__completeNoDesc";

/// No space behind the word: more of it may follow.
const NO_SPACE: u8 = 2;
/// Names of files are no words that may stand there.
const NO_FILES: u8 = 4;

/// How long the engine may take: a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The shells, and their scripts.
pub(crate) const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("hull.bash")),
    ("fish", include_str!("hull.fish")),
    ("zsh", include_str!("hull.zsh")),
];

const FLAGS: &[Flag] = &[Flag::bool(
    "no-descriptions",
    "Show words without what they mean",
)];

pub(crate) const COMPLETION: Command = Command {
    usage: "[OPTIONS] SHELL",
    about: "Print the completion script of a shell: bash, zsh or fish",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async { print_script(session, matches) }),
};

fn print_script(session: &Session, matches: &Matches) -> Result<()> {
    let shell = matches.args[0].as_str();
    let descriptions = !matches.on("no-descriptions");
    match script(shell, &session.program, descriptions) {
        Some(text) => output::print(&text),
        None => Err(Error::msg(format!(
            "no completion for {shell:?}: there are bash, zsh and fish"
        ))),
    }
}

/// A shell's script for the program of this name.
pub(crate) fn script(shell: &str, program: &str, descriptions: bool) -> Option<String> {
    let (_, text) = SCRIPTS.iter().find(|(name, _)| *name == shell)?;
    let question = match descriptions {
        true => QUESTION,
        false => PLAIN_QUESTION,
    };
    Some(
        text.replace("@PROGRAM@", program)
            .replace("@COMPLETE@", question),
    )
}

/// A word that may stand where the cursor is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    word: String,
    about: String,
}

impl Candidate {
    fn new(word: impl Into<String>, about: impl Into<String>) -> Self {
        let (word, about) = (word.into(), about.into());
        Self { word, about }
    }
}

/// The answer to a shell.
#[derive(Debug, Default)]
struct Answer {
    candidates: Vec<Candidate>,
    directive: u8,
}

/// Answers a shell. What cannot be found out is not said: there is nowhere to say it.
pub(crate) fn answer(
    program: &str,
    faces: fn() -> Vec<Face>,
    words: &[String],
    descriptions: bool,
) -> Result<()> {
    let pages = pages::all(faces());
    let place = place::place(&pages, words);
    let written = words.last().map(String::as_str).unwrap_or_default();
    let answer = match place {
        Place::Command(page) => Answer {
            candidates: commands(page),
            directive: NO_FILES,
        },
        Place::Flag(page) => Answer {
            candidates: flags(page, written),
            directive: NO_FILES,
        },
        Place::Value { flag, before } => {
            values::of_flag(flag, &before, &asker(program, faces, words))
        }
        Place::Argument {
            page,
            name,
            earlier,
        } => values::of_argument(page, name, &earlier, &asker(program, faces, words)),
        Place::Unknown => Answer {
            candidates: Vec::new(),
            directive: NO_FILES,
        },
    };
    let mut text = String::new();
    for Candidate { word, about } in answer.candidates {
        if !word.starts_with(written) {
            continue;
        }
        text.push_str(&word);
        if descriptions && !about.is_empty() {
            text.push_str(&format!("\t{about}"));
        }
        text.push('\n');
    }
    output::print(&format!("{text}:{}\n", answer.directive))
}

/// The engine that the words before the command name.
fn asker(program: &str, faces: fn() -> Vec<Face>, words: &[String]) -> Session {
    let global = Matches::parse(&[GLOBAL_FLAGS], words, false).unwrap_or_default();
    Session::new(program.to_owned(), global, faces).that_starts_nothing()
}

fn commands(page: &Page) -> Vec<Candidate> {
    let mut commands: Vec<Candidate> = { page.commands.iter() }
        .map(|(name, about)| Candidate::new(name, about))
        .collect();
    if page.path.is_empty() {
        commands.push(Candidate::new("help", "Show help of a command"));
    }
    commands
}

/// The long names, and the letters where nothing but a dash is written.
fn flags(page: &Page, written: &str) -> Vec<Candidate> {
    let shown = || page.options.iter().filter(|flag| !flag.hidden);
    let mut flags: Vec<Candidate> = shown()
        .map(|flag| Candidate::new(format!("--{}", flag.long), &flag.help))
        .collect();
    flags.push(Candidate::new("--help", "Show help"));
    if written == "-" {
        flags.extend(shown().filter_map(|flag| {
            let letter = format!("-{}", flag.short?);
            Some(Candidate::new(letter, &flag.help))
        }));
    }
    flags.sort_by(|a, b| a.word.cmp(&b.word));
    flags
}
