//! Checkpoints: criu works for a child of the shim, which goes on serving meanwhile.
//!
//! Invariant: whoever asked has the answer before anybody is told of the container's end, which a checkpoint that does not
//! leave it running brings about.

use super::{INIT, Supervisor, target};
use crate::failures::{conflict, failure, runtime_failure, system};
use crate::protocol::{Failure, FailureKind, Reply};
use crate::state;
use crate::watch::{EventFlags, Poll, Token, Watched};
use runtime::NewImages;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use sys::process::{Spawn, close_inherited, exit, spawn};

/// As much of an answer as is heard: an error has some lines of criu's log.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A checkpoint under way.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The connection that waits for the answer.
    pub(crate) asked_by: Token,
    told: Watched<OwnedFd>,
    answer: Vec<u8>,
}

impl Checkpoint {
    /// Begins one.
    pub(crate) fn begin(
        poll: &mut Poll,
        asked_by: Token,
        target: &runtime::Target<'_>,
        asked: &NewImages<'_>,
    ) -> Result<Self, Failure> {
        let pipe = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let (told, tell) = pipe.map_err(|error| system("pipe2", &error))?;
        let child = spawn(Spawn::default(), || {
            close_inherited(told.as_fd());
            let made = runtime::make_images(target, asked);
            let answer = made.map_err(|error| runtime_failure(&error));
            exit(i32::from(say(&tell, &answer).is_err()))
        });
        // It is reaped as every child is.
        child.map_err(|error| failure(&error))?;
        rustix::io::ioctl_fionbio(&told, true)
            .map_err(|errno| system("ioctl(FIONBIO)", &errno.into()))?;
        let mut told = poll.watch(told);
        told.set(poll, Some(EventFlags::IN))
            .map_err(|error| system("epoll_ctl", &error))?;
        Ok(Self {
            asked_by,
            told,
            answer: Vec::new(),
        })
    }

    pub(crate) fn owns(&self, token: Token) -> bool {
        self.told.token == token
    }

    /// Hears what has been said; the answer once it is whole.
    pub(crate) fn hear(&mut self, poll: &Poll) -> Option<Reply> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.told, &mut buffer) {
                Ok(0) => break,
                Ok(count) if self.answer.len() + count <= ANSWER_BYTES_MAX => {
                    self.answer.extend_from_slice(&buffer[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Ok(_) | Err(_) => break,
            }
        }
        // It is closed right after.
        let _ = self.told.set(poll, None);
        let answer: Result<Result<(), Failure>, _> = serde_json::from_slice(&self.answer);
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure {
                kind: FailureKind::System,
                message: "the process that makes the checkpoint ended without a word".to_owned(),
            })
        });
        Some(answer.map_or_else(Reply::Failed, |()| Reply::Done))
    }
}

impl Supervisor {
    /// criu freezes the container, and knows what runs in it.
    pub(super) fn check_no_checkpoint(&self) -> Result<(), Failure> {
        match self.checkpoint {
            Some(_) => Err(conflict("a checkpoint of the container is being made")),
            None => Ok(()),
        }
    }

    /// The answer comes later.
    pub(super) fn begin_checkpoint(
        &mut self,
        at: usize,
        asked: &runtime::NewImages<'_>,
    ) -> Result<(), Failure> {
        self.check_can_exec()?;
        if self.processes.len() > 1 {
            return Err(conflict(
                "commands of exec run in the container: a checkpoint would be without them, and criu makes none",
            ));
        }
        let target = target(&self.launch, &self.container, &self.spec);
        let asked_by = self.connections[at].socket.token;
        self.checkpoint = Some(Checkpoint::begin(&mut self.poll, asked_by, &target, asked)?);
        Ok(())
    }

    pub(super) fn hear_of_checkpoint(&mut self) {
        let Some(checkpoint) = &mut self.checkpoint else {
            return;
        };
        let Some(reply) = checkpoint.hear(&self.poll) else {
            return;
        };
        let asked_by = checkpoint.asked_by;
        self.checkpoint = None;
        // Whoever asked may be gone.
        let mut connections = self.connections.iter_mut();
        if let Some(connection) = connections.find(|c| c.socket.token == asked_by) {
            connection.reply(reply);
        }
    }

    /// Knows the init that has come with a restore.
    pub(super) fn adopt_restored(&mut self) -> Result<Reply, Failure> {
        let pid = self.container.pid();
        let pidfd = self.container.pidfd().try_clone_to_owned();
        let pidfd = pidfd.map_err(|error| system("duplicate the pidfd", &error))?;
        if let Some(init) = self.processes.get_mut(&INIT) {
            (init.pid, init.pidfd) = (pid, pidfd);
        }
        let pid = pid.as_raw_pid();
        let recorded = state::record(&self.launch.bundle, pid, self.container.cgroup().path());
        recorded.map_err(|error| system("write the container's state", &error))?;
        Ok(Reply::Started { pid })
    }
}

fn say(tell: &OwnedFd, answer: &Result<(), Failure>) -> io::Result<()> {
    let bytes = serde_json::to_vec(answer)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(tell, rest))?;
        rest = &rest[count..];
    }
    Ok(())
}
