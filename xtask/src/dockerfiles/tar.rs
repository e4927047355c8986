//! Tar archives as Go's and this project's writers make them: ustar with PAX records and GNU's long names (POSIX.1-2024 pax,
//! "Interchange Format").
//!
//! A reader of its own, and none of the engine's: what judges an archive must not share the mistakes of what has made it.

use crate::Result;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

const BLOCK: usize = 512;
/// Bytes of one extended header.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// The head of one entry.
#[derive(Debug, Default, Clone)]
pub(super) struct Head {
    pub(super) path: String,
    /// The type flag, regular files always as `0`.
    pub(super) kind: char,
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime_s: i64,
    pub(super) link: String,
    pub(super) device: (u64, u64),
    /// By name; values as hexadecimal digits.
    pub(super) xattrs: BTreeMap<String, String>,
    /// Of a file that is written without its holes: its bytes with them.
    pub(super) whole_bytes: Option<u64>,
}

/// Entries of an archive, one by one.
pub(super) struct Archive<R> {
    source: R,
    /// Bytes of content, and of padding, that nobody has read yet.
    pending: (u64, u64),
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            pending: (0, 0),
        }
    }

    /// The next entry, whose content can be read then; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Head>> {
        let mut records = BTreeMap::new();
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            self.source.read_exact(&mut block).map_err(said)?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let head = Head::of(&block)?;
            self.pending = (head.size, padding(head.size));
            match head.kind {
                'x' => records.extend(pax(&self.extended(head.size)?)?),
                'L' | 'K' => {
                    let bytes = self.extended(head.size)?;
                    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                    let name = if head.kind == 'L' { "path" } else { "linkpath" };
                    records.insert(name.to_owned(), text.to_vec());
                }
                'g' => {}
                _ => {
                    let head = head.with(records)?;
                    self.pending = (head.size, padding(head.size));
                    return Ok(Some(head));
                }
            }
        }
    }

    /// Offset and length of what a file with holes has in them: numbers in lines before the content, up to a whole block (GNU tar
    /// manual, "Storing Sparse Files", version 1.0).
    pub(super) fn regions(&mut self) -> std::io::Result<Vec<(u64, u64)>> {
        let mut read = 0;
        let count = self.line(&mut read)?;
        let mut regions = Vec::new();
        for _ in 0..count {
            regions.push((self.line(&mut read)?, self.line(&mut read)?));
        }
        let rest = padding(read);
        std::io::copy(&mut self.take(rest), &mut std::io::sink())?;
        Ok(regions)
    }

    fn line(&mut self, read: &mut u64) -> std::io::Result<u64> {
        let mut number = 0_u64;
        loop {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            *read += 1;
            match byte[0] {
                b'\n' => return Ok(number),
                digit @ b'0'..=b'9' => {
                    let more = number
                        .checked_mul(10)
                        .and_then(|it| it.checked_add(u64::from(digit - b'0')));
                    number = more.ok_or(std::io::ErrorKind::InvalidData)?;
                }
                _ => return Err(std::io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENDED_BYTES_MAX {
            return Err(format!("an extended header of {size} bytes"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(said)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<()> {
        let (content, padding) = std::mem::take(&mut self.pending);
        let mut rest = (&mut self.source).take(content + padding);
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(said)?;
        Ok(())
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Where the content of the entry begins.
    pub(super) fn position(&mut self) -> Result<u64> {
        self.source.stream_position().map_err(said)
    }

    /// Goes past the content of the entry without reading it.
    pub(super) fn pass(&mut self) -> Result<()> {
        let (content, padding) = std::mem::take(&mut self.pending);
        let distance = i64::try_from(content + padding).map_err(said)?;
        self.source
            .seek(SeekFrom::Current(distance))
            .map_err(said)?;
        Ok(())
    }
}

/// The content of the entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = (&mut self.source).take(self.pending.0).read(into)?;
        self.pending.0 -= count as u64;
        Ok(count)
    }
}

impl Head {
    fn of(block: &[u8; BLOCK]) -> Result<Self> {
        let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
        let is_ustar = &block[257..263] == b"ustar\0";
        let path = match is_ustar && !prefix.is_empty() {
            true => format!("{prefix}/{name}"),
            false => name,
        };
        Ok(Self {
            path,
            kind: match block[156] {
                0 => '0',
                flag => char::from(flag),
            },
            mode: number(&block[100..108])?,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            size: number(&block[124..136])?,
            mtime_s: number(&block[136..148])?.cast_signed(),
            link: text(&block[157..257]),
            device: (number(&block[329..337])?, number(&block[337..345])?),
            ..Self::default()
        })
    }

    /// What extended headers say counts before the entry's own.
    fn with(mut self, records: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let mut sparse_name = None;
        for (name, value) in records {
            let word = String::from_utf8_lossy(&value).into_owned();
            let number = || word.parse().map_err(|_| format!("{name}={word}"));
            match name.as_str() {
                "path" => self.path = word,
                "linkpath" => self.link = word,
                "uid" => self.uid = number()?,
                "gid" => self.gid = number()?,
                "size" => self.size = number()?,
                "mtime" => {
                    let whole = word.split('.').next().unwrap_or_default();
                    self.mtime_s = whole.parse().map_err(|_| format!("mtime={word}"))?;
                }
                "GNU.sparse.realsize" => self.whole_bytes = Some(number()?),
                "GNU.sparse.name" => sparse_name = Some(word),
                name => {
                    if let Some(name) = name.strip_prefix("SCHILY.xattr.") {
                        let hex = value.iter().map(|byte| format!("{byte:02x}"));
                        self.xattrs.insert(name.to_owned(), hex.collect());
                    }
                }
            }
        }
        // The path of a file with holes is a place for programs that do not know of them.
        self.path = sparse_name.unwrap_or(self.path);
        Ok(self)
    }
}

fn said(error: impl std::fmt::Display) -> String {
    format!("the archive: {error}")
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

/// Octal digits, or a binary number behind a set bit.
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        let low = field[1..].iter().rev().take(8).rev();
        return Ok(low.fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    match text(field).trim() {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| format!("no number: {digits:?}")),
    }
}

/// Records of the form `LENGTH NAME=VALUE\n`.
fn pax(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let bad = || "a bad record in an extended header".to_owned();
        let space = bytes
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(bad)?;
        let length = std::str::from_utf8(&bytes[..space]).ok();
        let length: usize = length.and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let record = bytes
            .get(space + 1..length.saturating_sub(1))
            .ok_or_else(bad)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(bad)?;
        let name = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.insert(name, record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_another_program_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(150);
        std::fs::write(dir.path().join(&long), "content").unwrap();
        std::fs::hard_link(dir.path().join(&long), dir.path().join("y")).unwrap();
        for format in ["--format=pax", "--format=gnu"] {
            let mut tar = std::process::Command::new("tar");
            tar.args([format, "--mtime=@1234567890", "--owner=4000000", "-C"]);
            let output = tar.arg(dir.path()).args(["-cf-", &long, "y"]).output();
            let mut archive = Archive::new(std::io::Cursor::new(output.unwrap().stdout));
            let first = archive.next().unwrap().unwrap();
            let mut content = String::new();
            archive.read_to_string(&mut content).unwrap();
            assert_eq!((first.path, first.kind), (long.clone(), '0'));
            assert_eq!((first.uid, first.mtime_s), (4_000_000, 1_234_567_890));
            assert_eq!(content, "content");
            let second = archive.next().unwrap().unwrap();
            assert_eq!((second.kind, second.link), ('1', long.clone()));
            assert!(archive.next().unwrap().is_none());
        }
    }
}
