//! Reading an archive entry by entry, without seeking and without copying content.

use super::header::{self, Block, Dialect};
use super::{BLOCK, BLOCK_BYTES, Entry, Kind, Sparse, TarError, Time, padding, pax, sparse};
use crate::limits::{ENTRIES_MAX, PATH_BYTES_MAX, PAX_BYTES_MAX};
use std::io::{BufRead, ErrorKind, Read};

/// Digits and newline of one number in a sparse map of format 1.0.
const NUMBER_BYTES_MAX: usize = 21;

/// Is told every byte of the archive that is not content handed out: headers, padding, skipped content, the end. With
/// the content, in order, they make the archive again.
pub trait Tap {
    /// Takes the next such bytes.
    fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl Tap for () {
    fn literal(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads an archive.
#[derive(Debug)]
pub struct Reader<R, T = ()> {
    source: R,
    tap: T,
    /// Bytes of the archive that were consumed.
    offset: u64,
    /// Where the current header started.
    header_offset: u64,
    /// Bytes of the current entry's content that are still to come.
    remaining: u64,
    /// Bytes after it, up to the next header.
    padding: u64,
    entries: u64,
    ended: bool,
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
struct Extension {
    pax: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// The records of a PAX header that mean something here.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: SparseOverrides,
}

/// The records of a file with holes.
#[derive(Debug, Default)]
struct SparseOverrides {
    /// Whether there are any.
    present: bool,
    /// The path; the usual record then holds one for readers that do not know about holes.
    name: Option<Vec<u8>>,
    major: u64,
    minor: u64,
    size: Option<u64>,
    regions: Vec<(u64, u64)>,
    /// An offset whose length is still to come (format 0.0).
    offset: Option<u64>,
}

impl<R: BufRead> Reader<R> {
    /// Reads an archive.
    pub fn new(source: R) -> Self {
        Self::with_tap(source, ())
    }
}

impl<R: BufRead, T: Tap> Reader<R, T> {
    /// Reads an archive and tells `tap` what is not content.
    pub fn with_tap(source: R, tap: T) -> Self {
        Self {
            source,
            tap,
            offset: 0,
            header_offset: 0,
            remaining: 0,
            padding: 0,
            entries: 0,
            ended: false,
        }
    }

    /// The next entry, or `None` at the end of the archive. Content of the entry before that was not taken is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.next_header()? else {
                let dangling = extension.pax.is_some()
                    || extension.long_name.is_some()
                    || extension.long_link.is_some();
                return if dangling {
                    Err(self.malformed("an extended header has no entry"))
                } else {
                    Ok(None)
                };
            };
            let size = self.size(&block)?;
            match block[header::TYPE] {
                b'x' | b'X' => {
                    let bytes = self.extended(size, PAX_BYTES_MAX)?;
                    if extension.pax.replace(bytes).is_some() {
                        return Err(self.malformed("an entry has two extended headers"));
                    }
                }
                b'g' => {
                    let bytes = self.extended(size, PAX_BYTES_MAX)?;
                    self.check_global(&bytes)?;
                }
                b'L' => extension.long_name = Some(self.long_text(size)?),
                b'K' => extension.long_link = Some(self.long_text(size)?),
                _ => return self.entry(&block, size, extension).map(Some),
            }
        }
    }

    /// The next piece of the current entry's content, empty at its end. [`Self::consume`] takes of it.
    pub fn fill(&mut self) -> Result<&[u8], TarError> {
        let remaining = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        if remaining == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.source)?;
        if bytes.is_empty() {
            return Err(TarError::Truncated("in the content of an entry".to_owned()));
        }
        Ok(&bytes[..bytes.len().min(remaining)])
    }

    /// Takes `count` bytes of what [`Self::fill`] returned, at most all.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.offset += count as u64;
        self.remaining -= count as u64;
    }

    /// The next `count` bytes of the current entry's content, or all that is left of it.
    pub fn read_content(&mut self, count: usize) -> Result<Vec<u8>, TarError> {
        let count = count.min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) => return Err(TarError::Truncated("in the content of an entry".to_owned())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.offset += count as u64;
        self.remaining -= count as u64;
        Ok(bytes)
    }

    /// The tap, to tell it where content went.
    pub fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    /// Tells the tap what comes after the archive's end, up to the end of the source, and returns the tap.
    pub fn finish(mut self) -> Result<T, TarError> {
        loop {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return Ok(self.tap);
            }
            self.tap.literal(bytes).map_err(TarError::Write)?;
            let count = bytes.len();
            self.source.consume(count);
        }
    }

    fn malformed(&self, reason: impl Into<String>) -> TarError {
        TarError::Header {
            offset: self.header_offset,
            reason: reason.into(),
        }
    }

    /// Passes what is left of an entry to the tap.
    fn skip_rest(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining + self.padding;
        (self.remaining, self.padding) = (0, 0);
        while left > 0 {
            let bytes = fill(&mut self.source)?;
            if bytes.is_empty() {
                return Err(TarError::Truncated(
                    "after the content of an entry".to_owned(),
                ));
            }
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.tap.literal(&bytes[..count]).map_err(TarError::Write)?;
            self.source.consume(count);
            self.offset += count as u64;
            left -= count as u64;
        }
        Ok(())
    }

    /// Reads one block; `None` where the source has ended before it.
    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated("inside a block".to_owned())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.tap.literal(&block).map_err(TarError::Write)?;
        self.offset += BLOCK_BYTES;
        Ok(Some(block))
    }

    /// The next header block; `None` at two blocks of zeros or the end of the source.
    fn next_header(&mut self) -> Result<Option<Block>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.header_offset = self.offset;
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().all(|b| *b == 0) {
            self.ended = true;
            return match self.block()? {
                Some(next) if next.iter().any(|b| *b != 0) => {
                    Err(self.malformed("a block of zeros stands between entries"))
                }
                _ => Ok(None),
            };
        }
        if !header::is_header(&block) {
            return Err(self.malformed("this is no tar header: its checksum is wrong"));
        }
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(self.malformed(format!("there are more than {ENTRIES_MAX} entries")));
        }
        Ok(Some(block))
    }

    fn size(&self, block: &Block) -> Result<u64, TarError> {
        header::number(block, header::SIZE)
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| self.malformed("its size is malformed"))
    }

    /// The content of an extended header.
    fn extended(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if size > limit {
            let reason = format!("an extended header of {size} bytes is larger than {limit}");
            return Err(self.malformed(reason));
        }
        let mut bytes = Vec::new();
        let wanted = (&mut self.source).take(size).read_to_end(&mut bytes);
        let count = wanted.map_err(TarError::Read)? as u64;
        if count < size {
            return Err(TarError::Truncated("in an extended header".to_owned()));
        }
        self.tap.literal(&bytes).map_err(TarError::Write)?;
        self.offset += size;
        self.padding = padding(size);
        Ok(bytes)
    }

    /// The content of a GNU long name, which ends with a NUL.
    fn long_text(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut text = self.extended(size, PATH_BYTES_MAX as u64 + 1)?;
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        text.truncate(end);
        Ok(text)
    }

    /// Global headers are not applied, as in Go; one that would move entries or rename them is refused, because GNU tar
    /// would apply it.
    fn check_global(&self, bytes: &[u8]) -> Result<(), TarError> {
        let records =
            pax::records(bytes).ok_or_else(|| self.malformed("a PAX record is malformed"))?;
        for (key, _) in records {
            if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
                let key = String::from_utf8_lossy(key).into_owned();
                return Err(self.malformed(format!("a global header sets {key:?}")));
            }
        }
        Ok(())
    }

    fn overrides(&self, extension: &Extension) -> Result<Overrides, TarError> {
        let mut overrides = Overrides::default();
        let bytes = extension.pax.as_deref().unwrap_or_default();
        let records =
            pax::records(bytes).ok_or_else(|| self.malformed("a PAX record is malformed"))?;
        for (key, value) in records {
            overrides.record(key, value).map_err(|()| {
                let key = String::from_utf8_lossy(key).into_owned();
                self.malformed(format!("the PAX record {key:?} has a malformed value"))
            })?;
        }
        if overrides.sparse.name.is_some() {
            overrides.path = overrides.sparse.name.take();
        }
        if let Some(name) = &extension.long_name {
            overrides.path = Some(name.clone());
        }
        if let Some(link) = &extension.long_link {
            overrides.link = Some(link.clone());
        }
        Ok(overrides)
    }

    /// Makes the entry of a header and what extends it.
    fn entry(
        &mut self,
        block: &Block,
        header_size: u64,
        extension: Extension,
    ) -> Result<Entry, TarError> {
        let mut overrides = self.overrides(&extension)?;
        let path = overrides.path.take().unwrap_or_else(|| name(block));
        let link = overrides
            .link
            .take()
            .unwrap_or_else(|| header::text(block, header::LINK).to_vec());
        for text in [&path, &link] {
            if text.contains(&0) || text.len() > PATH_BYTES_MAX {
                return Err(self.malformed("a path has a NUL or is too long"));
            }
        }
        let kind = self.kind(block, &path, link)?;
        let stored = overrides.size.unwrap_or(header_size);
        if stored > 0 && kind != Kind::File {
            let reason = format!(
                "{:?} is no file and has content: readers disagree on where the next entry starts",
                String::from_utf8_lossy(&path)
            );
            return Err(self.malformed(reason));
        }
        let mtime = overrides.mtime.map_or_else(
            || {
                self.number(block, header::MTIME, "time")
                    .map(|seconds| Time {
                        seconds,
                        nanoseconds: 0,
                    })
            },
            Ok,
        )?;
        let mut entry = Entry {
            path,
            kind,
            mode: self.narrow(self.number(block, header::MODE, "mode")?, "mode")? & 0o7777,
            uid: self.id(block, header::UID, overrides.uid)?,
            gid: self.id(block, header::GID, overrides.gid)?,
            mtime,
            xattrs: std::mem::take(&mut overrides.xattrs),
            size: stored,
            sparse: None,
        };
        self.remaining = stored;
        self.padding = padding(stored);
        entry.sparse = self.sparse(block, overrides.sparse)?;
        entry.size = self.remaining;
        Ok(entry)
    }

    fn number(
        &self,
        block: &Block,
        field: std::ops::Range<usize>,
        what: &str,
    ) -> Result<i64, TarError> {
        header::number(block, field)
            .ok_or_else(|| self.malformed(format!("its {what} is malformed")))
    }

    fn narrow(&self, number: i64, what: &str) -> Result<u32, TarError> {
        u32::try_from(number).map_err(|_| self.malformed(format!("its {what} is out of range")))
    }

    fn id(
        &self,
        block: &Block,
        field: std::ops::Range<usize>,
        pax: Option<u64>,
    ) -> Result<u32, TarError> {
        let id = match pax {
            Some(id) => i64::try_from(id).unwrap_or(i64::MAX),
            None => self.number(block, field, "owner")?,
        };
        // The highest number means "leave it" to chown(2).
        match self.narrow(id, "owner")? {
            u32::MAX => Err(self.malformed("its owner is out of range")),
            id => Ok(id),
        }
    }

    fn kind(&self, block: &Block, path: &[u8], link: Vec<u8>) -> Result<Kind, TarError> {
        let device = |this: &Self| -> Result<(u32, u32), TarError> {
            let part = |field| this.narrow(this.number(block, field, "device")?, "device");
            Ok((part(header::DEV_MAJOR)?, part(header::DEV_MINOR)?))
        };
        Ok(match block[header::TYPE] {
            // Before there were directories in headers, a slash told them.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink { target: link },
            b'2' => Kind::Symlink { target: link },
            b'3' => device(self).map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device(self).map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let path = String::from_utf8_lossy(path).into_owned();
                let kind = char::from(other);
                return Err(self.malformed(format!("{path:?} is of the unknown type {kind:?}")));
            }
        })
    }

    /// The map of the current entry, which may itself precede its content.
    fn sparse(&mut self, block: &Block, pax: SparseOverrides) -> Result<Option<Sparse>, TarError> {
        let (size, regions) = if block[header::TYPE] == b'S' {
            let size = self.number(block, header::GNU_REAL_SIZE, "real size")?;
            let size =
                u64::try_from(size).map_err(|_| self.malformed("its real size is negative"))?;
            (size, self.old_regions(block)?)
        } else if pax.present {
            let size = pax
                .size
                .ok_or_else(|| self.malformed("a sparse file has no size"))?;
            match (pax.major, pax.minor) {
                (0, 0 | 1) if pax.offset.is_none() => (size, pax.regions),
                (1, 0) => (size, self.leading_regions()?),
                _ => return Err(self.malformed("its sparse format is unknown")),
            }
        } else {
            return Ok(None);
        };
        sparse::checked(regions, size, self.remaining)
            .map(Some)
            .map_err(|reason| self.malformed(reason))
    }

    /// The map of an old-style header and its extension blocks. They do not count into the content's size.
    fn old_regions(&mut self, block: &Block) -> Result<Vec<(u64, u64)>, TarError> {
        if header::dialect(block) != Dialect::Gnu {
            return Err(self.malformed("a sparse file is not in GNU's dialect"));
        }
        let mut regions = Vec::new();
        sparse::block_regions(block, header::GNU_SPARSE, &mut regions)
            .map_err(|reason| self.malformed(reason))?;
        let mut extended = block[header::GNU_EXTENDED] != 0;
        while extended {
            let next = self.block()?;
            let next = next.ok_or_else(|| TarError::Truncated("in a sparse map".to_owned()))?;
            let count = regions.len();
            sparse::block_regions(&next, header::EXTENSION_SPARSE, &mut regions)
                .map_err(|reason| self.malformed(reason))?;
            extended = next[header::EXTENSION_EXTENDED] != 0;
            if extended && regions.len() == count {
                return Err(self.malformed("a block of the sparse map is empty"));
            }
        }
        Ok(regions)
    }

    /// The map of format 1.0, which stands before the content and counts into its size: decimal numbers on lines, first
    /// how many regions there are, filled up to a whole block.
    fn leading_regions(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let mut left = Vec::new();
        let count = self.map_number(&mut left)?;
        let mut regions = Vec::new();
        for _ in 0..count {
            let offset = self.map_number(&mut left)?;
            let length = self.map_number(&mut left)?;
            sparse::push(&mut regions, offset, length).map_err(|reason| self.malformed(reason))?;
        }
        Ok(regions)
    }

    /// One number of such a map; `left` holds the rest of the block it is in, reversed.
    fn map_number(&mut self, left: &mut Vec<u8>) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            match left.pop() {
                Some(b'\n') => break,
                Some(digit) if digits.len() < NUMBER_BYTES_MAX => digits.push(digit),
                Some(_) => return Err(self.malformed("a number of the sparse map is too long")),
                None if self.remaining < BLOCK_BYTES => {
                    return Err(self.malformed("the sparse map is longer than the content"));
                }
                None => {
                    let block = self.block()?;
                    let block =
                        block.ok_or_else(|| TarError::Truncated("in a sparse map".to_owned()))?;
                    self.remaining -= BLOCK_BYTES;
                    left.extend(block.iter().rev());
                }
            }
        }
        pax::decimal(&digits)
            .ok_or_else(|| self.malformed("a number of the sparse map is malformed"))
    }
}

impl Overrides {
    /// Takes one record. An empty value means as if there were none, except where it is text.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), ()> {
        let number = || pax::decimal(value).ok_or(());
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = some_text(value),
            b"linkpath" => self.link = some_text(value),
            b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(pax::time(value).ok_or(())?),
            b"GNU.sparse.name" => {
                sparse.present = true;
                sparse.name = some_text(value);
            }
            b"GNU.sparse.major" => {
                sparse.present = true;
                sparse.major = number()?;
            }
            b"GNU.sparse.minor" => sparse.minor = number()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                sparse.present = true;
                sparse.size = Some(number()?);
            }
            b"GNU.sparse.offset" => {
                if sparse.offset.replace(number()?).is_some() {
                    return Err(());
                }
            }
            b"GNU.sparse.numbytes" => {
                let offset = sparse.offset.take().ok_or(())?;
                sparse::push(&mut sparse.regions, offset, number()?).map_err(drop)?;
            }
            b"GNU.sparse.map" => sparse.regions = sparse::comma_regions(value).map_err(drop)?,
            _ => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    if name.is_empty() || name.contains(&0) {
                        return Err(());
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn some_text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// The name of a header, with its prefix where the dialect has one.
fn name(block: &Block) -> Vec<u8> {
    let name = header::text(block, header::NAME);
    if header::dialect(block) == Dialect::Ustar {
        let prefix = header::text(block, header::PREFIX);
        if !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
    }
    name.to_vec()
}

fn fill(source: &mut impl BufRead) -> Result<&[u8], TarError> {
    loop {
        match source.fill_buf() {
            // The borrow of a returned buffer would last through the loop; asking again is free.
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::Read(error)),
        }
    }
    source.fill_buf().map_err(TarError::Read)
}
