//! The shim's life: make the container, serve its streams and requests, record its end.
//!
//! One thread, one epoll set, no waiting anywhere but in [`Supervisor::run`] and, briefly, in the runtime's calls.
//! Memory is bounded: output is read in pieces, and not read at all while an attached client is behind; a client's
//! input is not read while the process is behind.
//!
//! ```text
//!  launched ──Start──▶ running ──init ends──▶ ending ──output drained, or DRAIN_TIMEOUT──▶ recorded ──▶ told ──▶ gone
//!     └──launcher gone before Start──▶ killed ──▶ ending
//! ```

mod birth;
mod checkpoint;
mod execs;
mod requests;

use crate::connection::{Connection, Mode, ProcessKey};
use crate::failures::{failure, invalid, runtime_failure, system};
use crate::log::{Recorder, Stream};
use crate::process::{self, Process};
use crate::protocol::{
    Event, ExecStatus, ExitRecord, Failure, Launch, Reply, Request, Streams, decode,
};
use crate::services::Services;
use crate::state;
use crate::watch::{EventFlags, Poll, Token, Watched};
use birth::{abandon, create_container, serve_container};
use checkpoint::Checkpoint;
use oci::runtime::{NamespaceKind, Spec};
use runtime::Container;
use runtime::cgroup::OomEvents;
use rustix::process::{Signal, WaitOptions, WaitStatus};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long output is read after a process has ended, when some other process keeps its streams open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long clients may take to receive the last output once the container has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// The directory in the bundle with what criu says of checkpoints.
const CHECKPOINT_LOGS: &str = "criu";

/// How many ended execs are remembered for an engine that was away.
const ENDED_EXECS_MAX: usize = 64;

/// The init's key.
const INIT: ProcessKey = 0;

const SIGCHLD: i32 = 17;

/// A container under supervision.
#[derive(Debug)]
pub(crate) struct Supervisor {
    poll: Poll,
    listener: Watched<UnixListener>,
    children: Watched<OwnedFd>,
    oom_events: Watched<OomEvents>,
    launch: Launch,
    spec: Spec,
    container: Container,
    processes: BTreeMap<ProcessKey, Process>,
    next_process: ProcessKey,
    ended_execs: VecDeque<ExecStatus>,
    connections: Vec<Connection>,
    services: Services,
    launcher: Token,
    /// While one is made.
    checkpoint: Option<Checkpoint>,
    started: bool,
    paused: bool,
    oom: bool,
    recorded: Option<Instant>,
}

impl Supervisor {
    /// Makes the container and everything to serve it with.
    pub(crate) fn create(launch: Launch, launcher: UnixStream) -> Result<Self, Failure> {
        let mut poll = Poll::new().map_err(|error| system("epoll_create1", &error))?;
        let children = sys::signals::descriptor(&[SIGCHLD]).map_err(|error| failure(&error))?;
        sys::signals::block_all().map_err(|error| failure(&error))?;
        let log = Recorder::open(&mut poll, launch.log.clone(), launch.remote_log.clone());
        let log = log.map_err(|error| system("failed to initialize logging driver", &error))?;
        let spec = state::read_spec(&launch.bundle)?;
        let terminal = spec
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        let (container, ends) = create_container(&launch, &spec, terminal)?;
        let served = serve_container(&mut poll, &launch, &container);
        let (pidfd, listener, oom_events) = served.inspect_err(|_| abandon(&container))?;
        let ids = (container.pid(), pidfd);
        let mut init = Process::new(&mut poll, INIT, None, ids, (terminal, ends));
        init.log = log;
        let launcher = Connection::new(poll.watch(launcher));
        Ok(Self {
            listener,
            children: poll.watch(children),
            oom_events,
            launcher: launcher.socket.token,
            connections: vec![launcher],
            processes: BTreeMap::from([(INIT, init)]),
            next_process: INIT + 1,
            ended_execs: VecDeque::new(),
            services: Services::default(),
            checkpoint: None,
            started: false,
            paused: false,
            oom: false,
            recorded: None,
            poll,
            launch,
            spec,
            container,
        })
    }

    /// Serves until the container has ended and everybody knows.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let status = self.status();
        self.connections[0].reply(Reply::Status(status));
        let mut events = Vec::with_capacity(32);
        loop {
            self.settle()?;
            if self.recorded.is_some() && self.is_told() {
                return Ok(());
            }
            self.set_interests()?;
            self.settle_log()?;
            self.poll.wait(&mut events, self.timeout())?;
            for event in &events {
                self.dispatch(event.data.u64(), event.flags);
            }
        }
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        if token == self.listener.token {
            self.accept();
        } else if token == self.children.token {
            // The signal's details do not matter: several children may be behind one.
            let mut info = [0; 128];
            let _ = rustix::io::read(&self.children, &mut info);
        } else if token == self.oom_events.token {
            self.oom_happened();
        } else if self
            .checkpoint
            .as_ref()
            .is_some_and(|made| made.owns(token))
        {
            self.hear_of_checkpoint();
        } else if let Some(at) = self
            .connections
            .iter()
            .position(|c| c.socket.token == token)
        {
            self.connection_ready(at, flags);
        } else if let Some(key) = self
            .processes
            .values()
            .find(|p| p.owns(token))
            .map(|p| p.key)
        {
            self.process_ready(key, token);
        } else {
            self.services.ready(&mut self.poll, token, flags);
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.fd.accept() {
            if socket.set_nonblocking(true).is_ok() {
                self.connections
                    .push(Connection::new(self.poll.watch(socket)));
            }
        }
    }

    fn connection_ready(&mut self, at: usize, flags: EventFlags) {
        let connection = &mut self.connections[at];
        if flags.contains(EventFlags::OUT) {
            connection.flush();
        }
        if flags.contains(EventFlags::IN) {
            connection.receive();
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            connection.dead = true;
        }
        if let Mode::Frames { .. } = connection.mode {
            self.serve_frames(at);
        }
        if let Mode::Streams { process, streams } = self.connections[at].mode {
            self.serve_input(at, process, streams);
        }
    }

    fn serve_frames(&mut self, at: usize) {
        while let Mode::Frames { .. } = self.connections[at].mode {
            match decode::<Request>(&mut self.connections[at].input) {
                Ok(Some(request)) => self.serve(at, request),
                Ok(None) => break,
                Err(error @ crate::protocol::FrameError::TooLong { .. }) => {
                    self.connections[at].reply(Reply::Failed(invalid(&error)));
                    self.connections[at].dead = true;
                    break;
                }
                Err(error) => self.connections[at].reply(Reply::Failed(invalid(&error))),
            }
        }
        let connection = &mut self.connections[at];
        // In frames a half-close is a goodbye.
        connection.closing |=
            connection.input_ended && matches!(connection.mode, Mode::Frames { .. });
    }

    fn serve_input(&mut self, at: usize, key: ProcessKey, streams: Streams) {
        let connection = &mut self.connections[at];
        let input = std::mem::take(&mut connection.input);
        let ended = connection.input_ended || connection.dead;
        let Some(process) = self.processes.get_mut(&key).filter(|_| streams.stdin) else {
            return;
        };
        process.feed_stdin(&input);
        if ended && (key != INIT || self.launch.stdin_once) {
            process.end_stdin();
        }
    }

    fn settle_log(&mut self) -> io::Result<()> {
        let init = self.processes.get_mut(&INIT);
        match init.and_then(|init| init.log.as_mut()) {
            Some(log) => log.settle(&mut self.poll),
            None => Ok(()),
        }
    }

    fn log(&self) -> Option<&Recorder> {
        self.processes.get(&INIT)?.log.as_ref()
    }

    fn process_ready(&mut self, key: ProcessKey, token: Token) {
        let init = self.processes.get_mut(&key);
        if let Some(log) = init.and_then(|init| init.log.as_mut())
            && log.owns(token)
        {
            return log.ready();
        }
        self.with_output(key, |process, deliver| process.ready(token, deliver));
    }

    /// Lets a process read its output, which goes to the log and to every attached client.
    fn with_output(
        &mut self,
        key: ProcessKey,
        read: impl FnOnce(&mut Process, &mut dyn FnMut(Stream, process::Piece<'_>)),
    ) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let mut log = process.log.take();
        let framed = !process.has_terminal;
        let connections = &mut self.connections;
        read(process, &mut |stream, piece| {
            if let Some(log) = &mut log {
                log.record(stream, piece);
            }
            let Some(bytes) = piece else { return };
            for connection in connections.iter_mut() {
                if connection_wants(connection.mode, key, stream) {
                    connection.output(framed.then(|| stream.number()), bytes);
                }
            }
        });
        process.log = log;
    }

    fn oom_happened(&mut self) {
        // What cannot be read will be reported again; the count is what matters.
        let _ = self.oom_events.fd.drain();
        self.check_oom();
    }

    fn check_oom(&mut self) {
        let killed = self
            .container
            .cgroup()
            .oom_kills()
            .is_ok_and(|count| count > 0);
        if killed && !self.oom {
            self.oom = true;
            self.tell(&Event::Oom);
        }
    }

    fn tell(&mut self, event: &Event) {
        for connection in &mut self.connections {
            connection.event(event);
        }
    }

    /// Brings everything that follows from what has happened to its conclusion.
    fn settle(&mut self) -> io::Result<()> {
        self.services.expire(&mut self.poll);
        self.reap();
        self.finish_execs();
        self.finish_init();
        self.forget_connections()
    }

    /// Collects every ended child: the processes here, and orphans of a container in the host's PID namespace.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let process = self
                .processes
                .values_mut()
                .find(|p| p.pid == pid && p.exit.is_none());
            if let Some(process) = process {
                process.exit = Some((exit_code(status), Instant::now()));
            }
        }
    }

    fn forget_connections(&mut self) -> io::Result<()> {
        for connection in self
            .connections
            .iter_mut()
            .filter(|connection| connection.is_done())
        {
            connection.socket.set(&self.poll, None)?;
        }
        self.connections.retain(|connection| !connection.is_done());
        let launcher_gone = self.recorded.is_none()
            && self
                .connections
                .iter()
                .all(|c| c.socket.token != self.launcher);
        if !self.started && launcher_gone && self.processes[&INIT].exit.is_none() {
            // Nobody is left who could start it.
            let _ = rustix::process::pidfd_send_signal(self.container.pidfd(), Signal::KILL);
            self.started = true;
        }
        Ok(())
    }

    fn close_streams(&mut self, key: ProcessKey) {
        for connection in &mut self.connections {
            if matches!(connection.mode, Mode::Streams { process, .. } if process == key) {
                connection.closing = true;
            }
        }
    }

    fn finish_init(&mut self) {
        let init = &self.processes[&INIT];
        let Some((code, _)) = init.exit.filter(|_| self.recorded.is_none()) else {
            return;
        };
        if self.checkpoint.is_some() {
            return;
        }
        if !has_own_pid_namespace(&self.spec) {
            // Nobody else ends what the init leaves behind when it is not the first process of a namespace.
            let _ = self.container.cgroup().kill();
        }
        if !is_over(init) || self.processes.len() > 1 && !is_late(init) {
            return;
        }
        self.with_output(INIT, |process, deliver| process.drain(deliver));
        let init = self.processes.get_mut(&INIT);
        if let Some(log) = init.and_then(|init| init.log.as_mut()) {
            log.end();
        }
        self.check_oom();
        let mut record = ExitRecord {
            code,
            oom: self.oom,
            finished_at: jiff::Timestamp::now(),
            error: None,
        };
        if let Err(error) = self.container.cgroup().destroy() {
            record.error = Some(runtime_failure(&error).message);
        }
        if let Err(error) = state::record_exit(&self.launch.bundle, &record) {
            record.error = Some(system("write the exit record", &error).message);
        }
        self.tell(&Event::Exit(record));
        for connection in &mut self.connections {
            connection.closing = true;
        }
        self.recorded = Some(Instant::now());
    }

    fn is_told(&self) -> bool {
        let late = self.recorded.is_some_and(|at| at.elapsed() > FLUSH_TIMEOUT);
        let sent = self.log().is_none_or(Recorder::is_sent);
        late || (sent && self.connections.iter().all(Connection::is_done))
    }

    /// How long to wait at most: only deadlines need a time.
    fn timeout(&self) -> Option<Duration> {
        let left = |since: Instant, limit: Duration| {
            (since + limit).saturating_duration_since(Instant::now())
        };
        let log = self.log().and_then(Recorder::deadline);
        let log = log.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(at) = self.recorded {
            return Some(left(at, FLUSH_TIMEOUT)).into_iter().chain(log).min();
        }
        let ended = self.processes.values().filter_map(|process| process.exit);
        let ended = ended.map(|(_, at)| left(at, DRAIN_TIMEOUT) + Duration::from_millis(1));
        let services = self.services.deadline();
        let services = services
            .map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        ended.chain(services).chain(log).min()
    }

    fn set_interests(&mut self) -> io::Result<()> {
        self.listener.set(&self.poll, Some(EventFlags::IN))?;
        self.children.set(&self.poll, Some(EventFlags::IN))?;
        self.oom_events.set(
            &self.poll,
            self.recorded.is_none().then_some(EventFlags::IN),
        )?;
        for process in self.processes.values_mut() {
            let behind = self.connections.iter().any(|connection| {
                connection.is_behind()
                    && matches!(connection.mode, Mode::Streams { process: p, .. } if p == process.key)
            });
            let behind = behind || process.log.as_ref().is_some_and(Recorder::is_behind);
            // What is restored speaks before those who have attached are let go.
            let behind = behind || !self.started;
            process.set_interest(&self.poll, behind)?;
        }
        for connection in &mut self.connections {
            let blocked = match connection.mode {
                Mode::Streams { process, .. } => self
                    .processes
                    .get(&process)
                    .is_some_and(Process::stdin_is_behind),
                Mode::Frames { .. } => false,
            };
            let interest = connection.interest(blocked);
            connection.socket.set(&self.poll, Some(interest))?;
        }
        self.services.set_interests(&self.poll)
    }
}

fn connection_wants(mode: Mode, key: ProcessKey, stream: Stream) -> bool {
    let Mode::Streams { process, streams } = mode else {
        return false;
    };
    let wanted = match stream {
        Stream::Stdout => streams.stdout,
        Stream::Stderr => streams.stderr,
    };
    process == key && wanted
}

fn has_own_pid_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    { namespaces }.any(|namespace| namespace.kind == NamespaceKind::Pid && namespace.path.is_none())
}

/// The container, as the runtime is told of one that runs. Of parts of a supervisor, whose others serve meanwhile.
fn target<'a>(launch: &'a Launch, container: &'a Container, spec: &'a Spec) -> runtime::Target<'a> {
    runtime::Target {
        id: &launch.id,
        bundle: &launch.bundle,
        init: container.pid(),
        pidfd: container.pidfd(),
        cgroup: container.cgroup(),
        spec,
    }
}

/// Whether a process has ended and no more output is to be expected.
fn is_over(process: &Process) -> bool {
    process.exit.is_some() && (process.is_drained() || is_late(process))
}

fn is_late(process: &Process) -> bool {
    process
        .exit
        .is_some_and(|(_, at)| at.elapsed() >= DRAIN_TIMEOUT)
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}
