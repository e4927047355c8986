//! A stream of bytes from one thread to others in large pieces that are shared, not copied.
//!
//! Invariant: a stream that breaks off (its writer failed or was dropped before [`Writer::finish`]) reads as an error, never
//! as an end. Every pipe is bounded, so that a slow reader slows the writer down instead of filling memory.

use bytes::Bytes;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one piece.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// Pieces under way in one pipe: together 1 MiB.
const CHUNKS_MAX: usize = 4;

/// A piece of a stream.
pub(crate) type Chunk = Bytes;

enum Message {
    Chunk(Chunk),
    End,
}

/// The end of one or more pipes that takes pieces.
pub(crate) struct Writer {
    pipes: Vec<SyncSender<Message>>,
}

/// The end of a pipe that gives bytes.
pub(crate) struct Reader {
    pipe: Receiver<Message>,
    chunk: Chunk,
    position: usize,
    ended: bool,
}

/// A writer whose pieces all `readers` get.
pub(crate) fn tee(readers: usize) -> (Writer, Vec<Reader>) {
    let mut writer = Writer { pipes: Vec::new() };
    let readers = (0..readers).map(|_| {
        let (sender, pipe) = sync_channel(CHUNKS_MAX);
        writer.pipes.push(sender);
        Reader {
            pipe,
            chunk: Chunk::default(),
            position: 0,
            ended: false,
        }
    });
    let readers = readers.collect();
    (writer, readers)
}

/// The readers are gone: one of them has failed, and knows why.
#[derive(Debug)]
pub(crate) struct Closed;

impl Writer {
    /// Sends a piece to all readers.
    pub(crate) fn send(&self, chunk: &Chunk) -> Result<(), Closed> {
        self.each(|| Message::Chunk(chunk.clone()))
    }

    /// Tells the readers that the stream is complete.
    pub(crate) fn finish(self) -> Result<(), Closed> {
        self.each(|| Message::End)
    }

    fn each(&self, message: impl Fn() -> Message) -> Result<(), Closed> {
        self.pipes
            .iter()
            .try_for_each(|pipe| pipe.send(message()).map_err(|_| Closed))
    }
}

impl Reader {
    /// The next piece, `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        if self.ended {
            return Ok(None);
        }
        match self.pipe.recv() {
            Ok(Message::Chunk(chunk)) => Ok(Some(chunk)),
            Ok(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the stream broke off",
            )),
        }
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.chunk.len() {
            let Some(chunk) = self.next_chunk()? else {
                return Ok(&[]);
            };
            (self.chunk, self.position) = (chunk, 0);
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Reads up to a whole piece from `source`; it is empty at the end only.
pub(crate) fn read_chunk(source: &mut impl Read) -> io::Result<Chunk> {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    source.take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readers_get_all_bytes() {
        let (writer, mut readers) = tee(2);
        let content: Vec<u8> = (0..=255).cycle().take(3 * CHUNK_BYTES + 7).collect();
        std::thread::scope(|scope| {
            for reader in &mut readers {
                let content = &content;
                scope.spawn(move || {
                    let mut read = Vec::new();
                    reader.read_to_end(&mut read).unwrap();
                    assert!(read == *content);
                });
            }
            let mut source = &content[..];
            loop {
                let chunk = read_chunk(&mut source).unwrap();
                if chunk.is_empty() {
                    break;
                }
                writer.send(&chunk).unwrap();
            }
            writer.finish().unwrap();
        });
    }

    #[test]
    fn a_stream_that_breaks_off_is_an_error() {
        let (writer, mut readers) = tee(1);
        writer.send(&Chunk::from_static(b"half")).unwrap();
        drop(writer);
        let error = readers[0].read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn writing_to_nobody_is_an_error() {
        let (writer, readers) = tee(2);
        drop(readers);
        writer.send(&Chunk::default()).unwrap_err();
    }
}
