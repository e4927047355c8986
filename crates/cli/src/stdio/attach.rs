//! Copies a process' streams: standard input to the engine, what comes back to standard output and error.

use crate::error::Result;
use crate::output;
use crate::stdio::detach::DetachKeys;
use crate::stdio::stdin::Stdin;
use crate::stdio::terminal::RawMode;
use client::{Error, Frames, Hijacked, HijackedReader, Output, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf};

/// Bytes copied at once.
const BUFFER_BYTES: usize = 32 << 10;

/// Which streams are attached, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attach {
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) detach_keys: String,
}

/// How copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The engine ended the stream after the detach keys.
    Detached,
    /// The process has no more to say.
    Closed,
}

impl Attach {
    /// Copies until the engine ends the stream, or, where no output is attached, until standard input ends.
    pub(crate) async fn run(&self, connection: Hijacked) -> Result<End> {
        let Hijacked { reader, writer } = connection;
        let mut keys =
            DetachKeys::parse(&self.detach_keys).map_err(crate::error::Error::Message)?;
        let raw = if self.stdin && self.tty {
            RawMode::enter()?
        } else {
            None
        };
        let closed = {
            let output = self.copy_output(reader);
            let input = self.copy_input(writer, &mut keys);
            tokio::pin!(output, input);
            tokio::select! {
                // Output first: at the end of both there is nothing to wait for.
                biased;
                result = &mut output => result,
                () = &mut input => match self.stdout || self.stderr {
                    true => output.await,
                    false => Ok(()),
                },
            }
        };
        drop(raw);
        closed?;
        Ok(if self.tty && keys.pressed() {
            End::Detached
        } else {
            End::Closed
        })
    }

    async fn copy_output(&self, mut reader: HijackedReader) -> Result<()> {
        match (self.stdout || self.stderr, self.tty) {
            // The stream still has an end, and it may come before standard input's.
            (false, _) => Ok(tokio::io::copy(&mut reader, &mut tokio::io::sink())
                .await
                .map(drop)
                .map_err(broken)?),
            (true, true) => copy_raw(reader).await,
            (true, false) => copy_frames(reader).await,
        }
    }

    /// Copies standard input to its end and closes that direction. What cannot be read or sent any more ends it, too: the
    /// process' own end is what matters then.
    async fn copy_input(&self, mut writer: WriteHalf<Socket>, keys: &mut DetachKeys) {
        if self.stdin
            && let Ok(mut stdin) = Stdin::open()
        {
            while let Some(piece) = stdin.next().await {
                keys.watch(&piece);
                if writer.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
        let _ = writer.shutdown().await;
    }
}

/// Copies a terminal's bytes to standard output.
pub(crate) async fn copy_raw(mut reader: impl AsyncRead + Unpin) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer).await.map_err(broken)? {
            0 => return Ok(()),
            count => output::write(&buffer[..count])?,
        }
    }
}

/// Takes a multiplexed stream apart to standard output and standard error.
pub(crate) async fn copy_frames(reader: impl AsyncRead + Unpin) -> Result<()> {
    let mut frames = Frames::new(reader);
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Some((to, count)) = frames.read(&mut buffer).await? {
        match to {
            Output::Stdout => output::write(&buffer[..count])?,
            Output::Stderr => output::write_stderr(&buffer[..count])?,
        }
    }
    Ok(())
}

fn broken(source: std::io::Error) -> Error {
    Error::Stream {
        call: "output of a process".to_owned(),
        source,
    }
}
