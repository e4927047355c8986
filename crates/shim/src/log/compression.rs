//! Compressing a rotated file, a piece at a time: the shim has one thread, and output must not wait for a whole file.

use super::compressed;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How much is compressed at once: a millisecond or two.
const PIECE_BYTES: u64 = 64 << 10;

/// A file that is being compressed.
#[derive(Debug)]
pub(super) struct Compression {
    path: PathBuf,
    source: File,
    target: GzEncoder<File>,
    temporary: PathBuf,
}

impl Compression {
    /// Begins. None: there is no such file.
    pub(super) fn begin(path: &Path) -> io::Result<Option<Self>> {
        let source = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            source => source?,
        };
        let temporary = compressed(path).with_extension("compressing");
        let target = File::create(&temporary)?;
        let metadata = source.metadata()?;
        target.set_permissions(metadata.permissions())?;
        Ok(Some(Self {
            path: path.to_owned(),
            source,
            target: GzEncoder::new(target, flate2::Compression::fast()),
            temporary,
        }))
    }

    /// Compresses a piece; the last one puts the result in the file's place, and returns true.
    pub(super) fn step(&mut self) -> io::Result<bool> {
        let mut piece = self.source.by_ref().take(PIECE_BYTES);
        if io::copy(&mut piece, &mut self.target)? > 0 {
            return Ok(false);
        }
        self.target.try_finish()?;
        // Whoever reads finds the one or the other: the plain file goes last.
        std::fs::rename(&self.temporary, compressed(&self.path))?;
        std::fs::remove_file(&self.path)?;
        Ok(true)
    }
}
