//! How an unpacked layer becomes the very tar again that it was unpacked from.
//!
//! A layer is kept once, as files. Beside them lies its recipe: all bytes of the tar that are not content of its files, and
//! between them which part of which file comes next. So nothing is stored twice, and `save` and push still give the bytes
//! whose digest is the diff ID. The reader of a recipe proves that: it hashes what it makes.
//!
//! Format: a zstd frame of [`MAGIC`] and records, each a tag byte and its fields, integers little endian:
//! - 0 `length: u32, bytes`: these bytes;
//! - 1 `length: u16, path, offset: u64, size: u64`: this part of the file at `path` (below `diff/`);
//! - 2 `length: u16, path, number: u32`: what was at `path` up to here was replaced by a later entry and is now at
//!   `displaced/<number>`: records of type 1 before this one mean that.

use crate::tar::Tap;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// The name of the recipe in a layer's directory.
pub(crate) const RECIPE: &str = "recipe";
/// The directory of replaced files in a layer's directory.
pub(crate) const DISPLACED: &str = "displaced";
/// The directory of the layer's files in its directory.
pub(crate) const DIFF: &str = "diff";

const MAGIC: &[u8; 8] = b"hullrcp1";
const LITERAL: u8 = 0;
const CONTENT: u8 = 1;
const MOVED: u8 = 2;
/// Literal bytes gathered into one record.
const LITERAL_BYTES_MAX: usize = 64 << 10;
/// Fast: headers are mostly zeros at any level.
const COMPRESSION_LEVEL: i32 = 1;
/// Bytes of content copied at once.
const COPY_BYTES: usize = 256 << 10;

/// Writes a recipe while its layer is unpacked.
pub(crate) struct RecipeWriter {
    out: zstd::Encoder<'static, BufWriter<File>>,
    literal: Vec<u8>,
}

impl RecipeWriter {
    /// Writes to a new file.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut out = zstd::Encoder::new(BufWriter::new(file), COMPRESSION_LEVEL)?;
        out.write_all(MAGIC)?;
        Ok(Self {
            out,
            literal: Vec::with_capacity(LITERAL_BYTES_MAX),
        })
    }

    /// The next `size` bytes of the tar are in the file at `path`, from `offset`.
    pub(crate) fn content(&mut self, path: &Path, offset: u64, size: u64) -> io::Result<()> {
        self.path_record(CONTENT, path)?;
        self.out.write_all(&offset.to_le_bytes())?;
        self.out.write_all(&size.to_le_bytes())
    }

    /// What was at `path` so far is now `displaced/<number>`.
    pub(crate) fn moved(&mut self, path: &Path, number: u32) -> io::Result<()> {
        self.path_record(MOVED, path)?;
        self.out.write_all(&number.to_le_bytes())
    }

    /// Completes the file.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_literal()?;
        self.out.finish()?.flush()
    }

    fn path_record(&mut self, tag: u8, path: &Path) -> io::Result<()> {
        self.flush_literal()?;
        let path = path.as_os_str().as_bytes();
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.out.write_all(&[tag])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(path)
    }

    fn flush_literal(&mut self) -> io::Result<()> {
        for piece in self.literal.chunks(LITERAL_BYTES_MAX) {
            let length = u32::try_from(piece.len()).expect("pieces are small");
            self.out.write_all(&[LITERAL])?;
            self.out.write_all(&length.to_le_bytes())?;
            self.out.write_all(piece)?;
        }
        self.literal.clear();
        Ok(())
    }
}

impl Tap for RecipeWriter {
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.literal.len() + bytes.len() > LITERAL_BYTES_MAX {
            self.flush_literal()?;
        }
        self.literal.extend_from_slice(bytes);
        Ok(())
    }
}

/// One record of a recipe.
enum Record {
    Literal(Vec<u8>),
    Content {
        path: PathBuf,
        offset: u64,
        size: u64,
    },
    Moved {
        path: PathBuf,
        number: u32,
    },
}

/// Reads a recipe's records.
struct RecipeReader {
    source: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl RecipeReader {
    fn new(file: File) -> io::Result<Self> {
        let mut source = BufReader::new(zstd::Decoder::new(file)?);
        let mut magic = [0; MAGIC.len()];
        source.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "this is no recipe",
            ));
        }
        Ok(Self { source })
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        let mut tag = [0];
        if self.source.read(&mut tag)? == 0 {
            return Ok(None);
        }
        Ok(Some(match tag[0] {
            LITERAL => {
                let length = u32::from_le_bytes(self.array()?);
                Record::Literal(self.bytes(usize::try_from(length).map_err(io::Error::other)?)?)
            }
            CONTENT => {
                let path = self.path()?;
                let offset = u64::from_le_bytes(self.array()?);
                Record::Content {
                    path,
                    offset,
                    size: u64::from_le_bytes(self.array()?),
                }
            }
            MOVED => {
                let path = self.path()?;
                Record::Moved {
                    path,
                    number: u32::from_le_bytes(self.array()?),
                }
            }
            other => {
                let reason = format!("a recipe has no record of type {other}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
        }))
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > LITERAL_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record is too long",
            ));
        }
        let mut bytes = vec![0; length];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn path(&mut self) -> io::Result<PathBuf> {
        let length = u16::from_le_bytes(self.array()?);
        Ok(PathBuf::from(OsStr::from_bytes(
            &self.bytes(usize::from(length))?,
        )))
    }
}

/// Where replaced files are: by path, the number of content records before the move, and the number of the move.
type Moves = HashMap<PathBuf, Vec<(u64, u32)>>;

/// Writes the tar of the layer in `directory` to `out`. Whether it is what it was is for the caller to check by its digest.
pub(crate) fn reassemble(directory: &Path, out: &mut impl Write) -> Result<()> {
    let damaged = |source| Error::Layer {
        path: directory.to_owned(),
        source,
    };
    let open = || {
        let path = directory.join(RECIPE);
        File::open(&path)
            .map_err(damaged)
            .and_then(|file| RecipeReader::new(file).map_err(damaged))
    };
    let moves = match directory.join(DISPLACED).exists() {
        true => moves(&mut open()?).map_err(damaged)?,
        false => Moves::new(),
    };
    let root = Root::open(directory)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut reader = open()?;
    let mut contents = 0;
    while let Some(record) = reader.next().map_err(damaged)? {
        match record {
            Record::Literal(bytes) => out.write_all(&bytes).map_err(Error::Output)?,
            Record::Content { path, offset, size } => {
                let path = place(&moves, &path, contents);
                contents += 1;
                let file = root.open_at(&path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
                copy(&File::from(file), offset, size, &mut buffer, out, &path)?;
            }
            Record::Moved { .. } => {}
        }
    }
    Ok(())
}

fn moves(reader: &mut RecipeReader) -> io::Result<Moves> {
    let mut moves = Moves::new();
    let mut contents = 0;
    while let Some(record) = reader.next()? {
        match record {
            Record::Literal(_) => {}
            Record::Content { .. } => contents += 1,
            Record::Moved { path, number } => {
                moves.entry(path).or_default().push((contents, number));
            }
        }
    }
    Ok(moves)
}

/// Where the content that was at `path` when `contents` records had been written is now, in the layer's directory: it, or
/// a directory above it, may have been moved since. The first move after that record is the one that took it.
fn place(moves: &Moves, path: &Path, contents: u64) -> PathBuf {
    let taken = path.ancestors().filter_map(|above| {
        let mut later = moves.get(above)?.iter().filter(|(at, _)| *at > contents);
        later.next().map(|(at, number)| (*at, *number, above))
    });
    match taken.min_by_key(|(at, number, _)| (*at, *number)) {
        Some((_, number, above)) => {
            let rest = path.strip_prefix(above).expect("an ancestor is a prefix");
            let displaced = Path::new(DISPLACED).join(number.to_string());
            // Joining an empty path would add a slash, which a file must not have.
            if rest.as_os_str().is_empty() {
                displaced
            } else {
                displaced.join(rest)
            }
        }
        None => Path::new(DIFF).join(path),
    }
}

fn copy(
    file: &File,
    offset: u64,
    size: u64,
    buffer: &mut [u8],
    out: &mut impl Write,
    path: &Path,
) -> Result<()> {
    let mut done = 0;
    while done < size {
        let count = buffer
            .len()
            .min(usize::try_from(size - done).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..count], offset + done)
            .call(|| format!("pread(<layer>{path:?}, {count}, {})", offset + done))?;
        out.write_all(&buffer[..count]).map_err(Error::Output)?;
        done += count as u64;
    }
    Ok(())
}
