//! The other direction: a tree of this side for a client that takes files.

use super::{Transfer, broken, failed, stat};
use crate::grpc::{Duplex, Sending};
use crate::messages::{Packet, PacketKind};
use builder::{Error, Result};
use images::copy::{self, Found, Want};
use images::tar::Kind;
use std::io::Read as _;
use std::path::Path;
use sys::root::Root;

/// Bytes of a file that are sent at once.
const CONTENT_BYTES: usize = 256 << 10;

/// Sends a whole tree.
///
/// # Errors
/// A tree that cannot be read, a client that takes no more.
pub(crate) fn send(transfer: &Transfer<'_>, mut call: Duplex, files: &Root) -> Result<()> {
    let found = copy::find(files, Path::new("/"), false, &|_| Want::Take).map_err(failed)?;
    // The first is the tree itself.
    let found: Vec<Found> = found.into_iter().skip(1).collect();
    let sender = Sender {
        transfer,
        sending: call.sending(),
        files,
    };
    // The client asks for contents while files are still listed, and may take no more before it is heard.
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| sender.list(&found));
        let answered = sender.answer(&mut call, &found);
        let listed = listing.join();
        answered.and(listed.unwrap_or_else(|_| Err(broken("the list of files"))))
    })?;
    sender.tell(packet(PacketKind::End))?;
    drop(sender);
    call.finish();
    let end = async {
        while call.next::<Packet>().await?.is_some() {}
        Ok(())
    };
    transfer.wait(end)
}

fn packet(kind: PacketKind) -> Packet {
    Packet {
        kind: kind as i32,
        ..Packet::default()
    }
}

struct Sender<'a> {
    transfer: &'a Transfer<'a>,
    sending: Sending,
    files: &'a Root,
}

impl Sender<'_> {
    fn tell(&self, packet: Packet) -> Result<()> {
        self.transfer.wait(self.sending.send(&packet))
    }

    /// Tells of all files.
    fn list(&self, found: &[Found]) -> Result<()> {
        for found in found {
            self.tell(Packet {
                stat: Some(stat::stat(found)),
                ..packet(PacketKind::Stat)
            })?;
        }
        self.tell(packet(PacketKind::Stat))
    }

    /// Sends the contents that are asked for.
    fn answer(&self, call: &mut Duplex, found: &[Found]) -> Result<()> {
        loop {
            let asked = self.transfer.wait(call.next::<Packet>())?;
            let asked = asked.ok_or_else(|| broken("it ended too early"))?;
            match asked.kind() {
                PacketKind::Request => {
                    let found = found.get(asked.id as usize);
                    let found = found.filter(|found| found.entry.kind == Kind::File);
                    let found = found.ok_or_else(|| broken("a request for what is no file"))?;
                    self.content(asked.id, &found.path)?;
                }
                PacketKind::End => return Ok(()),
                PacketKind::Error => return Err(broken(String::from_utf8_lossy(&asked.data))),
                PacketKind::Stat | PacketKind::Data => {
                    return Err(broken("a packet that nobody expects now"));
                }
            }
        }
    }

    fn content(&self, id: u32, path: &Path) -> Result<()> {
        let mut file = copy::open_file(self.files, path).map_err(failed)?;
        loop {
            let mut data = vec![0; CONTENT_BYTES];
            let count = file.read(&mut data).map_err(|source| Error::System {
                doing: format!("read {path:?}"),
                source,
            })?;
            data.truncate(count);
            self.tell(Packet {
                id,
                data: data.into(),
                ..packet(PacketKind::Data)
            })?;
            if count == 0 {
                return Ok(());
            }
        }
    }
}
