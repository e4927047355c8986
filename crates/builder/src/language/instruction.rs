//! Typed instructions of logical lines.

use super::heredoc::Heredoc;
use super::mount::Mount;
use super::options::{Arguments, Parsed, Wrong, json};
use super::transfer::{self, Transfer};
use super::{heredoc, suggest};

/// An instruction. Words that may have variables still have them; see [`super::expand`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the instruction of its name")]
pub enum Instruction {
    From(From),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Label(Vec<Pair>),
    Maintainer(String),
    Expose(Vec<String>),
    Env(Vec<Pair>),
    Copy(Transfer),
    Add(Transfer),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    Arg(Vec<ArgDeclaration>),
    /// The instruction of the trigger, as it is written.
    Onbuild(String),
    Stopsignal(String),
    Healthcheck(Health),
    Shell(Vec<String>),
}

/// Every instruction, for suggestions.
pub(crate) const WORDS: [&str; 18] = [
    "FROM",
    "RUN",
    "CMD",
    "ENTRYPOINT",
    "LABEL",
    "MAINTAINER",
    "EXPOSE",
    "ENV",
    "COPY",
    "ADD",
    "VOLUME",
    "USER",
    "WORKDIR",
    "ARG",
    "ONBUILD",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "SHELL",
];

/// `FROM [--platform=…] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image, stage, named context or `scratch`, with variables.
    pub image: String,
    /// The stage's name in lower case.
    pub name: Option<String>,
    /// The platform of the image, with variables.
    pub platform: Option<String>,
}

/// A command, for a shell or as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(String),
    /// Words (JSON).
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: Command,
    /// The here-documents of the command.
    pub documents: Vec<Heredoc>,
    /// Mounts as they are written, with variables; see [`Mount::parse`].
    pub mounts: Vec<String>,
    /// Which network it has.
    pub network: RunNetwork,
    /// It has everything the host has (`--security=insecure`).
    pub insecure: bool,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// The build's.
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// `name=value`, with variables and quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// Written as `name value`, without `=`.
    pub legacy: bool,
}

/// `ARG name[=default]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name.
    pub name: String,
    /// The default, with variables and quotes.
    pub default: Option<String>,
}

/// `HEALTHCHECK`. Times are nanoseconds, 0 where not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is run.
    pub test: HealthTest,
    /// Between two checks.
    pub interval_ns: i64,
    /// How long one may take.
    pub timeout_ns: i64,
    /// How long the container may take to start.
    pub start_period_ns: i64,
    /// Between two checks meanwhile.
    pub start_interval_ns: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i64,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// Nothing, not even the base image's.
    None,
    /// A command.
    Command(Command),
}

/// Parses a line.
pub(crate) fn parse(arguments: &Arguments<'_>) -> Parsed<Instruction> {
    let word = arguments.word.as_str();
    match word {
        "FROM" => from(arguments).map(Instruction::From),
        "RUN" => run(arguments).map(Instruction::Run),
        "COPY" => transfer::parse(arguments).map(Instruction::Copy),
        "ADD" => transfer::parse(arguments).map(Instruction::Add),
        "HEALTHCHECK" => health(arguments).map(Instruction::Healthcheck),
        _ if WORDS.contains(&word) => {
            arguments.check_flags(&[], &[])?;
            plain(arguments, word)
        }
        _ => Err(Wrong {
            hint: suggest::hint(word, WORDS),
            ..Wrong::at(0, format!("unknown instruction: {word}"))
        }),
    }
}

/// The instructions without flags.
fn plain(arguments: &Arguments<'_>, word: &str) -> Parsed<Instruction> {
    if arguments.rest.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") {
        return Err(Wrong::at(
            0,
            format!("{word} requires at least one argument"),
        ));
    }
    let whole = || arguments.rest.to_owned();
    Ok(match word {
        "CMD" => Instruction::Cmd(command(arguments)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(arguments)?),
        "LABEL" => Instruction::Label(pairs(arguments)?),
        "MAINTAINER" => Instruction::Maintainer(whole()),
        "EXPOSE" => Instruction::Expose(arguments.fields()),
        "ENV" => Instruction::Env(pairs(arguments)?),
        "VOLUME" => Instruction::Volume(volumes(arguments)?),
        "USER" => Instruction::User(whole()),
        "WORKDIR" => Instruction::Workdir(whole()),
        "ARG" => Instruction::Arg(declarations(arguments)?),
        "ONBUILD" => Instruction::Onbuild(trigger(arguments)?),
        "STOPSIGNAL" => match arguments.fields().as_slice() {
            [signal] => Instruction::Stopsignal(signal.clone()),
            _ => return Err(arguments.wrong("STOPSIGNAL requires exactly one argument")),
        },
        _ => match arguments.json()? {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            _ => {
                return Err(arguments.wrong(
                    "SHELL requires the arguments to be in JSON form, with at least one of them",
                ));
            }
        },
    })
}

fn from(arguments: &Arguments<'_>) -> Parsed<From> {
    arguments.check_flags(&["platform"], &[])?;
    let words = arguments.fields();
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (image, Some(name)),
        [] => return Err(Wrong::at(0, "FROM requires either one or three arguments")),
        _ => {
            let message =
                "FROM requires either one or three arguments: FROM image, or FROM image AS name";
            return Err(arguments.wrong(message));
        }
    };
    let name = name.map(|name| name.to_ascii_lowercase());
    let plain = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    };
    if let Some(name) = name.as_deref().filter(|name| !plain(name)) {
        return Err(arguments.wrong(format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
        )));
    }
    Ok(From {
        image: image.clone(),
        name,
        platform: arguments.value("platform")?,
    })
}

fn run(arguments: &Arguments<'_>) -> Parsed<Run> {
    arguments.check_flags(&["network", "security"], &["mount"])?;
    let network = match arguments.value("network")?.as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => return Err(Wrong::at(0, format!("invalid network mode {other:?}"))),
    };
    let insecure = match arguments.value("security")?.as_deref() {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => return Err(Wrong::at(0, format!("invalid security mode {other:?}"))),
    };
    let mounts = arguments.values("mount")?;
    for (text, offset) in &mounts {
        // With variables it is not what it will be.
        if !text.contains('$') {
            Mount::parse(text).map_err(|message| Wrong::at(*offset, message))?;
        }
    }
    let command = command(arguments)?;
    if command == Command::Shell(String::new()) || command == Command::Exec(Vec::new()) {
        return Err(Wrong::at(0, "RUN requires at least one argument"));
    }
    Ok(Run {
        command,
        insecure,
        documents: arguments.line.heredocs.clone(),
        mounts: mounts.into_iter().map(|(text, _)| text).collect(),
        network,
    })
}

fn command(arguments: &Arguments<'_>) -> Parsed<Command> {
    Ok(match arguments.json()? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(arguments.rest.to_owned()),
    })
}

/// `name=value name="other value"`, or the older `name everything else`.
fn pairs(arguments: &Arguments<'_>) -> Parsed<Vec<Pair>> {
    let words = heredoc::split_raw(arguments.rest, arguments.escape);
    let first = words.first().copied().unwrap_or_default();
    if !first.contains('=') {
        let Some((name, value)) = arguments.rest.split_once(char::is_whitespace) else {
            let message = format!("{} must have two arguments", arguments.word);
            return Err(arguments.wrong(message));
        };
        return Ok(vec![Pair {
            name: name.to_owned(),
            value: value.trim_start().to_owned(),
            legacy: true,
        }]);
    }
    let pair = |word: &str| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Pair {
            name: name.to_owned(),
            value: value.to_owned(),
            legacy: false,
        }),
        Some(_) => Err(arguments.wrong(format!("{} names can not be blank", arguments.word))),
        None => Err(arguments.wrong(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    };
    words.into_iter().map(pair).collect()
}

fn declarations(arguments: &Arguments<'_>) -> Parsed<Vec<ArgDeclaration>> {
    let words = heredoc::split_raw(arguments.rest, arguments.escape);
    let declaration = |word: &str| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word, None),
        };
        if name.is_empty() {
            return Err(arguments.wrong("ARG names can not be blank"));
        }
        Ok(ArgDeclaration {
            name: name.to_owned(),
            default,
        })
    };
    words.into_iter().map(declaration).collect()
}

fn volumes(arguments: &Arguments<'_>) -> Parsed<Vec<String>> {
    let volumes = match arguments.json()? {
        Some(volumes) => volumes,
        None => arguments.fields(),
    };
    if volumes.is_empty() || volumes.iter().any(|volume| volume.trim().is_empty()) {
        return Err(arguments.wrong("VOLUME specified can not be an empty string"));
    }
    Ok(volumes)
}

fn trigger(arguments: &Arguments<'_>) -> Parsed<String> {
    let trigger = arguments.trigger();
    // As in Docker's: anything else is looked at when it is pulled.
    if matches!(trigger.word.as_str(), "ENV" | "LABEL") {
        pairs(&trigger)?;
    }
    match trigger.word.as_str() {
        "ONBUILD" => {
            let message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
            Err(arguments.wrong(message))
        }
        "FROM" | "MAINTAINER" => Err(arguments.wrong(format!(
            "{} isn't allowed as an ONBUILD trigger",
            trigger.word
        ))),
        word if WORDS.contains(&word) => {
            let written = arguments.line.written();
            Ok(written[arguments.offset..].to_owned())
        }
        word => Err(Wrong {
            hint: suggest::hint(word, WORDS),
            ..arguments.wrong(format!("unknown instruction: {word}"))
        }),
    }
}

fn health(arguments: &Arguments<'_>) -> Parsed<Health> {
    let times = ["interval", "timeout", "start-period", "start-interval"];
    arguments.check_flags(&[&times[..], &["retries"]].concat(), &[])?;
    let time = |name: &str| -> Parsed<i64> {
        let Some(text) = arguments.value(name)?.filter(|text| !text.is_empty()) else {
            return Ok(0);
        };
        images::changes::duration(&text).map_err(|message| Wrong::at(0, message))
    };
    let retries = match arguments.value("retries")?.filter(|text| !text.is_empty()) {
        None => 0,
        Some(text) => match text.parse() {
            Ok(retries) if retries >= 0 => retries,
            _ => {
                return Err(Wrong::at(
                    0,
                    format!("--retries must be at least 0, not {text:?}"),
                ));
            }
        },
    };
    let rest = arguments.rest;
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (kind.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "") => HealthTest::None,
        ("NONE", _) => return Err(arguments.wrong("HEALTHCHECK NONE takes no arguments")),
        ("CMD", "") => {
            return Err(arguments.wrong("Missing command after HEALTHCHECK CMD"));
        }
        ("CMD", rest) => HealthTest::Command(
            match json(rest).map_err(|message| arguments.wrong(message))? {
                Some(words) if words.is_empty() => {
                    return Err(arguments.wrong("Missing command after HEALTHCHECK CMD"));
                }
                Some(words) => Command::Exec(words),
                None => Command::Shell(rest.to_owned()),
            },
        ),
        ("", _) => return Err(arguments.wrong("HEALTHCHECK requires at least one argument")),
        (kind, _) => {
            return Err(Wrong {
                hint: suggest::hint(kind, ["CMD", "NONE"]),
                ..arguments.wrong(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))
            });
        }
    };
    let health = Health {
        test,
        interval_ns: time("interval")?,
        timeout_ns: time("timeout")?,
        start_period_ns: time("start-period")?,
        start_interval_ns: time("start-interval")?,
        retries,
    };
    Ok(match health.test {
        HealthTest::Command(_) => health,
        // Nothing is run, at any time.
        HealthTest::None => Health {
            test: HealthTest::None,
            interval_ns: 0,
            timeout_ns: 0,
            start_period_ns: 0,
            start_interval_ns: 0,
            retries: 0,
        },
    })
}
