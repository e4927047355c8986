//! The supervisor of one container, its protocol and its log files.
//!
//! A shim owns a container: it makes it through the runtime, holds its streams, writes its log, reaps its processes,
//! answers requests about it, and records its end. It outlives the engine, so it is kept small: one thread, no async
//! runtime, bounded buffers. The engine uses [`protocol`] to talk to it, [`log::Reader`] to read what it has written, and
//! [`orphan`] when one was killed.

mod connection;
mod failures;
pub mod log;
mod names;
pub mod orphan;
mod process;
pub mod protocol;
mod relay;
mod services;
mod state;
mod stream;
mod supervisor;
mod watch;

pub use runtime::cgroup::{Pressure, Stall, Stats, Support as CgroupSupport};
pub use runtime::{IMAGES_MARK as CHECKPOINT_MARK, user};

use crate::protocol::{Failure, Launch, Message, Reply};
use crate::supervisor::Supervisor;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a shim is called in the process table: the engine gives it as the first argument.
pub const NAME: &str = "hull-shim";

/// The running program's executable behind a view that containers cannot write through (CVE-2019-5736): what shims are
/// to be executed from.
///
/// # Errors
/// As the system calls that make the view.
pub fn executable() -> io::Result<OwnedFd> {
    runtime::sealed::executable().map_err(|error| io::Error::other(error.chain()))
}

/// The shim's face: a [`Launch`] is read from standard input, which is a socket and stays the launcher's connection.
pub fn main() -> ExitCode {
    match launch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the engine's log.
            let _ = writeln!(io::stderr(), "hull-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Finds the program that makes and restores checkpoints, criu.
///
/// # Errors
/// It is not in `PATH`; the error says how to get it.
pub fn find_criu() -> Result<PathBuf, Failure> {
    runtime::find_criu().map_err(|error| failures::runtime_failure(&error))
}

fn launch() -> io::Result<()> {
    // What whoever started the engine had open is not the container's business.
    sys::process::close_from(3, sys::process::CloseRange::Now)?;
    // It was executed by a descriptor, whose number would be its name for whoever lists processes.
    rustix::thread::set_name(c"hull-shim")?;
    rustix::process::chdir("/")?;
    // A session of its own: no terminal's signals reach it. It is its session's leader already if run by hand.
    let _ = rustix::process::setsid();
    // Orphans of a container in the host's PID namespace become this process's children.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let mut launcher = UnixStream::from(stdin);
    let launch = read_launch(&mut launcher)?;
    match Supervisor::create(launch, launcher.try_clone()?) {
        Ok(supervisor) => {
            drop(launcher);
            supervisor.run()
        }
        Err(failure) => refuse(&mut launcher, failure),
    }
}

/// Standard input is replaced, so that the container's process cannot inherit the launcher's connection, nor keep it open.
fn read_launch(launcher: &mut UnixStream) -> io::Result<Launch> {
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut header = [0; 4];
    launcher.read_exact(&mut header)?;
    let length = u32::from_be_bytes(header) as usize;
    if length > protocol::FRAME_BYTES_MAX {
        return Err(io::Error::other(protocol::FrameError::TooLong { length }));
    }
    let mut frame = header.to_vec();
    frame.resize(4 + length, 0);
    launcher.read_exact(&mut frame[4..])?;
    launcher.set_nonblocking(true)?;
    let launch = protocol::decode(&mut frame).map_err(io::Error::other)?;
    launch.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn refuse(launcher: &mut UnixStream, failure: Failure) -> io::Result<()> {
    launcher.set_nonblocking(false)?;
    let frame =
        protocol::encode(&Message::Reply(Reply::Failed(failure))).map_err(io::Error::other)?;
    launcher.write_all(&frame)
}
