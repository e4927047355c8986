//! What other writers write is read, what is written others read, and what readers disagree on is refused.

use super::*;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Entries with their content.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(archive);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let content = reader.read_content(usize::MAX)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

/// A header block with a right checksum.
fn block(name: &str, kind: u8, size: u64, magic: &[u8; 8]) -> header::Block {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[header::MAGIC].copy_from_slice(magic);
    block[header::TYPE] = kind;
    header::put_octal(&mut block, header::SIZE, size);
    header::seal(&mut block);
    block
}

const POSIX: &[u8; 8] = header::USTAR;
const GNU: &[u8; 8] = b"ustar  \0";

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn extended(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        pax::put(&mut bytes, key.as_bytes(), value.as_bytes());
    }
    [
        &block("pax", kind, bytes.len() as u64, POSIX)[..],
        &padded(&bytes),
    ]
    .concat()
}

fn sample() -> Vec<(Entry, Vec<u8>)> {
    let file = |path: &str| Entry {
        mtime: Time {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        ..Entry::new(path, Kind::File, 0o640)
    };
    let long = format!("{}end", "directory/".repeat(30));
    let target = Kind::Symlink {
        target: long.clone().into_bytes(),
    };
    let mut odd = file("odd");
    (odd.uid, odd.gid) = (1 << 30, 2_097_152);
    odd.mtime = Time {
        seconds: -2,
        nanoseconds: 250_000_000,
    };
    odd.xattrs = vec![(b"user.note".to_vec(), b"a=b\nc".to_vec())];
    vec![
        (Entry::new("d/", Kind::Directory, 0o1777), vec![]),
        (file(&long), b"long".to_vec()),
        (
            file(&format!("{}/{}", "p".repeat(155), "n".repeat(100))),
            b"prefix".to_vec(),
        ),
        (file(&"x".repeat(101)), vec![1; 513]),
        (Entry::new("link", target, 0o777), vec![]),
        (
            Entry::new(
                "hard",
                Kind::HardLink {
                    target: b"d/f".to_vec(),
                },
                0o600,
            ),
            vec![],
        ),
        (
            Entry::new("null", Kind::CharDevice { major: 1, minor: 3 }, 0o666),
            vec![],
        ),
        (
            Entry::new(
                "disk",
                Kind::BlockDevice {
                    major: 259,
                    minor: 70_000,
                },
                0o660,
            ),
            vec![],
        ),
        (Entry::new("pipe", Kind::Fifo, 0o600), vec![]),
        (odd, vec![2; 512]),
    ]
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer
            .entry(&Entry {
                size: content.len() as u64,
                ..entry.clone()
            })
            .unwrap();
        writer.content(content).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let entries = sample();
    let read = read(&write(&entries)).unwrap();
    assert_eq!(read.len(), entries.len());
    for ((found, found_content), (entry, content)) in read.iter().zip(&entries) {
        assert_eq!(
            *found,
            Entry {
                size: content.len() as u64,
                ..entry.clone()
            }
        );
        assert_eq!(found_content, content);
    }
}

/// The path, kind, size and content of each entry, as the tar crate reads them.
fn by_tar_crate(archive: &[u8]) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let mut archive = ::tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::copy(&mut entry, &mut content).unwrap();
        (entry.path_bytes().into_owned(), entry.size(), content)
    });
    entries.collect()
}

#[test]
fn the_tar_crate_reads_the_same() {
    let archive = write(&sample());
    let ours: Vec<_> = read(&archive)
        .unwrap()
        .into_iter()
        .map(|(e, c)| (e.path, e.size, c))
        .collect();
    assert_eq!(ours, by_tar_crate(&archive));
    let mut builder = ::tar::Builder::new(Vec::new());
    for name in ["short", &"long/".repeat(40)] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, format!("{name}x"), &b"abc"[..])
            .unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let ours: Vec<_> = read(&archive)
        .unwrap()
        .into_iter()
        .map(|(e, c)| (e.path, e.size, c))
        .collect();
    assert_eq!(ours, by_tar_crate(&archive));
}

/// Runs GNU tar where it is installed.
fn gnu_tar(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let version = Command::new("tar").arg("--version").output().ok()?;
    if !version.stdout.starts_with(b"tar (GNU tar)") {
        return None;
    }
    let mut child = Command::new("tar")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "tar {arguments:?}");
    Some(output.stdout)
}

#[test]
fn what_gnu_tar_writes_is_read_in_all_its_formats() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let long = "l".repeat(120);
    std::fs::write(path(&long), "long").unwrap();
    std::os::unix::fs::symlink(format!("{long}{long}"), path("link")).unwrap();
    std::fs::hard_link(path(&long), path("zhard")).unwrap();
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    // More regions than one old header and one extension block hold.
    for region in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[b'x'; 5000], region << 16).unwrap();
    }
    let at = directory.path().to_str().unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let arguments = [format, &["-C", at, "--sort=name", "-S", "-c", "."]].concat();
        let Some(archive) = gnu_tar(&arguments, b"") else {
            return;
        };
        let entries = read(&archive).unwrap();
        let find = |name: &str| {
            let name = format!("./{name}");
            entries
                .iter()
                .find(|(entry, _)| entry.path == name.as_bytes())
                .unwrap()
        };
        assert_eq!(entries.len(), 5, "{format:?}");
        assert_eq!(find(&long).1, b"long");
        let target = Kind::Symlink {
            target: format!("{long}{long}").into_bytes(),
        };
        assert_eq!(find("link").0.kind, target);
        assert!(matches!(find("zhard").0.kind, Kind::HardLink { .. }));
        let (entry, content) = find("sparse");
        let map = entry.sparse.as_ref().unwrap();
        assert_eq!(map.size, 3 << 20, "{format:?}");
        let mut whole = vec![0; 3 << 20];
        let mut taken = 0;
        for (offset, length) in &map.regions {
            let (offset, length) = (
                usize::try_from(*offset).unwrap(),
                usize::try_from(*length).unwrap(),
            );
            whole[offset..offset + length].copy_from_slice(&content[taken..taken + length]);
            taken += length;
        }
        assert!(
            whole == std::fs::read(path("sparse")).unwrap(),
            "{format:?}"
        );
    }
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let mut entries = sample();
    let sparse = Sparse {
        size: 1 << 20,
        regions: vec![(4096, 512), (1 << 19, 3)],
    };
    entries.push((
        Entry {
            sparse: Some(sparse),
            ..Entry::new("sparse", Kind::File, 0o600)
        },
        [&[b'a'; 512][..], b"XYZ"].concat(),
    ));
    let archive = write(&entries);
    let Some(listed) = gnu_tar(&["-t", "--quoting-style=literal"], &archive) else {
        return;
    };
    let names: Vec<_> = entries
        .iter()
        .map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();
    assert_eq!(
        String::from_utf8(listed)
            .unwrap()
            .lines()
            .collect::<Vec<_>>(),
        names
    );
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_str().unwrap();
    gnu_tar(
        &["-C", at, "-x", "d/", "pipe", "null", "disk", "sparse"],
        &archive,
    )
    .unwrap();
    assert!(Path::new(at).join("disk").exists());
    let content = std::fs::read(Path::new(at).join("sparse")).unwrap();
    assert_eq!(
        (content.len(), &content[1 << 19..(1 << 19) + 3]),
        (1 << 20, &b"XYZ"[..])
    );
}

#[test]
fn attack_25_the_extended_header_has_the_size_and_nothing_is_smuggled() {
    // A reader that took the size of the plain header would see the inner archive's entry.
    let inner = block("smuggled", b'0', 0, POSIX);
    let archive = [
        &extended(b'x', &[("size", "512")])[..],
        &block("outer", b'0', 0, POSIX),
        &inner,
        &[0; 1024],
    ]
    .concat();
    let entries = read(&archive).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].0.size, &entries[0].1[..]), (512, &inner[..]));
}

/// An archive of these parts is refused for what a header says.
fn assert_refused(name: &str, parts: &[&[u8]]) {
    let archive = [&parts.concat()[..], &[0; 2 * BLOCK]].concat();
    assert!(
        matches!(read(&archive), Err(TarError::Header { .. })),
        "{name}"
    );
}

#[test]
fn content_that_readers_disagree_on_is_refused() {
    let content = [1; BLOCK];
    let with_size = |name, kind| block(name, kind, 512, POSIX);
    assert_refused("hard link", &[&with_size("l", b'1'), &content]);
    assert_refused("symlink", &[&with_size("l", b'2'), &content]);
    assert_refused("directory", &[&with_size("d/", b'5'), &content]);
    assert_refused(
        "named like a directory",
        &[&with_size("d/", b'0'), &content],
    );
    let size = extended(b'x', &[("size", "512")]);
    assert_refused("extended", &[&size, &block("d/", b'5', 0, POSIX), &content]);
    let mut negative = block("f", b'0', 0, GNU);
    negative[header::SIZE].fill(0xff);
    header::seal(&mut negative);
    assert_refused("negative", &[&negative]);
    assert_refused(
        "one block of zeros",
        &[&[0; BLOCK], &block("f", b'0', 0, POSIX)],
    );
    assert_refused("unknown type", &[&block("f", b'V', 0, POSIX)]);
    assert_refused("sparse in ustar", &[&block("f", b'S', 0, POSIX)]);
}

#[test]
fn extended_headers_that_readers_disagree_on_are_refused() {
    let file = block("f", b'0', 0, POSIX);
    let small = extended(b'x', &[("mtime", "1")]);
    assert_refused("two for one entry", &[&small, &small, &file]);
    assert_refused("one for none", &[&small]);
    assert_refused("global size", &[&extended(b'g', &[("size", "512")]), &file]);
    assert_refused("global path", &[&extended(b'g', &[("path", "x")]), &file]);
    assert_refused("huge", &[&block("f", b'x', 1 << 33, POSIX)]);
    let long = "x".repeat(5000);
    for (key, value) in [
        ("size", "-1"),
        ("size", "1x"),
        ("path", "a\0b"),
        ("path", &long),
        ("uid", "4294967295"),
        ("mtime", "soon"),
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.map", "1"),
        ("SCHILY.xattr.", "x"),
    ] {
        assert_refused(key, &[&extended(b'x', &[(key, value)]), &file]);
    }
}

#[test]
fn what_means_nothing_here_is_passed_over() {
    let file = block("f", b'0', 0, POSIX);
    let archive = [
        &extended(b'g', &[("comment", "a commit")])[..],
        &extended(
            b'x',
            &[("comment", "x"), ("atime", "1"), ("path", ""), ("size", "")],
        ),
        &file,
        &block("old/", 0, 0, b"\0\0\0\0\0\0\0\0"),
    ]
    .concat();
    // The blocks at the end are missing, which readers forgive.
    let entries = read(&archive).unwrap();
    assert_eq!(entries[0].0.path, b"f");
    assert_eq!(entries[1].0.kind, Kind::Directory);
}

#[test]
fn an_archive_cut_inside_an_entry_is_truncated() {
    let archive = write(&sample());
    let whole = read(&archive).unwrap().len();
    for end in 0..archive.len() {
        match read(&archive[..end]) {
            Ok(entries) => assert!(end % BLOCK == 0 && entries.len() <= whole, "cut at {end}"),
            Err(TarError::Truncated(_) | TarError::Header { .. }) => {}
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
}

#[test]
fn what_tar_cannot_tell_is_refused() {
    let mut writer = Writer::new(Vec::new());
    let mut entry = Entry::new("f", Kind::File, 0o644);
    entry.xattrs = vec![(b"user.a=b".to_vec(), vec![])];
    assert!(matches!(
        writer.entry(&entry),
        Err(TarError::Unrepresentable { .. })
    ));
    let device = Entry::new(
        "d",
        Kind::CharDevice {
            major: u32::MAX,
            minor: 0,
        },
        0,
    );
    assert!(matches!(
        writer.entry(&device),
        Err(TarError::Unrepresentable { .. })
    ));
}
