//! The resolver of a container: it answers what the files of its networks know, and passes everything else on.
//!
//! It listens in the container's network namespace, on ports of the kernel's choice that the engine has port 53 of
//! [`ADDRESS`] translated to, and asks the host's servers from the host's: one that listens on the host's loopback is reached.
//! It serves as long as the container runs, with or without an engine. Nothing is allocated before the first question, and
//! what is under way is bounded in number, size and time. A container of internal networks alone has nobody asked outside
//! (CVE-2024-29018).

mod datagrams;
mod message;
mod streams;
mod table;
#[cfg(test)]
mod tests;

use crate::protocol::{Names, Upstream};
use crate::watch::{EventFlags, Poll, Token, Watched};
use datagrams::Datagrams;
use message::{Outcome, Query, Record, Transport, kind};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use streams::Streams;
use table::Table;

/// Where a container finds it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of name servers.
const DOMAIN: u16 = 53;

/// How long a server may take to answer.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// How many servers are asked, one after the other.
const SERVERS_MAX: usize = 3;

/// How much of the host's resolv.conf is read.
const RESOLV_CONF_BYTES_MAX: u64 = 64 << 10;

/// How many times a name that stands for another is followed.
const LINKS_MAX: usize = 64;

/// The resolver.
#[derive(Debug)]
pub(crate) struct Resolver {
    names: Names,
    datagrams: Datagrams,
    streams: Streams,
    /// Grows with every answer, so that addresses take turns at being the first.
    turn: usize,
}

/// What becomes of a query.
pub(crate) enum Answer {
    /// This is sent.
    Ready(Vec<u8>),
    /// These are asked.
    Ask(Vec<SocketAddr>),
    /// It is no query at all.
    Nothing,
}

impl Resolver {
    /// Listens in a network namespace.
    pub(crate) fn open(poll: &mut Poll, netns: BorrowedFd<'_>, names: Names) -> io::Result<Self> {
        let (udp, tcp) = listen(netns)?;
        Ok(Self {
            names,
            datagrams: Datagrams::new(poll.watch(udp)),
            streams: Streams::new(poll.watch(tcp)),
            turn: 0,
        })
    }

    /// Knows other networks from now on.
    pub(crate) fn set_names(&mut self, names: Names) {
        self.names = names;
    }

    /// The ports it listens on, for UDP and TCP.
    pub(crate) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.datagrams.port()?, self.streams.port()?))
    }

    /// Serves a descriptor that is ready. False: it is somebody else's.
    pub(crate) fn ready(&mut self, poll: &mut Poll, token: Token, flags: EventFlags) -> bool {
        let Self {
            names,
            datagrams,
            streams,
            turn,
        } = self;
        let mut answer = |query: &[u8], transport| {
            *turn = turn.wrapping_add(1);
            answer(names, query, transport, *turn)
        };
        datagrams.ready(poll, token, &mut answer) || streams.ready(poll, token, flags, &mut answer)
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, poll: &mut Poll, now: Instant) {
        self.datagrams.expire(poll, now);
        self.streams.expire(now);
    }

    /// When something has to be given up, at the earliest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.datagrams.deadline(), self.streams.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Waits for what it can do something with.
    pub(crate) fn set_interests(&mut self, poll: &Poll) -> io::Result<()> {
        self.datagrams.set_interests(poll)?;
        self.streams.set_interests(poll)
    }
}

/// Makes the sockets on a thread of its own that ends with it: a thread that has entered a namespace is good for nothing else.
fn listen(netns: BorrowedFd<'_>) -> io::Result<(UdpSocket, TcpListener)> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            let udp = UdpSocket::bind((ADDRESS, 0))?;
            let tcp = TcpListener::bind((ADDRESS, 0))?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn answer(names: &Names, message: &[u8], transport: Transport, turn: usize) -> Answer {
    let query = match Query::parse(message) {
        Ok(query) => query,
        Err(outcome) => {
            return message::reject(message, outcome).map_or(Answer::Nothing, Answer::Ready);
        }
    };
    let known = match find(names, &query, turn) {
        Ok(known) => known,
        // A file that cannot be read may have known it.
        Err(_) => return Answer::Ready(query.answer(Outcome::Failed, &[], transport)),
    };
    if let Some(records) = known {
        return Answer::Ready(query.answer(Outcome::Found, &records, transport));
    }
    match servers(&names.upstream) {
        Some(servers) if servers.is_empty() => {
            Answer::Ready(query.answer(Outcome::Failed, &[], transport))
        }
        Some(servers) => Answer::Ask(servers),
        None => Answer::Ready(query.answer(Outcome::NoName, &[], transport)),
    }
}

/// What the networks know about a question. None: nothing, not even that there is such a name.
fn find(names: &Names, query: &Query<'_>, turn: usize) -> io::Result<Option<Vec<Record>>> {
    if !query.is_internet {
        return Ok(None);
    }
    let reverse = message::reverse_address(&query.name);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for file in &names.files {
        let table = Table::read(file)?;
        if let Some(address) = reverse {
            if let Some(name) = table.name(address) {
                let wanted = matches!(query.kind, kind::PTR | kind::ANY);
                return Ok(Some(Vec::from_iter(wanted.then_some(Record::Name(name)))));
            }
            continue;
        }
        let links = names.links.iter().take(LINKS_MAX);
        let own = links.filter(|(name, _)| name.eq_ignore_ascii_case(&query.name));
        let found = own.flat_map(|(_, target)| {
            let by_name = table.addresses(&target.to_ascii_lowercase());
            [table.addresses_of(target), by_name].concat()
        });
        for address in found.chain(table.addresses(&query.name)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    if addresses.is_empty() {
        return Ok(None);
    }
    addresses.retain(|address| match query.kind {
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        kind => kind == kind::ANY,
    });
    if !addresses.is_empty() {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
    }
    Ok(Some(addresses.into_iter().map(Record::Address).collect()))
}

/// The servers to ask. None: nobody may be asked.
fn servers(upstream: &Upstream) -> Option<Vec<SocketAddr>> {
    let servers = match upstream {
        Upstream::Nobody => return None,
        Upstream::Servers(servers) => servers.clone(),
        // Read anew each time: the host may have moved to another network since.
        Upstream::Host => host_servers(),
    };
    let servers = servers.into_iter().take(SERVERS_MAX);
    Some(
        servers
            .map(|server| SocketAddr::new(server, DOMAIN))
            .collect(),
    )
}

/// The servers of resolv.conf(5).
fn host_servers() -> Vec<IpAddr> {
    use std::io::Read;
    let mut text = String::new();
    // Without the file the host has no servers, and neither have its containers.
    let read = std::fs::File::open("/etc/resolv.conf")
        .and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.parse().ok()
    });
    lines.collect()
}

/// Takes a socket out of the set before it is closed.
fn forget<F: std::os::fd::AsFd>(mut socket: Watched<F>, poll: &Poll) {
    // It is closed right after, which takes it out, too.
    let _ = socket.set(poll, None);
}
