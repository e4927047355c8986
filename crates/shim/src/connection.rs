//! One connection to the shim: frames first, then perhaps the streams of a process.

use crate::protocol::{self, Event, Message, Reply, Streams};
use crate::watch::{EventFlags, Watched};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::Serialize;
use std::os::unix::net::UnixStream;

/// How many bytes are read from a connection at a time.
const READ_BYTES: usize = 32 << 10;

/// Names a process of the container in this shim; 0 is the init.
pub(crate) type ProcessKey = u32;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests and replies, and events when subscribed.
    Frames { subscribed: bool },
    /// The streams of a process.
    Streams {
        process: ProcessKey,
        streams: Streams,
    },
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Watched<UnixStream>,
    pub(crate) mode: Mode,
    /// Bytes read that are no whole frame yet, or standard input that came right behind the frame.
    pub(crate) input: Vec<u8>,
    /// Bytes the peer has not taken yet. Bounded: while there are any, nothing more is read that could add to them.
    output: Vec<u8>,
    /// The peer has half-closed.
    pub(crate) input_ended: bool,
    /// To be closed as soon as the peer has taken everything.
    pub(crate) closing: bool,
    /// The peer is gone.
    pub(crate) dead: bool,
}

impl Connection {
    pub(crate) fn new(socket: Watched<UnixStream>) -> Self {
        Self {
            socket,
            mode: Mode::Frames { subscribed: false },
            input: Vec::new(),
            output: Vec::new(),
            input_ended: false,
            closing: false,
            dead: false,
        }
    }

    /// Whether the peer is behind.
    pub(crate) fn is_behind(&self) -> bool {
        !self.output.is_empty()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.dead || (self.closing && self.output.is_empty())
    }

    /// The readiness this connection waits for. `input_blocked`: the process does not take standard input now.
    pub(crate) fn interest(&self, input_blocked: bool) -> EventFlags {
        let mut flags = EventFlags::empty();
        if !self.input_ended && !input_blocked && !self.is_behind() {
            flags |= EventFlags::IN;
        }
        if self.is_behind() {
            flags |= EventFlags::OUT;
        }
        flags
    }

    /// Reads what has come into `input`.
    pub(crate) fn receive(&mut self) {
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => self.input_ended = true,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.dead = true,
        }
    }

    pub(crate) fn reply(&mut self, reply: Reply) {
        self.frame(&Message::Reply(reply));
    }

    pub(crate) fn event(&mut self, event: &Event) {
        if self.mode == (Mode::Frames { subscribed: true }) {
            self.frame(&Message::Event(event.clone()));
        }
    }

    fn frame<T: Serialize>(&mut self, message: &T) {
        match protocol::encode(message) {
            Ok(frame) => self.send(&[&frame]),
            // Only an answer over the limit ends up here; a peer without its answer can do nothing with the rest.
            Err(_) => self.dead = true,
        }
    }

    /// Sends process output, framed for Docker's clients when `stream` says which stream it is.
    pub(crate) fn output(&mut self, stream: Option<u8>, bytes: &[u8]) {
        let Some(stream) = stream else {
            return self.send(&[bytes]);
        };
        let length = u32::try_from(bytes.len()).expect("output is read in pieces far below 4 GiB");
        let [a, b, c, d] = length.to_be_bytes();
        self.send(&[&[stream, 0, 0, 0, a, b, c, d], bytes]);
    }

    fn send(&mut self, pieces: &[&[u8]]) {
        let mut skip = 0;
        if self.output.is_empty() {
            let slices: Vec<_> = pieces
                .iter()
                .map(|piece| std::io::IoSlice::new(piece))
                .collect();
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let sent = rustix::net::sendmsg(&self.socket, &slices, &mut Default::default(), flags);
            match sent {
                Ok(count) => skip = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.dead = true,
            }
        }
        for piece in pieces {
            let sent = skip.min(piece.len());
            self.output.extend_from_slice(&piece[sent..]);
            skip -= sent;
        }
    }

    /// Sends what is waiting.
    pub(crate) fn flush(&mut self) {
        match rustix::net::send(
            &self.socket,
            &self.output,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Ok(count) => {
                self.output.drain(..count);
                if self.output.is_empty() {
                    self.output.shrink_to_fit();
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.dead = true,
        }
    }
}
