//! A container in the foreground: signals go to it, the terminal's bytes go both ways, its exit code is ours.

use crate::error::{Doing, Error, Result};
use crate::hooks::reap;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Context;

/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;
const BUFFER_BYTES: usize = 8192;
/// The size of the kernel's `signalfd_siginfo`, whose first word is the signal.
const SIGNAL_BYTES: usize = 128;

/// The signals that are passed on; those a program causes to itself, and the child's end, are not.
const SIGNALS: [i32; 16] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGWINCH,
    libc::SIGIO,
];

/// Readiness to attend a container.
#[derive(Debug)]
pub(super) struct Foreground {
    signals: OwnedFd,
}

/// The caller's terminal, put back as it was when dropped.
struct Raw {
    before: Termios,
}

impl Foreground {
    /// From now on signals wait until the container is there to get them.
    pub(super) fn prepare() -> Result<Self> {
        let signals = sys::signals::descriptor(&SIGNALS).doing("preparing to pass signals on")?;
        Ok(Self { signals })
    }

    /// Stays until the process ends; its exit code.
    pub(super) fn attend(
        self,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        terminal: Option<OwnedFd>,
    ) -> Result<u8> {
        let raw = match &terminal {
            Some(terminal) => {
                copy_size(terminal)?;
                Raw::set()?
            }
            None => None,
        };
        let looped = self.pass(pidfd, terminal.as_ref());
        drop(raw);
        looped?;
        let status = reap(pid).doing("waiting for the container")?;
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (_, Some(signal)) => SIGNALLED + signal,
            _ => SIGNALLED,
        };
        u8::try_from(code)
            .map_err(|_| Error::State(format!("the container exited with {code}").into()))
    }

    fn pass(&self, pidfd: BorrowedFd<'_>, terminal: Option<&OwnedFd>) -> Result<()> {
        let doing = "attending the container";
        let (mut input_open, mut output_open) = (terminal.is_some(), terminal.is_some());
        loop {
            let mut fds = vec![
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if let Some(terminal) = terminal.filter(|_| output_open) {
                fds.push(PollFd::new(terminal, PollFlags::IN));
                if input_open {
                    fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
                }
            }
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno).call(|| "poll").doing(doing),
            }
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[1] {
                self.pass_signal(pidfd, terminal)?;
            }
            if let Some(terminal) = terminal.filter(|_| ready.get(2) == Some(&true)) {
                output_open = copy(terminal.as_fd(), stdout())?;
            } else if ready[0] {
                // Ended, and nothing of its output is left.
                return Ok(());
            }
            if let Some(terminal) = terminal.filter(|_| ready.get(3) == Some(&true)) {
                input_open = copy(stdin(), terminal.as_fd())?;
            }
        }
    }

    fn pass_signal(&self, pidfd: BorrowedFd<'_>, terminal: Option<&OwnedFd>) -> Result<()> {
        let mut information = [0; SIGNAL_BYTES];
        let doing = "passing a signal on";
        rustix::io::read(&self.signals, &mut information)
            .call(|| "read(<signalfd>)")
            .doing(doing)?;
        let number: [u8; 4] = information[..4].try_into().expect("four bytes");
        let signal = Signal::from_named_raw(i32::from_ne_bytes(number));
        match (signal, terminal) {
            (Some(Signal::WINCH), Some(terminal)) => copy_size(terminal),
            (Some(signal), _) => match pidfd_send_signal(pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => Ok(()),
                Err(errno) => Err(errno).call(|| "pidfd_send_signal").doing(doing),
            },
            (None, _) => Ok(()),
        }
    }
}

impl Raw {
    /// Lets every key reach the container.
    fn set() -> Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let doing = "setting the terminal up";
        let before = tcgetattr(stdin()).call(|| "ioctl(TCGETS)").doing(doing)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)
            .call(|| "ioctl(TCSETS)")
            .doing(doing)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let put_back = tcsetattr(stdin(), OptionalActions::Now, &self.before);
        // A terminal that is gone needs nothing put back.
        debug_assert!(matches!(put_back, Ok(()) | Err(Errno::IO)));
    }
}

fn copy_size(terminal: &OwnedFd) -> Result<()> {
    if !isatty(stdout()) {
        return Ok(());
    }
    let doing = "setting the terminal's size";
    let size = tcgetwinsize(stdout())
        .call(|| "ioctl(TIOCGWINSZ)")
        .doing(doing)?;
    tcsetwinsize(terminal, size)
        .call(|| "ioctl(TIOCSWINSZ)")
        .doing(doing)
}

/// Copies what is there; whether more may come.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
    let doing = "copying the terminal's bytes";
    let mut buffer = [0; BUFFER_BYTES];
    let length = match rustix::io::read(from, &mut buffer) {
        // A terminal whose last user is gone.
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        Err(errno) => return Err(errno).call(|| "read").doing(doing),
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::IO | Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(errno).call(|| "write").doing(doing),
        }
    }
    Ok(true)
}
