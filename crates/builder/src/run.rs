//! RUN: a command in a container of the engine, on a layer of its own.

use crate::build::{Build, becomes_true};
use crate::cache::Inputs;
use crate::config::{argv, set};
use crate::emulation;
use crate::error::{Doing, Error, Result};
use crate::language::{Command, Heredoc, Run, RunNetwork};
use crate::mounts::{Document, Mounted, Mounts};
use crate::progress::{Event, StepNumber};
use crate::scope::PROXIES;
use crate::shell;
use crate::stage::{LayerStep, Made, Stage};
use engine::model::{
    CreateRequest, Echo, Isolation, Lifecycle, LogDriver, LogSpec, NetworkMode, NetworkSpec,
    ProcessSpec,
};
use engine::{Attached, Condition, Exit, Stream, Streams};
use oci::Digest;
use std::collections::BTreeMap;
use tokio::io::AsyncReadExt;

/// Where a here-document with an interpreter of its own is in the container.
const DOCUMENTS: &str = "/dev/pipes";
/// Bytes of output that are passed on at once.
const OUTPUT_BYTES: usize = 32 << 10;
/// Bytes before each piece of a container's output: the stream, three zeros, the length.
const FRAME_BYTES: usize = 8;

/// A command as it will run.
pub(crate) struct Order {
    argv: Vec<String>,
    env: Vec<String>,
    documents: Vec<Document>,
}

/// Does RUN.
pub(crate) fn run(stage: &mut Stage<'_, '_>, text: &str, run: &Run) -> Result<()> {
    let order = order(stage, run)?;
    let mounts = Mounts::read(stage, &run.mounts)?;
    let inputs = inputs(stage, run, &order, &mounts);
    let step = LayerStep {
        text,
        told: told(stage, &order),
        inputs,
        is_apart: false,
    };
    let confinement = Confinement::of(stage, run)?;
    stage.layer_step(step, |stage| execute(stage, order, &mounts, confinement))
}

/// What holds a command.
struct Confinement {
    network: NetworkMode,
    privileged: bool,
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

fn order(stage: &Stage<'_, '_>, run: &Run) -> Result<Order> {
    let config = &stage.config.config;
    let mut env = config.env.clone();
    for (name, value) in stage.scope.args() {
        // The environment counts before arguments.
        if config
            .env
            .iter()
            .all(|known| known.split('=').next() != Some(name))
        {
            set(&mut env, name, value);
        }
    }
    let mut documents = Vec::new();
    let argv = match (&run.command, run.documents.as_slice()) {
        (command, []) => argv(config, command),
        (Command::Shell(text), [one]) if text.trim_start().starts_with("<<") && is_alone(text) => {
            let body = one.body();
            if body.starts_with("#!") {
                let path = format!("{DOCUMENTS}/{}", one.name.replace('/', "_"));
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
    Ok(Order {
        argv,
        env,
        documents,
    })
}

/// Whether a here-document is all there is of a command.
fn is_alone(text: &str) -> bool {
    text.split_whitespace().count() == 1
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
fn told(stage: &Stage<'_, '_>, order: &Order) -> String {
    let env = &stage.config.config.env;
    let value = |name| stage.scope.get(name, env).unwrap_or_default();
    let args = stage.scope.declared();
    let args: Vec<String> = args.map(|name| format!("{name}={}", value(name))).collect();
    let args = match args.as_slice() {
        [] => String::new(),
        args => format!("|{} {} ", args.len(), args.join(" ")),
    };
    format!("RUN {args}{} # buildkit", order.argv.join(" "))
}

fn inputs(stage: &Stage<'_, '_>, run: &Run, order: &Order, mounts: &Mounts) -> Inputs {
    let config = &stage.config.config;
    let request = stage.build.request;
    let mut inputs = Inputs::new("run", &stage.layers);
    inputs.add("the command", &format!("{:?}", order.argv));
    for variable in &order.env {
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
    for document in &order.documents {
        inputs.add(format!("the document {}", document.path), &document.body);
    }
    mounts.add_to(&mut inputs);
    inputs
}

fn execute<'a>(
    stage: &Stage<'_, 'a>,
    order: Order,
    mounts: &Mounts,
    confinement: Confinement,
) -> Result<Made<'a>> {
    let build = stage.build;
    emulation::check(&stage.config.platform, &images::host_platform())?;
    let Order {
        argv,
        mut env,
        documents,
    } = order;
    for name in PROXIES {
        if let Some(value) = build.request.build_args.get(name) {
            set(&mut env, name, value);
        }
    }
    let command = argv.join(" ");
    let mounted = mounts.make(stage, &documents)?;
    let request = request(stage, argv, env, &mounted, confinement);
    let shell = build.request.shell_on_failure.then(|| request.clone());
    let container = Container::create(build, stage.number, stage.layers.clone(), request)?;
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
    let made = build.images.make_layer(&snapshot, build.epoch);
    let made = made.doing(|| "make a layer of what the command has written".to_owned())?;
    container.remove()?;
    Ok(made)
}

/// The container of a command, as it is asked for.
fn request(
    stage: &Stage<'_, '_>,
    argv: Vec<String>,
    env: Vec<String>,
    mounted: &Mounted,
    Confinement {
        network,
        privileged,
    }: Confinement,
) -> CreateRequest {
    let build = stage.build;
    let config = &stage.config.config;
    let on = stage.layers.last().map(ToString::to_string);
    CreateRequest {
        name: None,
        image: on.unwrap_or_else(|| "scratch".to_owned()),
        platform: None,
        entrypoint: Some(Vec::new()),
        command: Some(argv),
        process: ProcessSpec {
            environment: env,
            unrecorded_environment: mounted.variables.clone(),
            working_dir: config.working_dir.clone(),
            user: config.user.clone(),
            ..ProcessSpec::default()
        },
        isolation: Isolation {
            privileged,
            shm_bytes: build.request.shm_bytes,
            cgroup_parent: build.request.cgroup_parent.clone(),
            ..Isolation::default()
        },
        limits: build.request.limits.clone(),
        mounts: mounted.mounts.clone(),
        volumes: Vec::new(),
        network: NetworkSpec {
            mode: network,
            extra_hosts: build.request.extra_hosts.clone(),
            ..NetworkSpec::default()
        },
        lifecycle: Lifecycle::default(),
        log: LogSpec {
            driver: LogDriver::None,
            options: BTreeMap::new(),
            max_bytes: None,
            files_max: 1,
        },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        wishes: Vec::new(),
        health: None,
        volumes_from: Vec::new(),
        storage: BTreeMap::new(),
        echo: Echo::default(),
    }
}

/// The container of a command. It goes with this value.
pub(crate) struct Container<'s, 'a> {
    build: &'s Build<'a>,
    step: StepNumber,
    pub(crate) id: String,
}

impl<'s, 'a> Container<'s, 'a> {
    /// Makes one that stands on these layers.
    pub(crate) fn create(
        build: &'s Build<'a>,
        step: StepNumber,
        layers: Vec<Digest>,
        request: CreateRequest,
    ) -> Result<Self> {
        let created = build
            .handle
            .block_on(async { build.engine.create_on(layers, request) });
        let created = created.doing(|| "make the command's container".to_owned())?;
        Ok(Self {
            build,
            step,
            id: created.spec.id.clone(),
        })
    }

    /// Runs it to its end, passing on what it says; returns the exit code.
    fn run(&self) -> Result<i32> {
        self.build.tell(&Event::Running {
            step: self.step,
            container: &self.id,
        });
        self.build.handle.block_on(async {
            // A start that is broken off would undo nothing: who wants the build to end waits for it.
            let (attached, ended) = self.start().await?;
            tokio::select! {
                code = self.follow(attached, ended) => code,
                () = self.build.stopped() => Err(Error::Cancelled),
            }
        })
    }

    /// Starts it: its streams, and its end.
    async fn start(&self) -> Result<(Attached, impl Future<Output = Exit>)> {
        self.build.check_stop()?;
        let engine = self.build.engine;
        let streams = Streams {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let attached = engine.attach(&self.id, streams).await;
        let attached = attached.doing(|| "attach to the command".to_owned())?;
        let ended = engine.wait(&self.id, Condition::NextExit);
        let ended = ended.doing(|| "wait for the command".to_owned())?;
        engine
            .start(&self.id, None)
            .await
            .doing(|| "start the command".to_owned())?;
        Ok((attached, ended))
    }

    async fn follow(&self, attached: Attached, ended: impl Future<Output = Exit>) -> Result<i32> {
        let stream = match attached {
            Attached::Now(stream) => Some(stream),
            Attached::WhenStarted(ready) => ready.await.ok(),
        };
        if let Some(stream) = stream {
            self.pass_on(stream).await?;
        }
        let exit = ended.await;
        match exit.error {
            Some(error) => Err(Error::Invalid(error)),
            None => Ok(exit.code),
        }
    }

    /// Passes the output on until the command and all that it has left running have closed it.
    async fn pass_on(&self, stream: Stream) -> Result<()> {
        let Stream {
            mut socket,
            mut received,
        } = stream;
        let mut buffer = vec![0; OUTPUT_BYTES];
        loop {
            let taken = self.frames(&received);
            received.drain(..taken);
            let count = socket.read(&mut buffer).await;
            match count.doing(|| "read the command's output".to_owned())? {
                0 => return Ok(()),
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Passes whole frames on; returns how many bytes they were.
    fn frames(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some((header, rest)) = bytes[at..].split_first_chunk::<FRAME_BYTES>() {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let Some(content) = rest.get(..length) else {
                break;
            };
            // A slow client holds the command back; that must not hold the engine's other work back.
            tokio::task::block_in_place(|| {
                self.build.tell(&Event::Output {
                    step: self.step,
                    is_error: header[0] == 2,
                    bytes: content,
                });
            });
            at += FRAME_BYTES + length;
        }
        at
    }

    /// Waits until the client has removed it, in whatever way it has used it.
    pub(crate) fn lend(self) -> Result<()> {
        let removed = self.build.engine.wait(&self.id, Condition::Removed);
        let removed = removed.doing(|| "wait for the client".to_owned())?;
        let mut stop = self.build.request.stop.clone();
        self.build.handle.block_on(async {
            tokio::select! {
                _ = removed => Ok(()),
                () = becomes_true(&mut stop) => Err(Error::Cancelled),
            }
        })?;
        // There is nothing to remove any more.
        std::mem::forget(self);
        Ok(())
    }

    fn remove(self) -> Result<()> {
        let removed = self
            .build
            .handle
            .block_on(self.build.engine.remove(&self.id, true, true));
        let id = self.id.clone();
        let (build, step) = (self.build, self.step);
        // It is gone, or cannot be removed: trying again changes nothing.
        std::mem::forget(self);
        removed.doing(|| "remove the command's container".to_owned())?;
        build.tell(&Event::Removed {
            step,
            container: &id,
        });
        Ok(())
    }
}

impl Container<'_, '_> {
    /// Gives back the room of what the command has written: on a full disk, nothing can be recorded before that.
    fn discard(&self) {
        // Where there is no layer, there is nothing to give back; where it stays, the removal says so.
        if let Ok(snapshot) = self.build.engine.writable_layer(&self.id) {
            for entry in std::fs::read_dir(&snapshot.upper)
                .into_iter()
                .flatten()
                .flatten()
            {
                let path = entry.path();
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}

impl Drop for Container<'_, '_> {
    fn drop(&mut self) {
        let remove = || {
            let removed = self.build.engine.remove(&self.id, true, true);
            self.build.handle.block_on(removed)
        };
        let removed = remove().or_else(|_| {
            self.discard();
            remove()
        });
        if let Err(error) = removed {
            tracing::error!(
                container = self.id,
                error = error.chain(),
                "cannot remove a build's container"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Instruction, parse};

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
        assert!(is_alone("<<EOF") && !is_alone("<<EOF cat"));
    }
}
