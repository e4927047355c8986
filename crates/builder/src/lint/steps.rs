//! Checks of what stages do, instruction by instruction, with the variables that each of them sees.

use super::{BaseImage, Lint, Place, Rule, World, expanded, expanded_as, meant, word_of};
use crate::language::{Command, Dockerfile, Instruction, Pair, Run, Step, Transfer};
use oci::image::Platform;
use std::collections::BTreeMap;

/// Words of names whose value is probably a secret.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "passwd",
    "pword",
    "secret",
    "token",
];
/// Words of names whose value is none after all.
const NO_SECRET: [&str; 3] = ["file", "public", "version"];

/// What a stage has come to.
#[derive(Clone, Default)]
struct State<'a> {
    /// Variables and arguments with a value.
    values: BTreeMap<String, String>,
    /// Arguments without one.
    declared: Vec<String>,
    /// Nothing is known of the base image, which may set any variable.
    is_open: bool,
    has_workdir: bool,
    has_shell: bool,
    /// Where an instruction stands of which only the last one counts.
    last: BTreeMap<&'static str, Place<'a>>,
}

impl State<'_> {
    fn get(&self, name: &str) -> Option<String> {
        // Every image has this one.
        let of_every_image = || (name == "PATH").then(String::new);
        self.values.get(name).cloned().or_else(of_every_image)
    }
}

pub(super) fn check(lint: &mut Lint<'_>, file: &Dockerfile, world: &World<'_>) {
    let mut done: BTreeMap<usize, State<'_>> = BTreeMap::new();
    // A stage may stand on any of those before it, wanted or not.
    for (at, stage) in file.stages.iter().enumerate() {
        let is_wanted = world.stages.contains(&at);
        let mut quiet = Lint {
            directive: lint.directive,
            found: Vec::new(),
        };
        let mut checker = Checker {
            lint: if is_wanted { lint } else { &mut quiet },
            world,
            escape: file.directives.escape,
            state: State::default(),
        };
        let base = &world.bases[at];
        match file.stage(base, at).and_then(|parent| done.get(&parent)) {
            Some(parent) => {
                checker.state = State {
                    last: BTreeMap::new(),
                    ..parent.clone()
                };
            }
            None => checker.outside(base, stage.from.platform.as_deref(), stage.into()),
        }
        for step in &stage.steps {
            checker.step(step);
        }
        let state = checker.state;
        done.insert(at, state);
        // How instructions are written counts in all stages.
        let of_writing = |rule| {
            matches!(
                rule,
                Rule::MaintainerDeprecated | Rule::LegacyKeyValueFormat
            )
        };
        quiet.found.retain(|finding| of_writing(finding.rule));
        lint.found.append(&mut quiet.found);
    }
}

struct Checker<'l, 'd, 'a> {
    lint: &'l mut Lint<'d>,
    world: &'l World<'l>,
    escape: char,
    state: State<'a>,
}

impl<'a> Checker<'_, '_, 'a> {
    /// Begins on an image.
    fn outside(&mut self, base: &str, platform: Option<&str>, place: Place<'_>) {
        if base == "scratch" {
            return;
        }
        let Some(image) = (self.world.image)(base) else {
            self.state.is_open = true;
            return;
        };
        let global = |name: &str| self.world.global.get(name, &[]);
        let wanted = platform.and_then(|text| expanded(text, self.escape, &global).0);
        let wanted = wanted.and_then(|text| text.parse::<Platform>().ok());
        let wanted = wanted.as_ref().unwrap_or(self.world.platform);
        let BaseImage {
            env,
            has_shell,
            platform,
        } = image;
        if wanted.os != platform.os || wanted.architecture != platform.architecture {
            let detail = format!(
                "Base image {base} was pulled with platform \"{platform}\", expected \"{wanted}\" for current build"
            );
            self.lint.say(Rule::InvalidBaseImagePlatform, place, detail);
        }
        self.state.has_shell = has_shell;
        for (name, value) in env.iter().filter_map(|variable| variable.split_once('=')) {
            self.state.values.insert(name.to_owned(), value.to_owned());
        }
    }

    /// A word with its variables replaced; those that nothing sets are found.
    fn word(&mut self, text: &str, place: Place<'_>) -> Option<String> {
        let (word, missing) = expanded(text, self.escape, &|name| self.state.get(name));
        let is_whole = missing.is_empty() || !self.state.is_open;
        self.undefined(missing, place);
        word.filter(|_| is_whole)
    }

    fn undefined(&mut self, missing: Vec<String>, place: Place<'_>) {
        if self.state.is_open {
            return;
        }
        for name in missing {
            if self.state.declared.contains(&name) {
                continue;
            }
            let known = self.state.values.keys().map(String::as_str);
            let known: Vec<String> = known
                .chain(["PATH"])
                .map(|known| format!("${known}"))
                .collect();
            let hint = meant(&format!("${name}"), known.iter().map(String::as_str));
            let detail = format!("Usage of undefined variable '${name}'{hint}");
            self.lint.say(Rule::UndefinedVar, place, detail);
        }
    }

    fn words<'t>(&mut self, texts: impl IntoIterator<Item = &'t String>, place: Place<'_>) {
        for text in texts {
            self.word(text, place);
        }
    }

    fn step(&mut self, step: &'a Step) {
        let place = Place::from(step);
        let word = word_of(&step.text);
        match &step.instruction {
            Instruction::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                self.lint
                    .say(Rule::MaintainerDeprecated, place, detail.to_owned());
            }
            Instruction::Cmd(command) => {
                self.once("CMD", word, place);
                self.command(command, word, place);
            }
            Instruction::Entrypoint(command) => {
                self.once("ENTRYPOINT", word, place);
                self.command(command, word, place);
            }
            // A check gets no signals: its shell is in nobody's way.
            Instruction::Healthcheck(_) => self.once("HEALTHCHECK", word, place),
            Instruction::Shell(_) => self.state.has_shell = true,
            Instruction::Env(pairs) => self.env(pairs, word, place),
            Instruction::Label(pairs) => {
                self.legacy(pairs, word, place);
                for pair in pairs {
                    self.words([&pair.name, &pair.value], place);
                }
            }
            Instruction::Arg(_) => self.arg(step),
            Instruction::Expose(ports) => self.expose(ports, place),
            Instruction::Workdir(path) => self.workdir(path, place),
            Instruction::Copy(transfer) => self.transfer(transfer, "Copy", place),
            Instruction::Add(transfer) => self.transfer(transfer, "Add", place),
            Instruction::Run(Run { mounts, .. }) => self.words(mounts, place),
            Instruction::Volume(paths) => self.words(paths, place),
            Instruction::User(text) | Instruction::Stopsignal(text) => self.words([text], place),
            Instruction::From(_) | Instruction::Onbuild(_) => {}
        }
    }

    fn once(&mut self, instruction: &'static str, word: &str, place: Place<'a>) {
        if let Some(earlier) = self.state.last.insert(instruction, place) {
            let detail = format!(
                "Multiple {word} instructions should not be used in the same stage because only the last one will be used"
            );
            self.lint
                .say(Rule::MultipleInstructionsDisallowed, earlier, detail);
        }
    }

    fn command(&mut self, command: &Command, word: &str, place: Place<'_>) {
        if matches!(command, Command::Shell(_)) && !self.state.has_shell {
            let detail = format!(
                "JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
            );
            self.lint.say(Rule::JSONArgsRecommended, place, detail);
        }
    }

    fn legacy(&mut self, pairs: &[Pair], word: &str, place: Place<'_>) {
        if pairs.iter().any(|pair| pair.legacy) {
            let detail = format!(
                "\"{word} key=value\" should be used instead of legacy \"{word} key value\" format"
            );
            self.lint.say(Rule::LegacyKeyValueFormat, place, detail);
        }
    }

    fn secret(&mut self, word: &str, name: &str, place: Place<'_>) {
        let lower = name.to_ascii_lowercase();
        let name_has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if name_has(&SECRET) && !name_has(&NO_SECRET) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({word} {name:?})");
            self.lint.say(Rule::SecretsUsedInArgOrEnv, place, detail);
        }
    }

    fn env(&mut self, pairs: &[Pair], word: &str, place: Place<'_>) {
        self.legacy(pairs, word, place);
        // All see what was there before the instruction.
        let mut set = Vec::new();
        for pair in pairs {
            let name = self.word(&pair.name, place).unwrap_or_default();
            self.secret("ENV", &name, place);
            let value = self.word(&pair.value, place).unwrap_or_default();
            set.push((name, value));
        }
        self.state.values.extend(set);
    }

    fn arg(&mut self, step: &Step) {
        let place = Place::from(step);
        let Instruction::Arg(arguments) = &step.instruction else {
            return;
        };
        for argument in arguments {
            let name = &argument.name;
            self.secret("ARG", name, place);
            let given = self.world.build_args.get(name).cloned();
            let default = match (&given, &argument.default) {
                (None, Some(text)) => self.word(text, place),
                _ => None,
            };
            // Without a default it is the one from before the first FROM, or what is known beforehand.
            let value = given
                .or(default)
                .or_else(|| self.world.global.get(name, &[]));
            match value {
                Some(value) => drop(self.state.values.insert(name.clone(), value)),
                None => self.state.declared.push(name.clone()),
            }
        }
    }

    fn expose(&mut self, ports: &[String], place: Place<'_>) {
        for text in ports {
            // What is not defined in it is not told of, as Docker's builder has it.
            let get = |name: &str| self.state.get(name);
            let (port, missing) = expanded(text, self.escape, &get);
            let Some(port) = port.filter(|_| missing.is_empty() || !self.state.is_open) else {
                continue;
            };
            let (numbers, protocol) = port.split_once('/').unwrap_or((&port, ""));
            if protocol != protocol.to_ascii_lowercase() {
                let detail =
                    format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.lint.say(Rule::ExposeProtoCasing, place, detail);
            }
            if numbers.contains(':') {
                let detail = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                );
                self.lint.say(Rule::ExposeInvalidFormat, place, detail);
            }
        }
    }

    fn workdir(&mut self, path: &str, place: Place<'_>) {
        let path = self.word(path, place);
        let was_set = std::mem::replace(&mut self.state.has_workdir, true);
        if let Some(path) = path.filter(|path| !was_set && !path.starts_with('/')) {
            let detail = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.lint.say(Rule::WorkdirRelativePath, place, detail);
        }
    }

    fn transfer(&mut self, transfer: &Transfer, verb: &str, place: Place<'_>) {
        let ignore = self.world.ignore;
        for source in &transfer.sources {
            let Some(path) = self.word(source, place) else {
                continue;
            };
            let is_of_context = transfer.from.is_none() && !is_address(&path);
            // What an exception keeps of an excluded directory cannot be told beforehand.
            if !is_of_context || ignore.has_exceptions() {
                continue;
            }
            let path = clean(&path);
            if !path.is_empty() && ignore.excludes(&path) {
                let detail =
                    format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.lint.say(Rule::CopyIgnoredFile, place, detail);
            }
        }
        self.word(&transfer.target, place);
        self.words(&transfer.chown, place);
        self.words(&transfer.chmod, place);
        for document in transfer.documents.iter().filter(|document| document.expand) {
            let get = |name: &str| self.state.get(name);
            let (_, missing) = expanded_as(
                |expander, text| expander.document(text),
                &document.content,
                self.escape,
                &get,
            );
            self.undefined(missing, place);
        }
    }
}

fn is_address(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@")
}

/// A path in the context without `.` and empty parts.
fn clean(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}
