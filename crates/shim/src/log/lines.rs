//! Cutting output into lines, however it was read.

use super::{LINE_BYTES_MAX, Stream};

/// The unfinished lines of both streams.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    partial: [Vec<u8>; 2],
}

impl Cutter {
    /// Hands every line that `output` completes to `each`, with its newline; a part of one where it is too long.
    pub(super) fn cut(&mut self, stream: Stream, mut output: &[u8], mut each: impl FnMut(&[u8])) {
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
                each(taken);
            } else {
                partial.extend_from_slice(taken);
                each(partial);
                partial.clear();
            }
        }
    }

    /// What is left of a stream that has ended; empty: nothing.
    pub(super) fn finish(&mut self, stream: Stream) -> Vec<u8> {
        std::mem::take(&mut self.partial[usize::from(stream.number() - 1)])
    }
}
