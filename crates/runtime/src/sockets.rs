//! Unix sockets by path, of whatever length: a socket's address has 108 bytes, a path may have 4096.

use crate::error::{Doing, Result};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;

/// Connects to a socket.
pub(crate) fn connect(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let connect = || {
        let (_directory, address) = address(path)?;
        let socket = new(kind)?;
        rustix::net::connect(&socket, &address).call(|| format!("connect({path:?})"))?;
        Ok(socket)
    };
    connect().doing_with(|| format!("connecting to {}", path.display()))
}

/// Makes a socket that listens.
pub(crate) fn listen(path: &Path, kind: SocketType) -> Result<OwnedFd> {
    let listen = || {
        let (_directory, address) = address(path)?;
        let socket = new(kind)?;
        rustix::net::bind(&socket, &address).call(|| format!("bind({path:?})"))?;
        rustix::net::listen(&socket, 1).call(|| format!("listen({path:?}, 1)"))?;
        Ok(socket)
    };
    listen().doing_with(|| format!("listening at {}", path.display()))
}

fn new(kind: SocketType) -> sys::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .call(|| format!("socket(AF_UNIX, {kind:?})"))
}

/// The address of a path by the descriptor of its directory, which must stay open while the address is used.
fn address(path: &Path) -> sys::Result<(OwnedFd, SocketAddrUnix)> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())
        .call(|| format!("open({parent:?}, O_PATH|O_DIRECTORY)"))?;
    let short: PathBuf =
        sys::root::fd_path(directory.as_fd()).join(path.file_name().unwrap_or_default());
    let address = SocketAddrUnix::new(&short).call(|| format!("sockaddr({path:?})"))?;
    Ok((directory, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_long() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join("x".repeat(200));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        let _listener = listen(&path, SocketType::SEQPACKET).unwrap();
        connect(&path, SocketType::SEQPACKET).unwrap();
        assert!(connect(&path, SocketType::STREAM).is_err());
    }
}
