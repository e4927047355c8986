//! The files: one line of JSON for each line of output, rotated.

use super::compression::Compression;
use super::{Stream, compressed, rotated};
use crate::protocol::LogConfig;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The log files of one container.
#[derive(Debug)]
pub(super) struct Writer {
    config: LogConfig,
    file: File,
    size: u64,
    lines: Vec<u8>,
    compression: Option<Compression>,
}

/// A line as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    log: Cow<'a, str>,
    stream: Stream,
    #[serde(rename = "attrs", skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
    time: jiff::Timestamp,
}

impl Writer {
    /// Opens the log for appending, makes it when it is not there.
    pub(super) fn open(config: LogConfig) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&config.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            config,
            file,
            size,
            lines: Vec::new(),
            compression: None,
        })
    }

    /// Where the current file is.
    pub(super) fn path(&self) -> &Path {
        &self.config.path
    }

    /// Takes a line, or a part of one; [`Writer::flush`] writes it.
    pub(super) fn push(
        &mut self,
        stream: Stream,
        time: jiff::Timestamp,
        line: &[u8],
    ) -> io::Result<()> {
        let line = Line {
            log: String::from_utf8_lossy(line),
            stream,
            attributes: &self.config.attributes,
            time,
        };
        serde_json::to_writer(&mut self.lines, &line)?;
        self.lines.push(b'\n');
        Ok(())
    }

    /// Writes what was pushed, after a rotation when the file is full.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        if self
            .config
            .max_bytes
            .is_some_and(|max| self.size > 0 && self.size + lines.len() as u64 > max)
        {
            self.rotate()?;
        }
        self.file.write_all(&lines)?;
        self.size += lines.len() as u64;
        self.lines = lines;
        self.lines.clear();
        Ok(())
    }

    /// Whether a file is being compressed.
    pub(super) fn is_compressing(&self) -> bool {
        self.compression.is_some()
    }

    /// Compresses a piece of the file that is being compressed.
    pub(super) fn compress_piece(&mut self) -> io::Result<()> {
        let Some(mut compression) = self.compression.take() else {
            return Ok(());
        };
        if !compression.step()? {
            self.compression = Some(compression);
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // It goes by the name that the file has now.
        while self.is_compressing() {
            self.compress_piece()?;
        }
        let path = &self.config.path;
        let last = rotated(path, self.config.files_max.saturating_sub(1));
        // With a single file there is nothing to rename: it starts anew under a new inode, which readers notice.
        for gone in [compressed(&last), last] {
            ignore_absent(std::fs::remove_file(gone))?;
        }
        for n in (1..self.config.files_max).rev() {
            let (from, to) = (rotated(path, n - 1), rotated(path, n));
            ignore_absent(std::fs::rename(compressed(&from), compressed(&to)))?;
            ignore_absent(std::fs::rename(&from, &to))?;
        }
        let compression = if self.config.compress && self.config.files_max > 2 {
            Compression::begin(&rotated(path, 2))?
        } else {
            None
        };
        *self = Self {
            compression,
            ..Self::open(self.config.clone())?
        };
        Ok(())
    }
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
