//! The streams and the end of one process: the container's init, or an exec.

use crate::connection::ProcessKey;
use crate::log::{Recorder, Stream};
use crate::watch::{EventFlags, Poll, Token, Watched};
use runtime::Stdio;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::termios::Winsize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// How many bytes of output are read at a time.
pub(crate) const READ_BYTES: usize = 32 << 10;

/// The shim's ends of a process's streams.
#[derive(Debug)]
pub(crate) struct Ends {
    stdin: Option<OwnedFd>,
    outputs: Vec<(Stream, OwnedFd)>,
}

/// Pipes for a process without a terminal: the runtime's ends and the shim's. Without `stdin` it reads `/dev/null`.
pub(crate) fn pipes(stdin: bool) -> io::Result<(Stdio, Ends)> {
    let output = |stream| -> io::Result<_> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok(((stream, read), write))
    };
    let (out, stdout) = output(Stream::Stdout)?;
    let (err, stderr) = output(Stream::Stderr)?;
    let (stdin, ours) = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (read, Some(write))
    } else {
        (
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            None,
        )
    };
    Ok((
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        },
        Ends {
            stdin: ours,
            outputs: vec![out, err],
        },
    ))
}

/// The shim's ends of a terminal.
pub(crate) fn terminal(master: OwnedFd, stdin: bool) -> io::Result<Ends> {
    rustix::io::ioctl_fionbio(&master, true)?;
    let stdin = if stdin {
        Some(master.try_clone()?)
    } else {
        None
    };
    Ok(Ends {
        stdin,
        outputs: vec![(Stream::Stdout, master)],
    })
}

/// A process and its streams.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) key: ProcessKey,
    /// The exec's id; None for the init.
    pub(crate) exec: Option<String>,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) has_terminal: bool,
    stdin: Option<Watched<OwnedFd>>,
    stdin_waiting: Vec<u8>,
    stdin_ends: bool,
    /// Nothing more can be written. The descriptor is closed with the next [`Process::set_interest`]: a terminal's is a
    /// duplicate, which epoll would go on reporting if it were just closed.
    stdin_closed: bool,
    outputs: Vec<Output>,
    pub(crate) log: Option<Recorder>,
    /// The exit code, and when it was seen.
    pub(crate) exit: Option<(i32, Instant)>,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: Watched<OwnedFd>,
    /// Read to its end; the descriptor is closed as [`Process::stdin_closed`] says.
    ended: bool,
}

/// Output as it was read. None: the stream has ended.
pub(crate) type Piece<'a> = Option<&'a [u8]>;

impl Process {
    pub(crate) fn new(
        poll: &mut Poll,
        key: ProcessKey,
        exec: Option<String>,
        (pid, pidfd): (Pid, OwnedFd),
        (has_terminal, ends): (bool, Ends),
    ) -> Self {
        let output = |(stream, fd)| Output {
            stream,
            fd: poll.watch(fd),
            ended: false,
        };
        let outputs = ends.outputs.into_iter().map(output).collect();
        let stdin = ends.stdin.map(|fd| poll.watch(fd));
        Self {
            key,
            exec,
            pid,
            pidfd,
            has_terminal,
            stdin,
            stdin_waiting: Vec::new(),
            stdin_ends: false,
            stdin_closed: false,
            outputs,
            log: None,
            exit: None,
        }
    }

    /// Whether all output has been read.
    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.ended)
    }

    /// Whether `token` is one of this process's descriptors.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.stdin
            .as_ref()
            .is_some_and(|stdin| stdin.token == token)
            || self.outputs.iter().any(|output| output.fd.token == token)
            || self.log.as_ref().is_some_and(|log| log.owns(token))
    }

    /// Sets what the descriptors wait for. `blocked`: an attached client is behind.
    pub(crate) fn set_interest(&mut self, poll: &Poll, blocked: bool) -> io::Result<()> {
        for output in &mut self.outputs {
            output
                .fd
                .set(poll, (!blocked && !output.ended).then_some(EventFlags::IN))?;
        }
        self.outputs.retain(|output| !output.ended);
        let waiting = !self.stdin_waiting.is_empty();
        if let Some(stdin) = &mut self.stdin {
            stdin.set(poll, waiting.then_some(EventFlags::OUT))?;
        }
        if self.stdin_closed {
            self.stdin = None;
        }
        Ok(())
    }

    /// Serves a ready descriptor: writes waiting input, or hands read output to `deliver`.
    pub(crate) fn ready(&mut self, token: Token, deliver: &mut dyn FnMut(Stream, Piece<'_>)) {
        if self
            .stdin
            .as_ref()
            .is_some_and(|stdin| stdin.token == token)
        {
            self.write_stdin();
        } else if let Some(at) = self
            .outputs
            .iter()
            .position(|output| output.fd.token == token)
        {
            let _ = self.read_output(at, deliver);
        }
    }

    /// Reads what is there without waiting, and ends the streams: for a process that has ended and whose output some
    /// other process keeps open.
    pub(crate) fn drain(&mut self, deliver: &mut dyn FnMut(Stream, Piece<'_>)) {
        for at in 0..self.outputs.len() {
            while !self.outputs[at].ended {
                if !self.read_output(at, deliver) {
                    self.end_output(at, deliver);
                }
            }
        }
    }

    /// True when something was read or the stream ended.
    fn read_output(&mut self, at: usize, deliver: &mut dyn FnMut(Stream, Piece<'_>)) -> bool {
        let output = &self.outputs[at];
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(&output.fd, &mut buffer) {
            Ok(count) if count > 0 => deliver(output.stream, Some(&buffer[..count])),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            // A terminal whose last process is gone reads as EIO.
            Ok(_) | Err(_) => self.end_output(at, deliver),
        }
        true
    }

    fn end_output(&mut self, at: usize, deliver: &mut dyn FnMut(Stream, Piece<'_>)) {
        let output = &mut self.outputs[at];
        output.ended = true;
        deliver(output.stream, None);
    }

    /// Whether standard input written now would only wait.
    pub(crate) fn stdin_is_behind(&self) -> bool {
        !self.stdin_waiting.is_empty()
    }

    /// Hands bytes to the process's standard input. Without one, or when it was closed, they are lost, as in a pipe
    /// nobody reads.
    pub(crate) fn feed_stdin(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.stdin_closed {
            self.stdin_waiting.extend_from_slice(bytes);
            self.write_stdin();
        }
    }

    /// Closes standard input once everything waiting is written. A terminal has no such end.
    pub(crate) fn end_stdin(&mut self) {
        if !self.has_terminal {
            self.stdin_ends = true;
            self.write_stdin();
        }
    }

    fn write_stdin(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        while !self.stdin_waiting.is_empty() {
            match rustix::io::write(stdin, &self.stdin_waiting) {
                Ok(count) => {
                    self.stdin_waiting.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads any more.
                Err(_) => {
                    self.stdin_waiting = Vec::new();
                    self.stdin_closed = true;
                    return;
                }
            }
        }
        self.stdin_waiting.shrink_to_fit();
        self.stdin_closed |= self.stdin_ends;
    }

    /// Sets the terminal's size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        match self.outputs.first() {
            Some(master) if self.has_terminal => {
                Ok(rustix::termios::tcsetwinsize(master.fd.as_fd(), size)?)
            }
            _ => Err(io::Error::other("the process has no terminal")),
        }
    }
}
