//! The writing side: cuts output into lines, stamps them, rotates.

use super::{LINE_BYTES_MAX, Stream, rotated};
use crate::protocol::LogConfig;
use serde::Serialize;
use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

/// Records output of one container.
#[derive(Debug)]
pub struct Writer {
    config: LogConfig,
    file: File,
    size: u64,
    partial: [Vec<u8>; 2],
    lines: Vec<u8>,
    loss_reported: bool,
}

/// A line as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    log: Cow<'a, str>,
    stream: Stream,
    time: jiff::Timestamp,
}

impl Writer {
    /// Opens the log for appending, makes it when it is not there.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(config: LogConfig) -> io::Result<Self> {
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
            partial: Default::default(),
            lines: Vec::new(),
            loss_reported: false,
        })
    }

    /// Records output as it was read; an unfinished line waits for its rest.
    ///
    /// # Errors
    /// As write(2); the output is then lost for the log, not for attached clients.
    pub fn write(&mut self, stream: Stream, mut output: &[u8]) -> io::Result<()> {
        let now = jiff::Timestamp::now();
        let partial = &mut self.partial[usize::from(stream.number() - 1)];
        while !output.is_empty() {
            let room = LINE_BYTES_MAX - partial.len();
            let window = &output[..output.len().min(room)];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let (taken, rest) = output.split_at(newline.map_or(window.len(), |at| at + 1));
            output = rest;
            if newline.is_none() && partial.len() + taken.len() < LINE_BYTES_MAX {
                partial.extend_from_slice(taken);
                break;
            }
            if partial.is_empty() {
                push_line(&mut self.lines, taken, stream, now)?;
            } else {
                partial.extend_from_slice(taken);
                push_line(&mut self.lines, partial, stream, now)?;
                partial.clear();
            }
        }
        self.flush_lines()
    }

    /// Records what is left of a stream that has ended.
    ///
    /// # Errors
    /// As write(2).
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let partial = std::mem::take(&mut self.partial[usize::from(stream.number() - 1)]);
        if !partial.is_empty() {
            push_line(&mut self.lines, &partial, stream, jiff::Timestamp::now())?;
        }
        self.flush_lines()
    }

    /// Says once on standard error that output could not be recorded.
    pub(crate) fn report_loss(&mut self, error: &io::Error) {
        if !self.loss_reported {
            let _ = writeln!(
                io::stderr(),
                "hull-shim: {}: output is lost for the log: {error}",
                self.config.path.display()
            );
            self.loss_reported = true;
        }
    }

    fn flush_lines(&mut self) -> io::Result<()> {
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

    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.config.path;
        for n in (1..self.config.files_max).rev() {
            match std::fs::rename(rotated(path, n - 1), rotated(path, n)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // With a single file there is nothing to rename: it starts anew under a new inode, which readers notice.
        if self.config.files_max <= 1 {
            std::fs::remove_file(path)?;
        }
        *self = Self {
            partial: std::mem::take(&mut self.partial),
            ..Self::open(self.config.clone())?
        };
        Ok(())
    }
}

fn push_line(
    lines: &mut Vec<u8>,
    line: &[u8],
    stream: Stream,
    time: jiff::Timestamp,
) -> io::Result<()> {
    serde_json::to_writer(
        &mut *lines,
        &Line {
            log: String::from_utf8_lossy(line),
            stream,
            time,
        },
    )?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(dir: &tempfile::TempDir, max_bytes: Option<u64>, files_max: u32) -> LogConfig {
        LogConfig {
            path: dir.path().join("c.log"),
            max_bytes,
            files_max,
        }
    }

    fn logs(path: &std::path::Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let value = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines()
            .map(|line| value(line)["log"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_arrive_whole_however_they_were_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(config(&dir, None, 1)).unwrap();
        for piece in ["on", "e\ntw", "o\n\nthree"] {
            writer.write(Stream::Stdout, piece.as_bytes()).unwrap();
        }
        writer.write(Stream::Stderr, b"err\n").unwrap();
        writer.finish(Stream::Stdout).unwrap();
        assert_eq!(
            logs(&dir.path().join("c.log")),
            ["one\n", "two\n", "\n", "err\n", "three"]
        );
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(config(&dir, None, 1)).unwrap();
        let line = [vec![b'x'; LINE_BYTES_MAX + 5], b"\n".to_vec()].concat();
        for piece in line.chunks(1000) {
            writer.write(Stream::Stdout, piece).unwrap();
        }
        let parts: Vec<usize> = logs(&dir.path().join("c.log"))
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(parts, [LINE_BYTES_MAX, 6]);
    }

    #[test]
    fn rotation_keeps_the_youngest_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(config(&dir, Some(100), 2)).unwrap();
        for n in 0..5 {
            writer
                .write(Stream::Stdout, format!("line {n}\n").as_bytes())
                .unwrap();
        }
        assert_eq!(logs(&dir.path().join("c.log")), ["line 4\n"]);
        assert_eq!(logs(&dir.path().join("c.log.1")), ["line 3\n"]);
        assert!(!dir.path().join("c.log.2").exists());
    }
}
