//! Standard input, output and error of a process in the container.

use crate::api::Stdio;
use crate::dev::Terminal;
use crate::error::{Doing, Error, Result};
use crate::mounts::resolve_if_there;
use oci::runtime::ConsoleSize;
use rustix::fs::{FileType, Mode, OFlags, Uid, fchown, fcntl_setfl, fstat, makedev};
use rustix::io::Errno;
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use sys::Context;
use sys::root::Root;

/// Sets up the streams of the calling process, a session leader, as far as they need the container's root. A terminal comes
/// back: its master belongs to the caller of the runtime.
pub(crate) fn install(
    stdio: &Stdio,
    root: &Root,
    size: Option<ConsoleSize>,
) -> Result<Option<Terminal>> {
    match stdio {
        Stdio::Inherit => Ok(None),
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => {
            replace([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
            Ok(None)
        }
        Stdio::Terminal => {
            let doing = "setting up the terminal";
            let terminal = Terminal::open(root)?;
            let peer = terminal.peer.as_fd();
            ioctl_tiocsctty(peer)
                .call(|| "ioctl(TIOCSCTTY)")
                .doing(doing)?;
            if let Some(ConsoleSize { height, width }) = size {
                let size = Winsize {
                    ws_row: height,
                    ws_col: width,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                tcsetwinsize(peer, size)
                    .call(|| "ioctl(TIOCSWINSZ)")
                    .doing(doing)?;
            }
            replace([peer; 3])?;
            Ok(Some(terminal))
        }
    }
}

fn replace([input, output, error]: [BorrowedFd<'_>; 3]) -> Result<()> {
    let doing = "setting up the standard streams";
    dup2_stdin(input).call(|| "dup2(stdin, 0)").doing(doing)?;
    dup2_stdout(output)
        .call(|| "dup2(stdout, 1)")
        .doing(doing)?;
    dup2_stderr(error).call(|| "dup2(stderr, 2)").doing(doing)
}

/// Opens the container's null device where a stream is the host's, whose mode and owner root in the container could change.
/// It stays where the container has none.
pub(crate) fn replace_null(root: &Root) -> Result<()> {
    let doing = "replacing the host's null device";
    let number = makedev(1, 3);
    let is_null = |fd: BorrowedFd<'_>| {
        let stat = fstat(fd).call(|| "fstat").doing(doing)?;
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        Ok(device && stat.st_rdev == number)
    };
    let hosts = [is_null(stdin())?, is_null(stdout())?, is_null(stderr())?];
    if hosts == [false; 3] {
        return Ok(());
    }
    let path = Path::new("/dev/null");
    match resolve_if_there(root, path).doing(doing)? {
        Some(place) if is_null(place.as_fd())? => {}
        _ => return Ok(()),
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let null = root.open_at(path, flags, Mode::empty()).doing(doing)?;
    if !is_null(null.as_fd())? {
        return Err(Error::invalid("/dev/null became something else"));
    }
    fcntl_setfl(&null, OFlags::empty())
        .call(|| "fcntl(<null>, F_SETFL, 0)")
        .doing(doing)?;
    let [input, output, error] = hosts;
    if input {
        dup2_stdin(&null).call(|| "dup2(<null>, 0)").doing(doing)?;
    }
    if output {
        dup2_stdout(&null).call(|| "dup2(<null>, 1)").doing(doing)?;
    }
    if error {
        dup2_stderr(&null).call(|| "dup2(<null>, 2)").doing(doing)?;
    }
    Ok(())
}

/// Gives pipes and terminals to the user of the process, which may want to open them again by `/dev/stdout`. Files and
/// devices of the host stay whose they are.
pub(crate) fn give_to(uid: u32) -> Result<()> {
    for fd in [stdin(), stdout(), stderr()] {
        let doing = "giving the standard streams to the user";
        let stat = fstat(fd).call(|| "fstat").doing(doing)?;
        let terminal = rustix::termios::isatty(fd);
        let pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if stat.st_uid == uid || !(terminal || pipe) {
            continue;
        }
        match fchown(fd, Some(Uid::from_raw(uid)), None) {
            // An owner that the user namespace does not know, or a filesystem that takes no owner: it stays as it is.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(errno) => return Err(errno).call(|| format!("fchown({uid})")).doing(doing),
        }
    }
    Ok(())
}
