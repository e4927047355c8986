//! Questions that come as datagrams: each that is passed on has a socket of its own, connected, with a port and an id that
//! nobody can foresee, so that an answer is only taken from who was asked (RFC 5452 section 9).

use super::message::{self, Outcome, Query, Transport};
use super::{Answer, SERVER_TIMEOUT, forget};
use crate::watch::{EventFlags, Poll, Token, Watched};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

/// How many questions are under way at most.
const QUESTIONS_MAX: usize = 128;

/// The longest question that is passed on.
const QUESTION_BYTES_MAX: usize = 4096;

/// The longest answer to one.
const ANSWER_BYTES_MAX: usize = 65535;

/// How many questions are taken at once before others have their turn.
const BURST: usize = 64;

/// The socket that questions come to, and those that are under way.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: Watched<UdpSocket>,
    questions: Vec<Question>,
}

/// A question that was passed on.
#[derive(Debug)]
struct Question {
    client: SocketAddr,
    /// The client's id for it.
    id: u16,
    /// What is asked, with an id of its own.
    query: Vec<u8>,
    /// Who is asked, and then the others.
    servers: VecDeque<SocketAddr>,
    socket: Watched<UdpSocket>,
    deadline: Instant,
}

impl Datagrams {
    pub(super) fn new(socket: Watched<UdpSocket>) -> Self {
        Self {
            socket,
            questions: Vec::new(),
        }
    }

    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.fd.local_addr()?.port())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.questions
            .iter()
            .map(|question| question.deadline)
            .min()
    }

    pub(super) fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        self.socket.set(poll, Some(EventFlags::IN))?;
        let questions = self.questions.iter_mut();
        { questions }.try_for_each(|question| question.socket.set(poll, Some(EventFlags::IN)))
    }

    /// Serves a descriptor that is ready. False: it is somebody else's.
    pub(super) fn ready(
        &mut self,
        poll: &mut Poll,
        token: Token,
        answer: &mut impl FnMut(&[u8], Transport) -> Answer,
    ) -> bool {
        if token == self.socket.token {
            self.receive(poll, answer);
            return true;
        }
        match self.questions.iter().position(|q| q.socket.token == token) {
            Some(at) => {
                self.answered(poll, at);
                true
            }
            None => false,
        }
    }

    fn receive(&mut self, poll: &mut Poll, answer: &mut impl FnMut(&[u8], Transport) -> Answer) {
        let mut buffer = [0; QUESTION_BYTES_MAX];
        for _ in 0..BURST {
            let Ok((count, client)) = self.socket.fd.recv_from(&mut buffer) else {
                return;
            };
            let query = &buffer[..count];
            match answer(query, Transport::Datagram) {
                Answer::Ready(reply) => self.send(&reply, client),
                Answer::Ask(servers) => self.pass_on(poll, client, query, servers.into()),
                Answer::Nothing => {}
            }
        }
    }

    /// A client that cannot be reached any more asks again, or not.
    fn send(&self, reply: &[u8], client: SocketAddr) {
        let _ = self.socket.fd.send_to(reply, client);
    }

    fn fail(&self, query: &[u8], id: u16, client: SocketAddr) {
        if let Ok(query) = Query::parse(query) {
            let mut reply = query.answer(Outcome::Failed, &[], Transport::Datagram);
            message::set_id(&mut reply, id);
            self.send(&reply, client);
        }
    }

    fn pass_on(
        &mut self,
        poll: &mut Poll,
        client: SocketAddr,
        query: &[u8],
        servers: VecDeque<SocketAddr>,
    ) {
        let id = message::id(query).unwrap_or_default();
        if self.questions.len() >= QUESTIONS_MAX {
            self.fail(query, id, client);
            return;
        }
        self.ask(poll, client, id, query.to_vec(), servers);
    }

    /// Asks the first server that can be asked.
    fn ask(
        &mut self,
        poll: &mut Poll,
        client: SocketAddr,
        id: u16,
        mut query: Vec<u8>,
        mut servers: VecDeque<SocketAddr>,
    ) {
        while let Some(server) = servers.pop_front() {
            let Ok(socket) = random_id().and_then(|own| {
                message::set_id(&mut query, own);
                send_to(server, &query)
            }) else {
                continue;
            };
            self.questions.push(Question {
                client,
                id,
                query,
                servers,
                socket: poll.watch(socket),
                deadline: Instant::now() + SERVER_TIMEOUT,
            });
            return;
        }
        self.fail(&query, id, client);
    }

    /// A server has answered, or cannot be reached.
    fn answered(&mut self, poll: &mut Poll, at: usize) {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let question = &self.questions[at];
        match question.socket.fd.recv(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                if !message::answers(&buffer, &question.query) {
                    // Somebody else's guess; the answer may still come.
                    return;
                }
                if message::is_refusal(&buffer) && !question.servers.is_empty() {
                    self.ask_next(poll, at);
                    return;
                }
                message::set_id(&mut buffer, question.id);
                self.send(&buffer, question.client);
                forget(self.questions.swap_remove(at).socket, poll);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.ask_next(poll, at),
        }
    }

    fn ask_next(&mut self, poll: &mut Poll, at: usize) {
        let question = self.questions.swap_remove(at);
        forget(question.socket, poll);
        let Question {
            client,
            id,
            query,
            servers,
            ..
        } = question;
        self.ask(poll, client, id, query, servers);
    }

    /// Asks the next server where one has taken too long.
    pub(super) fn expire(&mut self, poll: &mut Poll, now: Instant) {
        while let Some(at) = self.questions.iter().position(|q| q.deadline <= now) {
            self.ask_next(poll, at);
        }
    }
}

/// Sends a question by a socket of its own.
fn send_to(server: SocketAddr, query: &[u8]) -> io::Result<UdpSocket> {
    let socket = if server.is_ipv4() {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?
    } else {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?
    };
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(query)?;
    Ok(socket)
}

pub(super) fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}
