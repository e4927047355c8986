//! What the fuzz targets do with bytes, and what must hold whatever they are. Enabled by the feature `fuzz`; the tests run
//! the same functions on generated input.

use crate::tar::{Entry, Kind, Reader, Tap, TarError};
use oci::image::{ConfigFile, Document};
use oci::{Digest, Reference};

/// Collects what the reader passes on.
#[derive(Default)]
struct Collect(Vec<u8>);

impl Tap for Collect {
    fn literal(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads an archive: without panic, and so that what it passes on and what it hands out make the archive again.
pub fn archive(bytes: &[u8]) {
    let mut reader = Reader::with_tap(bytes, Collect::default());
    if read_all(&mut reader).is_ok() {
        let tap = reader.finish().expect("a slice can be read");
        assert!(tap.0 == bytes, "the parts do not make the archive again");
    }
}

fn read_all(reader: &mut Reader<&[u8], Collect>) -> Result<Vec<Entry>, TarError> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        assert!(
            entry.size == 0 || entry.kind == Kind::File,
            "only files have content"
        );
        if let Some(sparse) = &entry.sparse {
            let ends = sparse
                .regions
                .iter()
                .map(|(offset, length)| offset + length);
            assert!(ends.clone().max().unwrap_or(0) <= sparse.size);
            assert_eq!(
                sparse.regions.iter().map(|(_, length)| length).sum::<u64>(),
                entry.size
            );
        }
        let mut size = 0;
        loop {
            let piece = reader.fill()?.to_vec();
            if piece.is_empty() {
                break;
            }
            // Small steps cross more boundaries.
            let count = piece.len().min(1000);
            reader.tap().0.extend_from_slice(&piece[..count]);
            reader.consume(count);
            size += count as u64;
        }
        assert_eq!(size, entry.size);
        entries.push(entry);
    }
    Ok(entries)
}

/// Reads a manifest, an index and a configuration. What is accepted is accepted again after it is written.
pub fn documents(bytes: &[u8]) {
    let json = "what was read can be written";
    match Document::parse(bytes, None) {
        Ok(Document::Manifest(manifest)) => {
            let again = serde_json::to_vec(&manifest).expect(json);
            let again = Document::parse(&again, None).expect("a manifest stays one");
            assert_eq!(again, Document::Manifest(manifest));
        }
        Ok(Document::Index(index)) => {
            let again = serde_json::to_vec(&index).expect(json);
            let again = Document::parse(&again, None).expect("an index stays one");
            assert_eq!(again, Document::Index(index));
        }
        Err(_) => {}
    }
    if let Ok(config) = ConfigFile::parse(bytes) {
        let again = serde_json::to_vec(&config).expect(json);
        assert_eq!(
            ConfigFile::parse(&again).expect("a configuration stays one"),
            config
        );
    }
}

/// Reads names and digests. What is accepted is safe as one path component of each kind, and means the same again.
pub fn names(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().bytes().all(|b| b.is_ascii_alphanumeric()));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        for form in [reference.to_string(), reference.familiar()] {
            assert_eq!(form.parse::<Reference>().as_ref(), Ok(&reference), "{form}");
        }
        assert!(
            reference
                .path()
                .split('/')
                .all(|part| !part.is_empty() && part != "..")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Sparse, Writer};
    use crate::testing::{config, directory, file, hard_link, manifest, symlink};
    use proptest::prelude::*;
    use proptest::sample::Index;

    /// An archive with everything that the writer knows.
    fn sample() -> Vec<u8> {
        let mut xattrs = file("x");
        xattrs.xattrs = vec![(b"user.a".to_vec(), b"\0\n=".to_vec())];
        xattrs.uid = 3_000_000;
        xattrs.mtime.seconds = -7;
        let long = "long/".repeat(60);
        let mut writer = Writer::new(Vec::new());
        for entry in [
            directory("d/"),
            symlink("d/s", &long),
            hard_link("h", "x"),
            file(&long[..299]),
            Entry::new("c", Kind::CharDevice { major: 1, minor: 3 }, 0o600),
        ] {
            writer.entry(&entry).unwrap();
        }
        writer
            .entry(&Entry {
                size: 3000,
                ..xattrs
            })
            .unwrap();
        writer.content(&[7; 3000]).unwrap();
        let sparse = Sparse {
            size: 9999,
            regions: vec![(10, 512), (5000, 108)],
        };
        writer
            .entry(&Entry {
                size: 620,
                sparse: Some(sparse),
                ..file("sparse")
            })
            .unwrap();
        writer.content(&[8; 620]).unwrap();
        writer.finish().unwrap()
    }

    /// Makes the checksum of the header at a block right again.
    fn reseal(bytes: &mut [u8], block: usize) {
        let header = &mut bytes[block * 512..][..512];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn archives(
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<Index>()),
        ) {
            let mut bytes = sample();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
                reseal(&mut bytes, at / 512);
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            archive(&bytes);
        }

        #[test]
        fn documents_of_changed_json(
            changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
            which in 0..2,
        ) {
            let config = config(&[b"layer"]);
            let mut bytes = if which == 0 { manifest(&config, &[("t", b"layer")]) } else { config };
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            documents(&bytes);
        }

        #[test]
        fn texts(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,90}|(sha256|sha512):[0-9a-f]{62,66}|\\PC*") {
            names(&text);
        }
    }

    #[test]
    fn the_sample_is_read_whole() {
        let sample = sample();
        let mut reader = Reader::with_tap(&sample[..], Collect::default());
        assert_eq!(read_all(&mut reader).unwrap().len(), 7);
        archive(&sample);
    }
}
