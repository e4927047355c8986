//! What is known of the files of a kept context, and how it is written down.
//!
//! Format of the file `index`, integers little endian: [`MAGIC`], then each with its length before it (u16) the kernel's boot ID, the
//! generation, the owner and the name, then the bytes of all files (u64), and for each path, ordered: the path and the mark, each with
//! its length (u16), the file's bytes (u64), flags (u8: 1 a directory, 2 a digest follows), the SHA-256 (32 bytes).
//!
//! The file is not synced: what was written before the machine was started the last time is not believed.

use oci::Digest;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 4096;
const MAGIC: &[u8; 8] = b"hullctx1";
const DIRECTORY: u8 = 1;
const DIGEST: u8 = 2;

/// What is known of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// What the client says of it; it is another when the file has changed. Empty: nothing, it may have changed.
    pub(crate) mark: Vec<u8>,
    pub(crate) is_directory: bool,
    /// Bytes in it, of a regular file.
    pub(crate) bytes: u64,
    /// The digest of its content, once that was computed here.
    pub(crate) digest: Option<Digest>,
    /// A layer gets the very file, and it is not kept. That is not written down.
    pub(crate) is_given: bool,
}

/// Whose context it is, and what its owner calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextName {
    /// A user, as the connection proves it.
    pub owner: String,
    /// What the client calls the directory.
    pub name: String,
}

impl ContextName {
    /// `None`: the name is empty, or too long to be one.
    pub fn new(owner: String, name: &str) -> Option<Self> {
        let name = Some(name.to_owned());
        let name = name.filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)?;
        (owner.len() <= NAME_BYTES_MAX).then_some(Self { owner, name })
    }
}

/// What is said of a context as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: ContextName,
    /// Another one each time that it is kept.
    pub(crate) generation: String,
    /// Bytes in its files.
    pub(crate) bytes: u64,
}

/// What is known, by the paths of the tree.
pub(crate) type Index = BTreeMap<PathBuf, Known>;

/// Writes an index down.
pub(crate) fn write(header: &Header, boot: &str, index: &Index, to: impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::new(to);
    out.write_all(MAGIC)?;
    let texts = [
        boot,
        &header.generation,
        &header.name.owner,
        &header.name.name,
    ];
    for text in texts {
        write_bytes(&mut out, text.as_bytes())?;
    }
    out.write_all(&header.bytes.to_le_bytes())?;
    for (path, known) in index {
        write_bytes(&mut out, path.as_os_str().as_bytes())?;
        write_bytes(&mut out, &known.mark)?;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(known.is_directory, DIRECTORY) | flag(known.digest.is_some(), DIGEST);
        out.write_all(&known.bytes.to_le_bytes())?;
        out.write_all(&[flags])?;
        if let Some(digest) = &known.digest {
            out.write_all(digest.bytes())?;
        }
    }
    out.flush()
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// Reads what is said of the whole.
///
/// # Errors
/// `InvalidData`: no index, or one of before the machine was started.
pub(crate) fn read_header(boot: &str, from: &mut impl Read) -> io::Result<Header> {
    if array(from)? != *MAGIC {
        return Err(invalid("it is no index of a context"));
    }
    if text(from)? != boot {
        return Err(invalid("it is of before the machine was started"));
    }
    let generation = text(from)?;
    let owner = text(from)?;
    let name = text(from)?;
    Ok(Header {
        name: ContextName { owner, name },
        generation,
        bytes: u64::from_le_bytes(array(from)?),
    })
}

/// Reads what follows the header.
///
/// # Errors
/// `InvalidData`: it is damaged.
pub(crate) fn read(from: &mut impl Read) -> io::Result<Index> {
    let mut index = Index::new();
    loop {
        let mut first = [0];
        if from.read(&mut first)? == 0 {
            return Ok(index);
        }
        let [second] = array(from)?;
        let path = exactly(from, u16::from_le_bytes([first[0], second]))?;
        let mark = bytes(from)?;
        let size = u64::from_le_bytes(array(from)?);
        let [flags] = array(from)?;
        let mut known = Known {
            mark,
            bytes: size,
            is_directory: flags & DIRECTORY != 0,
            ..Known::default()
        };
        if flags & DIGEST != 0 {
            known.digest = Some(Digest::Sha256(array(from)?));
        }
        index.insert(PathBuf::from(OsStr::from_bytes(&path)), known);
    }
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = u16::from_le_bytes(array(from)?);
    exactly(from, length)
}

fn exactly(from: &mut impl Read, length: u16) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(length)];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(from: &mut impl Read) -> io::Result<String> {
    String::from_utf8(bytes(from)?).map_err(|_| invalid("a name in it is no text"))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            name: ContextName {
                owner: "uid 0".to_owned(),
                name: "/src".to_owned(),
            },
            generation: "1".to_owned(),
            bytes: 7,
        }
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let known = |directory| Known {
            mark: b"mark".to_vec(),
            is_directory: directory,
            digest: (!directory).then(|| Digest::sha256(b"content")),
            bytes: 7,
            is_given: false,
        };
        let index = Index::from([
            (PathBuf::from("d"), known(true)),
            (PathBuf::from("d/a"), known(false)),
            (PathBuf::from("e"), Known::default()),
        ]);
        let mut written = Vec::new();
        write(&header(), "boot", &index, &mut written).unwrap();
        let mut rest = written.as_slice();
        assert_eq!(read_header("boot", &mut rest).unwrap(), header());
        assert_eq!(read(&mut rest).unwrap(), index);
        let error = read_header("another", &mut written.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let mut short = &written[..written.len() - 1];
        read_header("boot", &mut short).unwrap();
        read(&mut short).unwrap_err();
    }
}
