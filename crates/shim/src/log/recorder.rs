//! Everything that is made of a container's output: files, messages to a log service, or both.

use super::Stream;
use super::lines::Cutter;
use super::remote::Remote;
use super::writer::Writer;
use crate::protocol::{LogConfig, RemoteLog};
use crate::watch::{Poll, Token};
use std::io::{self, Write};
use std::time::Instant;

/// Records output of one container.
#[derive(Debug)]
pub(crate) struct Recorder {
    lines: Cutter,
    files: Option<Writer>,
    remote: Option<Remote>,
    loss_reported: bool,
}

impl Recorder {
    /// Opens the log for appending, makes it when it is not there, and connects to the log service. None: nothing is recorded.
    ///
    /// # Errors
    /// As open(2) and connect(2).
    pub(crate) fn open(
        poll: &mut Poll,
        files: Option<LogConfig>,
        remote: Option<RemoteLog>,
    ) -> io::Result<Option<Self>> {
        if files.is_none() && remote.is_none() {
            return Ok(None);
        }
        let remote = remote
            .map(|remote| Remote::open(poll, remote))
            .transpose()?;
        Ok(Some(Self {
            lines: Cutter::default(),
            files: files.map(Writer::open).transpose()?,
            remote,
            loss_reported: false,
        }))
    }

    /// Records output as it was read; an unfinished line waits for its rest. None: the stream has ended. A full disk must stop
    /// neither the container nor its clients; the loss is told once, on the shim's own standard error, by the engine's log.
    pub(crate) fn record(&mut self, stream: Stream, output: Option<&[u8]>) {
        let now = jiff::Timestamp::now();
        let Self {
            lines,
            files,
            remote,
            ..
        } = self;
        let mut failed = None;
        let mut push = |line: &[u8]| {
            if let Some(files) = files.as_mut() {
                failed = files.push(stream, now, line).err().or(failed.take());
            }
            if let Some(remote) = remote.as_mut() {
                remote.push(stream, now, line);
            }
        };
        match output {
            Some(output) => lines.cut(stream, output, push),
            None => {
                let rest = lines.finish(stream);
                if !rest.is_empty() {
                    push(&rest);
                }
            }
        }
        if let Some(files) = files.as_mut() {
            failed = files.flush().err().or(failed);
        }
        if let Some(remote) = remote.as_mut() {
            remote.send();
        }
        if let Some(error) = failed {
            self.report_loss(&error);
        }
    }

    fn report_loss(&mut self, error: &io::Error) {
        let Some(files) = self.files.as_ref().filter(|_| !self.loss_reported) else {
            return;
        };
        let _ = writeln!(
            io::stderr(),
            "hull-shim: {}: output is lost for the log: {error}",
            files.path().display()
        );
        self.loss_reported = true;
    }

    /// Whether output has to wait: the log service is slow, and nothing may be lost.
    pub(crate) fn is_behind(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::is_behind)
    }

    /// Takes note that no stream has more.
    pub(crate) fn end(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.end();
        }
    }

    /// Whether everything was sent that can be. For what has a session to end, after [`Recorder::end`] alone.
    pub(crate) fn is_sent(&self) -> bool {
        self.remote.as_ref().is_none_or(Remote::is_sent)
    }

    /// Whether the descriptor is the log's.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.remote
            .as_ref()
            .is_some_and(|remote| remote.owns(token))
    }

    /// Serves its descriptor.
    pub(crate) fn ready(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.ready();
        }
    }

    /// Does what is due, and waits for what is not: to be called before every wait.
    pub(crate) fn settle(&mut self, poll: &mut Poll) -> io::Result<()> {
        if let Some(remote) = &mut self.remote {
            remote.settle(poll)?;
        }
        let compressed = self.files.as_mut().map_or(Ok(()), Writer::compress_piece);
        if let Err(error) = compressed {
            // The file stays as it was.
            self.report_loss(&error);
        }
        Ok(())
    }

    /// When [`Recorder::settle`] has to be called next, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.files.as_ref().is_some_and(Writer::is_compressing) {
            return Some(Instant::now());
        }
        self.remote.as_ref().and_then(Remote::deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LINE_BYTES_MAX;
    use super::*;
    use std::fs;

    fn config(dir: &tempfile::TempDir, max_bytes: Option<u64>, files_max: u32) -> LogConfig {
        LogConfig {
            path: dir.path().join("c.log"),
            max_bytes,
            files_max,
            compress: false,
            attributes: Default::default(),
        }
    }

    fn open(config: LogConfig) -> Recorder {
        let mut poll = Poll::new().unwrap();
        Recorder::open(&mut poll, Some(config), None)
            .unwrap()
            .unwrap()
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
        let mut writer = open(config(&dir, None, 1));
        for piece in ["on", "e\ntw", "o\n\nthree"] {
            writer.record(Stream::Stdout, Some(piece.as_bytes()));
        }
        writer.record(Stream::Stderr, Some(b"err\n"));
        writer.record(Stream::Stdout, None);
        assert_eq!(
            logs(&dir.path().join("c.log")),
            ["one\n", "two\n", "\n", "err\n", "three"]
        );
    }

    #[test]
    fn a_long_line_is_cut_into_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(config(&dir, None, 1));
        let line = [vec![b'x'; LINE_BYTES_MAX + 5], b"\n".to_vec()].concat();
        for piece in line.chunks(1000) {
            writer.record(Stream::Stdout, Some(piece));
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
        let mut writer = open(config(&dir, Some(100), 2));
        for n in 0..5 {
            writer.record(Stream::Stdout, Some(format!("line {n}\n").as_bytes()));
        }
        assert_eq!(logs(&dir.path().join("c.log")), ["line 4\n"]);
        assert_eq!(logs(&dir.path().join("c.log.1")), ["line 3\n"]);
        assert!(!dir.path().join("c.log.2").exists());
    }
}
