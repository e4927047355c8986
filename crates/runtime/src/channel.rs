//! What the runtime and the container's init say to each other while a container is born.
//!
//! | from | message | means |
//! |---|---|---|
//! | runtime | `Go` (+ the root mount) | ids are mapped; an idmapped root could only be made now |
//! | init | `Mounted` | namespaces and mounts are there, the root is not entered: time for the runtime's hooks |
//! | runtime | `Go` | the hooks have run |
//! | init | `Ready` (+ terminal) | everything is prepared, the program exists; init waits at the gate (a process executed
//! |  |  | in a running container says it for the terminal alone, and does not wait) |
//! | runtime | `Start` | the gate is open |
//! | init | `Executing` | the next thing is execve; the end of the stream then means that it happened |
//! | in between | `Born` pid (+ pidfd) | init is there, where it takes a process in between to bear it |
//! | init | `Failed` kind text | at any time; init then exits |
//!
//! A message is one packet, through the gate's socket too: a byte for its kind, then its data. The descriptors
//! are close-on-exec, which is how a successful execve is seen.

use crate::error::{Doing, Error, ErrorKind, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::Context;

/// The longest error text that crosses; more is cut.
const TEXT_BYTES_MAX: usize = 4096;

/// A kind and a process id.
const PID_MESSAGE_BYTES: usize = 5;

/// What is said.
#[derive(Debug)]
pub(crate) enum Message {
    Go(Option<OwnedFd>),
    Mounted,
    Ready(Option<OwnedFd>),
    Start,
    Executing,
    Born(Pid, OwnedFd),
    Failed(ErrorKind, String),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)")
        .doing("making the channel to the container's init")?;
        Ok((Self { fd: one }, Self { fd: other }))
    }

    /// A connected socket as an end.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Says something.
    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let mut data = Vec::with_capacity(1);
        let mut attached: Option<BorrowedFd<'_>> = None;
        match message {
            Message::Go(fd) => {
                data.push(b'G');
                attached = fd.as_ref().map(AsFd::as_fd);
            }
            Message::Mounted => data.push(b'M'),
            Message::Ready(fd) => {
                data.push(b'R');
                attached = fd.as_ref().map(AsFd::as_fd);
            }
            Message::Start => data.push(b'S'),
            Message::Executing => data.push(b'X'),
            Message::Born(pid, fd) => {
                data.push(b'B');
                data.extend(pid.as_raw_nonzero().get().to_ne_bytes());
                attached = Some(fd.as_fd());
            }
            Message::Failed(kind, text) => {
                data.extend([b'F', *kind as u8]);
                data.extend(text.bytes().take(TEXT_BYTES_MAX));
            }
        }
        let doing = "speaking with the container's init";
        let Some(fd) = attached else {
            // Plain writes are what the strictest system call filters allow.
            rustix::io::write(&self.fd, &data)
                .call(|| "write(<channel>)")
                .doing(doing)?;
            return Ok(());
        };
        send_with_fds(self.fd.as_fd(), &data, &[fd]).doing(doing)
    }

    /// Hears the next message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut data = [0; TEXT_BYTES_MAX + 2];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let buffer = &mut [IoSliceMut::new(&mut data)];
            match recvmsg(&self.fd, buffer, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                // The peer died with something unread.
                Err(Errno::CONNRESET) => break 0,
                Err(errno) => {
                    let error = Err(errno).call(|| "recvmsg(<channel>)");
                    return error.doing("listening to the container's init");
                }
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Some(match (data[0], length) {
            (_, 0) => return Ok(None),
            (b'G', _) => Message::Go(fd),
            (b'M', _) => Message::Mounted,
            (b'R', _) => Message::Ready(fd),
            (b'S', _) => Message::Start,
            (b'X', _) => Message::Executing,
            (b'B', PID_MESSAGE_BYTES) => {
                let pid = data[1..PID_MESSAGE_BYTES].try_into().expect("four bytes");
                match (Pid::from_raw(i32::from_ne_bytes(pid)), fd) {
                    (Some(pid), Some(fd)) => Message::Born(pid, fd),
                    _ => return Err(unknown()),
                }
            }
            (b'F', 2..) => {
                let text = String::from_utf8_lossy(&data[2..length]).into_owned();
                Message::Failed(ErrorKind::from_byte(data[1]), text)
            }
            _ => {
                return Err(Error::State(
                    "the container's init said something unknown".into(),
                ));
            }
        }))
    }
}

fn unknown() -> Error {
    Error::State("the container's init said something unknown".into())
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends data and descriptors in one message.
pub(crate) fn send_with_fds(
    socket: BorrowedFd<'_>,
    data: &[u8],
    fds: &[BorrowedFd<'_>],
) -> sys::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(sys::Error::new("sendmsg(SCM_RIGHTS)", Errno::TOOBIG));
    }
    sendmsg(
        socket,
        &[IoSlice::new(data)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .call(|| "sendmsg(SCM_RIGHTS)")
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_with_its_kind_and_is_cut() {
        let (one, other) = Channel::pair().unwrap();
        let text = "x".repeat(2 * TEXT_BYTES_MAX);
        one.send(&Message::Failed(ErrorKind::NotFound, text))
            .unwrap();
        let Some(Message::Failed(kind, text)) = other.receive().unwrap() else {
            panic!()
        };
        assert_eq!((kind, text.len()), (ErrorKind::NotFound, TEXT_BYTES_MAX));
    }

    #[test]
    fn a_descriptor_crosses_and_the_end_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(&Message::Ready(Some(file.into()))).unwrap();
        drop(one);
        let received = other.receive().unwrap();
        assert!(
            matches!(received, Some(Message::Ready(Some(_)))),
            "{received:?}"
        );
        assert!(other.receive().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        let (one, other) = Channel::pair().unwrap();
        rustix::io::write(&one.fd, b"?").unwrap();
        assert!(other.receive().is_err());
    }
}
