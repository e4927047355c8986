//! The other direction: trees of this side for a client that takes files.

use super::{Transfer, broken, failed, stat};
use crate::grpc::{Duplex, Sending};
use crate::messages::{Packet, PacketKind};
use builder::{Error, Result, Tree};
use images::copy::{self, Found, Want};
use images::tar::{Entry, Kind};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// Bytes of a file that are sent at once.
const CONTENT_BYTES: usize = 256 << 10;
/// The mode of the directories of trees.
const DIRECTORY_MODE: u32 = 0o755;

/// A file as the client sees it, and where it is here.
struct Listed<'t> {
    found: Found,
    /// `None`: it is not of the tree, but the directory that this is in.
    place: Option<(&'t Root, PathBuf)>,
}

/// Sends whole trees.
///
/// # Errors
/// A tree that cannot be read, a client that takes no more.
pub(crate) fn send(transfer: &Transfer<'_>, mut call: Duplex, trees: &[Tree<'_>]) -> Result<()> {
    let found = listed(trees)?;
    let sender = Sender {
        transfer,
        sending: call.sending(),
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

/// All files of trees, in the order in which clients take them.
fn listed<'t>(trees: &[Tree<'t>]) -> Result<Vec<Listed<'t>>> {
    let mut trees: Vec<&Tree<'t>> = trees.iter().collect();
    trees.sort_by(|a, b| a.directory.cmp(&b.directory));
    let mut all = Vec::new();
    for tree in trees {
        let directory = tree.directory.as_ref().map(PathBuf::from);
        if let Some(path) = &directory {
            let entry = Entry::new("", Kind::Directory, DIRECTORY_MODE);
            let path = path.clone();
            let found = Found {
                path,
                entry,
                layer: 0,
            };
            all.push(Listed { found, place: None });
        }
        let found = copy::find(tree.root, Path::new("/"), false, &|_| Want::Take);
        // The first is the tree itself.
        for mut found in found.map_err(failed)?.into_iter().skip(1) {
            let own = found.path.clone();
            if let Some(directory) = &directory {
                found.path = directory.join(&own);
            }
            let place = Some((tree.root, own));
            all.push(Listed { found, place });
        }
    }
    Ok(all)
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
}

impl Sender<'_> {
    fn tell(&self, packet: Packet) -> Result<()> {
        self.transfer.wait(self.sending.send(&packet))
    }

    /// Tells of all files.
    fn list(&self, all: &[Listed<'_>]) -> Result<()> {
        for Listed { found, .. } in all {
            self.tell(Packet {
                stat: Some(stat::stat(found)),
                ..packet(PacketKind::Stat)
            })?;
        }
        self.tell(packet(PacketKind::Stat))
    }

    /// Sends the contents that are asked for.
    fn answer(&self, call: &mut Duplex, all: &[Listed<'_>]) -> Result<()> {
        loop {
            let asked = self.transfer.wait(call.next::<Packet>())?;
            let asked = asked.ok_or_else(|| broken("it ended too early"))?;
            match asked.kind() {
                PacketKind::Request => {
                    let listed = all.get(asked.id as usize);
                    let listed = listed.filter(|it| it.found.entry.kind == Kind::File);
                    let place = listed.and_then(|it| it.place.as_ref());
                    let place = place.ok_or_else(|| broken("a request for what is no file"))?;
                    self.content(asked.id, place)?;
                }
                PacketKind::End => return Ok(()),
                PacketKind::Error => return Err(broken(String::from_utf8_lossy(&asked.data))),
                PacketKind::Stat | PacketKind::Data => {
                    return Err(broken("a packet that nobody expects now"));
                }
            }
        }
    }

    fn content(&self, id: u32, (root, path): &(&Root, PathBuf)) -> Result<()> {
        let mut file = copy::open_file(root, path).map_err(failed)?;
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
