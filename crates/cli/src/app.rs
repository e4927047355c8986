//! The command tree, and the way from argv to one command.

use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::pages::Face;
use crate::session::{GLOBAL_FLAGS, Session};
use crate::{
    build, checkpoint, completion, container, context, help, image, inspect, network, output,
    registry, system, volume,
};
use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// What a command does when called.
pub(crate) type Run =
    for<'a> fn(&'a Session, &'a Matches) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    /// Its arguments, for help.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    /// All its names, for help; empty where it has but one.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) arity: Arity,
    /// Whether flags may follow the first argument.
    pub(crate) interspersed: bool,
    pub(crate) run: Run,
}

/// How many arguments a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

impl Arity {
    /// What is wrong with this many arguments.
    fn problem(self, count: usize) -> Option<String> {
        let plural = |count| if count == 1 { "argument" } else { "arguments" };
        match self {
            Self::Exactly(wanted) if count == wanted => None,
            Self::Exactly(0) => Some("accepts no arguments".to_owned()),
            Self::Exactly(wanted) => Some(format!("requires {wanted} {}", plural(wanted))),
            Self::AtLeast(least) if count >= least => None,
            Self::AtLeast(least) => Some(format!("requires at least {least} {}", plural(least))),
            Self::Between(least, most) if (least..=most).contains(&count) => None,
            Self::Between(0, most) => Some(format!("requires at most {most} {}", plural(most))),
            Self::Between(least, most) => Some(format!(
                "requires at least {least} and at most {most} {}",
                plural(most)
            )),
        }
    }
}

/// A line of the command tree.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    Command {
        name: &'static str,
        hidden: bool,
        command: &'static Command,
    },
    Group {
        name: &'static str,
        about: &'static str,
        entries: &'static [Entry],
    },
}

impl Entry {
    pub(crate) const fn command(name: &'static str, command: &'static Command) -> Self {
        Self::Command {
            name,
            hidden: false,
            command,
        }
    }

    /// Another name, which help does not list.
    pub(crate) const fn alias(name: &'static str, command: &'static Command) -> Self {
        Self::Command {
            name,
            hidden: true,
            command,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Command { name, .. } | Self::Group { name, .. } => name,
        }
    }

    pub(crate) fn about(&self) -> &'static str {
        match self {
            Self::Command { command, .. } => command.about,
            Self::Group { about, .. } => about,
        }
    }

    pub(crate) fn hidden(&self) -> bool {
        matches!(self, Self::Command { hidden: true, .. })
    }
}

pub(crate) const ROOT: &[Entry] = &[
    Entry::command("attach", &container::attach::ATTACH),
    Entry::command("build", &build::BUILD),
    Entry::command("commit", &container::commit::COMMIT),
    Entry::command("completion", &completion::COMPLETION),
    Entry::command("cp", &container::cp::CP),
    Entry::command("create", &container::create::CREATE),
    Entry::command("diff", &container::diff::DIFF),
    Entry::command("events", &system::events::EVENTS),
    Entry::command("exec", &container::exec::EXEC),
    Entry::command("export", &container::export::EXPORT),
    Entry::command("history", &image::history::HISTORY),
    Entry::command("images", &image::ls::IMAGES),
    Entry::command("import", &image::import::IMPORT),
    Entry::command("info", &system::info::INFO),
    Entry::command("inspect", &inspect::INSPECT),
    Entry::command("kill", &container::lifecycle::KILL),
    Entry::command("load", &image::load::LOAD),
    Entry::command("login", &registry::login::LOGIN),
    Entry::command("logout", &registry::logout::LOGOUT),
    Entry::command("logs", &container::logs::LOGS),
    Entry::command("pause", &container::lifecycle::PAUSE),
    Entry::command("port", &container::port::PORT),
    Entry::command("ps", &container::ls::LS),
    Entry::command("pull", &registry::pull::PULL),
    Entry::command("push", &registry::push::PUSH),
    Entry::command("rename", &container::lifecycle::RENAME),
    Entry::command("restart", &container::lifecycle::RESTART),
    Entry::command("rm", &container::lifecycle::RM),
    Entry::command("rmi", &image::rm::RM),
    Entry::command("run", &container::run::RUN),
    Entry::command("save", &image::save::SAVE),
    Entry::command("search", &registry::search::SEARCH),
    Entry::command("start", &container::start::START),
    Entry::command("stats", &container::stats::STATS),
    Entry::command("stop", &container::lifecycle::STOP),
    Entry::command("tag", &image::tag::TAG),
    Entry::command("top", &container::top::TOP),
    Entry::command("unpause", &container::lifecycle::UNPAUSE),
    Entry::command("update", &container::update::UPDATE),
    Entry::command("version", &system::version::VERSION),
    Entry::command("wait", &container::lifecycle::WAIT),
    Entry::Group {
        name: "builder",
        about: "Build images, and manage what builds leave",
        entries: build::ENTRIES,
    },
    Entry::Group {
        name: "checkpoint",
        about: "Manage checkpoints",
        entries: checkpoint::ENTRIES,
    },
    Entry::Group {
        name: "container",
        about: "Manage containers",
        entries: container::ENTRIES,
    },
    Entry::Group {
        name: "context",
        about: "Manage names for engines and the ways to them",
        entries: context::ENTRIES,
    },
    Entry::Group {
        name: "image",
        about: "Manage images",
        entries: image::ENTRIES,
    },
    Entry::Group {
        name: "manifest",
        about: "Manage lists of manifests for several platforms",
        entries: registry::manifest::ENTRIES,
    },
    Entry::Group {
        name: "network",
        about: "Manage networks",
        entries: network::ENTRIES,
    },
    Entry::Group {
        name: "system",
        about: "Manage the engine",
        entries: system::ENTRIES,
    },
    Entry::Group {
        name: "volume",
        about: "Manage volumes",
        entries: volume::ENTRIES,
    },
];

/// Docker's commands that have no counterpart here yet.
const UNSUPPORTED: &[&str] = &[
    "bake", "buildx", "compose", "config", "debug", "init", "model", "node", "plugin", "scout",
    "secret", "service", "stack", "swarm", "trust",
];

/// Runs one command line.
pub(crate) fn run(args: Vec<OsString>, faces: fn() -> Vec<Face>) -> Result<()> {
    let mut texts = Vec::with_capacity(args.len());
    for arg in args {
        texts.push(
            arg.into_string()
                .map_err(crate::flags::FlagError::NotUtf8)?,
        );
    }
    let program = texts.first().map(String::as_str).unwrap_or_default();
    let program = match Path::new(program)
        .file_name()
        .and_then(|name| name.to_str())
    {
        Some("docker") => "docker",
        _ => "hull",
    };
    let global = Matches::parse(&[GLOBAL_FLAGS], texts.get(1..).unwrap_or_default(), false)
        .map_err(|source| Error::Flags {
            source,
            usage: format!("{program} [OPTIONS] COMMAND [ARG...]"),
            command: program.to_owned(),
        })?;
    if global.on("version") {
        return output::line(&format!("{program} version {}", env!("CARGO_PKG_VERSION")));
    }
    let words = global.args.clone();
    if words.is_empty() || global.help {
        return output::print(&help::program(program, &visible(ROOT), GLOBAL_FLAGS));
    }
    let session = Session::new(program.to_owned(), global, faces);
    match words[0].as_str() {
        "help" => show_help(&session, &words[1..]),
        completion::QUESTION => completion::answer(program, faces, &words[1..], true),
        completion::PLAIN_QUESTION => completion::answer(program, faces, &words[1..], false),
        _ => dispatch(&session, &words),
    }
}

fn visible(entries: &[Entry]) -> Vec<Entry> {
    entries
        .iter()
        .filter(|entry| !entry.hidden())
        .copied()
        .collect()
}

/// `help run`, `help container run`.
fn show_help(session: &Session, words: &[String]) -> Result<()> {
    let mut words = words.to_vec();
    words.push("--help".to_owned());
    if words.len() == 1 {
        let program = &session.program;
        return output::print(&help::program(program, &visible(ROOT), GLOBAL_FLAGS));
    }
    dispatch(session, &words)
}

/// Follows the words down the tree.
fn dispatch(session: &Session, words: &[String]) -> Result<()> {
    let mut path = session.program.clone();
    let mut entries = ROOT;
    let mut group_about = "";
    for (index, word) in words.iter().enumerate() {
        if index > 0 && (word == "--help" || word == "-h") {
            break;
        }
        match entries.iter().find(|entry| entry.name() == word) {
            Some(Entry::Command { command, .. }) => {
                return invoke(
                    session,
                    &format!("{path} {word}"),
                    command,
                    &words[index + 1..],
                );
            }
            Some(Entry::Group {
                name,
                about,
                entries: below,
            }) => {
                path = format!("{path} {name}");
                (entries, group_about) = (below, about);
            }
            None => return Err(unknown(session, &path, word, index)),
        }
    }
    output::print(&help::group(&path, group_about, &visible(entries)))
}

fn unknown(session: &Session, path: &str, word: &str, depth: usize) -> Error {
    let program = session.program.clone();
    let command = format!("{path} {word}");
    match depth == 0 && UNSUPPORTED.contains(&word) {
        true => Error::Unsupported { program, command },
        false => Error::UnknownCommand {
            program,
            command,
            group: path.to_owned(),
        },
    }
}

fn invoke(session: &Session, path: &str, command: &Command, args: &[String]) -> Result<()> {
    let usage = format!("{path}{}", help::suffix(command.usage));
    let matches = Matches::parse(command.flags, args, command.interspersed).map_err(|source| {
        Error::Flags {
            source,
            usage: usage.clone(),
            command: path.to_owned(),
        }
    })?;
    if matches.help {
        return output::print(&help::command(path, command));
    }
    if let Some(problem) = command.arity.problem(matches.args.len()) {
        let (program, command) = (session.program.clone(), path.to_owned());
        return Err(Error::Arguments {
            program,
            command,
            problem,
            usage,
        });
    }
    block_on((command.run)(session, &matches))
}

/// Runs what waits for the engine, on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| Error::Io {
            call: "epoll_create1()".to_owned(),
            source,
        })?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(entries: &'static [Entry], path: &str, visit: &mut impl FnMut(&str, &Command)) {
        for entry in entries {
            match entry {
                Entry::Command { name, command, .. } => visit(&format!("{path} {name}"), command),
                Entry::Group { name, entries, .. } => {
                    every(entries, &format!("{path} {name}"), visit)
                }
            }
        }
    }

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        every(ROOT, "hull", &mut |path, command| {
            let flags = || command.flags.iter().flat_map(|table| table.iter());
            for flag in flags() {
                assert_eq!(
                    flags().filter(|other| other.long == flag.long).count(),
                    1,
                    "{path} --{}",
                    flag.long
                );
                if let Some(short) = flag.short {
                    assert_eq!(
                        flags().filter(|other| other.short == Some(short)).count(),
                        1,
                        "{path} -{short}"
                    );
                }
            }
        });
    }

    #[test]
    fn every_alias_exists() {
        let mut paths = Vec::new();
        every(ROOT, "", &mut |path, _| paths.push(path.trim().to_owned()));
        every(ROOT, "", &mut |path, command| {
            for alias in command.aliases {
                assert!(paths.iter().any(|known| known == alias), "{path}: {alias}");
            }
        });
    }

    #[test]
    fn wrong_numbers_of_arguments() {
        assert_eq!(
            Arity::Exactly(0).problem(1).unwrap(),
            "accepts no arguments"
        );
        assert_eq!(
            Arity::Exactly(2).problem(1).unwrap(),
            "requires 2 arguments"
        );
        assert_eq!(
            Arity::AtLeast(1).problem(0).unwrap(),
            "requires at least 1 argument"
        );
        assert_eq!(
            Arity::Between(0, 1).problem(2).unwrap(),
            "requires at most 1 argument"
        );
        assert_eq!(
            Arity::Between(1, 2).problem(0).unwrap(),
            "requires at least 1 and at most 2 arguments"
        );
        assert_eq!(Arity::AtLeast(1).problem(3), None);
    }
}
