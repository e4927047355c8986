//! The reading side: the last lines, those of a time span, and those to come, across rotated files.

use super::{Stream, compressed, rotated};
use flate2::read::GzDecoder;
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, inotify};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A line of a log file cannot be longer: the largest part, every byte escaped, and its frame.
const RECORD_BYTES_MAX: u64 = 6 * super::LINE_BYTES_MAX as u64 + 256;

/// How much is read at a time when looking for the last lines.
const BLOCK_BYTES: u64 = 64 << 10;

/// How large a compressed file can become: far more than a log's file is set to hold.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// A recorded line, or part of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The text, with its newline when the line is whole.
    pub log: String,
    /// Where it came from.
    pub stream: Stream,
    /// When it was read from the container.
    pub time: Timestamp,
    /// What it says of its container besides.
    #[serde(default, rename = "attrs")]
    pub attributes: BTreeMap<String, String>,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries at or before this time.
    pub until: Option<Timestamp>,
    /// Only so many entries from the end, counted before anything else is left out.
    pub tail: Option<u64>,
}

/// Reads a container's log from its oldest wanted entry on. [`Reader::next`] gives None at the present end; what is
/// written later comes with later calls, and [`Reader::wait_fd`] tells when.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: ReadOptions,
    /// Files yet to read, oldest first, the last being (or having been) the current one.
    files: VecDeque<BufReader<File>>,
    inode: Option<u64>,
    line: Vec<u8>,
    watch: OwnedFd,
}

impl Reader {
    /// Opens the log at `path`; one that does not exist yet is empty.
    ///
    /// # Errors
    /// As open(2), read(2) and inotify_add_watch(2).
    pub fn open(path: &Path, options: ReadOptions) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&watch, directory, events)?;
        let files = open_all(path, options.tail)?;
        let inode = match files.back() {
            Some(file) => Some(file.metadata()?.ino()),
            None => None,
        };
        let files = files.into_iter().map(BufReader::new).collect();
        Ok(Self {
            path: path.to_owned(),
            options,
            files,
            inode,
            line: Vec::new(),
            watch,
        })
    }

    /// The next wanted entry; None at the present end of the log.
    ///
    /// # Errors
    /// As read(2). Lines that are no log entries are skipped.
    #[expect(
        clippy::should_implement_trait,
        reason = "None is not the end when following"
    )]
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(file) = self.files.front_mut() else {
                if self.open_newer()? {
                    continue;
                }
                return Ok(None);
            };
            let room = (RECORD_BYTES_MAX).saturating_sub(self.line.len() as u64);
            file.by_ref().take(room).read_until(b'\n', &mut self.line)?;
            if self.line.last() != Some(&b'\n') {
                if self.line.len() as u64 >= RECORD_BYTES_MAX {
                    self.line.clear();
                    continue;
                }
                // The end of this file. If it was the current one it may have grown before it was rotated away: it is
                // left only at an end found after its successor.
                if self.files.len() == 1 {
                    if self.open_newer()? {
                        continue;
                    }
                    return Ok(None);
                }
                self.files.pop_front();
                self.line.clear();
                continue;
            }
            let entry = serde_json::from_slice::<Entry>(&self.line);
            self.line.clear();
            if let Ok(entry) = entry
                && self.options.since.is_none_or(|since| entry.time >= since)
            {
                if self.options.until.is_some_and(|until| entry.time > until) {
                    continue;
                }
                return Ok(Some(entry));
            }
        }
    }

    /// Readable when the log has grown or was rotated since [`Reader::clear_wait`]; may wake for nothing.
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Forgets what made [`Reader::wait_fd`] readable. To be called before the [`Reader::next`] that may give None.
    ///
    /// # Errors
    /// As read(2).
    pub fn clear_wait(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.watch, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Queues the file that has taken the current one's place, if one has.
    fn open_newer(&mut self) -> io::Result<bool> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let inode = Some(file.metadata()?.ino());
        if inode == self.inode {
            return Ok(false);
        }
        // More than one rotation may have passed: those between are `.1`, `.2` … younger than the one being read.
        let mut newer = VecDeque::from([BufReader::new(file)]);
        for n in 1.. {
            match File::open(rotated(&self.path, n)) {
                Ok(file) if self.inode.is_some() && Some(file.metadata()?.ino()) != self.inode => {
                    newer.push_front(BufReader::new(file));
                }
                _ => break,
            }
        }
        self.files.append(&mut newer);
        self.inode = inode;
        Ok(true)
    }
}

/// Opens the log's files, the oldest first, such that reading them gives the last `tail` lines, or all. A rotation meanwhile
/// makes one appear twice or leaves a gap; it is noticed by the inodes and tried again.
fn open_all(path: &Path, tail: Option<u64>) -> io::Result<VecDeque<File>> {
    const ATTEMPTS_MAX: u32 = 10;
    for _ in 0..ATTEMPTS_MAX {
        let mut files = VecDeque::new();
        let mut current = None;
        let mut missing = tail;
        for n in 0.. {
            let Some(mut file) = open_rotated(path, n)? else {
                break;
            };
            if n == 0 {
                current = Some(file.metadata()?.ino());
            }
            if let Some(missing) = &mut missing {
                let (offset, found) = tail_offset(&mut file, *missing)?;
                file.seek(SeekFrom::Start(offset))?;
                *missing -= found;
            }
            files.push_front(file);
            if missing == Some(0) {
                break;
            }
        }
        let now = std::fs::metadata(path).map(|meta| meta.ino()).ok();
        if now == current {
            return Ok(files);
        }
    }
    Err(io::Error::other(format!(
        "{} is rotated faster than it can be read",
        path.display()
    )))
}

/// Opens the `n`th file; a compressed one is unpacked to a file without a name. None: there is none.
fn open_rotated(path: &Path, n: u32) -> io::Result<Option<File>> {
    let absent_as_none = |opened: io::Result<File>| match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    };
    let plain = rotated(path, n);
    if let Some(file) = absent_as_none(File::open(&plain))? {
        return Ok(Some(file));
    }
    let Some(packed) = absent_as_none(File::open(compressed(&plain)))? else {
        return Ok(None);
    };
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let unnamed = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(unnamed);
    let mut content = GzDecoder::new(packed).take(UNPACKED_BYTES_MAX);
    io::copy(&mut content, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Some(file))
}

/// Where the last `wanted` whole lines of a file begin, and how many there are.
fn tail_offset(file: &mut File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut end = file.metadata()?.len();
    let mut newlines = 0;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            if newlines == wanted {
                return Ok((start + at as u64 + 1, newlines));
            }
            newlines += 1;
        }
        end = start;
    }
    Ok((0, newlines))
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::protocol::LogConfig;
    use crate::watch::Poll;

    fn log(max_bytes: Option<u64>, files_max: u32) -> (tempfile::TempDir, PathBuf, Recorder) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let writer = open(LogConfig {
            path: path.clone(),
            max_bytes,
            files_max,
            compress: false,
            attributes: BTreeMap::new(),
        });
        (dir, path, writer)
    }

    fn open(config: LogConfig) -> Recorder {
        let mut poll = Poll::new().unwrap();
        Recorder::open(&mut poll, Some(config), None)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn compressed_files_are_read_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut writer = open(LogConfig {
            path: path.clone(),
            max_bytes: Some(300),
            files_max: 4,
            compress: true,
            attributes: BTreeMap::from([("tag".to_owned(), "t".to_owned())]),
        });
        let mut poll = Poll::new().unwrap();
        for n in 0..20 {
            write(&mut writer, n..n + 1);
            while writer.deadline().is_some() {
                writer.settle(&mut poll).unwrap();
            }
        }
        let names = ["c.log", "c.log.1", "c.log.2.gz", "c.log.3.gz"];
        for name in names {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        let all = read(&mut Reader::open(&path, ReadOptions::default()).unwrap());
        let first: u32 = all[0].parse().unwrap();
        let expected: Vec<String> = (first..20).map(|n| n.to_string()).collect();
        assert!(all == expected && first < 14, "{all:?}");
        for tail in 0..all.len() {
            let options = ReadOptions {
                tail: Some(tail as u64),
                ..Default::default()
            };
            let last = read(&mut Reader::open(&path, options).unwrap());
            assert_eq!(last, all[all.len() - tail..]);
        }
        let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().attributes["tag"], "t");
    }

    fn write(writer: &mut Recorder, lines: std::ops::Range<u32>) {
        for n in lines {
            writer.record(Stream::Stdout, Some(format!("{n}\n").as_bytes()));
        }
    }

    fn read(reader: &mut Reader) -> Vec<String> {
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|e| e.log.trim().to_owned())
            .collect()
    }

    #[test]
    fn tail_counts_across_rotated_files() {
        let (_dir, path, mut writer) = log(Some(200), 10);
        write(&mut writer, 0..12);
        for tail in 0..12_u32 {
            let options = ReadOptions {
                tail: Some(tail.into()),
                ..Default::default()
            };
            let expected: Vec<String> = (12 - tail..12).map(|n| n.to_string()).collect();
            assert_eq!(read(&mut Reader::open(&path, options).unwrap()), expected);
        }
    }

    #[test]
    fn following_goes_on_through_several_rotations() {
        let (_dir, path, mut writer) = log(Some(200), 50);
        write(&mut writer, 0..2);
        let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
        assert_eq!(read(&mut reader), ["0", "1"]);
        write(&mut writer, 2..30);
        let expected: Vec<String> = (2..30).map(|n| n.to_string()).collect();
        assert_eq!(read(&mut reader), expected);
        assert_eq!(read(&mut reader), Vec::<String>::new());
    }

    #[test]
    fn an_unfinished_last_line_waits_for_its_rest() {
        use std::io::Write;
        let (_dir, path, mut writer) = log(None, 1);
        write(&mut writer, 0..1);
        let mut raw = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        raw.write_all(br#"{"log":"1\n","stre"#).unwrap();
        let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
        assert_eq!(read(&mut reader), ["0"]);
        raw.write_all(b"am\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}\n")
            .unwrap();
        assert_eq!(read(&mut reader), ["1"]);
    }

    #[test]
    fn since_and_until_bound_the_entries() {
        let (_dir, path, mut writer) = log(None, 1);
        write(&mut writer, 0..3);
        let all: Vec<Entry> = {
            let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
            std::iter::from_fn(|| reader.next().unwrap()).collect()
        };
        let options = ReadOptions {
            since: Some(all[1].time),
            until: Some(all[1].time),
            tail: None,
        };
        assert_eq!(read(&mut Reader::open(&path, options).unwrap()), ["1"]);
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_empty_and_then_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
        assert_eq!(read(&mut reader), Vec::<String>::new());
        let config = LogConfig {
            path,
            max_bytes: None,
            files_max: 1,
            compress: false,
            attributes: BTreeMap::new(),
        };
        write(&mut open(config), 0..2);
        assert_eq!(read(&mut reader), ["0", "1"]);
    }
}
