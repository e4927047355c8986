//! Compressed streams: which kind it is, its content, within limits, and how they are made.
//!
//! Decompression always happens in this process, never with a program from `PATH`.

use crate::blobs::Form;
use crate::limits::{
    EXPANSION_FREE_BYTES, EXPANSION_RATIO_MAX, XZ_MEMORY_KIB_MAX, ZSTD_WINDOW_LOG_MAX,
};
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lzma_rust2::XzReader;
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// As good a compression as others make at half of their time.
const GZIP_LEVEL: u32 = 4;
/// As the zstd command compresses.
const ZSTD_LEVEL: i32 = 3;
/// How many bytes [`Compression::detect`] looks at.
pub(crate) const MAGIC_BYTES: usize = 6;

/// The kinds of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not compressed.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// As bzip2(1) writes it.
    Bzip2,
    /// As xz(1) writes it, by LZMA2.
    Xz,
}

impl Compression {
    /// Tells the kind by the first [`MAGIC_BYTES`] of a stream (or all of a shorter one).
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that holds no content and is skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// The content of a compressed stream. Ends with an error when the content grows beyond what the limits allow for the
/// compressed bytes so far.
pub(crate) struct Decoder<'a> {
    content: Box<dyn Read + Send + 'a>,
    compressed: Arc<AtomicU64>,
    bytes: u64,
}

impl<'a> Decoder<'a> {
    /// Decodes `source`, which is of the kind that was detected.
    pub(crate) fn new(source: impl BufRead + Send + 'a, kind: Compression) -> io::Result<Self> {
        let compressed = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            source,
            count: Arc::clone(&compressed),
        };
        let content: Box<dyn Read + Send + 'a> = match kind {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(MultiGzDecoder::new(counted)),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(counted)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Compression::Bzip2 => Box::new(MultiBzDecoder::new(counted)),
            Compression::Xz => Box::new(XzReader::new_mem_limit(counted, true, XZ_MEMORY_KIB_MAX)),
        };
        Ok(Self {
            content,
            compressed,
            bytes: 0,
        })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.bytes += count as u64;
        let compressed = self.compressed.load(Ordering::Relaxed);
        if self.bytes > EXPANSION_FREE_BYTES && self.bytes / EXPANSION_RATIO_MAX > compressed {
            let reason = format!("it expands to more than {EXPANSION_RATIO_MAX} times its size");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(count)
    }
}

/// Counts what is taken from a source.
struct Counted<R> {
    source: R,
    count: Arc<AtomicU64>,
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.count.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Compresses what it gets: the same bytes for the same content.
pub(crate) enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(form: Form, out: W) -> io::Result<Self> {
        Ok(match form {
            Form::Plain => Self::Plain(out),
            Form::Gzip(level) => {
                let level = flate2::Compression::new(level.unwrap_or(GZIP_LEVEL));
                Self::Gzip(GzEncoder::new(out, level))
            }
            Form::Zstd(level) => Self::Zstd(zstd::Encoder::new(out, level.unwrap_or(ZSTD_LEVEL))?),
        })
    }

    /// Writes what is left, and gives back what it wrote to.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(stream: &[u8]) -> io::Result<Vec<u8>> {
        let kind = Compression::detect(stream);
        let mut content = Vec::new();
        Decoder::new(stream, kind)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn streams_are_told_and_decoded() {
        let content = b"content ".repeat(1000);
        let twice = [gzip(&content), gzip(b"more")].concat();
        assert_eq!(decode(&content).unwrap(), content);
        assert_eq!(decode(&twice).unwrap(), [&content[..], b"more"].concat());
        assert_eq!(
            decode(&zstd::encode_all(&content[..], 1).unwrap()).unwrap(),
            content
        );
        assert_eq!(decode(b"").unwrap(), b"");
    }

    /// What a program makes of some content.
    fn by(program: &str, arguments: &[&str], content: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("Debian always has it");
        let mut input = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(content).unwrap());
            child.wait_with_output().unwrap()
        });
        output.stdout
    }

    #[test]
    fn what_other_programs_compress_is_decoded() {
        let content = b"content ".repeat(200_000);
        for (program, arguments) in [
            ("bzip2", &["-c"][..]),
            ("xz", &["-c"]),
            ("xz", &["-c", "-9", "--check=sha256", "--block-size=100000"]),
        ] {
            let stream = by(program, arguments, &content);
            assert!(
                Compression::detect(&stream) != Compression::None,
                "{program}"
            );
            assert!(
                decode(&stream).unwrap() == content,
                "{program} {arguments:?}"
            );
            let twice = [stream.clone(), stream.clone()].concat();
            assert_eq!(decode(&twice).unwrap().len(), 2 * content.len());
            for end in [8, stream.len() / 2, stream.len() - 1] {
                assert!(decode(&stream[..end]).is_err(), "{program}: {end}");
            }
            let mut damaged = stream.clone();
            damaged[stream.len() / 2] ^= 0x55;
            assert!(decode(&damaged).is_err(), "{program} is damaged");
        }
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        for whole in [
            gzip(&[7; 10_000]),
            zstd::encode_all(&[7_u8; 10_000][..], 1).unwrap(),
        ] {
            for end in [4, whole.len() / 2, whole.len() - 1] {
                assert!(decode(&whole[..end]).is_err(), "{end} of {}", whole.len());
            }
        }
    }

    #[test]
    fn attack_29_a_stream_that_expands_without_end_is_stopped() {
        // 20 GiB of zeros take 650 kB.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..2048 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let mut decoder = Decoder::new(&bomb[..], Compression::Zstd).unwrap();
        let error = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(decoder.bytes < 2 * EXPANSION_FREE_BYTES);
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(b"x").unwrap();
        encoder.flush().unwrap();
        let stream = encoder.finish().unwrap();
        assert!(decode(&stream).is_err());
    }

    #[test]
    fn attack_29_a_dictionary_beyond_the_limit_is_refused() {
        let stream = by("xz", &["-c", "--lzma2=preset=0,dict=1GiB"], &[7; 1000]);
        let error = decode(&stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
        let zeros = vec![0; 64 << 20];
        let bomb = by("bzip2", &["-c"], &zeros).repeat(320);
        let mut decoder = Decoder::new(&bomb[..], Compression::Bzip2).unwrap();
        let error = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
