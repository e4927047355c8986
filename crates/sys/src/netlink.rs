//! Netlink messages and a socket to send them: netlink(7), libnetlink(3).
//!
//! A [`Message`] is built attribute by attribute; a [`Socket`] sends several at once and gives the first error together
//! with the message's own name for it, so that it reads like a line of strace.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::fmt;
use std::os::fd::OwnedFd;

/// The most the kernel sends in one piece.
const RECEIVE_BYTES: usize = 64 << 10;

/// Alignment of messages and attributes.
const ALIGN: usize = 4;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// In the place of what is there.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fail when it exists already.
pub const NLM_F_EXCL: u16 = 0x200;
/// Make it when it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// After the others, not before.
pub const NLM_F_APPEND: u16 = 0x800;
/// All there are.
pub const NLM_F_DUMP: u16 = 0x300;

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The request.
    pub what: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netlink {}: {}", self.what, self.errno)
    }
}

impl std::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(Error { what, errno }: Error) -> Self {
        Self::new(format!("netlink {what}"), errno)
    }
}

/// A message under construction.
#[derive(Debug)]
pub struct Message {
    what: String,
    bytes: Vec<u8>,
    wants_ack: bool,
}

impl Message {
    /// A request. `what` names it in errors.
    pub fn new(kind: u16, flags: u16, what: impl Into<String>) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        Self {
            what: what.into(),
            bytes,
            wants_ack: true,
        }
    }

    /// A request that is not acknowledged: a dump, or a batch's begin and end.
    pub fn unacknowledged(kind: u16, flags: u16, what: impl Into<String>) -> Self {
        let mut message = Self::new(kind, 0, what);
        message.bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        message.wants_ack = false;
        message
    }

    /// Appends the fixed part.
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are a few bytes long");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.push(value);
        self
    }

    /// Appends a number in the machine's order, as rtnetlink has them.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network order, as nf_tables has them.
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a text with its final zero.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds attributes.
    pub fn nest(mut self, kind: u16, content: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut message = content(self);
        let length =
            u16::try_from(message.bytes.len() - start).expect("callers keep nests below 64 KiB");
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// The same, not acknowledged.
    fn silent(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) & !NLM_F_ACK;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.wants_ack = false;
        self
    }

    fn finish(&mut self, sequence: u32) {
        let length =
            u32::try_from(self.bytes.len()).expect("messages are bounded by what a nest may hold");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one.
    pub fn open(protocol: Option<Protocol>) -> Result<Self, Error> {
        let opened = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        );
        let fd = opened.map_err(|errno| Error {
            what: "socket(AF_NETLINK)".to_owned(),
            errno,
        })?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The socket itself, for ioctls that want any socket of the namespace.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The number by which the kernel knows the socket, and tells others who has changed something.
    pub fn port_id(&self) -> Result<u32, Error> {
        let failed = |errno| Error {
            what: "getsockname(AF_NETLINK)".to_owned(),
            errno,
        };
        let address = rustix::net::getsockname(&self.fd).map_err(failed)?;
        let address = SocketAddrNetlink::try_from(address).map_err(failed)?;
        if address.pid() != 0 {
            return Ok(address.pid());
        }
        // It gets one when it is bound, or with the first message.
        rustix::net::bind(&self.fd, &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
        self.port_id()
    }

    /// Sends messages between the two that make a transaction of them: all have their effect, or none. Gives the first error.
    ///
    /// The last is acknowledged for all: answers wait in the socket's buffer until the kernel has done everything, which
    /// those to some hundreds would overflow.
    pub fn send_transaction(
        &mut self,
        begin: Message,
        mut messages: Vec<Message>,
        end: Message,
    ) -> Result<(), Error> {
        let Some(last) = messages.pop() else {
            return Ok(());
        };
        let mut batch = vec![begin];
        batch.extend(messages.into_iter().map(Message::silent));
        batch.extend([last, end]);
        self.send(batch)
    }

    /// Sends all messages at once and waits for all answers. Gives the first error; the messages that did not fail have had
    /// their effect.
    pub fn send(&mut self, mut messages: Vec<Message>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        let first = self.sequence.wrapping_add(1);
        for message in &mut messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        self.make_room(bytes.len())?;
        let all = |errno| Error {
            what: messages.first().map(|m| m.what.clone()).unwrap_or_default(),
            errno,
        };
        rustix::net::send(&self.fd, &bytes, SendFlags::empty()).map_err(all)?;
        let mut waiting = messages.iter().filter(|message| message.wants_ack).count();
        let mut failed = None;
        let mut flags = RecvFlags::empty();
        while waiting > 0 {
            let received = receive(&self.fd, flags, |Header { kind, sequence, .. }, body| {
                let at = sequence.wrapping_sub(first) as usize;
                let Some(message) = messages.get(at).filter(|_| kind == NLMSG_ERROR) else {
                    return;
                };
                let code = body
                    .first_chunk::<4>()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                if message.wants_ack {
                    waiting = waiting.saturating_sub(1);
                }
                if code != 0 && failed.is_none() {
                    failed = Some(Error {
                        what: message.what.clone(),
                        errno: Errno::from_raw_os_error(-code),
                    });
                }
            });
            match received {
                // After one that was not to be acknowledged has failed, the answers to others may not come.
                Ok(()) if failed.is_some() => flags = RecvFlags::DONTWAIT,
                Ok(()) => {}
                // Answers were too many for the buffer. The first have found room.
                Err(Errno::NOBUFS) => flags = RecvFlags::DONTWAIT,
                Err(Errno::AGAIN) if !flags.is_empty() => break,
                Err(errno) => return Err(all(errno)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None if waiting > 0 => Err(all(Errno::NOBUFS)),
            None => Ok(()),
        }
    }

    /// A message longer than the send buffer is refused as a whole. The kernel doubles what is asked for, and counts its
    /// own overhead in.
    fn make_room(&self, bytes: usize) -> Result<(), Error> {
        const DEFAULT_BYTES: usize = 64 << 10;
        if bytes <= DEFAULT_BYTES {
            return Ok(());
        }
        let refused = |errno| Error {
            what: format!("make room for {bytes} bytes"),
            errno,
        };
        let bytes = i32::try_from(bytes).map_err(|_| refused(Errno::MSGSIZE))?;
        crate::socket::set_send_buffer(&self.fd, bytes).map_err(|error| refused(error.errno))
    }

    /// Sends a dump request and hands every answer's kind and body to `each`.
    pub fn dump(&mut self, mut message: Message, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let wanted = self.sequence;
        message.finish(wanted);
        let failed = |errno| Error {
            what: message.what.clone(),
            errno,
        };
        rustix::net::send(&self.fd, &message.bytes, SendFlags::empty()).map_err(failed)?;
        let mut done = false;
        let mut error = None;
        while !done {
            self.receive(|kind, sequence, body| {
                if sequence != wanted {
                    return;
                }
                match kind {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        done = true;
                        let code = body
                            .first_chunk::<4>()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        error = (code != 0).then(|| failed(Errno::from_raw_os_error(-code)));
                    }
                    _ => each(body),
                }
            })
            .map_err(failed)?;
        }
        error.map_or(Ok(()), Err)
    }

    fn receive(&self, mut each: impl FnMut(u16, u32, &[u8])) -> Result<(), Errno> {
        receive(&self.fd, RecvFlags::empty(), |header, body| {
            each(header.kind, header.sequence, body);
        })
    }
}

/// What precedes a message's body: `struct nlmsghdr`.
struct Header {
    kind: u16,
    sequence: u32,
    port_id: u32,
}

/// Takes the next messages; waits for them unless the flags say otherwise.
fn receive(
    socket: &OwnedFd,
    flags: RecvFlags,
    mut each: impl FnMut(Header, &[u8]),
) -> Result<(), Errno> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let count = loop {
        match rustix::net::recv(socket, &mut buffer[..], flags) {
            Err(Errno::INTR) => {}
            result => break result?.1,
        }
    };
    let mut rest = &buffer[..count];
    while let Some((header, length)) = rest.first_chunk::<HEADER_BYTES>().and_then(|header| {
        let length = u32::from_ne_bytes(*header.first_chunk::<4>()?) as usize;
        (HEADER_BYTES..=rest.len())
            .contains(&length)
            .then_some((header, length))
    }) {
        let number = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let parsed = Header {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: number(8),
            port_id: number(12),
        };
        each(parsed, &rest[HEADER_BYTES..length]);
        rest = rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
    }
    Ok(())
}

/// A socket on which the kernel tells of changes.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Hears of a group's changes in the calling thread's network namespace, from now on. `group`: 1 to 32.
    pub fn join(protocol: Protocol, group: u32) -> Result<Self, Error> {
        let socket = Socket::open(Some(protocol))?;
        let address = SocketAddrNetlink::new(0, 1 << (group - 1));
        rustix::net::bind(&socket.fd, &address).map_err(|errno| Error {
            what: format!("bind(AF_NETLINK, group {group})"),
            errno,
        })?;
        Ok(Self(socket.fd))
    }

    /// Waits for changes and hands to `each` the kind of all there are by now, the number of the socket whose they are, and
    /// their body.
    ///
    /// # Errors
    /// ENOBUFS: some are lost. The kernel says so once, and not again of what it loses before the queue has been empty; so what
    /// is read after this call is as new as every change whose loss goes unsaid.
    pub fn receive(&self, mut each: impl FnMut(u16, u32, &[u8])) -> Result<(), Errno> {
        let mut lost = Ok(());
        let mut flags = RecvFlags::empty();
        loop {
            match receive(&self.0, flags, |header, body| {
                each(header.kind, header.port_id, body);
            }) {
                Ok(()) => {}
                Err(Errno::NOBUFS) => lost = Err(Errno::NOBUFS),
                Err(Errno::AGAIN) => return lost,
                Err(errno) => return Err(errno),
            }
            flags = RecvFlags::DONTWAIT;
        }
    }
}

/// The attributes in a body, after its fixed part.
pub fn attributes(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let message = Message::new(1, 0, "test")
            .fixed(&[9])
            .nest(2, |m| m.text(3, "abc").number(4, 5));
        let (kind, nested) = attributes(&message.bytes[HEADER_BYTES + 4..])
            .next()
            .unwrap();
        assert_eq!(kind, 2);
        let inner: Vec<_> = attributes(nested).collect();
        assert_eq!(inner, [(3, &b"abc\0"[..]), (4, &5_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn an_error_names_its_message() {
        let mut socket = Socket::open(None).unwrap();
        const RTM_DELLINK: u16 = 17;
        let message = Message::new(RTM_DELLINK, 0, "delete link nowhere0")
            .fixed(&[0; 16])
            .text(3, "nowhere0");
        let error = socket.send(vec![message]).unwrap_err();
        assert_eq!(
            (error.what.as_str(), error.errno),
            ("delete link nowhere0", Errno::NODEV)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read_as_attributes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = attributes(&bytes).map(|(_, value)| value.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
