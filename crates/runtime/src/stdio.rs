//! Standard input, output and error of a process in the container.

use crate::api::Stdio;
use crate::dev::Terminal;
use crate::error::{Doing, Result};
use oci::runtime::ConsoleSize;
use rustix::fs::{FileType, Mode, OFlags, Stat, Uid, fchown, fcntl_getfl, fstat, major, minor};
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

fn is_null(stat: &Stat) -> bool {
    const NULL: (u32, u32) = (1, 3);
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    device && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL
}

/// The container's null device, verified, in place of a stream that is the host's. Without one the stream stays.
fn reopen_null(root: &Root, number: usize, fd: BorrowedFd<'_>) -> Result<()> {
    let doing = "opening the container's null device";
    let flags = fcntl_getfl(fd).call(|| "fcntl(F_GETFL)").doing(doing)?;
    let flags = flags & OFlags::RWMODE | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    let Ok(null) = root.open_at(Path::new("/dev/null"), flags, Mode::empty()) else {
        return Ok(());
    };
    let stat = fstat(&null).call(|| "fstat(</dev/null>)").doing(doing)?;
    if !is_null(&stat) {
        return Ok(());
    }
    match number {
        0 => dup2_stdin(&null),
        1 => dup2_stdout(&null),
        _ => dup2_stderr(&null),
    }
    .call(|| format!("dup2(</dev/null>, {number})"))
    .doing(doing)
}

fn replace([input, output, error]: [BorrowedFd<'_>; 3]) -> Result<()> {
    let doing = "setting up the standard streams";
    dup2_stdin(input).call(|| "dup2(stdin, 0)").doing(doing)?;
    dup2_stdout(output)
        .call(|| "dup2(stdout, 1)")
        .doing(doing)?;
    dup2_stderr(error).call(|| "dup2(stderr, 2)").doing(doing)
}

/// Makes the streams the process's own. Pipes and terminals are given to its user, which may want to open them again by
/// `/dev/stdout`. The host's null device becomes the container's, so that nothing of the host's `/dev` is open in it, which a
/// checkpoint could not follow. Other files and devices of the host stay whose they are.
pub(crate) fn settle(root: &Root, uid: u32) -> Result<()> {
    for (number, fd) in [stdin(), stdout(), stderr()].into_iter().enumerate() {
        let doing = "giving the standard streams to the user";
        let stat = fstat(fd).call(|| "fstat").doing(doing)?;
        if is_null(&stat) {
            reopen_null(root, number, fd)?;
            continue;
        }
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
