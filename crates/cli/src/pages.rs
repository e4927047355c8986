//! The whole command line as pages of one shape: the program, its groups and its commands, those included that other crates
//! answer. Completion and manual pages are made of them.
//!
//! Commands come from the tree of [`crate::app`]; the faces that read their words elsewhere (the engine, the registry, the
//! runtime) are handed in by the program.

use crate::app::{Entry, ROOT};
use crate::flags::Flag;
use crate::help;
use crate::session::GLOBAL_FLAGS;

/// A command that the program answers elsewhere than in this crate.
#[derive(Debug, Clone)]
pub struct Face {
    /// Its words behind the program's name: `registry serve`.
    pub path: String,
    /// Its arguments.
    pub usage: String,
    /// What it does.
    pub about: String,
    /// Its flags.
    pub options: Vec<Choice>,
}

/// A flag, as a person reads of it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The name behind two dashes.
    pub long: String,
    /// The letter behind one.
    pub short: Option<char>,
    /// What its value is called; empty where it takes none.
    pub value: String,
    /// What it does.
    pub help: String,
    /// Known, and not shown.
    pub hidden: bool,
}

impl From<&Flag> for Choice {
    fn from(flag: &Flag) -> Self {
        Self {
            long: flag.long.to_owned(),
            short: flag.short,
            value: flag.value_name().to_owned(),
            help: help::right(flag),
            hidden: flag.hidden,
        }
    }
}

/// The program, a group or a command.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Its words behind the program's name; empty for the program itself.
    pub(crate) path: String,
    pub(crate) usage: String,
    pub(crate) about: String,
    /// All its names, where it has more than one.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) options: Vec<Choice>,
    /// Whether flags may follow the first argument.
    pub(crate) interspersed: bool,
    /// The words that may follow, with what they do.
    pub(crate) commands: Vec<(String, String)>,
    /// Another name of a page that is listed.
    pub(crate) hidden: bool,
}

impl Page {
    fn group(path: &str, about: &str, entries: &[Entry]) -> Self {
        let shown = entries.iter().filter(|entry| !entry.hidden());
        Self {
            path: path.to_owned(),
            usage: "COMMAND".to_owned(),
            about: about.to_owned(),
            aliases: &[],
            options: Vec::new(),
            interspersed: false,
            commands: shown
                .map(|entry| (entry.name().to_owned(), entry.about().to_owned()))
                .collect(),
            hidden: false,
        }
    }

    fn face(face: Face) -> Self {
        Self {
            usage: face.usage,
            options: face.options,
            interspersed: true,
            ..Self::group(&face.path, &face.about, &[])
        }
    }
}

/// Every page, the program's first, each behind that of its group.
pub(crate) fn all(faces: Vec<Face>) -> Vec<Page> {
    let mut program = Page::group("", "A container engine", ROOT);
    program.usage = "[OPTIONS] COMMAND".to_owned();
    program.options = GLOBAL_FLAGS.iter().map(Choice::from).collect();
    let tops = faces.iter().filter(|face| !face.path.contains(' '));
    program
        .commands
        .extend(tops.map(|face| (face.path.clone(), face.about.clone())));
    program.commands.sort();
    let mut pages = vec![program];
    add(&mut pages, "", ROOT);
    for face in &faces {
        let below = faces.iter().filter_map(|other| {
            let word = other.path.strip_prefix(&face.path)?.strip_prefix(' ')?;
            Some((word.to_owned(), other.about.clone()))
        });
        pages.push(Page {
            commands: below.collect(),
            ..Page::face(face.clone())
        });
    }
    pages
}

fn add(pages: &mut Vec<Page>, above: &str, entries: &[Entry]) {
    for entry in entries {
        let path = format!("{above}{}", entry.name());
        let group = Page::group(&path, entry.about(), &[]);
        match entry {
            Entry::Group { entries, .. } => {
                pages.push(Page::group(&path, entry.about(), entries));
                add(pages, &format!("{path} "), entries);
            }
            Entry::Command { command, .. } => pages.push(Page {
                usage: command.usage.to_owned(),
                aliases: command.aliases,
                options: { command.flags.iter() }
                    .flat_map(|table| table.iter())
                    .map(Choice::from)
                    .collect(),
                interspersed: command.interspersed,
                hidden: entry.hidden(),
                ..group
            }),
        }
    }
}
