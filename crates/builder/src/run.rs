//! RUN: a command in a container of the engine, on a layer of its own.

use crate::cache::Inputs;
use crate::config::{argv, set};
use crate::container::{Confinement, Container, Order};
use crate::emulation;
use crate::error::{Doing, Error, Result};
use crate::language::{Command, Heredoc, Run, RunNetwork};
use crate::mounts::{Document, Mounts};
use crate::scope::{PROXIES, SCANS};
use crate::shell;
use crate::stage::{LayerStep, Made, Stage};
use crate::transfer::file_name;
use engine::model::{NetworkMode, ProcessSpec};
use images::copy::Rest;
use std::collections::BTreeMap;

/// Where a here-document with an interpreter of its own is in the container.
const DOCUMENTS: &str = "/dev/pipes";

/// What a command is made of.
struct Words {
    argv: Vec<String>,
    env: Vec<String>,
    documents: Vec<Document>,
}

/// Does RUN.
pub(crate) fn run(stage: &mut Stage<'_, '_>, text: &str, run: &Run) -> Result<()> {
    let words = words(stage, run)?;
    let mounts = Mounts::read(stage, &run.mounts)?;
    let inputs = inputs(stage, run, &words, &mounts);
    let step = LayerStep {
        text,
        told: told(stage, &words),
        inputs,
        is_apart: false,
    };
    let confinement = Confinement::of(stage, run)?;
    stage.layer_step(step, |stage| execute(stage, words, &mounts, confinement))
}

impl Confinement {
    /// As the Dockerfile says, as far as the client allows it.
    fn of(stage: &Stage<'_, '_>, run: &Run) -> Result<Self> {
        let request = stage.build.request;
        let refused = |name: &str| {
            Err(Error::Invalid(format!(
                "{name} is not allowed: --allow {name} does that"
            )))
        };
        // Who gives all commands the host's network gives it this one, too.
        let allows_host = request.allowances.host_network || request.network == NetworkMode::Host;
        if run.network == RunNetwork::Host && !allows_host {
            return refused("network.host");
        }
        if run.insecure && !request.allowances.insecure {
            return refused("security.insecure");
        }
        Ok(Self {
            network: match run.network {
                RunNetwork::Default => request.network.clone(),
                RunNetwork::None => NetworkMode::None,
                RunNetwork::Host => NetworkMode::Host,
            },
            privileged: run.insecure,
        })
    }
}

fn words(stage: &Stage<'_, '_>, run: &Run) -> Result<Words> {
    let config = &stage.config.config;
    let mut env = config.env.clone();
    // What is scanned is no command's business.
    for (name, value) in stage.scope.args().filter(|(name, _)| !SCANS.contains(name)) {
        set(&mut env, name, value);
    }
    let mut documents = Vec::new();
    let argv = match (&run.command, run.documents.as_slice()) {
        (command, []) => argv(config, command),
        (Command::Shell(text), [one]) if Heredoc::read(text).is_some() => {
            let body = one.body();
            if body.starts_with("#!") {
                let path = format!("{DOCUMENTS}/{}", file_name(one)?);
                documents.push(Document {
                    path: path.clone(),
                    body,
                });
                argv(config, &Command::Shell(path))
            } else {
                argv(config, &Command::Shell(body))
            }
        }
        (Command::Shell(text), documents) => {
            argv(config, &Command::Shell(with_documents(text, documents)))
        }
        (Command::Exec(_), _) => {
            return Err(Error::Invalid(
                "a command in JSON form has no here-documents".to_owned(),
            ));
        }
    };
    Ok(Words {
        argv,
        env,
        documents,
    })
}

/// A command with its here-documents, for the shell to read them.
fn with_documents(text: &str, documents: &[Heredoc]) -> String {
    let mut whole = text.to_owned();
    for document in documents {
        whole.push('\n');
        whole.push_str(&document.content);
        whole.push_str(&document.name);
    }
    whole
}

/// The command in the history, with the declared arguments as it saw them.
fn told(stage: &Stage<'_, '_>, words: &Words) -> String {
    let env = &stage.config.config.env;
    let value = |name| stage.scope.get(name, env).unwrap_or_default();
    let args = stage.scope.declared();
    let args: Vec<String> = args.map(|name| format!("{name}={}", value(name))).collect();
    let args = match args.as_slice() {
        [] => String::new(),
        args => format!("|{} {} ", args.len(), args.join(" ")),
    };
    format!("RUN {args}{} # buildkit", words.argv.join(" "))
}

fn inputs(stage: &Stage<'_, '_>, run: &Run, words: &Words, mounts: &Mounts) -> Inputs {
    let config = &stage.config.config;
    let request = stage.build.request;
    let mut inputs = Inputs::new("run", &stage.layers);
    inputs.add("the command", &format!("{:?}", words.argv));
    for variable in &words.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        let kind = match stage.scope.get(name, &[]) {
            Some(_) => "argument",
            None => "variable",
        };
        inputs.add(format!("the {kind} {name}"), value);
    }
    let platform = &stage.config.platform;
    if platform.architecture != images::host_platform().architecture {
        inputs.add("the platform", &platform.to_string());
    }
    inputs.add("the user", &config.user);
    inputs.add("the directory", &config.working_dir);
    inputs.add(
        "the network",
        &format!("{:?} {:?}", run.network, request.network),
    );
    if run.insecure {
        inputs.add("the security", "insecure");
    }
    inputs.add("the hosts", &format!("{:?}", request.extra_hosts));
    if let Some(epoch) = stage.build.epoch {
        inputs.add("SOURCE_DATE_EPOCH", &epoch.to_string());
    }
    for document in &words.documents {
        inputs.add(format!("the document {}", document.path), &document.body);
    }
    mounts.add_to(&mut inputs);
    inputs
}

/// The variables of the proxies that the client names: programs look for either name of each, whichever was given.
fn proxies(given: &BTreeMap<String, String>) -> impl Iterator<Item = (&'static str, &str)> {
    PROXIES.iter().filter_map(|name| {
        let is_same = |(other, _): &(&String, _)| other.eq_ignore_ascii_case(name);
        let value = given.get(*name);
        let value = value.or_else(|| given.iter().find(is_same).map(|(_, value)| value))?;
        (!value.is_empty()).then_some((*name, value.as_str()))
    })
}

fn execute<'a>(
    stage: &Stage<'_, 'a>,
    words: Words,
    mounts: &Mounts,
    confinement: Confinement,
) -> Result<Made<'a>> {
    let build = stage.build;
    emulation::check(&stage.config.platform, &images::host_platform())?;
    let Words {
        argv,
        mut env,
        documents,
    } = words;
    for (name, value) in proxies(&build.request.build_args) {
        set(&mut env, name, value);
    }
    let command = argv.join(" ");
    let mounted = mounts.make(stage, &documents)?;
    let config = &stage.config.config;
    let process = ProcessSpec {
        environment: env,
        unrecorded_environment: mounted.variables.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        ..ProcessSpec::default()
    };
    let order = Order {
        on: &stage.layers,
        argv,
        process,
        mounts: mounted.mounts.clone(),
        confinement,
    };
    let request = order.request(build.request);
    let shell = build.request.shell_on_failure.then(|| request.clone());
    let container = Container::create(build, Some(stage.number), stage.layers.clone(), request)?;
    let stubs = mounted.missing_targets(build, &stage.layers)?;
    let failed = match container.run() {
        Ok(0) => None,
        Ok(code) => Some(Error::Command { command, code }),
        Err(error) => Some(error),
    };
    if let Some(error) = failed {
        if let Some(request) = shell {
            shell::offer(stage, request, &container, &error)?;
        }
        return Err(error);
    }
    let snapshot = build.engine.writable_layer(&container.id);
    let snapshot = snapshot.doing(|| "find what the command has written".to_owned())?;
    stubs.remove_from(&snapshot.upper)?;
    let stop = || build.is_stopped();
    let made = build
        .images
        .make_layer(&snapshot, Rest::default(), build.epoch, &stop);
    let made = made.doing(|| "make a layer of what the command has written".to_owned())?;
    container.remove()?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Instruction, parse};

    #[test]
    fn proxies_have_both_names() {
        let given = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            { pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())) }.collect()
        };
        let given = given(&[
            ("http_proxy", "a"),
            ("NO_PROXY", "b"),
            ("no_proxy", "c"),
            ("FTP_PROXY", ""),
            ("other", "d"),
        ]);
        let expected = [
            ("HTTP_PROXY", "a"),
            ("http_proxy", "a"),
            ("NO_PROXY", "b"),
            ("no_proxy", "c"),
        ];
        assert_eq!(proxies(&given).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn commands_are_reassembled_with_their_documents() {
        let file = parse("D", b"FROM x\nRUN cat <<A - <<'B'\n1\nA\n2\nB\n").unwrap();
        let Instruction::Run(run) = &file.stages[0].steps[0].instruction else {
            panic!()
        };
        let Command::Shell(text) = &run.command else {
            panic!()
        };
        assert_eq!(
            with_documents(text, &run.documents),
            "cat <<A - <<'B'\n1\nA\n2\nB"
        );
    }
}
