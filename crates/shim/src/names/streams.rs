//! Questions that come over TCP, each behind its length: RFC 7766. A client has one question under way; the next one is read when
//! it is answered.

use super::message::{self, Outcome, Query, Transport};
use super::{Answer, forget};
use crate::stream::{begin_connect, is_for_later, write_some};
use crate::watch::{EventFlags, Poll, Token, Watched};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How many clients are served at once.
const CLIENTS_MAX: usize = 32;

/// How long a client may do nothing, or a server may take.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read at a time.
const READ_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Streams {
    listener: Watched<TcpListener>,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    socket: Watched<TcpStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The question that was passed on.
    question: Option<Question>,
    deadline: Instant,
    is_done: bool,
}

/// A question that was passed on, to one server after the other.
#[derive(Debug)]
struct Question {
    query: Vec<u8>,
    servers: VecDeque<SocketAddr>,
    socket: Watched<TcpStream>,
    /// What the server has not taken yet.
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Streams {
    pub(super) fn new(listener: Watched<TcpListener>) -> Self {
        Self {
            listener,
            clients: Vec::new(),
        }
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.fd.local_addr()?.port())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.deadline).min()
    }

    pub(super) fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        for client in self.clients.extract_if(.., |client| client.is_done) {
            forget(client.socket, poll);
            client
                .question
                .into_iter()
                .for_each(|question| forget(question.socket, poll));
        }
        // Who comes when there is no room waits in the kernel's queue.
        let has_room = self.clients.len() < CLIENTS_MAX;
        self.listener
            .set(poll, has_room.then_some(EventFlags::IN))?;
        for client in &mut self.clients {
            let interest = match (&client.question, client.output.is_empty()) {
                (_, false) => Some(EventFlags::OUT),
                (None, true) => Some(EventFlags::IN),
                (Some(_), true) => None,
            };
            client.socket.set(poll, interest)?;
            if let Some(question) = &mut client.question {
                let flags = if question.output.is_empty() {
                    EventFlags::IN
                } else {
                    EventFlags::OUT
                };
                question.socket.set(poll, Some(flags))?;
            }
        }
        Ok(())
    }

    /// Serves a descriptor that is ready. False: it is somebody else's.
    pub(super) fn ready(
        &mut self,
        poll: &mut Poll,
        token: Token,
        flags: EventFlags,
        answer: &mut impl FnMut(&[u8], Transport) -> Answer,
    ) -> bool {
        if token == self.listener.token {
            self.accept(poll);
            return true;
        }
        for client in &mut self.clients {
            if client.socket.token == token {
                client.ready(poll, flags, answer);
                return true;
            }
            if client
                .question
                .as_ref()
                .is_some_and(|q| q.socket.token == token)
            {
                client.server_ready(poll, answer);
                return true;
            }
        }
        false
    }

    fn accept(&mut self, poll: &mut Poll) {
        while self.clients.len() < CLIENTS_MAX {
            let Ok((socket, _)) = self.listener.fd.accept() else {
                return;
            };
            if socket.set_nonblocking(true).is_ok() {
                self.clients.push(Client {
                    socket: poll.watch(socket),
                    input: Vec::new(),
                    output: Vec::new(),
                    question: None,
                    deadline: Instant::now() + IDLE_TIMEOUT,
                    is_done: false,
                });
            }
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for client in &mut self.clients {
            client.is_done |= client.deadline <= now;
        }
    }
}

impl Client {
    fn ready(
        &mut self,
        poll: &mut Poll,
        flags: EventFlags,
        answer: &mut impl FnMut(&[u8], Transport) -> Answer,
    ) {
        if flags.contains(EventFlags::OUT) {
            self.is_done |= write_some(&mut self.socket.fd, &mut self.output).is_err();
        } else {
            self.is_done |= !read_some(&mut self.socket.fd, &mut self.input);
        }
        self.serve(poll, answer);
    }

    /// Serves the questions that have come, as far as one does not wait for a server.
    fn serve(&mut self, poll: &mut Poll, answer: &mut impl FnMut(&[u8], Transport) -> Answer) {
        while self.question.is_none() && self.output.is_empty() && !self.is_done {
            let Some(query) = take_message(&mut self.input) else {
                return;
            };
            self.deadline = Instant::now() + IDLE_TIMEOUT;
            match answer(&query, Transport::Stream) {
                Answer::Ready(reply) => self.reply(&reply),
                Answer::Ask(servers) => self.ask(poll, query, servers.into()),
                Answer::Nothing => self.is_done = true,
            }
        }
    }

    fn reply(&mut self, message: &[u8]) {
        // What is longer than its length can say is none that a server sends over a stream.
        let Ok(length) = u16::try_from(message.len()) else {
            self.is_done = true;
            return;
        };
        self.output.extend(length.to_be_bytes());
        self.output.extend(message);
        self.is_done |= write_some(&mut self.socket.fd, &mut self.output).is_err();
    }

    fn ask(&mut self, poll: &mut Poll, query: Vec<u8>, mut servers: VecDeque<SocketAddr>) {
        while let Some(server) = servers.pop_front() {
            let Ok(socket) = begin_connect(server) else {
                continue;
            };
            let length = u16::try_from(query.len()).unwrap_or_default();
            self.question = Some(Question {
                output: [&length.to_be_bytes(), &query[..]].concat(),
                query,
                servers,
                socket: poll.watch(socket),
                input: Vec::new(),
            });
            return;
        }
        match Query::parse(&query) {
            Ok(query) => self.reply(&query.answer(Outcome::Failed, &[], Transport::Stream)),
            Err(_) => self.is_done = true,
        }
    }

    /// A server can be written to, has answered, or cannot be reached.
    fn server_ready(
        &mut self,
        poll: &mut Poll,
        answer: &mut impl FnMut(&[u8], Transport) -> Answer,
    ) {
        let Some(question) = &mut self.question else {
            return;
        };
        let Question {
            socket,
            output,
            input,
            ..
        } = question;
        let goes_on = if output.is_empty() {
            read_some(&mut socket.fd, input)
        } else {
            write_some(&mut socket.fd, output).is_ok()
        };
        let whole = take_message(input).filter(|reply| message::answers(reply, &question.query));
        if whole.is_none() && goes_on {
            return;
        }
        let Some(question) = self.question.take() else {
            return;
        };
        forget(question.socket, poll);
        match whole {
            Some(reply) if !message::is_refusal(&reply) || question.servers.is_empty() => {
                self.reply(&reply);
            }
            _ => self.ask(poll, question.query, question.servers),
        }
        self.serve(poll, answer);
    }
}

/// Takes the first whole message out of what was received: 64 KiB at most, as its length says.
fn take_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk::<2>()?));
    let message = input.get(2..2 + length)?.to_vec();
    input.drain(..2 + length);
    Some(message)
}

/// Reads what has come. False: there is no more.
fn read_some(socket: &mut TcpStream, input: &mut Vec<u8>) -> bool {
    let mut buffer = [0; READ_BYTES];
    match socket.read(&mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            input.extend(&buffer[..count]);
            true
        }
        Err(error) => is_for_later(&error),
    }
}
