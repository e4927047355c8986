//! Messages to a log service: sent as it takes them, kept in bounds while it does not.
//!
//! Nothing here waits but the first connection. A service that is slow holds the container's output back, or messages are lost, as its
//! configuration says; one that is away never holds it back: what comes then is lost once the queue is full, and the loss is told.

use super::syslog::{self, Sender};
use super::tls::Tls;
use super::{Stream, journal};
use crate::protocol::{RemoteLog, RemoteTarget, SyslogAddress};
use crate::watch::{EventFlags, Poll, Token, Watched};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, sockopt,
};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many bytes of messages wait at most, unless the configuration says otherwise.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before a lost connection is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where the machine's own syslog listens.
const LOCAL_SOCKETS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// A log service.
#[derive(Debug)]
pub(super) struct Remote {
    config: RemoteLog,
    host: String,
    connection: Option<Connection>,
    /// The connection has failed, and is to be forgotten with the next [`Remote::settle`].
    broken: bool,
    retry_at: Instant,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// How much of the first message was sent already.
    sent_bytes: usize,
    /// Nothing more comes.
    ending: bool,
    loss_reported: bool,
}

#[derive(Debug)]
struct Connection {
    socket: Watched<OwnedFd>,
    /// A message is a datagram, not a part of a stream.
    datagrams: bool,
    /// Boxed, as most have none.
    tls: Option<Box<Tls>>,
}

impl Connection {
    /// What the socket waits for, when messages are waiting or not.
    fn interest(&self, waiting: bool) -> EventFlags {
        let takes_more = match &self.tls {
            Some(tls) => tls.wants_write() || (waiting && !tls.is_handshaking()),
            None => waiting,
        };
        let mut interest = EventFlags::IN;
        interest.set(EventFlags::OUT, takes_more);
        interest
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&self.socket);
        }
    }
}

impl Remote {
    /// Connects, or fails: that nobody listens from the beginning is an error of the configuration.
    pub(super) fn open(poll: &mut Poll, config: RemoteLog) -> io::Result<Self> {
        let mut remote = Self {
            config,
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            connection: None,
            broken: false,
            retry_at: Instant::now(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            sent_bytes: 0,
            ending: false,
            loss_reported: false,
        };
        let mut tls = remote.tls()?;
        let (socket, datagrams) = remote.connect()?;
        wait_connected(&socket)?;
        if let Some(tls) = &mut tls {
            tls.shake_hands(&socket, CONNECT_TIMEOUT)?;
        }
        remote.connection = Some(Connection {
            socket: poll.watch(socket),
            datagrams,
            tls,
        });
        Ok(remote)
    }

    /// The session for a new connection, where there is to be one.
    fn tls(&self) -> io::Result<Option<Box<Tls>>> {
        let RemoteTarget::Syslog { address, .. } = &self.config.target else {
            return Ok(None);
        };
        match address {
            SyslogAddress::Tls(address, files) => {
                Tls::new(files, address.ip()).map(|tls| Some(Box::new(tls)))
            }
            _ => Ok(None),
        }
    }

    fn connect(&self) -> io::Result<(OwnedFd, bool)> {
        match &self.config.target {
            RemoteTarget::Journal { socket, .. } => unix(socket, true),
            RemoteTarget::Syslog { address, .. } => match address {
                SyslogAddress::Udp(address) => internet(*address, true),
                SyslogAddress::Tcp(address) | SyslogAddress::Tls(address, _) => {
                    internet(*address, false)
                }
                SyslogAddress::Unix(path) => unix(path, false),
                SyslogAddress::UnixDatagram(path) => unix(path, true),
                SyslogAddress::Local => local(),
            },
        }
    }

    /// Takes a line, or a part of one. Where there is no room, it is lost.
    pub(super) fn push(&mut self, stream: Stream, time: Timestamp, line: &[u8]) {
        let (text, partial) = match line.strip_suffix(b"\n") {
            Some(text) => (text, false),
            None => (line, true),
        };
        let message = match &self.config.target {
            RemoteTarget::Journal { fields, .. } => {
                journal::entry(fields, stream, time, text, partial)
            }
            RemoteTarget::Syslog {
                address,
                format,
                facility,
                tag,
            } => {
                // To syslog, an empty message is none.
                if text.is_empty() {
                    return;
                }
                let sender = Sender {
                    facility: *facility,
                    tag,
                    host: &self.host,
                    pid: rustix::process::getpid().as_raw_pid(),
                };
                let message = syslog::message(*format, &sender, stream, time, text);
                match address {
                    SyslogAddress::Tls(..) => syslog::frame(*format, message),
                    _ => message,
                }
            }
        };
        let waits = self.connection.is_some() && self.config.buffer_bytes.is_none();
        let full = self.queued_bytes + message.len() > self.limit();
        if full && !waits && !self.queue.is_empty() {
            return self.report_loss("the queue of messages is full");
        }
        self.queued_bytes += message.len();
        self.queue.push_back(message);
    }

    fn limit(&self) -> usize {
        self.config.buffer_bytes.unwrap_or(QUEUE_BYTES_MAX)
    }

    /// Whether output has to wait.
    pub(super) fn is_behind(&self) -> bool {
        let waits = self.connection.is_some() && self.config.buffer_bytes.is_none();
        waits && self.queued_bytes >= self.limit()
    }

    /// Takes note that nothing more comes.
    pub(super) fn end(&mut self) {
        self.ending = true;
        self.close_when_sent();
    }

    /// Ends a session once everything is sent, and leaves the connection to the server: a server of TLS speaks too (its tickets come
    /// after the handshake), and a connection that is closed with words unread is reset, with which the server loses what it has not
    /// read.
    fn close_when_sent(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Some(tls) = &mut connection.tls
            && self.ending
            && self.queue.is_empty()
            && !tls.is_handshaking()
        {
            tls.close(&connection.socket);
            if !tls.wants_write() {
                // Who has gone meanwhile need not be told.
                let _ = shutdown(&connection.socket, Shutdown::Write);
            }
        }
    }

    /// Whether everything has arrived as far as can be known, or nobody is there who would take it. For a session with TLS, after
    /// [`Remote::end`] alone.
    pub(super) fn is_sent(&self) -> bool {
        match &self.connection {
            None => true,
            Some(connection) => self.queue.is_empty() && connection.tls.is_none(),
        }
    }

    pub(super) fn owns(&self, token: Token) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| connection.socket.token == token)
    }

    /// Serves the socket: it takes more, or the other side has said or done something.
    pub(super) fn ready(&mut self) {
        self.send();
        let Some(connection) = self.connection.as_mut().filter(|_| !self.broken) else {
            return;
        };
        if let Some(tls) = &mut connection.tls {
            self.broken = !tls.receive(&connection.socket).unwrap_or(false);
            self.send();
            return self.close_when_sent();
        }
        // Nobody speaks to us but to say that it is over.
        let mut ignored = [0; 512];
        match rustix::io::read(&connection.socket, &mut ignored) {
            Ok(0) if !connection.datagrams => self.broken = true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED) => {}
            Err(_) => self.broken = true,
        }
    }

    /// Sends what is taken without waiting.
    pub(super) fn send(&mut self) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while !self.broken {
            let (Some(connection), Some(message)) = (&mut self.connection, self.queue.front())
            else {
                return;
            };
            let rest = &message[self.sent_bytes..];
            let (left, datagrams) = (rest.len(), connection.datagrams);
            let sent = match &mut connection.tls {
                Some(tls) => tls.send(&connection.socket, rest),
                None => rustix::net::send(&connection.socket, rest, flags),
            };
            match sent {
                Ok(count) if datagrams || count == left => self.drop_first(),
                Ok(count) => self.sent_bytes += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return,
                // An earlier datagram has found nobody; this one is lost with it, the next may not be.
                Err(Errno::CONNREFUSED) if self.is_udp() => self.drop_first(),
                Err(Errno::MSGSIZE) => {
                    self.drop_first();
                    self.report_loss("a message is too long for a datagram");
                }
                Err(_) => self.broken = true,
            }
        }
    }

    fn is_udp(&self) -> bool {
        matches!(
            self.config.target,
            RemoteTarget::Syslog {
                address: SyslogAddress::Udp(_),
                ..
            }
        )
    }

    fn drop_first(&mut self) {
        if let Some(message) = self.queue.pop_front() {
            self.queued_bytes -= message.len();
        }
        self.sent_bytes = 0;
    }

    /// Forgets a connection that has failed, makes a new one when it is time, and sets what the socket waits for.
    pub(super) fn settle(&mut self, poll: &mut Poll) -> io::Result<()> {
        if self.broken {
            self.broken = false;
            self.retry_at = Instant::now() + RETRY_AFTER;
            // A message whose beginning is gone with the connection is sent as a whole again.
            self.sent_bytes = 0;
            if let Some(mut connection) = self.connection.take() {
                connection.socket.set(poll, None)?;
            }
            if !self.is_over() {
                self.report_loss("the connection is lost");
            }
        }
        if self.connection.is_none() && Instant::now() >= self.retry_at && !self.is_over() {
            match self.tls().and_then(|tls| Ok((self.connect()?, tls))) {
                Ok(((socket, datagrams), tls)) => {
                    self.connection = Some(Connection {
                        socket: poll.watch(socket),
                        datagrams,
                        tls,
                    });
                    self.send();
                }
                Err(_) => self.retry_at = Instant::now() + RETRY_AFTER,
            }
        }
        let waiting = !self.queue.is_empty();
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let interest = connection.interest(waiting);
        connection.socket.set(poll, Some(interest))
    }

    /// Whether nothing is or will be there to be sent.
    fn is_over(&self) -> bool {
        self.ending && self.queue.is_empty()
    }

    /// When a lost connection is tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.connection.is_none() && !self.is_over()).then_some(self.retry_at)
    }

    /// Says once on standard error, which is the engine's log, that messages are lost or late.
    fn report_loss(&mut self, reason: &str) {
        if !self.loss_reported {
            let _ = writeln!(
                io::stderr(),
                "hull-shim: messages to the log service may be lost: {reason}"
            );
            self.loss_reported = true;
        }
    }
}

fn local() -> io::Result<(OwnedFd, bool)> {
    let mut last = io::Error::other("no syslog listens on this machine");
    for path in LOCAL_SOCKETS {
        match unix(Path::new(path), true) {
            Ok(connected) => return Ok(connected),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection to a socket of this machine, of the kind that is wanted or, where that listens, the other.
fn unix(path: &Path, datagrams: bool) -> io::Result<(OwnedFd, bool)> {
    let attempt = |datagrams: bool| -> rustix::io::Result<OwnedFd> {
        let socket = open(AddressFamily::UNIX, datagrams)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    let connected = match attempt(datagrams) {
        Err(Errno::PROTOTYPE) => attempt(!datagrams).map(|socket| (socket, !datagrams)),
        result => result.map(|socket| (socket, datagrams)),
    };
    connected.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(
            error.kind(),
            format!("connect to {}: {error}", path.display()),
        )
    })
}

fn internet(address: SocketAddr, datagrams: bool) -> io::Result<(OwnedFd, bool)> {
    let attempt = || -> rustix::io::Result<OwnedFd> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = open(family, datagrams)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno),
        }
    };
    let socket = attempt().map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("connect to {address}: {error}"))
    });
    Ok((socket?, datagrams))
}

fn open(family: AddressFamily, datagrams: bool) -> rustix::io::Result<OwnedFd> {
    let kind = if datagrams {
        SocketType::DGRAM
    } else {
        SocketType::STREAM
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, kind, flags, None)
}

/// Waits until a connection is made.
fn wait_connected(socket: &OwnedFd) -> io::Result<()> {
    let timeout = CONNECT_TIMEOUT.try_into().ok();
    let ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], timeout.as_ref())?;
    if ready == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match sockopt::socket_error(socket)? {
        Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::protocol::SyslogFormat;
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn syslog(address: SyslogAddress, buffer_bytes: Option<usize>) -> RemoteLog {
        RemoteLog {
            target: RemoteTarget::Syslog {
                address,
                format: SyslogFormat::Local,
                facility: 3,
                tag: "t".to_owned(),
            },
            buffer_bytes,
        }
    }

    fn open(poll: &mut Poll, config: RemoteLog) -> Recorder {
        Recorder::open(poll, None, Some(config)).unwrap().unwrap()
    }

    fn line(n: usize) -> String {
        format!("{n} {}\n", "x".repeat(1000))
    }

    #[test]
    fn datagrams_arrive_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut poll = Poll::new().unwrap();
        let mut recorder = open(&mut poll, syslog(SyslogAddress::Unix(path), None));
        recorder.record(Stream::Stdout, Some(b"one\n\ntw"));
        recorder.record(Stream::Stdout, Some(b"o\nrest"));
        recorder.record(Stream::Stdout, None);
        let mut buffer = [0; 1000];
        for expected in ["]: one\n", "]: two\n", "]: rest\n"] {
            let length = server.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(
                text.starts_with("<30>") && text.ends_with(expected),
                "{text}"
            );
        }
    }

    /// Serves the recorder's socket until everything is sent.
    fn drive(recorder: &mut Recorder, poll: &mut Poll, until: impl Fn(&Recorder) -> bool) {
        let mut events = Vec::with_capacity(8);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !until(recorder) {
            assert!(Instant::now() < deadline);
            recorder.settle(poll).unwrap();
            poll.wait(&mut events, Some(Duration::from_millis(20)))
                .unwrap();
            recorder.ready();
        }
    }

    #[test]
    fn a_slow_service_holds_output_back_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixListener::bind(&path).unwrap();
        let mut poll = Poll::new().unwrap();
        let mut recorder = open(&mut poll, syslog(SyslogAddress::Unix(path), None));
        let peer = server.accept().unwrap().0;
        let mut count = 0;
        while !recorder.is_behind() {
            recorder.record(Stream::Stdout, Some(line(count).as_bytes()));
            count += 1;
        }
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(peer).lines().map(|line| line.unwrap());
            lines.fold(0, |count, line| count + usize::from(line.len() > 1000))
        });
        drive(&mut recorder, &mut poll, Recorder::is_sent);
        assert!(!recorder.is_behind());
        drop((recorder, poll));
        assert_eq!(reader.join().unwrap(), count);
    }

    #[test]
    fn what_does_not_fit_is_lost_where_the_container_must_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixListener::bind(&path).unwrap();
        let mut poll = Poll::new().unwrap();
        let config = syslog(SyslogAddress::Unix(path), Some(10_000));
        let mut recorder = open(&mut poll, config);
        let mut peer = server.accept().unwrap().0;
        for n in 0..5000 {
            recorder.record(Stream::Stdout, Some(line(n).as_bytes()));
            assert!(!recorder.is_behind());
        }
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            peer.read_to_end(&mut bytes).unwrap();
            bytes
        });
        drive(&mut recorder, &mut poll, Recorder::is_sent);
        drop((recorder, poll));
        let bytes = reader.join().unwrap();
        let arrived = bytes.split(|byte| *byte == b'\n').count() - 1;
        assert!((10..5000).contains(&arrived), "{arrived}");
        assert!(bytes.ends_with(b"x\n"));
    }

    #[test]
    fn a_service_that_was_away_gets_what_came_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixListener::bind(&path).unwrap();
        let mut poll = Poll::new().unwrap();
        let config = syslog(SyslogAddress::Unix(path.clone()), None);
        let mut recorder = open(&mut poll, config);
        drop(server.accept().unwrap());
        drop(server);
        std::fs::remove_file(&path).unwrap();
        drive(&mut recorder, &mut poll, |recorder| {
            recorder.deadline().is_some()
        });
        recorder.record(Stream::Stdout, Some(b"meanwhile\n"));
        assert!(!recorder.is_behind());
        let server = UnixListener::bind(&path).unwrap();
        drive(&mut recorder, &mut poll, |recorder| {
            recorder.deadline().is_none()
        });
        let mut text = String::new();
        let peer = server.accept().unwrap().0;
        BufReader::new(peer).read_line(&mut text).unwrap();
        assert!(text.ends_with("meanwhile\n"), "{text}");
    }

    #[test]
    fn that_nobody_listens_from_the_beginning_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut poll = Poll::new().unwrap();
        let nowhere = SyslogAddress::Unix(dir.path().join("none"));
        assert!(Recorder::open(&mut poll, None, Some(syslog(nowhere, None))).is_err());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let refused = syslog(SyslogAddress::Tcp(address), None);
        assert!(Recorder::open(&mut poll, None, Some(refused)).is_err());
    }
}
