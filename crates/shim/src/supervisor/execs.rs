//! Further processes of the container.

use super::birth::{complete_streams, open_streams};
use super::{ENDED_EXECS_MAX, INIT, Supervisor, is_over, target};
use crate::connection::{Mode, ProcessKey};
use crate::failures::{conflict, runtime_failure};
use crate::process::Process;
use crate::protocol::{Event, Exec, ExecStatus, Failure, Reply};

impl Supervisor {
    pub(super) fn exec(&mut self, at: usize, exec: &Exec) {
        match self.start_exec(exec) {
            Ok((key, pid)) => {
                self.connections[at].reply(Reply::Started { pid });
                if exec.streams.any() {
                    let mode = Mode::Streams {
                        process: key,
                        streams: exec.streams,
                    };
                    self.connections[at].mode = mode;
                }
            }
            Err(problem) => self.connections[at].reply(Reply::Failed(problem)),
        }
    }

    pub(super) fn check_can_exec(&self) -> Result<(), Failure> {
        self.check_no_checkpoint()?;
        if !self.started
            || self
                .processes
                .get(&INIT)
                .is_none_or(|init| init.exit.is_some())
        {
            return Err(conflict("the container is not running"));
        }
        if self.paused {
            return Err(conflict("the container is paused, unpause it first"));
        }
        Ok(())
    }

    fn start_exec(&mut self, exec: &Exec) -> Result<(ProcessKey, i32), Failure> {
        self.check_can_exec()?;
        let terminal = exec.process.terminal;
        let (stdio, ends) = open_streams(terminal, exec.streams.stdin)?;
        let target = target(&self.launch, &self.container, &self.spec);
        let request = runtime::ExecRequest {
            user: exec.user.as_deref(),
            ..runtime::ExecRequest::new(&exec.process, stdio)
        };
        let started = runtime::exec(&target, request);
        let started = started.map_err(|error| runtime_failure(&error))?;
        let ends = complete_streams(ends, started.terminal, exec.streams.stdin)?;
        let key = self.next_process;
        self.next_process += 1;
        let ids = (started.pid, started.pidfd);
        let process = Process::new(
            &mut self.poll,
            key,
            Some(exec.id.clone()),
            ids,
            (terminal, ends),
        );
        self.processes.insert(key, process);
        Ok((key, started.pid.as_raw_pid()))
    }

    pub(super) fn exec_key(&self, id: &str) -> Result<ProcessKey, Failure> {
        let process = self
            .processes
            .values()
            .find(|process| process.exec.as_deref() == Some(id));
        let process = process.ok_or_else(|| conflict(&format!("no exec {id} is running")))?;
        Ok(process.key)
    }

    pub(super) fn finish_execs(&mut self) {
        let ended: Vec<ProcessKey> = self
            .processes
            .values()
            .filter(|p| p.key != INIT && is_over(p))
            .map(|p| p.key)
            .collect();
        for key in ended {
            self.with_output(key, |process, deliver| process.drain(deliver));
            let Some(mut process) = self.processes.remove(&key) else {
                continue;
            };
            let (Some((code, _)), Some(id)) = (process.exit, process.exec.take()) else {
                continue;
            };
            // Takes the descriptors out of the set; they are closed right after.
            let _ = process.set_interest(&self.poll, true);
            let pid = process.pid.as_raw_pid();
            self.ended_execs.push_front(ExecStatus {
                id: id.clone(),
                pid,
                code: Some(code),
            });
            self.ended_execs.truncate(ENDED_EXECS_MAX);
            self.tell(&Event::ExecExit { id, code });
            self.close_streams(key);
        }
    }
}
