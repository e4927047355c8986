//! Directories of the client, as `moby.filesync.v1.FileSync` sends them (fsutil's protocol).
//!
//! The client lists what it has (STAT, each with a number by its place, an empty one at the end), this side asks for contents
//! (REQ with the number), and they come in pieces (DATA, an empty one at the end), those of several files side by side. FIN from
//! either side is the end, ERR an end before it. Source: tonistiigi/fsutil `receive.go`, `send.go`.
//!
//! Invariant: what a client says of its files leads nowhere outside of the directory they go to: `images::copy` resolves every
//! path. How many there are, and how many are open at once, has limits.

mod send;
mod stat;
#[cfg(test)]
mod tests;

pub(crate) use send::send;

use crate::grpc::{Code, Duplex, Status};
use crate::messages::{Packet, PacketKind, Stat};
use crate::session::Session;
use builder::{Error, Filling, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use images::Writeback;
use images::copy::Copy;
use images::tar::{Entry, Kind};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use sys::root::Root;
use tokio::runtime::Handle;
use tokio::sync::watch;

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const HEADER_DIRECTORY: HeaderName = HeaderName::from_static("dir-name");
const HEADER_FOLLOW: HeaderName = HeaderName::from_static("followpaths");
const HEADER_EXCLUDE: HeaderName = HeaderName::from_static("exclude-patterns");

/// Files of one transfer.
const FILES_MAX: usize = 4 << 20;
/// Files whose content is on its way. Clients stop listening when they are asked for more than 128.
const OPEN_MAX: usize = 64;
/// Bytes of the patterns of one transfer: they are sent as headers.
const PATTERNS_BYTES_MAX: usize = 1 << 20;

/// Which files of a directory are wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The name under which the client offers the directory.
    pub(crate) directory: String,
    /// Only what is at these paths, symlinks followed; everything where there are none.
    pub(crate) follow: Vec<String>,
    /// As in a `.dockerignore`.
    pub(crate) exclude: Vec<String>,
}

/// What a transfer needs besides its session.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) session: &'a Session,
    pub(crate) stop: &'a watch::Receiver<bool>,
}

impl Transfer<'_> {
    /// Receives files into a tree, of a context that is kept where there is one: then only what has changed. `told` is called with the
    /// bytes that have come so far.
    ///
    /// # Errors
    /// The client has no such directory, breaks the protocol, or is gone.
    pub(crate) fn receive(
        &self,
        wanted: &Wanted,
        (tree, filling): (&Root, Option<&mut Filling>),
        told: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let headers = wanted.headers()?;
        let call = self.session.open(DIFF_COPY, headers);
        let call = call.ok_or_else(|| Error::Client("the client gives no files".to_owned()))?;
        let mut receiver = Receiver {
            transfer: self,
            call,
            copy: Copy::new(tree),
            filling,
            listed: 0,
            waiting: VecDeque::new(),
            open: HashMap::new(),
        };
        let received = receiver.run(told);
        if let Err(error) = &received {
            // The client may be what failed.
            let _ = receiver.tell(PacketKind::Error, 0, error.chain().into());
            return received;
        }
        receiver.finish()
    }

    /// Waits for something of the client, but not longer than the build is wanted.
    pub(crate) fn wait<T>(
        &self,
        what: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        let mut stop = self.stop.clone();
        let result = self.handle.block_on(async {
            tokio::select! {
                result = what => Some(result),
                _ = stop.wait_for(|stop| *stop) => None,
            }
        });
        match result {
            None => Err(Error::Cancelled),
            Some(Err(status)) if status.code == Code::Cancelled => Err(Error::Cancelled),
            Some(result) => result.map_err(|status| Error::Client(status.message)),
        }
    }
}

impl Wanted {
    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        let directory = std::slice::from_ref(&self.directory);
        let all = [
            (HEADER_DIRECTORY, directory),
            (HEADER_FOLLOW, &self.follow[..]),
            (HEADER_EXCLUDE, &self.exclude[..]),
        ];
        let mut bytes = 0;
        for (name, values) in all {
            // Other characters than ASCII's are escaped, and that is said, for all values of a name or none.
            let escaped = !values.iter().all(|value| value.is_ascii());
            for value in values {
                let value = if escaped {
                    escape(value)
                } else {
                    value.clone()
                };
                bytes += value.len();
                let header = HeaderValue::try_from(value);
                let header = header.map_err(|_| {
                    Error::Invalid(format!("a path or pattern has control characters: {name}"))
                })?;
                headers.append(&name, header);
            }
            if escaped {
                let name = HeaderName::try_from(format!("{name}-encoded"));
                let name = name.expect("a name with a suffix of letters is one");
                headers.insert(name, HeaderValue::from_static("1"));
            }
        }
        match bytes <= PATTERNS_BYTES_MAX {
            true => Ok(headers),
            false => Err(Error::Invalid(format!(
                "the patterns of a context have more than {PATTERNS_BYTES_MAX} bytes"
            ))),
        }
    }
}

/// As in the query of an address.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => write!(escaped, "%{other:02X}").expect("a string takes everything"),
        }
    }
    escaped
}

/// A file whose content is to come.
#[derive(Debug)]
struct Awaited {
    id: u32,
    path: PathBuf,
    entry: Entry,
}

/// A file whose content is on its way.
#[derive(Debug)]
struct Arriving {
    awaited: Awaited,
    file: File,
    /// How much of it has come.
    bytes: u64,
    writeback: Writeback,
}

struct Receiver<'a> {
    transfer: &'a Transfer<'a>,
    call: Duplex,
    copy: Copy<'a, 'a>,
    /// The tree is that of a context that is kept.
    filling: Option<&'a mut Filling>,
    listed: usize,
    waiting: VecDeque<Awaited>,
    open: HashMap<u32, Arriving>,
}

fn broken(what: impl Into<String>) -> Error {
    Error::Client(format!("the transfer of files failed: {}", what.into()))
}

fn failed(error: images::Error) -> Error {
    Error::Images {
        doing: "unpack the files of the client".to_owned(),
        source: error,
    }
}

impl<'a> Receiver<'a> {
    fn run(&mut self, told: &mut dyn FnMut(u64)) -> Result<()> {
        let mut all_listed = false;
        let mut bytes = 0;
        while !all_listed || !self.open.is_empty() {
            let packet = self.next()?;
            let packet = packet.ok_or_else(|| broken("it ended too early"))?;
            bytes += packet.data.len() as u64;
            match (packet.kind(), packet.stat) {
                (PacketKind::Stat, None) => all_listed = true,
                (PacketKind::Stat, Some(_)) if all_listed => {
                    return Err(broken("a file after the last"));
                }
                (PacketKind::Stat, Some(stat)) => self.list(&stat)?,
                (PacketKind::Data, _) => self.data(packet.id, &packet.data)?,
                (PacketKind::Error, _) => {
                    return Err(broken(String::from_utf8_lossy(&packet.data)));
                }
                (PacketKind::Request | PacketKind::End, _) => {
                    return Err(broken("a packet that nobody expects now"));
                }
            }
            told(bytes);
        }
        self.tell(PacketKind::End, 0, Bytes::new())
    }

    fn next(&mut self) -> Result<Option<Packet>> {
        let transfer = self.transfer;
        transfer.wait(self.call.next::<Packet>())
    }

    fn tell(&self, kind: PacketKind, id: u32, data: Bytes) -> Result<()> {
        let packet = Packet {
            kind: kind as i32,
            stat: None,
            id,
            data,
        };
        self.transfer.wait(self.call.send(&packet))
    }

    /// A file that the client has.
    fn list(&mut self, told: &Stat) -> Result<()> {
        if self.listed == FILES_MAX {
            return Err(broken(format!("there are more than {FILES_MAX} files")));
        }
        let id = u32::try_from(self.listed).expect("the limit is far below");
        self.listed += 1;
        let path = PathBuf::from(OsStr::from_bytes(&told.path));
        if stat::is_left_out(told) {
            // Nobody can copy them.
            return Ok(());
        }
        let mut entry = stat::entry(told)?;
        if let Some(filling) = &mut self.filling {
            let mark = stat::mark(told);
            if filling.keep(&path, &mark) {
                return Ok(());
            }
            let is_directory = entry.kind == Kind::Directory;
            let bytes = u64::try_from(told.size).unwrap_or(0);
            filling.expect(&path, &mark, is_directory, bytes)?;
            // Layers know whole seconds, and have the very file.
            entry.mtime.nanoseconds = 0;
        }
        match (&entry.kind, told.link.is_empty()) {
            (Kind::File, true) => {
                self.waiting.push_back(Awaited { id, path, entry });
                self.request()
            }
            (Kind::File, false) => {
                // The client lists a file before its other names, and its content may still be to come.
                let existing = PathBuf::from(OsStr::from_bytes(&told.link));
                self.open_until(&existing)?;
                self.copy.link(&existing, &path).map_err(failed)
            }
            _ => self.copy.put_bytes(&[], &path, &entry).map_err(failed),
        }
    }

    /// Asks for contents, for as many as may be open.
    fn request(&mut self) -> Result<()> {
        while self.open.len() < OPEN_MAX
            && let Some(awaited) = self.waiting.pop_front()
        {
            self.open_file(awaited)?;
        }
        Ok(())
    }

    /// Makes a file, and asks for its content.
    fn open_file(&mut self, awaited: Awaited) -> Result<()> {
        let id = awaited.id;
        let arriving = Arriving {
            file: self.copy.create_file(&awaited.path).map_err(failed)?,
            bytes: 0,
            writeback: Writeback::default(),
            awaited,
        };
        self.open.insert(id, arriving);
        self.tell(PacketKind::Request, id, Bytes::new())
    }

    /// Makes a file that waits for its turn, without asking for its content before that.
    fn open_until(&mut self, path: &Path) -> Result<()> {
        let Some(at) = self.waiting.iter().position(|awaited| awaited.path == path) else {
            return Ok(());
        };
        let awaited = self.waiting.remove(at).expect("it was just found");
        self.open_file(awaited)
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> Result<()> {
        let unknown = || broken("content that nobody has asked for");
        let writing = |source| Error::System {
            doing: "write a file of the client".to_owned(),
            source,
        };
        if !bytes.is_empty() {
            let arriving = self.open.get_mut(&id).ok_or_else(unknown)?;
            arriving.file.write_all(bytes).map_err(writing)?;
            arriving.bytes += bytes.len() as u64;
            let begun = (arriving.writeback).written(arriving.file.as_fd(), arriving.bytes);
            return begun.map_err(std::io::Error::other).map_err(writing);
        }
        let Arriving {
            file,
            awaited,
            writeback,
            ..
        } = self.open.remove(&id).ok_or_else(unknown)?;
        Copy::finish_file(&file, &awaited.path, &awaited.entry).map_err(failed)?;
        let begun = writeback.finish(file.as_fd());
        begun.map_err(std::io::Error::other).map_err(writing)?;
        self.request()
    }

    /// Takes the client's end, and sets what is set last.
    fn finish(mut self) -> Result<()> {
        loop {
            match self.next()? {
                None => break,
                Some(packet) if packet.kind() == PacketKind::End => self.call.finish(),
                Some(_) => return Err(broken("a packet after the end")),
            }
        }
        // Directories get their times after that.
        if let Some(filling) = &mut self.filling {
            filling.drop_rest()?;
        }
        self.copy.finish().map_err(failed)
    }
}
