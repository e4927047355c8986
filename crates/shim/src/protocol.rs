//! What the engine and a shim say to each other.
//!
//! A connection carries frames: a 32-bit big-endian length, then that many bytes of JSON. The engine sends
//! [`Request`]s; the shim answers each with one [`Reply`], in order, and sends [`Message::Event`]s to connections that
//! asked for them with [`Request::Subscribe`]. After a successful [`Request::Attach`], or a [`Request::Exec`] with
//! streams, the connection leaves the frames for good and carries the process's streams: towards the shim plain
//! standard input, whose end is a half-close; from the shim plain terminal output, or, without a terminal, output
//! multiplexed as Docker does it (one byte stream, three zero bytes, a 32-bit big-endian length, the bytes).
//!
//! The connections: the socket pair whose end the shim gets as standard input, on which the engine sends the
//! [`Launch`] first; and any number to `shim.sock` in the bundle. Engine and shim may be of different releases (an
//! engine is upgraded while its containers run), so fields are only ever added, with defaults, and a request the shim
//! does not know is answered with an error. [`VERSION`] grows when that rule must be broken.

use oci::runtime::{Process, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The protocol's version, told in [`Launch`] and [`Status`].
pub const VERSION: u32 = 1;

/// The largest frame either side accepts: an exec's environment is bounded by the kernel's 2 MiB for arguments.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// The name of the shim's socket in the bundle.
pub const SOCKET: &str = "shim.sock";

/// Everything a shim needs to make its container. The OCI configuration itself is `config.json` in the bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The sender's [`VERSION`].
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The directory with `config.json`, where the socket, the state and the exit record go.
    pub bundle: PathBuf,
    /// The layers of the root filesystem, the topmost first.
    pub lowers: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// The overlay's work directory, on the same filesystem as `upper`.
    pub work: PathBuf,
    /// `USER` as in the image's configuration, resolved inside the container. None: as `config.json` says.
    pub user: Option<String>,
    /// Further groups, by name or number.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Keep the container's standard input open for attaching clients.
    pub stdin: bool,
    /// Close standard input after the first attached client's ended.
    pub stdin_once: bool,
    /// Let a reaping init be PID 1.
    pub reaper: bool,
    /// Where output is recorded.
    pub log: Option<LogConfig>,
    /// Where output is sent besides.
    #[serde(default)]
    pub remote_log: Option<RemoteLog>,
    /// The images that its processes are made of, instead of executing a command.
    #[serde(default)]
    pub restore: Option<Restore>,
}

/// What a container is restored from, and by whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restore {
    /// The program criu.
    pub criu: PathBuf,
    /// The directory of its images.
    pub images: PathBuf,
}

/// Where and how output is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogConfig {
    /// The current file; rotated ones get `.1`, `.2` and so on, `.1` being the youngest.
    pub path: PathBuf,
    /// The size in bytes at which a file is rotated. None: never.
    pub max_bytes: Option<u64>,
    /// How many files are kept, the current one included.
    pub files_max: u32,
    /// Whether rotated files are compressed, but for the youngest, which somebody may still follow.
    #[serde(default)]
    pub compress: bool,
    /// What every line says of its container besides.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Who gets output besides the files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoteLog {
    /// Who.
    pub target: RemoteTarget,
    /// How many bytes may wait for a target that is slow; what comes then is lost. None: the container waits for a slow target.
    pub buffer_bytes: Option<usize>,
}

/// A log service and how it is spoken to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteTarget {
    /// systemd's journal, by its native protocol.
    Journal {
        /// Its socket.
        socket: PathBuf,
        /// Fields of every entry, by their names.
        fields: BTreeMap<String, String>,
    },
    /// A syslog server.
    Syslog {
        /// Where it is.
        address: SyslogAddress,
        /// What a message looks like.
        format: SyslogFormat,
        /// 0 to 23.
        facility: u8,
        /// Names the container in its messages.
        tag: String,
    },
}

/// Who is believed, and who one is, in PEM files of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// Who vouches for the server, besides those whom the host believes.
    pub authorities: Option<PathBuf>,
    /// The certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whoever answers is believed.
    pub unverified: bool,
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogAddress {
    /// The machine's own, at the first of its usual sockets.
    Local,
    /// By datagrams.
    Udp(SocketAddr),
    /// By a connection.
    Tcp(SocketAddr),
    /// By a connection with TLS.
    Tls(SocketAddr, TlsFiles),
    /// By a connection to a socket of this machine.
    Unix(PathBuf),
    /// By datagrams to a socket of this machine.
    UnixDatagram(PathBuf),
}

/// What a syslog message looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// What programs of the machine itself write: RFC 3164 without the host name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, with seconds.
    Rfc5424,
    /// RFC 5424, with microseconds.
    Rfc5424Micro,
}

/// What the engine asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How is the container?
    Status,
    /// Let the container's process run. Of a container that is restored, this makes its processes: until then there is but one,
    /// which holds its network namespace.
    Start,
    /// Send a signal to the init or to an exec.
    Signal {
        /// The signal's number.
        signal: i32,
        /// To whom.
        to: Target,
    },
    /// Set a terminal's size.
    Resize {
        /// The exec, or the init.
        exec: Option<String>,
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        columns: u16,
    },
    /// Freeze every process.
    Pause,
    /// Undo [`Request::Pause`].
    Resume,
    /// Make images of the container's processes. The answer comes when they are there; requests on other connections are
    /// answered meanwhile.
    Checkpoint {
        /// The program criu.
        criu: PathBuf,
        /// An empty directory.
        images: PathBuf,
        /// Whether the container goes on; it is killed otherwise, once the images are there.
        leave_running: bool,
    },
    /// Change the limits.
    Update {
        /// What to change; absent values stay.
        resources: Box<Resources>,
    },
    /// The container's resource usage.
    Stats,
    /// The ids of the container's processes, in the host's numbers.
    Processes,
    /// Run a further process. With any stream the connection becomes its streams.
    Exec(Box<Exec>),
    /// Turn this connection into streams of the container's init.
    Attach(Streams),
    /// Send events on this connection from now on.
    Subscribe,
    /// Answer the container's questions for names from now on, by these. The container's network has to be up.
    Names(Names),
    /// Hand connections on that come from ::1 to published ports, by these routes and no others from now on.
    Relay {
        /// Where ports lead.
        routes: Vec<Route>,
    },
}

/// Ports of the host, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host's ports, first and last.
    pub host_ports: (u16, u16),
    /// Where the first leads; each further one to the next port.
    pub to: SocketAddr,
}

/// What a container is told when it asks for names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The files of its networks' names: docs/formats/run.md.
    pub files: Vec<PathBuf>,
    /// Names of its own for other containers, and their ids, or what else they are called on the network.
    pub links: Vec<(String, String)>,
    /// Who is asked about everything else.
    pub upstream: Upstream,
}

/// Who is asked about names that no network knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Nobody: no network of the container leads anywhere else.
    Nobody,
    /// The servers of the host's resolv.conf, as it is then.
    Host,
    /// These.
    Servers(Vec<IpAddr>),
}

/// Whom a signal is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The container's PID 1.
    Init,
    /// An exec, by its id.
    Exec(String),
}

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Send standard input.
    pub stdin: bool,
    /// Receive standard output, or the terminal's.
    pub stdout: bool,
    /// Receive standard error.
    pub stderr: bool,
}

impl Streams {
    /// Whether any stream is wanted.
    pub fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// A further process of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// The exec's id.
    pub id: String,
    /// What to run. Its `terminal` says whether it gets one.
    pub process: Process,
    /// A user as in `docker exec -u`, resolved inside the container; None: as `process` says.
    pub user: Option<String>,
    /// The streams wanted on this connection.
    pub streams: Streams,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Message {
    /// The answer to the oldest unanswered request (the launch included).
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// It failed, nothing has changed.
    Failed(Failure),
    /// To the launch and to [`Request::Status`].
    Status(Status),
    /// To [`Request::Exec`], and to [`Request::Start`] of a container that was restored.
    Started {
        /// The process id on the host.
        pid: i32,
    },
    /// To [`Request::Stats`].
    Stats(Box<runtime::cgroup::Stats>),
    /// To [`Request::Processes`].
    Processes {
        /// Process ids on the host.
        pids: Vec<i32>,
    },
    /// To [`Request::Relay`].
    Relay {
        /// The port of ::1 that connections are to be led to; None: this host has no ::1.
        port: Option<u16>,
    },
    /// To [`Request::Names`]: the ports of 127.0.0.11 in the container's network namespace that questions are to come to.
    Names {
        /// By datagrams.
        udp: u16,
        /// By streams.
        tcp: u16,
    },
}

/// Why something failed.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What class of failure, for exit codes and HTTP statuses.
    pub kind: FailureKind,
    /// The whole chain of causes in one line.
    pub message: String,
}

/// The classes of failure that somebody decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command does not exist in the container: exit code 127.
    CommandNotFound,
    /// The command exists but cannot be executed: exit code 126.
    CommandNotExecutable,
    /// What was asked makes no sense or names something that is not there.
    Invalid,
    /// The container or process is in no state for it.
    Conflict,
    /// Everything else.
    System,
}

/// How a container is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The shim's [`VERSION`].
    pub version: u32,
    /// The shim's own process id.
    pub shim_pid: i32,
    /// The init's process id on the host.
    pub pid: i32,
    /// Whether [`Request::Start`] has succeeded.
    pub started: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether the kernel killed a process for want of memory.
    pub oom: bool,
    /// The execs: those that run, and the latest that ended.
    pub execs: Vec<ExecStatus>,
}

/// How an exec is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecStatus {
    /// The exec's id.
    pub id: String,
    /// Its process id on the host.
    pub pid: i32,
    /// Its exit code, when it has ended.
    pub code: Option<i32>,
}

/// What a shim tells unasked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The container's init has ended and its output is recorded. The last event.
    Exit(ExitRecord),
    /// An exec has ended.
    ExecExit {
        /// The exec's id.
        id: String,
        /// Its exit code, 128 + n for signal n.
        code: i32,
    },
    /// The kernel killed a process of the container for want of memory.
    Oom,
}

/// How a container ended: also the content of `exit` in the bundle, written before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code, 128 + n for signal n.
    pub code: i32,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom: bool,
    /// When it ended.
    pub finished_at: jiff::Timestamp,
    /// What went wrong, when it did not end by itself.
    #[serde(default)]
    pub error: Option<String>,
}

/// A frame of `message`.
///
/// # Errors
/// A message over [`FRAME_BYTES_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let header = u32::try_from(length)
        .ok()
        .filter(|_| length <= FRAME_BYTES_MAX);
    let header = header.ok_or(FrameError::TooLong { length })?;
    frame[..4].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Takes the first whole frame out of `input`; None while it is not whole.
///
/// # Errors
/// A length over [`FRAME_BYTES_MAX`], or JSON that is not a `T`.
pub fn decode<T: for<'a> Deserialize<'a>>(input: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(header) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { length });
    }
    let Some(body) = input.get(4..4 + length) else {
        return Ok(None);
    };
    // A frame that cannot be understood is consumed all the same: the next one may be.
    let message = serde_json::from_slice(body);
    input.drain(..4 + length);
    Ok(Some(message?))
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed.
    #[error("a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLong {
        /// The frame's length.
        length: usize,
    },
    /// Not the JSON that was expected.
    #[error("a malformed frame")]
    Json(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let mut wire = encode(&Request::Status).unwrap();
        let exec = Request::Signal {
            signal: 9,
            to: Target::Exec("e1".to_owned()),
        };
        wire.extend(encode(&exec).unwrap());
        let mut input = Vec::new();
        let mut seen = Vec::new();
        for byte in wire {
            input.push(byte);
            if let Some(request) = decode::<Request>(&mut input).unwrap() {
                seen.push(request);
            }
        }
        assert!(matches!(
            &seen[..],
            [Request::Status, Request::Signal { signal: 9, .. }]
        ));
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_that_lies_about_its_length_is_refused_before_it_is_read() {
        let mut input = u32::MAX.to_be_bytes().to_vec();
        assert!(matches!(
            decode::<Request>(&mut input),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn what_a_newer_engine_asks_is_an_error_and_no_panic() {
        let mut input = encode(&serde_json::json!({"ask": "teleport"})).unwrap();
        assert!(matches!(
            decode::<Request>(&mut input),
            Err(FrameError::Json(_))
        ));
    }
}
