//! What the engine asks of a container that is supervised, and the answers.

use super::{CHECKPOINT_LOGS, INIT, Supervisor};
use crate::connection::{Mode, ProcessKey};
use crate::failures::{conflict, failure, runtime_failure, system};
use crate::protocol::{ExecStatus, Failure, Names, Reply, Request, Route, Status, Target, VERSION};
use rustix::process::{Pid, Signal};
use std::os::fd::AsFd;

const SIGKILL: i32 = 9;

impl Supervisor {
    pub(super) fn serve(&mut self, at: usize, request: Request) {
        let reply = match request {
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Start => self.start(),
            Request::Signal { signal, to } => self.signal(signal, &to),
            Request::Resize {
                exec,
                rows,
                columns,
            } => self.resize(exec.as_deref(), rows, columns),
            Request::Pause => self.set_paused(true),
            Request::Resume => self.set_paused(false),
            Request::Update { resources } => self
                .cgroup_call(|cgroup| cgroup.update(&resources))
                .map(|()| Reply::Done),
            Request::Stats => self
                .cgroup_call(|cgroup| cgroup.stats())
                .map(|stats| Reply::Stats(Box::new(stats))),
            Request::Processes => {
                let pids = self.cgroup_call(|cgroup| cgroup.processes());
                pids.map(|pids| Reply::Processes {
                    pids: pids.into_iter().map(Pid::as_raw_pid).collect(),
                })
            }
            Request::Names(names) => self.serve_names(names),
            Request::Relay { routes } => self.relay(routes),
            Request::Exec(exec) => return self.exec(at, &exec),
            Request::Checkpoint {
                criu,
                images,
                leave_running,
            } => {
                let asked = runtime::NewImages {
                    criu: &criu,
                    images: &images,
                    work: &self.launch.bundle.join(CHECKPOINT_LOGS),
                    leave_running,
                };
                match self.begin_checkpoint(at, &asked) {
                    Ok(()) => return,
                    Err(problem) => Err(problem),
                }
            }
            Request::Attach(streams) => {
                self.connections[at].reply(Reply::Done);
                self.connections[at].mode = Mode::Streams {
                    process: INIT,
                    streams,
                };
                return;
            }
            Request::Subscribe => {
                self.connections[at].mode = Mode::Frames { subscribed: true };
                Ok(Reply::Done)
            }
        };
        self.connections[at].reply(reply.unwrap_or_else(Reply::Failed));
    }

    pub(super) fn cgroup_call<T>(
        &self,
        call: impl FnOnce(&runtime::Cgroup) -> runtime::Result<T>,
    ) -> Result<T, Failure> {
        call(self.container.cgroup()).map_err(|error| runtime_failure(&error))
    }

    pub(super) fn status(&self) -> Status {
        let running = self.processes.values().filter_map(|process| {
            let id = process.exec.clone()?;
            Some(ExecStatus {
                id,
                pid: process.pid.as_raw_pid(),
                code: process.exit.map(|e| e.0),
            })
        });
        Status {
            version: VERSION,
            shim_pid: rustix::process::getpid().as_raw_pid(),
            pid: self.container.pid().as_raw_pid(),
            started: self.started,
            paused: self.paused,
            oom: self.oom,
            execs: running.chain(self.ended_execs.iter().cloned()).collect(),
        }
    }

    fn start(&mut self) -> Result<Reply, Failure> {
        if self.started {
            return Err(conflict("the container has been started already"));
        }
        self.container
            .start()
            .map_err(|error| runtime_failure(&error))?;
        self.started = true;
        if self.launch.restore.is_none() {
            return Ok(Reply::Done);
        }
        self.adopt_restored().inspect_err(|_| {
            // Nobody would know of it.
            let _ = rustix::process::pidfd_send_signal(self.container.pidfd(), Signal::KILL);
        })
    }

    fn serve_names(&mut self, names: Names) -> Result<Reply, Failure> {
        let pid = self.container.pid().as_raw_pid();
        let listening = self.services.serve_names(&mut self.poll, pid, names);
        let (udp, tcp) = listening.map_err(|error| system("listen for names", &error))?;
        Ok(Reply::Names { udp, tcp })
    }

    fn relay(&mut self, routes: Vec<Route>) -> Result<Reply, Failure> {
        let listening = self.services.relay(&mut self.poll, routes);
        let port = listening.map_err(|error| system("listen on ::1", &error))?;
        Ok(Reply::Relay { port })
    }

    fn signal(&mut self, number: i32, to: &Target) -> Result<Reply, Failure> {
        match to {
            Target::Init => self.signal_process(INIT, number)?,
            Target::Exec(id) => self.signal_process(self.exec_key(id)?, number)?,
        }
        // A frozen process dies of SIGKILL only once it is thawed.
        if number == SIGKILL && self.paused {
            self.set_paused(false)?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn signal_process(&self, key: ProcessKey, number: i32) -> Result<(), Failure> {
        let process = self
            .processes
            .get(&key)
            .filter(|process| process.exit.is_none());
        let process = process.ok_or_else(|| conflict("the process has ended"))?;
        sys::signals::send(process.pidfd.as_fd(), number).map_err(|error| failure(&error))
    }

    fn resize(&self, exec: Option<&str>, rows: u16, columns: u16) -> Result<Reply, Failure> {
        let key = exec.map_or(Ok(INIT), |id| self.exec_key(id))?;
        let process = self
            .processes
            .get(&key)
            .ok_or_else(|| conflict("the process has ended"))?;
        let resized = process.resize(rows, columns);
        resized
            .map(|()| Reply::Done)
            .map_err(|error| system("resize the terminal", &error))
    }

    fn set_paused(&mut self, paused: bool) -> Result<Reply, Failure> {
        self.check_no_checkpoint()?;
        if self.paused == paused {
            let state = if paused {
                "paused already"
            } else {
                "not paused"
            };
            return Err(conflict(&format!("the container is {state}")));
        }
        self.cgroup_call(|cgroup| {
            if paused {
                cgroup.freeze()
            } else {
                cgroup.thaw()
            }
        })?;
        self.paused = paused;
        Ok(Reply::Done)
    }
}
