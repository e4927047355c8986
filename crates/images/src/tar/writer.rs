//! Writing an archive: ustar headers, with a PAX header before those entries that ustar cannot tell.

use super::header::{self, Block};
use super::{BLOCK, Entry, Kind, Sparse, TarError, Time, padding, pax, sparse};
use std::io::Write;

/// What ends an archive.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of the current entry's content that are still to come.
    remaining: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes an archive to `out`, in many small pieces.
    pub fn new(out: W) -> Self {
        Self {
            out,
            remaining: 0,
            padding: 0,
        }
    }

    /// Starts an entry. Its `size` bytes of content follow with [`Self::content`]; of a sparse file these are the regions
    /// one after another.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), TarError> {
        debug_assert_eq!(
            self.remaining, 0,
            "the content of the entry before is not complete"
        );
        let map = entry.sparse.as_ref().map(|sparse| {
            sparse::checked(sparse.regions.clone(), sparse.size, entry.size)
                .map(|sparse| sparse_map(&sparse))
                .map_err(|reason| refused(entry, reason))
        });
        let map = map.transpose()?;
        let size = entry.size + map.as_ref().map_or(0, |map| map.len() as u64);
        let (block, extension) = encode(entry, size)?;
        if !extension.is_empty() {
            self.extension(&extension)?;
        }
        self.put(&block)?;
        self.remaining = size;
        self.padding = usize::try_from(padding(size)).expect("less than a block");
        if let Some(map) = map {
            self.content(&map)?;
        }
        self.finish_content()
    }

    /// Writes content of the current entry; together exactly as much as its size.
    pub fn content(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        let count = bytes.len() as u64;
        assert!(
            count <= self.remaining,
            "more content than the entry's size"
        );
        self.put(bytes)?;
        self.remaining -= count;
        self.finish_content()
    }

    /// What it is written to.
    pub(crate) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.put(&END)?;
        self.out.flush().map_err(TarError::Write)?;
        Ok(self.out)
    }

    /// Gives up the archive, unfinished, and returns what it was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn finish_content(&mut self) -> Result<(), TarError> {
        if self.remaining == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.put(&END[..padding])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.out.write_all(bytes).map_err(TarError::Write)
    }

    fn extension(&mut self, records: &[u8]) -> Result<(), TarError> {
        let mut block = [0; BLOCK];
        let size = records.len() as u64;
        put_text(&mut block, header::NAME, b"PaxHeaders.0/entry");
        block[header::TYPE] = b'x';
        block[header::MAGIC].copy_from_slice(header::USTAR);
        for field in [header::UID, header::GID, header::MTIME] {
            header::put_octal(&mut block, field, 0);
        }
        header::put_octal(&mut block, header::MODE, 0o644);
        if !header::put_octal(&mut block, header::SIZE, size) {
            let path = "extended header".to_owned();
            return Err(TarError::Unrepresentable {
                path,
                reason: "it is too large",
            });
        }
        header::seal(&mut block);
        self.put(&block)?;
        self.put(records)?;
        let padding = usize::try_from(padding(size)).expect("less than a block");
        self.put(&END[..padding])
    }
}

fn refused(entry: &Entry, reason: &'static str) -> TarError {
    TarError::Unrepresentable {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        reason,
    }
}

/// The header of an entry, and the records of the PAX header that it needs, if any. `size` counts a sparse map.
fn encode(entry: &Entry, size: u64) -> Result<(Block, Vec<u8>), TarError> {
    let refuse = |reason| refused(entry, reason);
    let mut block = [0; BLOCK];
    let mut records = Vec::new();
    block[header::MAGIC].copy_from_slice(header::USTAR);
    block[header::TYPE] = type_flag(&entry.kind);
    header::put_octal(&mut block, header::MODE, u64::from(entry.mode & 0o7777));
    put_path(&mut block, &mut records, entry);
    put_link(&mut block, &mut records, &entry.kind);
    for (field, key, value) in [
        (header::SIZE, "size", size),
        (header::UID, "uid", u64::from(entry.uid)),
        (header::GID, "gid", u64::from(entry.gid)),
    ] {
        if !header::put_octal(&mut block, field.clone(), value) {
            header::put_octal(&mut block, field, 0);
            pax::put(&mut records, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    put_time(&mut block, &mut records, entry.mtime);
    let (major, minor) = match entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => (major, minor),
        _ => (0, 0),
    };
    if !header::put_octal(&mut block, header::DEV_MAJOR, u64::from(major))
        || !header::put_octal(&mut block, header::DEV_MINOR, u64::from(minor))
    {
        return Err(refuse("its device number is too large"));
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            return Err(refuse(
                "the name of an extended attribute has an equals sign",
            ));
        }
        pax::put(&mut records, &[pax::XATTR, name].concat(), value);
    }
    header::seal(&mut block);
    Ok((block, records))
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink { .. } => b'1',
        Kind::Symlink { .. } => b'2',
        Kind::CharDevice { .. } => b'3',
        Kind::BlockDevice { .. } => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn put_text(block: &mut Block, field: std::ops::Range<usize>, text: &[u8]) {
    let length = text.len().min(field.len());
    block[field.start..field.start + length].copy_from_slice(&text[..length]);
}

/// Writes the path into the name, into prefix and name, or into a record.
fn put_path(block: &mut Block, records: &mut Vec<u8>, entry: &Entry) {
    let path = entry.path.as_slice();
    if let Some(sparse) = &entry.sparse {
        for (key, value) in [("major", "1"), ("minor", "0")] {
            pax::put(
                records,
                format!("GNU.sparse.{key}").as_bytes(),
                value.as_bytes(),
            );
        }
        pax::put(records, b"GNU.sparse.name", path);
        pax::put(
            records,
            b"GNU.sparse.realsize",
            sparse.size.to_string().as_bytes(),
        );
    }
    if path.len() <= header::NAME.len() {
        return put_text(block, header::NAME, path);
    }
    // The longest prefix leaves the shortest name; both must be non-empty.
    let cut = path
        .iter()
        .take(header::PREFIX.len() + 1)
        .rposition(|b| *b == b'/');
    match cut {
        Some(cut) if cut > 0 && (1..=header::NAME.len()).contains(&(path.len() - cut - 1)) => {
            put_text(block, header::PREFIX, &path[..cut]);
            put_text(block, header::NAME, &path[cut + 1..]);
        }
        _ => {
            put_text(block, header::NAME, path);
            if entry.sparse.is_none() {
                pax::put(records, b"path", path);
            }
        }
    }
}

fn put_link(block: &mut Block, records: &mut Vec<u8>, kind: &Kind) {
    if let Kind::HardLink { target } | Kind::Symlink { target } = kind {
        put_text(block, header::LINK, target);
        if target.len() > header::LINK.len() {
            pax::put(records, b"linkpath", target);
        }
    }
}

fn put_time(block: &mut Block, records: &mut Vec<u8>, time: Time) {
    let fits = u64::try_from(time.seconds)
        .is_ok_and(|seconds| header::put_octal(block, header::MTIME, seconds));
    if !fits {
        header::put_octal(block, header::MTIME, 0);
    }
    if fits && time.nanoseconds == 0 {
        return;
    }
    let text = if time.nanoseconds == 0 {
        time.seconds.to_string()
    } else if time.seconds < 0 {
        let (seconds, nanoseconds) = (-(time.seconds + 1), 1_000_000_000 - time.nanoseconds);
        format!("-{seconds}.{nanoseconds:09}")
    } else {
        format!("{}.{:09}", time.seconds, time.nanoseconds)
    };
    pax::put(records, b"mtime", text.as_bytes());
}

/// A map of format 1.0, filled up to whole blocks.
fn sparse_map(sparse: &Sparse) -> Vec<u8> {
    // GNU tar makes a file no longer than its last region; an empty one says where the file ends.
    let end = sparse
        .regions
        .last()
        .map_or(0, |(offset, length)| offset + length);
    let last = (end < sparse.size).then_some((sparse.size, 0));
    let mut map = format!("{}\n", sparse.regions.len() + usize::from(last.is_some()));
    for (offset, length) in sparse.regions.iter().copied().chain(last) {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}
