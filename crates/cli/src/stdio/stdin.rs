//! Standard input, read by a thread of its own.
//!
//! A read of a terminal or a pipe blocks, and making it not block would change a file description that other processes
//! share. So a thread blocks in its place; it ends with the process.

use crate::error::{IoContext, Result};
use std::io;
use tokio::sync::mpsc;

/// Bytes read at once.
const BUFFER_BYTES: usize = 32 << 10;
/// Reads that may wait to be sent.
const READS_MAX: usize = 4;

/// What standard input says, in pieces.
#[derive(Debug)]
pub(crate) struct Stdin {
    pieces: mpsc::Receiver<Vec<u8>>,
}

impl Stdin {
    /// Starts to read.
    pub(crate) fn open() -> Result<Self> {
        let (sender, pieces) = mpsc::channel(READS_MAX);
        let thread = move || {
            // What cannot be read any more has ended.
            while let Ok(piece) = read() {
                if piece.is_empty() || sender.blocking_send(piece).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(thread)
            .during(|| "clone3()")?;
        Ok(Self { pieces })
    }

    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        self.pieces.recv().await
    }
}

fn read() -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let count =
        rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut *buffer))?;
    buffer.truncate(count);
    Ok(buffer)
}
