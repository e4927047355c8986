//! The mount table (proc_pid_mountinfo(5)).

use crate::error::{Doing, Error, Result};
use crate::procfs::Procfs;
use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use sys::Context;

/// As long as the kernel lets mount tables grow by default, generously: 100,000 mounts of 320 bytes.
const TABLE_BYTES_MAX: u64 = 32 << 20;

/// The mounts of the calling process's mount namespace.
pub(crate) fn read(procfs: &Procfs) -> Result<Vec<Mounted>> {
    let doing = "reading the mount table";
    let file = procfs.file("self/mountinfo", OFlags::RDONLY).doing(doing)?;
    let mut text = Vec::new();
    File::from(file)
        .take(TABLE_BYTES_MAX)
        .read_to_end(&mut text)
        .call(|| "read(</proc>/self/mountinfo)")
        .doing(doing)?;
    parse(&text).ok_or_else(|| Error::unsupported("the form of the mount table"))
}

/// A mount.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) id: u64,
    parent: u64,
    /// From the reader's root on.
    pub(crate) place: PathBuf,
    /// Of its filesystem.
    pub(crate) kind: String,
    /// Whether its root is the filesystem's.
    pub(crate) whole: bool,
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(table: &[u8]) -> Option<Vec<Mounted>> {
    let lines = table.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split(|byte| *byte == b' ');
            let mut number = || std::str::from_utf8(words.next()?).ok()?.parse().ok();
            let (id, parent) = (number()?, number()?);
            let (root, place) = (words.nth(1)?, words.next()?);
            let kind = words.skip_while(|word| *word != b"-").nth(1)?;
            Some(Mounted {
                id,
                parent,
                place: PathBuf::from(OsString::from_vec(unescaped(place)?)),
                kind: String::from_utf8_lossy(kind).into_owned(),
                whole: root == b"/",
            })
        })
        .collect()
}

/// Spaces, tabs, newlines and backslashes are written as `\040`.
fn unescaped(word: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..3)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 8).ok()?);
        rest = &tail[3..];
    }
    Some(bytes)
}

/// A mount and all that are mounted in it, by their ids.
pub(crate) fn below(table: &[Mounted], root: u64) -> BTreeSet<u64> {
    let mut inside = BTreeSet::from([root]);
    loop {
        let before = inside.len();
        for mount in table {
            if inside.contains(&mount.parent) {
                inside.insert(mount.id);
            }
        }
        if inside.len() == before {
            return inside;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_tree_of_mounts() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/vda rw\n\
            5 1 0:4 / /proc rw,nosuid shared:12 master:3 - proc proc rw\n\
            7 1 0:9 / /a\\040b rw - tmpfs tmpfs rw\n\
            9 7 0:4 /sys /a\\040b/proc rw - proc proc rw\n";
        let table = parse(table).unwrap();
        let places: Vec<_> = table.iter().map(|mount| mount.place.to_str()).collect();
        assert_eq!(places, ["/", "/proc", "/a b", "/a b/proc"].map(Some));
        let whole: Vec<_> = table.iter().map(|mount| mount.whole).collect();
        assert_eq!(whole, [true, true, true, false]);
        assert_eq!((table[1].kind.as_str(), table[3].parent), ("proc", 7));
        assert_eq!(below(&table, 7), BTreeSet::from([7, 9]));
        assert_eq!(below(&table, 1).len(), 4);
        for bad in [
            "1",
            "1 x 8:1 / / rw - ext4 x rw",
            "1 0 8:1 / /\\04 rw - a b c",
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
