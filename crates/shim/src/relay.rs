//! Connections from ::1 to published ports, handed on to the container.
//!
//! The kernel has no way from ::1 to another interface, so that no translation can serve it (docs/adr/0016). The engine has such
//! connections led to one socket here, however many ports there are; which one a client asked for, the connection itself tells
//! (`IP6T_SO_ORIGINAL_DST`, linux/netfilter_ipv6/ip6_tables.h). It serves as long as the container runs, with or without an
//! engine. Each side is read only while the other has taken everything, so that a connection holds [`BUFFER_BYTES`] each way at most.

use crate::protocol::Route;
use crate::stream::{begin_connect, is_for_later, write_some};
use crate::watch::{EventFlags, Poll, Token, Watched};
use rustix::io::Errno;
use rustix::net::sockopt::{ipv6_original_dst, set_socket_linger};
use std::io::{self, Read};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How many connections are handed on at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;

/// How long the container may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Hands connections on.
#[derive(Debug)]
pub(crate) struct Relay {
    listener: Watched<TcpListener>,
    routes: Vec<Route>,
    pairs: Vec<Pair>,
    buffer: Vec<u8>,
}

/// A client's connection, and the one to the container.
#[derive(Debug)]
struct Pair {
    client: Side,
    server: Side,
    /// By when the container has to accept; None: it has.
    connecting: Option<Instant>,
    is_done: bool,
}

#[derive(Debug)]
struct Side {
    socket: Watched<TcpStream>,
    /// What the other side has sent and this one has not taken yet.
    output: Vec<u8>,
    /// It has said all that it will say.
    is_ended: bool,
    /// It knows that the other one has.
    is_told: bool,
}

impl Relay {
    /// Listens on ::1. None: this host has no such address.
    pub(crate) fn open(poll: &mut Poll) -> io::Result<Option<Self>> {
        let listener = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            Err(error)
                if [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                return Ok(None);
            }
            listener => listener?,
        };
        listener.set_nonblocking(true)?;
        Ok(Some(Self {
            listener: poll.watch(listener),
            routes: Vec::new(),
            pairs: Vec::new(),
            buffer: Vec::new(),
        }))
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.fd.local_addr()?.port())
    }

    /// Hands on by these from now on; what is under way goes on.
    pub(crate) fn set_routes(&mut self, routes: Vec<Route>) {
        self.routes = routes;
    }

    /// When a connection has to be given up, at the earliest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pairs.iter().filter_map(|pair| pair.connecting).min()
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        for pair in &mut self.pairs {
            if pair.connecting.is_some_and(|deadline| deadline <= now) {
                pair.break_off();
            }
        }
    }

    /// Serves a descriptor that is ready. False: it is somebody else's.
    pub(crate) fn ready(&mut self, poll: &mut Poll, token: Token, flags: EventFlags) -> bool {
        if token == self.listener.token {
            self.accept(poll);
            return true;
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        for pair in &mut self.pairs {
            if pair.owns(token) {
                if pair.ready(token, flags, &mut self.buffer).is_err() {
                    pair.break_off();
                }
                return true;
            }
        }
        false
    }

    /// Waits for what it can do something with.
    pub(crate) fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        for pair in self.pairs.extract_if(.., |pair| pair.is_done) {
            for side in [pair.client, pair.server] {
                let mut socket = side.socket;
                socket.set(poll, None)?;
            }
        }
        if self.pairs.is_empty() {
            self.buffer = Vec::new();
        }
        let has_room = self.pairs.len() < CONNECTIONS_MAX;
        self.listener
            .set(poll, has_room.then_some(EventFlags::IN))?;
        for pair in &mut self.pairs {
            pair.set_interests(poll)?;
        }
        Ok(())
    }

    fn accept(&mut self, poll: &mut Poll) {
        while self.pairs.len() < CONNECTIONS_MAX {
            let Ok((client, _)) = self.listener.fd.accept() else {
                return;
            };
            // One that cannot be handed on is closed.
            if let Ok(Some(pair)) = self.pair(poll, client) {
                self.pairs.push(pair);
            }
        }
    }

    /// Begins to hand a connection on. None: it did not come by a published port.
    fn pair(&self, poll: &mut Poll, client: TcpStream) -> io::Result<Option<Pair>> {
        let asked = ipv6_original_dst(&client)?;
        let target = self.routes.iter().find_map(|route| route.of(asked.port()));
        let Some(target) = target.filter(|_| *asked.ip() == Ipv6Addr::LOCALHOST) else {
            return Ok(None);
        };
        client.set_nonblocking(true)?;
        let server = begin_connect(target)?;
        Ok(Some(Pair {
            client: Side::new(poll.watch(client)),
            server: Side::new(poll.watch(server)),
            connecting: Some(Instant::now() + CONNECT_TIMEOUT),
            is_done: false,
        }))
    }
}

impl Route {
    /// Where a port leads.
    fn of(&self, port: u16) -> Option<SocketAddr> {
        let (first, last) = self.host_ports;
        let at = (first..=last).contains(&port).then(|| port - first)?;
        let port = self.to.port().checked_add(at)?;
        Some(SocketAddr::new(self.to.ip(), port))
    }
}

impl Pair {
    fn owns(&self, token: Token) -> bool {
        self.client.socket.token == token || self.server.socket.token == token
    }

    /// One side has broken off, and the other one is not to take that for an end.
    fn break_off(&mut self) {
        for side in [&self.client, &self.server] {
            // Without it what was cut off looks whole, which is all that can be done then.
            let _ = set_socket_linger(&side.socket.fd, Some(Duration::ZERO));
        }
        self.is_done = true;
    }

    fn ready(&mut self, token: Token, flags: EventFlags, buffer: &mut [u8]) -> io::Result<()> {
        let is_client = self.client.socket.token == token;
        if !is_client && self.connecting.is_some() {
            if let Some(error) = self.server.socket.fd.take_error()? {
                return Err(error);
            }
            self.connecting = None;
        }
        let (side, other) = if is_client {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        if flags.contains(EventFlags::OUT) {
            write_some(&mut side.socket.fd, &mut side.output)?;
        }
        let can_be_read = EventFlags::IN | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(can_be_read) && !side.is_ended && other.output.is_empty() {
            match side.socket.fd.read(buffer) {
                Ok(0) => side.is_ended = true,
                Ok(count) => {
                    other.output.extend(&buffer[..count]);
                    if self.connecting.is_none() {
                        write_some(&mut other.socket.fd, &mut other.output)?;
                    }
                }
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.pass_ends_on()
    }

    /// Tells each side that the other has ended, once it has taken everything.
    fn pass_ends_on(&mut self) -> io::Result<()> {
        if self.connecting.is_some() {
            return Ok(());
        }
        self.server.end(self.client.is_ended)?;
        self.client.end(self.server.is_ended)?;
        self.is_done = self.client.is_told && self.server.is_told;
        Ok(())
    }

    fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        let Self { client, server, .. } = self;
        let is_connecting = self.connecting.is_some();
        let mut client_flags = EventFlags::empty();
        let mut server_flags = EventFlags::empty();
        client_flags.set(EventFlags::IN, !client.is_ended && server.output.is_empty());
        client_flags.set(EventFlags::OUT, !client.output.is_empty());
        if is_connecting {
            server_flags = EventFlags::OUT;
        } else {
            server_flags.set(EventFlags::IN, !server.is_ended && client.output.is_empty());
            server_flags.set(EventFlags::OUT, !server.output.is_empty());
        }
        for (side, flags) in [(client, client_flags), (server, server_flags)] {
            side.socket
                .set(poll, (!flags.is_empty()).then_some(flags))?;
        }
        Ok(())
    }
}

impl Side {
    fn new(socket: Watched<TcpStream>) -> Self {
        Self {
            socket,
            output: Vec::new(),
            is_ended: false,
            is_told: false,
        }
    }

    /// Says that nothing more comes, once everything has been taken.
    fn end(&mut self, has_ended: bool) -> io::Result<()> {
        if has_ended && self.output.is_empty() && !self.is_told {
            self.is_told = true;
            self.socket.fd.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}
