//! A client of D-Bus, as small as asking systemd takes: one connection, one call at a time, and the signals in between.
//!
//! Invariants: every wait ends at the connection's deadline; who has answered the first call is the only one whose signals
//! count. Source: D-Bus specification, "Authentication Protocol", "Message Bus".

mod wire;

pub(crate) use wire::{Call, Message, Value, Writer};

use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::{Kind, PROLOGUE_BYTES};

const SYSTEM_SOCKET: &str = "/run/dbus/system_bus_socket";
/// Where systemd itself listens, for root alone, bus or not.
const SYSTEMD_SOCKET: &str = "/run/systemd/private";
/// The longest line of the authentication.
const LINE_BYTES_MAX: usize = 1024;
/// As many messages as may come before an answer.
const MESSAGES_MAX: usize = 10_000;

const BUS: Call<'_> = Call {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
    signature: "",
};

/// Why a call over D-Bus failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no bus to be found.
    #[error("{0}")]
    NoBus(String),
    /// The connection failed.
    #[error("{doing}")]
    Connection {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The bus does not take us for who we are.
    #[error("the bus refused the authentication: {0:?}")]
    Refused(String),
    /// The bus speaks otherwise than the specification says.
    #[error("the bus sent {0}")]
    Malformed(&'static str),
    /// Who was asked answered with an error.
    #[error("{name}: {text}")]
    Answer {
        /// The error's name.
        name: String,
        /// What it says.
        text: String,
    },
    /// It took too long.
    #[error("no answer in time")]
    Late,
}

/// Whose bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The machine's.
    System,
    /// The calling user's.
    User,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    /// Whether a bus is in between.
    bus: bool,
    serial: u32,
    deadline: Instant,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects; everything that is done with the connection must be done in time.
    pub(crate) fn connect(owner: Owner, timeout: Duration) -> Result<Self, BusError> {
        let (address, bus) = address(owner)?;
        let doing = || format!("connecting to {}", address.display());
        let stream = match address.to_str().and_then(|path| path.strip_prefix('\0')) {
            Some(name) => SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixStream::connect_addr(&address)),
            None => UnixStream::connect(&address),
        };
        let stream = stream.map_err(|source| BusError::Connection {
            doing: doing(),
            source,
        })?;
        let mut bus = Self {
            stream,
            bus,
            serial: 0,
            deadline: Instant::now() + timeout,
            signals: Vec::new(),
        };
        bus.authenticate()?;
        if bus.bus {
            let hello = Call {
                member: "Hello",
                ..BUS
            };
            bus.call(hello, &Writer::default())?;
        }
        Ok(bus)
    }

    /// Asks for the signals that a rule of the bus matches.
    pub(crate) fn subscribe(&mut self, rule: &str) -> Result<(), BusError> {
        if !self.bus {
            return Ok(());
        }
        let add = Call {
            member: "AddMatch",
            signature: "s",
            ..BUS
        };
        let mut body = Writer::default();
        body.text(rule);
        self.call(add, &body).map(drop)
    }

    /// Calls a method and waits for its answer.
    pub(crate) fn call(&mut self, call: Call<'_>, body: &Writer) -> Result<Message, BusError> {
        self.serial += 1;
        let bytes = wire::encode(call, self.serial, body);
        self.send(&bytes)?;
        for _ in 0..MESSAGES_MAX {
            let message = self.receive()?;
            match message.kind {
                Some(Kind::Signal) => self.signals.push(message),
                Some(Kind::Reply) if message.reply_to == self.serial => return Ok(message),
                Some(Kind::Error) if message.reply_to == self.serial => {
                    let text = message.body("s").and_then(|mut body| body.text());
                    return Err(BusError::Answer {
                        name: message.error,
                        // An error may have no text.
                        text: text.unwrap_or_default(),
                    });
                }
                _ => {}
            }
        }
        Err(BusError::Malformed("thousands of other messages"))
    }

    /// Waits for a signal of a sender that is taken.
    pub(crate) fn await_signal<T>(
        &mut self,
        sender: &str,
        member: &str,
        mut take: impl FnMut(&Message) -> Result<Option<T>, BusError>,
    ) -> Result<T, BusError> {
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        for _ in 0..MESSAGES_MAX {
            let message = match waiting.next() {
                Some(message) => message,
                None => self.receive()?,
            };
            let wanted = message.kind == Some(Kind::Signal) && message.member == member;
            if wanted
                && message.sender() == sender
                && let Some(taken) = take(&message)?
            {
                return Ok(taken);
            }
        }
        Err(BusError::Malformed("thousands of other signals"))
    }

    /// The mechanism EXTERNAL, told nothing: the bus asks the kernel who we are, which holds in user namespaces too.
    fn authenticate(&mut self) -> Result<(), BusError> {
        self.send(b"\0AUTH EXTERNAL\r\n")?;
        let mut line = self.line()?;
        if line.trim_end() == "DATA" {
            self.send(b"DATA\r\n")?;
            line = self.line()?;
        }
        if !line.starts_with("OK ") {
            return Err(BusError::Refused(line));
        }
        self.send(b"BEGIN\r\n")
    }

    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
            if line.len() > LINE_BYTES_MAX {
                return Err(BusError::Malformed("a line without end"));
            }
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn receive(&mut self) -> Result<Message, BusError> {
        let mut prologue = [0; PROLOGUE_BYTES];
        self.read(&mut prologue)?;
        let mut rest = vec![0; Message::rest(&prologue)?];
        self.read(&mut rest)?;
        Message::decode(&prologue, &rest)
    }

    fn left(&self) -> Result<Option<Duration>, BusError> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(BusError::Late),
            left => Ok(Some(left)),
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), BusError> {
        while !bytes.is_empty() {
            self.stream
                .set_write_timeout(self.left()?)
                .map_err(|error| failed("setsockopt", error))?;
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_early(&error) => {}
                Err(error) => return Err(failed("sending to the bus", error)),
            }
        }
        Ok(())
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), BusError> {
        while !bytes.is_empty() {
            self.stream
                .set_read_timeout(self.left()?)
                .map_err(|error| failed("setsockopt", error))?;
            match self.stream.read(bytes) {
                Ok(0) => {
                    let error = std::io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(failed("hearing the bus", error));
                }
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if is_early(&error) => {}
                Err(error) => return Err(failed("hearing the bus", error)),
            }
        }
        Ok(())
    }
}

/// Whether to look at the time and go on.
fn is_early(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
    )
}

fn failed(doing: &str, source: std::io::Error) -> BusError {
    BusError::Connection {
        doing: doing.to_owned(),
        source,
    }
}

/// Where to connect, an abstract name beginning with a zero byte, and whether that is a bus.
fn address(owner: Owner) -> Result<(PathBuf, bool), BusError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let set = match owner {
        Owner::System => variable("DBUS_SYSTEM_BUS_ADDRESS"),
        Owner::User => variable("DBUS_SESSION_BUS_ADDRESS"),
    };
    if let Some(set) = set {
        let path = path_of(&set);
        return path.map(|path| (path, true)).ok_or_else(|| {
            BusError::NoBus(format!("the bus address {set:?} names no unix socket"))
        });
    }
    let candidates = match owner {
        Owner::System => vec![
            (PathBuf::from(SYSTEM_SOCKET), true),
            (PathBuf::from(SYSTEMD_SOCKET), false),
        ],
        Owner::User => variable("XDG_RUNTIME_DIR")
            .map(|directory| (Path::new(&directory).join("bus"), true))
            .into_iter()
            .collect(),
    };
    let found = candidates.into_iter().find(|(path, _)| path.exists());
    found.ok_or_else(|| {
        BusError::NoBus(match owner {
            Owner::System => format!("neither {SYSTEM_SOCKET} nor {SYSTEMD_SOCKET} is there"),
            Owner::User => "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR leads to a bus \
                            (Debian's package dbus-user-session provides one)"
                .to_owned(),
        })
    })
}

/// The socket that a bus address, `unix:path=…;…`, names first.
fn path_of(addresses: &str) -> Option<PathBuf> {
    addresses.split(';').find_map(|address| {
        let mut pairs = address.strip_prefix("unix:")?.split(',');
        pairs.find_map(|pair| match pair.split_once('=')? {
            ("path", value) => Some(PathBuf::from(unescaped(value)?)),
            ("abstract", value) => Some(PathBuf::from(format!("\0{}", unescaped(value)?))),
            _ => None,
        })
    })
}

/// A value of an address, whose bytes may be written as `%41`.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_socket() {
        for (address, path) in [
            ("unix:path=/run/user/1000/bus", Some("/run/user/1000/bus")),
            ("unix:guid=1,path=/a%20b;unix:path=/c", Some("/a b")),
            ("tcp:host=x;unix:abstract=/tmp/x", Some("\0/tmp/x")),
            ("tcp:host=x,port=1", None),
            ("unix:path=%zz", None),
            ("", None),
        ] {
            assert_eq!(path_of(address), path.map(PathBuf::from), "{address}");
        }
    }
}
